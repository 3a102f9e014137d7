//! Draws the screen of `top`. It fits in 80 columns and 24 lines; on fewer lines events are left
//! out first, and in fewer columns numbers of backends, before the state becomes too short.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Sparkline, Table};

use super::super::events::line as event_line;
use super::super::show::{PANIC, quantiles, stage, state_cell};
use super::super::table::Tone;
use super::super::units::{bytes, count, micros, plain, rate, span};
use super::keys::{CHANGES, Controls, SORTS, View};
use super::model::{Answers, BackendRow as Backend, Point, Sort, TopModel};
use crate::wording::plural;

/// Draws the whole screen. Without colour, words alone carry the meaning.
pub(super) fn draw(frame: &mut Frame<'_>, model: &TopModel, controls: &Controls, colour: bool) {
    let look = Look(colour);
    let events = if frame.area().height >= ROOMY { 6 } else { 0 };
    let heights = [
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Length(5),
        Constraint::Min(2),
        Constraint::Length(events),
        Constraint::Length(1),
    ];
    let [head, rates, times, table, last, foot] = Layout::vertical(heights).areas(frame.area());
    if let Some(sample) = model.last() {
        frame.render_widget(header(sample, look), head);
        draw_times(frame, times, sample, look);
    }
    draw_rates(frame, rates, model, look);
    if controls.view == View::Backends {
        draw_backends(frame, table, model, controls, look);
    } else {
        draw_listing(frame, table, model.table(controls.view), controls, look);
    }
    draw_events(frame, last, model, look);
    frame.render_widget(footer(model, controls, look), foot);
    if controls.help {
        draw_help(frame);
    }
}

fn header(sample: &Answers, look: Look) -> Line<'static> {
    let status = &sample.status;
    let (stage, tone) = stage(status.stage);
    let panics: Vec<_> = sample.pools.iter().filter(|pool| pool.panic).collect();
    let notice = match (&panics[..], &status.alerts[..]) {
        ([], []) => String::new(),
        ([], [alert]) => format!("  {}", plain(alert)),
        ([], [alert, ..]) => format!("  1 of {} alerts: {}", status.alerts.len(), plain(alert)),
        ([pool], _) => format!("  {}: {PANIC}", plain(&pool.name)),
        ([pool, ..], _) => format!("  {}: {PANIC} (1 of {})", plain(&pool.name), panics.len()),
    };
    let bans = match status.bans.count {
        0 => String::new(),
        bans => format!("  {}", plural(bans.into(), "ban")),
    };
    Line::from(vec![
        Span::styled(
            format!("mahoraga {}", plain(&status.version)),
            look.strong(),
        ),
        Span::raw("  "),
        Span::styled(stage, look.toned(tone)),
        Span::raw(format!(
            "  up {}  snapshot {}  {} of {} connections",
            span(status.uptime_s),
            status.snapshot,
            count(status.connections),
            count(status.max_connections),
        )),
        Span::styled(bans, look.toned(Tone::Warning)),
        Span::styled(notice, look.toned(Tone::Bad)),
    ])
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, model: &TopModel, look: Look) {
    let point = model.point();
    let latest = |text: fn(&Point) -> String| point.map_or_else(|| "-".to_owned(), text);
    // During an attack this is what to look at first.
    let refused = point
        .map(|point| point.refused_per_s)
        .filter(|rate| *rate > 0);
    let refused = refused.map(|refused| format!(", refused {}/s", rate(refused as f64)));
    let refused = refused.unwrap_or_default();
    type Chart = (String, fn(&Point) -> u64);
    let charts: [Chart; 3] = [
        (
            format!(
                "new {}/s{refused}",
                latest(|point| rate(point.new_per_s as f64))
            ),
            |point| point.new_per_s,
        ),
        (
            format!(
                "traffic {}/s",
                latest(|point| bytes(point.bytes_per_s as f64))
            ),
            |point| point.bytes_per_s,
        ),
        (
            format!("connections {}", latest(|point| count(point.connections))),
            |point| point.connections,
        ),
    ];
    for (column, (title, what)) in columns(area).into_iter().zip(charts) {
        let [head, chart] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(column);
        frame.render_widget(Line::styled(title, look.strong()), head);
        // The latest value is on the right, also while there are few.
        let width = usize::from(chart.width);
        let known = model.history(width, what);
        let mut shown = vec![0; width - known.len()];
        shown.extend(known);
        let bars = Sparkline::default()
            .data(&shown)
            .style(look.toned(Tone::Good));
        frame.render_widget(bars, chart);
    }
}

