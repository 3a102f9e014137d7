//! Draws the screen of `top`. It fits in 80 columns and 24 lines; on fewer lines events are left
//! out first, and in fewer columns whole blocks, keys and numbers of backends, before the state
//! becomes too short. Nothing is cut within a number or its unit.

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
    let Rect { width, height, .. } = frame.area();
    let is_roomy = height >= ROOMY;
    let events = if is_roomy { 6 } else { 0 };
    let notices = model.last().map(notices).unwrap_or_default();
    let notices = wrapped(
        &notices,
        width.into(),
        if is_roomy { NOTICES_MAX } else { 1 },
    );
    let heights = [
        Constraint::Length(1),
        Constraint::Length(u16::try_from(notices.len()).unwrap_or(u16::MAX)),
        Constraint::Length(3),
        Constraint::Length(5),
        Constraint::Min(2),
        Constraint::Length(events),
        Constraint::Length(1),
    ];
    let [head, alerts, rates, times, table, last, foot] =
        Layout::vertical(heights).areas(frame.area());
    if let Some(sample) = model.last() {
        frame.render_widget(header(sample, width.into(), look), head);
        draw_times(frame, times, sample, look);
    }
    let notices = notices.into_iter();
    let notices: Vec<_> = notices
        .map(|line| Line::styled(line, look.toned(Tone::Bad)))
        .collect();
    frame.render_widget(Paragraph::new(notices), alerts);
    draw_rates(frame, rates, model, look);
    if controls.view == View::Backends {
        draw_backends(frame, table, model, controls, look);
    } else {
        draw_listing(frame, table, model.table(controls.view), controls, look);
    }
    draw_events(frame, last, model, look);
    frame.render_widget(footer(model, controls, width.into(), look), foot);
    if controls.help {
        draw_help(frame);
    }
}

