//! Waiting by strategy, one panel for each scenario, as an SVG.

use std::fmt::Display;

use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::coord::ranged1d::{IntoSegmentedCoord, SegmentValue};
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle};
use plotters::style::{Color, RGBColor, WHITE};
use thiserror::Error;

use super::{Outcome, Scaled};

/// Why there is no chart.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the chart can't be drawn: {0}")]
pub struct ChartError(String);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws p50 and p99 of each strategy, on a logarithmic scale of ms; and, where there is a reserve,
/// how many backends were in use over time.
///
/// # Errors
///
/// There is nothing to draw.
pub fn chart(outcomes: &[Outcome]) -> Result<String, ChartError> {
    let panels: Vec<_> = outcomes
        .chunk_by(|one, next| one.scenario == next.scenario)
        .collect();
    let bars = panels.iter().map(|panel| panel.len()).max();
    let bars = bars.ok_or_else(|| ChartError("there is no outcome".to_owned()))?;
    let with_reserve: Vec<_> = panels.iter().filter_map(|panel| course_of(panel)).collect();
    let count = panels.len() + with_reserve.len();
    let columns = count.min(COLUMNS);
    let rows = count.div_ceil(columns);
    let height = FRAME_HEIGHT + BAR_HEIGHT * pixels(bars);
    let size = (WIDTH * pixels(columns), height * pixels(rows));
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let areas = root.split_evenly((rows, columns));
    for (area, panel) in areas.iter().zip(&panels) {
        draw(area, panel).map_err(failed)?;
    }
    for (area, (outcome, scaled)) in areas.iter().skip(panels.len()).zip(with_reserve) {
        draw_course(area, outcome, scaled).map_err(failed)?;
    }
    root.present().map_err(failed)?;
    drop((root, areas));
    Ok(svg)
}

/// One panel: a light bar to the 99th percentile, a dark one to the median.
fn draw(area: &Area<'_>, outcomes: &[Outcome]) -> Result<(), Box<dyn std::error::Error>> {
    let highest = outcomes.iter().map(|outcome| outcome.wait_p99_ms);
    let highest = highest.fold(10.0 * LEAST_MS, f64::max);
    let name = outcomes.first().map_or("", |first| first.scenario);
    let count = outcomes.len();
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(name, ("sans-serif", 18))
        .x_label_area_size(40)
        .y_label_area_size(140)
        .build_cartesian_2d(
            (LEAST_MS..highest * 1.3).log_scale(),
            (0..count - 1).into_segmented(),
        )?;
    // The first strategy stands at the top.
    let place = |nth: usize| count - 1 - nth;
    let label = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(at) | SegmentValue::Exact(at) if *at < count => {
            outcomes[place(*at)].strategy.to_owned()
        }
        SegmentValue::CenterOf(_) | SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(count)
        .y_label_formatter(&label)
        .x_label_formatter(&|ms| format!("{ms}"))
        .x_desc("waiting in ms: median dark, 99th percentile light")
        .light_line_style(WHITE)
        .draw()?;
    for (percentile, color) in [(P99, LIGHT), (P50, DARK)] {
        chart.draw_series(outcomes.iter().enumerate().map(|(nth, outcome)| {
            let (from, to) = (place(nth), place(nth) + 1);
            let corners = [
                (LEAST_MS, SegmentValue::Exact(from)),
                (percentile(outcome).max(LEAST_MS), SegmentValue::Exact(to)),
            ];
            let mut bar = Rectangle::new(corners, color.filled());
            bar.set_margin(3, 3, 0, 0);
            bar
        }))?;
    }
    Ok(())
}

/// The strategy whose backends in use are drawn: the one with the shortest waits.
fn course_of(outcomes: &[Outcome]) -> Option<(&Outcome, &Scaled)> {
    let scaled = outcomes
        .iter()
        .filter_map(|o| Some((o, o.scaled.as_ref()?)));
    scaled.min_by(|(one, _), (other, _)| one.wait_p99_ms.total_cmp(&other.wait_p99_ms))
}

/// Backends in use as a dark line, and open connections as a light one to the same height.
fn draw_course(
    area: &Area<'_>,
    outcome: &Outcome,
    scaled: &Scaled,
) -> Result<(), Box<dyn std::error::Error>> {
    let backends = pixels(outcome.backends.len());
    let last = scaled.course.last().map_or(0, |moment| moment.second);
    let most = scaled.course.iter().map(|moment| moment.connections);
    let most = f64::from(most.max().unwrap_or(0).max(1));
    let caption = format!(
        "{}: backends in use ({})",
        outcome.scenario, outcome.strategy
    );
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(caption, ("sans-serif", 18))
        .x_label_area_size(40)
        .y_label_area_size(140)
        .build_cartesian_2d(0..last.max(1), 0.0..f64::from(backends) + 0.5)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_label_formatter(&|count| format!("{count:.0}"))
        .x_desc("seconds: backends dark, open connections light")
        .light_line_style(WHITE)
        .draw()?;
    let height = f64::from(scaled.in_use_max);
    let connections = scaled.course.iter().map(|moment| {
        let part = f64::from(moment.connections) / most;
        (moment.second, part * height)
    });
    let light = PathElement::new(connections.collect::<Vec<_>>(), LIGHT.stroke_width(2));
    let in_use = scaled.course.iter();
    let in_use = in_use.map(|moment| (moment.second, f64::from(moment.in_use)));
    let dark = PathElement::new(in_use.collect::<Vec<_>>(), DARK.stroke_width(2));
    chart.draw_series([light, dark])?;
    Ok(())
}

fn failed(why: impl Display) -> ChartError {
    ChartError(why.to_string())
}

fn pixels(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

const P50: fn(&Outcome) -> f64 = |outcome| outcome.wait_p50_ms;
const P99: fn(&Outcome) -> f64 = |outcome| outcome.wait_p99_ms;
const LIGHT: RGBColor = RGBColor(158, 188, 218);
const DARK: RGBColor = RGBColor(49, 90, 140);
/// Panels in a row.
const COLUMNS: usize = 2;
/// Of a panel, in pixels.
const WIDTH: u32 = 560;
/// What is around the bars of a panel, in pixels.
const FRAME_HEIGHT: u32 = 110;
const BAR_HEIGHT: u32 = 22;
/// Where the scale begins.
const LEAST_MS: f64 = 1.0;