/// How long clients waited: in the last 10 s and minute, and since the start.
fn draw_times(frame: &mut Frame<'_>, area: Rect, sample: &Answers, look: Look) {
    let latencies = &sample.status.latencies;
    for (column, one) in columns(area).into_iter().zip(latencies) {
        let head = Line::from(vec![
            Span::styled(plain(&one.name), look.strong()),
            Span::styled(", p50 and p99", look.toned(Tone::Faint)),
        ]);
        let windows = [
            ("10 s ", &one.last_10s),
            ("1 min", &one.last_1m),
            ("all  ", &one.since_start),
        ];
        let line = |(name, window)| {
            Line::from(vec![
                Span::styled(name, look.toned(Tone::Faint)),
                Span::raw(format!(" {}", quantiles(window, "  "))),
            ])
        };
        let lines: Vec<_> = std::iter::once(head).chain(windows.map(line)).collect();
        frame.render_widget(Paragraph::new(lines), column);
    }
}

/// Three columns.
fn columns(area: Rect) -> [Rect; 3] {
    Layout::horizontal([Constraint::Fill(1); 3])
        .spacing(2)
        .areas(area)
}

fn draw_backends(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &TopModel,
    controls: &Controls,
    look: Look,
) {
    let rows = model.rows(controls.order, &controls.filter);
    let room = usize::from(area.height.saturating_sub(1));
    let (marked, skipped) = window(controls.marked, rows.len(), room);
    let part = if rows.len() > room {
        let last = (skipped + room).min(rows.len());
        format!("state ({}-{last} of {})", skipped + 1, rows.len())
    } else {
        "state".to_owned()
    };
    let longest = rows
        .iter()
        .map(|row| row.name.chars().count())
        .max()
        .unwrap_or(0);
    let name = u16::try_from(longest.clamp(7, 24)).unwrap_or(24);
    let numbers = numbers_that_fit(area.width, name);
    let mut widths = vec![Constraint::Length(name), Constraint::Fill(1)];
    widths.extend(numbers.iter().map(|one| Constraint::Length(one.width)));
    let mut heads = vec![Cell::from("backend"), Cell::from(part)];
    heads.extend(numbers.iter().map(|one| right(head(one, controls))));
    let shown = rows.iter().enumerate().skip(skipped).take(room);
    let shown = shown.map(|(place, row)| {
        let cells = Row::new(cells(row, &numbers, look));
        match place == marked {
            true => cells.style(look.marked()),
            false => cells,
        }
    });
    let table = Table::new(shown, widths).header(Row::new(heads).style(look.strong()));
    frame.render_widget(table, area);
}

/// The line that is marked, and how many lines above the window are not shown.
fn window(marked: usize, lines: usize, room: usize) -> (usize, usize) {
    let marked = marked.min(lines.saturating_sub(1));
    let skipped = (marked + 1).saturating_sub(room);
    (marked, skipped.min(lines.saturating_sub(room)))
}

/// A column of numbers of backends.
struct Number {
    head: &'static str,
    sort: Option<Sort>,
    width: u16,
    /// Those with the least are left out first where there is no room.
    rank: u8,
    text: fn(&Backend<'_>) -> String,
}

const NUMBERS: [Number; 7] = [
    Number {
        head: "weight",
        sort: Some(Sort::Weight),
        width: 7,
        rank: 1,
        text: |row| row.backend.weight.to_string(),
    },
    Number {
        head: "conns",
        sort: Some(Sort::Connections),
        width: 6,
        rank: 6,
        text: |row| count(row.backend.connections),
    },
    Number {
        head: "wait",
        sort: None,
        width: 5,
        rank: 0,
        text: |row| count(row.backend.waiting),
    },
    Number {
        head: "new/s",
        sort: Some(Sort::New),
        width: 6,
        rank: 5,
        text: |row| row.new_per_s.map(rate).unwrap_or_default(),
    },
    Number {
        head: "B/s",
        sort: Some(Sort::Bytes),
        width: 6,
        rank: 2,
        text: |row| bytes(row.backend.traffic.per_s() as f64),
    },
    Number {
        head: "answer",
        sort: Some(Sort::Answer),
        width: 7,
        rank: 3,
        text: |row| {
            let answer = row.backend.answer_ms;
            answer.map(|ms| micros(ms * 1e3)).unwrap_or_default()
        },
    },
    Number {
        head: "fails",
        sort: Some(Sort::Failures),
        width: 6,
        rank: 4,
        text: |row| count(row.backend.failures),
    },
];

/// The columns of numbers that leave room for the name and the state.
fn numbers_that_fit(width: u16, name: u16) -> Vec<&'static Number> {
    let mut numbers: Vec<_> = NUMBERS.iter().collect();
    let taken = |numbers: &[&Number]| numbers.iter().map(|one| one.width + 1).sum::<u16>();
    while name + 1 + STATE_MIN + taken(&numbers) > width {
        let least = (0..numbers.len()).min_by_key(|place| numbers[*place].rank);
        let Some(least) = least else { break };
        numbers.remove(least);
    }
    numbers
}