/// What the balancer is and does, with as many parts as there is room for.
fn header(sample: &Answers, width: usize, look: Look) -> Line<'static> {
    let status = &sample.status;
    let (stage, tone) = stage(status.stage);
    let version = format!("mahoraga {}", plain(&status.version));
    let (open, most) = (count(status.connections), count(status.max_connections));
    let bans = match status.bans.count {
        0 => String::new(),
        bans => plural(bans.into(), "ban"),
    };
    // Those with the least rank are left out first.
    let mut parts = vec![
        (2, version, look.strong()),
        (4, stage.to_owned(), look.toned(tone)),
        (1, format!("up {}", span(status.uptime_s)), Style::new()),
        (0, format!("snapshot {}", status.snapshot), Style::new()),
        (5, format!("{open} of {most} connections"), Style::new()),
        (3, bans, look.toned(Tone::Warning)),
    ];
    parts.retain(|(_, text, _)| !text.is_empty());
    let long = |parts: &[(u8, String, Style)]| {
        let widths = parts.iter().map(|(_, text, _)| text.chars().count() + 2);
        widths.sum::<usize>().saturating_sub(2)
    };
    while long(&parts) > width && parts.len() > 1 {
        let least = parts.iter().map(|(rank, ..)| *rank).min();
        parts.retain(|(rank, ..)| Some(*rank) != least);
    }
    let mut spans = Vec::new();
    for (_, text, style) in parts {
        if !spans.is_empty() {
            spans.push(Span::raw("  "));
        }
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

/// What needs attention, a sentence each: the first pool without usable backends, and the first
/// alert.
fn notices(sample: &Answers) -> Vec<String> {
    let panics: Vec<_> = sample.pools.iter().filter(|pool| pool.panic).collect();
    let panic = panics.first().map(|pool| {
        let others = match panics.len() {
            1 => String::new(),
            all => format!(" (1 of {all})"),
        };
        format!("{}: {PANIC}{others}", plain(&pool.name))
    });
    let alerts = &sample.status.alerts;
    let alert = alerts.first().map(|alert| match alerts.len() {
        1 => format!("alert: {}", plain(alert)),
        all => format!("1 of {all} alerts: {}", plain(alert)),
    });
    panic.into_iter().chain(alert).collect()
}

/// Sentences in lines that are broken between words. The last line that there is room for may be
/// cut by the screen.
fn wrapped(sentences: &[String], width: usize, lines_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for sentence in sentences {
        let mut begins = true;
        for word in sentence.split(' ') {
            let fits = |line: &String| line.chars().count() + 1 + word.chars().count() <= width;
            let is_full = lines.len() >= lines_max;
            match lines.last_mut() {
                Some(line) if !begins && (is_full || fits(line)) => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ if begins && is_full => return lines,
                _ => lines.push(word.to_owned()),
            }
            begins = false;
        }
    }
    lines
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
        // What is refused matters more than what is new, where there is no room for both.
        let title = match title.split_once(", ") {
            Some((_, last)) if title.len() > head.width.into() => last.to_owned(),
            _ => title,
        };
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

/// Three columns, or fewer where they would be too narrow.
fn columns(area: Rect) -> Vec<Rect> {
    let fit = (area.width + GAP) / (COLUMN_MIN + GAP);
    let columns = vec![Constraint::Fill(1); fit.clamp(1, 3).into()];
    Layout::horizontal(columns)
        .spacing(GAP)
        .split(area)
        .to_vec()
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

const NUMBERS: [Number; 8] = [
    Number {
        head: "weight",
        sort: Some(Sort::Weight),
        width: 7,
        rank: 2,
        text: |row| row.backend.weight.to_string(),
    },
    Number {
        head: "conns",
        sort: Some(Sort::Connections),
        width: 6,
        rank: 7,
        text: |row| count(row.backend.connections),
    },
    Number {
        head: "wait",
        sort: None,
        width: 5,
        rank: 1,
        text: |row| count(row.backend.waiting),
    },
    Number {
        head: "new/s",
        sort: Some(Sort::New),
        width: 6,
        rank: 6,
        text: |row| row.new_per_s.map(rate).unwrap_or_default(),
    },
    Number {
        head: "B/s",
        sort: Some(Sort::Bytes),
        width: 6,
        rank: 3,
        text: |row| bytes(row.backend.traffic.per_s() as f64),
    },
    Number {
        head: "answer",
        sort: Some(Sort::Answer),
        width: 7,
        rank: 4,
        text: |row| {
            let answer = row.backend.answer_ms;
            answer.map(|ms| micros(ms * 1e3)).unwrap_or_default()
        },
    },
    Number {
        head: "p99",
        sort: None,
        width: 7,
        rank: 0,
        text: |row| {
            let p99 = row.backend.first_byte_p99_ms;
            p99.map(|ms| micros(ms * 1e3)).unwrap_or_default()
        },
    },
    Number {
        head: "fails",
        sort: Some(Sort::Failures),
        width: 6,
        rank: 5,
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
    let all = std::iter::once(&*head).chain(lines.iter().copied());
    let width = whole_columns(all, area.width.into());
    let cut = |line: &str| line.chars().take(width).collect::<String>();
    let shown = lines.iter().enumerate().skip(skipped).take(room);
    let shown = shown.map(|(place, line)| {
        let line = Line::raw(cut(line));
        match place == marked {
            true => line.style(look.marked()),
            false => line,
        }
    });
    let head = Line::styled(cut(&head), look.strong());
    let all: Vec<_> = std::iter::once(head).chain(shown).collect();
    frame.render_widget(Paragraph::new(all), area);
}

/// How much of a table's lines is whole columns: two blanks in every line follow a column.
fn whole_columns<'a>(lines: impl Iterator<Item = &'a str>, width: usize) -> usize {
    let mut is_long = false;
    let mut blank = vec![true; width + 2];
    for line in lines {
        let mut letters = 0;
        for (place, letter) in line.chars().enumerate() {
            letters = place + 1;
            if let Some(blank) = blank.get_mut(place) {
                *blank &= letter == ' ';
            }
        }
        is_long |= letters > width;
    }
    let ends = |end: &usize| blank[*end] && blank[*end + 1] && !blank[*end - 1];
    match is_long {
        true => (1..=width).rev().find(ends).unwrap_or(width),
        false => width,
    }
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

fn footer(model: &TopModel, controls: &Controls, width: usize, look: Look) -> Line<'static> {
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
    // Keys that there is no room for are in the help.
    let room = width.saturating_sub(filter.chars().count());
    let mut shown = keys;
    while shown.chars().count() > room {
        let Some((fewer, _)) = shown.rsplit_once("  ") else {
            break;
        };
        shown = fewer;
    }
    Line::styled(format!("{shown}{filter}"), look.toned(Tone::Faint))
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
/// The least room for a chart, or for times: `first_byte, p50 and p99`.
const COLUMN_MIN: u16 = 25;
/// Blanks between those.
const GAP: u16 = 2;
/// Lines for what needs attention.
const NOTICES_MAX: usize = 3;
/// From this many lines on there is room for events.
const ROOMY: u16 = 20;

#[cfg(test)]
mod tests;
