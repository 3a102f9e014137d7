//! Draws the screen of `top`. It fits in 80 columns and 24 lines; on fewer lines events are left
//! out first.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Sparkline, Table};

use super::super::events::line as event_line;
use super::super::show::{PANIC, quantiles, stage, state_cell};
use super::super::table::Tone;
use super::super::units::{bytes, count, micros, plain, rate, span};
use super::keys::{Controls, SORTS};
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
    draw_backends(frame, table, model, controls, look);
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
    let skipped = controls.skipped.min(rows.len().saturating_sub(room));
    let part = if rows.len() > room {
        let last = (skipped + room).min(rows.len());
        format!("state ({}-{last} of {})", skipped + 1, rows.len())
    } else {
        "state".to_owned()
    };
    let shown = rows
        .iter()
        .skip(skipped)
        .take(room)
        .map(|row| cells(row, look));
    let longest = rows
        .iter()
        .map(|row| row.name.chars().count())
        .max()
        .unwrap_or(0);
    let name = u16::try_from(longest.clamp(7, 24)).unwrap_or(24);
    let widths = [
        Constraint::Length(name),
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(6),
    ];
    let heads = heads(part, controls);
    let table = Table::new(shown, widths).header(Row::new(heads).style(look.strong()));
    frame.render_widget(table, area);
}

/// The headings of the backends, with a mark at the one that they are sorted by.
fn heads(part: String, controls: &Controls) -> [Cell<'static>; 9] {
    let mark = |by: Sort, name: &str| {
        let sorts = controls.order.by == by && by != Sort::Place;
        match (sorts, controls.order.reverse) {
            (false, _) => name.to_owned(),
            (true, false) => format!("{name}▾"),
            (true, true) => format!("{name}▴"),
        }
    };
    [
        Cell::from("backend"),
        Cell::from(part),
        right(mark(Sort::Weight, "weight")),
        right(mark(Sort::Connections, "conns")),
        right("wait".to_owned()),
        right(mark(Sort::New, "new/s")),
        right(mark(Sort::Bytes, "B/s")),
        right(mark(Sort::Answer, "answer")),
        right(mark(Sort::Failures, "fails")),
    ]
}

/// A cell with its text on the right.
fn right(text: String) -> Cell<'static> {
    Cell::from(Line::raw(text).right_aligned())
}

fn cells(row: &Backend<'_>, look: Look) -> Row<'static> {
    let one = row.backend;
    let state = state_cell(one);
    let answer = one.answer_ms.map(|ms| micros(ms * 1e3));
    Row::new([
        Cell::from(plain(&row.name)),
        Cell::from(Span::styled(state.text, look.toned(state.tone))),
        right(one.weight.to_string()),
        right(count(one.connections)),
        right(count(one.waiting)),
        right(row.new_per_s.map(rate).unwrap_or_default()),
        right(bytes(one.traffic.per_s() as f64)),
        right(answer.unwrap_or_default()),
        right(count(one.failures)),
    ])
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
    if let Some(why) = model.unreachable() {
        let text = format!("reconnecting: {}", plain(why));
        return Line::styled(text, look.toned(Tone::Bad));
    }
    if controls.paused {
        return Line::styled("paused: press space to go on", look.toned(Tone::Warning));
    }
    let keys = "q quit  ? help  space pause  / filter  r reverse  sort: p w c n b a f";
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
        "/               show only backends with these letters".to_owned(),
        "j, k, PgUp/PgDn scroll".to_owned(),
        "r               reverse the order".to_owned(),
    ];
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

/// From this many lines on there is room for events.
const ROOMY: u16 = 20;

#[cfg(test)]
mod tests;