/// A table as its command prints it.
fn draw_listing(
    frame: &mut Frame<'_>,
    area: Rect,
    table: Option<String>,
    controls: &Controls,
    look: Look,
) {
    let table = table.unwrap_or_else(|| "...".to_owned());
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default().to_owned();
    let lines: Vec<_> = lines
        .filter(|line| line.contains(&controls.filter))
        .collect();
    let room = usize::from(area.height.saturating_sub(1));
    let (marked, skipped) = window(controls.marked, lines.len(), room);
    let shown = lines.iter().enumerate().skip(skipped).take(room);
    let shown = shown.map(|(place, line)| {
        let line = Line::raw((*line).to_owned());
        match place == marked {
            true => line.style(look.marked()),
            false => line,
        }
    });
    let head = Line::styled(head, look.strong());
    let all: Vec<_> = std::iter::once(head).chain(shown).collect();
    frame.render_widget(Paragraph::new(all), area);
}

/// The heading of a column, with a mark where backends are sorted by it.
fn head(number: &Number, controls: &Controls) -> String {
    let name = number.head;
    match (
        number.sort == Some(controls.order.by),
        controls.order.reverse,
    ) {
        (false, _) => name.to_owned(),
        (true, false) => format!("{name}▾"),
        (true, true) => format!("{name}▴"),
    }
}

/// A cell with its text on the right.
fn right(text: String) -> Cell<'static> {
    Cell::from(Line::raw(text).right_aligned())
}

fn cells(row: &Backend<'_>, numbers: &[&Number], look: Look) -> Vec<Cell<'static>> {
    let state = state_cell(row.backend);
    let mut cells = vec![
        Cell::from(plain(&row.name)),
        Cell::from(Span::styled(state.text, look.toned(state.tone))),
    ];
    cells.extend(numbers.iter().map(|one| right((one.text)(row))));
    cells
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &TopModel, look: Look) {
    let room = usize::from(area.height.saturating_sub(2));
    let mut lines = vec![Line::raw(""), Line::styled("events", look.strong())];
    lines.extend(model.events(room).map(|event| Line::raw(event_line(event))));
    frame.render_widget(Paragraph::new(lines), area);
}

fn footer(model: &TopModel, controls: &Controls, look: Look) -> Line<'static> {
    if controls.typing {
        return Line::styled(format!("/{}_", plain(&controls.filter)), look.strong());
    }
    if let Some(proposal) = &controls.proposal {
        let text = format!("y/n? {}", plain(&proposal.question()));
        return Line::styled(text, look.toned(Tone::Warning));
    }
    if let Some(why) = model.unreachable() {
        let text = format!("reconnecting: {}", plain(why));
        return Line::styled(text, look.toned(Tone::Bad));
    }
    if let Some(notice) = &controls.notice {
        return Line::styled(plain(notice), look.toned(Tone::Warning));
    }
    if controls.paused {
        return Line::styled("paused: press space to go on", look.toned(Tone::Warning));
    }
    let keys = if controls.view == View::Backends {
        "q quit  ? help  tab views  / filter  D drain  R ready  sort: p w c n b a f"
    } else {
        "q quit  ? help  tab views  1 backends 2 pools 3 listeners 4 sessions 5 bans"
    };
    let filter = match controls.filter.as_str() {
        "" => String::new(),
        filter => format!("  only /{}", plain(filter)),
    };
    Line::styled(format!("{keys}{filter}"), look.toned(Tone::Faint))
}

fn draw_help(frame: &mut Frame<'_>) {
    let mut lines = vec![
        "q, Esc, Ctrl-C  quit".to_owned(),
        "space           pause, and go on".to_owned(),
        "/               show only lines with these letters".to_owned(),
        "j, k, PgUp/PgDn mark another line".to_owned(),
        "Tab, 1 to 5     backends, pools, listeners, sessions, bans".to_owned(),
        "r               reverse the order of backends".to_owned(),
    ];
    let changes = CHANGES.iter();
    lines.extend(changes.map(|(key, _, what)| format!("{key}               {what}")));
    let sorts = SORTS.iter();
    lines.extend(sorts.map(|(key, _, what)| format!("{key}               sort by {what}")));
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX) + 2;
    let area = frame
        .area()
        .centered(Constraint::Length(60), Constraint::Length(height));
    let block = ratatui::widgets::Block::bordered().title(" keys ");
    let lines: Vec<_> = lines.into_iter().map(Line::raw).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Whether to use colour.
#[derive(Clone, Copy, Debug)]
struct Look(bool);

impl Look {
    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Of the line that is marked.
    fn marked(self) -> Style {
        Style::new().add_modifier(Modifier::UNDERLINED)
    }

    fn toned(self, tone: Tone) -> Style {
        let colour = match tone {
            Tone::Good => Color::Green,
            Tone::Warning => Color::Yellow,
            Tone::Bad => Color::Red,
            Tone::Faint => return Style::new().add_modifier(Modifier::DIM),
            Tone::Plain => return Style::new(),
        };
        if self.0 {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }
}

/// The least room for the state of a backend: `down: connection`.
const STATE_MIN: u16 = 16;
/// From this many lines on there is room for events.
const ROOMY: u16 = 20;

#[cfg(test)]
mod tests;
