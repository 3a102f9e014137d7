//! SIGUSR1: each worker's histograms as a table in the log, and appended to a file that the tools
//! of HdrHistogram read (V2 log format, a tag per worker and metric).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};
use log::Level;
use parking_lot::Mutex;
use tokio::task::LocalSet;

use crate::admin::model::{ControlStatus, HistogramStatus};
use crate::operational_log;
use crate::sys;
use crate::time::{SECOND, US, nanos};
use crate::worker::{Command, Histograms, Numbers, Recorded};

use super::aside;
use super::status;
use super::workers::Workers;

/// The histograms of all workers: since the start, and since the last entry of the file.
pub(super) struct Measurements {
    path: RefCell<PathBuf>,
    since: Cell<SystemTime>,
    /// Added up and summarized on another thread, as that takes long.
    totals: Arc<Mutex<Totals>>,
    /// A task writes the file, which may be a pipe without a reader.
    writing: Cell<bool>,
    /// The histograms of the control thread.
    control_pending: RefCell<Control>,
    control_in_all: RefCell<Control>,
    /// The start is over: turns count.
    begun: Cell<bool>,
}

/// Latencies of the control thread.
#[derive(Clone, Debug)]
struct Control {
    /// One turn of its runtime: all that ran between two looks for what is ready, ns.
    turn: Histogram<u64>,
    /// How late the tick of each second came, ns: because of any of its tasks.
    late: Histogram<u64>,
}

impl Control {
    fn new() -> Self {
        Self {
            turn: histogram(),
            late: histogram(),
        }
    }

    fn all(&self) -> [(&'static str, &'static str, &Histogram<u64>); 2] {
        [
            ("control", "ns", &self.turn),
            ("control_late", "ns", &self.late),
        ]
    }
}

/// Up to 10 s by two digits; larger values count as the highest.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10 * SECOND, 2).expect("constant bounds that the crate takes")
}

type ByWorker = BTreeMap<u32, Box<Histograms>>;

/// The histograms of the workers.
#[derive(Default)]
struct Totals {
    /// Since the last entry of the file.
    pending: ByWorker,
    /// Since the start.
    in_all: ByWorker,
}

impl Totals {
    fn add(&mut self, taken: &[(u32, Box<Recorded>)]) {
        for into in [&mut self.pending, &mut self.in_all] {
            for (worker, recorded) in taken {
                into.entry(*worker).or_default().record(recorded);
            }
        }
    }

    /// Since the start: all workers together, then each, then the control thread.
    fn summaries(&self, control: &Control) -> Vec<HistogramStatus> {
        let mut together = Histograms::new();
        self.in_all.values().for_each(|its| together.add(its));
        let each = self.in_all.iter();
        let each = each.map(|(&worker, its)| (Some(worker), &**its));
        let mut summaries = Vec::new();
        for (worker, histograms) in std::iter::once((None, &together)).chain(each) {
            let all = histograms.all().into_iter();
            summaries.extend(all.map(|(name, unit, its)| summary(worker, name, unit, its)));
        }
        let control = control.all().into_iter();
        summaries.extend(control.map(|(name, unit, its)| summary(None, name, unit, its)));
        summaries
    }
}

impl Measurements {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path: RefCell::new(path),
            since: Cell::new(SystemTime::now()),
            totals: Arc::default(),
            writing: Cell::new(false),
            control_pending: RefCell::new(Control::new()),
            control_in_all: RefCell::new(Control::new()),
            begun: Cell::new(false),
        }
    }

    /// Counts the control thread's turns from now on.
    pub(super) fn begin(&self) {
        self.begun.set(true);
    }

    /// Runs a future and all tasks that it spawns, and records how long each of its turns takes.
    pub(super) async fn measure<T>(&self, future: impl Future<Output = T>) -> T {
        let tasks = LocalSet::new();
        let mut turn = pin!(tasks.run_until(future));
        poll_fn(|cx| {
            let counts = self.begun.get();
            let began = sys::monotonic();
            let outcome = turn.as_mut().poll(cx);
            if counts {
                self.on_turn(sys::monotonic().saturating_sub(began));
            }
            outcome
        })
        .await
    }

    fn on_turn(&self, took: u64) {
        for into in [&self.control_pending, &self.control_in_all] {
            into.borrow_mut().turn.saturating_record(took);
        }
    }

    /// Records how late a tick of the control thread was, or a turn of its loop.
    pub(super) fn on_tick(&self, late: Duration) {
        let late = nanos(late);
        for into in [&self.control_pending, &self.control_in_all] {
            into.borrow_mut().late.saturating_record(late);
        }
    }

    /// The turns of the control thread's loop since the start.
    pub(super) fn control(&self) -> ControlStatus {
        let all = self.control_in_all.borrow();
        ControlStatus {
            turns: all.turn.len(),
            p50_us: all.turn.value_at_quantile(0.5) / US,
            p99_us: all.turn.value_at_quantile(0.99) / US,
            max_us: all.turn.max() / US,
        }
    }

    /// Sets the file for later entries.
    pub(super) fn set_path(&self, path: PathBuf) {
        self.path.replace(path);
    }

    /// Logs what was measured since the last time, and appends it to the file.
    pub(super) async fn dump(&self, workers: &Workers) {
        if self.writing.replace(true) {
            return log::error!("the last histograms are still being written: ask again later");
        }
        self.dump_alone(workers).await;
    }

    async fn dump_alone(&self, workers: &Workers) {
        let taken = take(workers).await;
        let until = SystemTime::now();
        let since = self.since.replace(until);
        let seconds = until
            .duration_since(since)
            .unwrap_or_default()
            .as_secs_f64();
        for (worker, stats) in workers.stats.iter().enumerate() {
            log::info!(target: TARGET, "worker {worker}: {}", gauges(stats));
        }
        let totals = Arc::clone(&self.totals);
        let control = self.control_pending.replace(Control::new());
        let computed = aside::compute(move || {
            let taken = {
                let mut totals = totals.lock();
                totals.add(&taken);
                std::mem::take(&mut totals.pending)
            };
            let named = taken.iter();
            let named = named.map(|(worker, its)| (format!("worker {worker}"), table(&its.all())));
            let mut tables: Vec<_> = named.collect();
            tables.push(("control thread".to_owned(), table(&control.all())));
            (taken, control, tables)
        });
        let Ok((taken, control, tables)) = computed.await else {
            self.writing.set(false);
            return log::error!(
                "cannot sum up the histograms: no thread can be created; what was measured in the \
                 last {seconds:.1} s is lost"
            );
        };
        for (name, table) in tables {
            let record = format_args!("{name}: last {seconds:.1} s\n{table}");
            operational_log::report(Level::Info, &record);
        }
        let path = self.path.borrow().clone();
        let to = path.clone();
        let mut written = aside::begin(move || append(&to, &taken, &control, since, until));
        let outcome = match tokio::time::timeout(WRITE_TIME, &mut written).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let path = path.display();
                log::error!(
                    "cannot write {path} within {}: still waiting for it",
                    humantime::format_duration(WRITE_TIME)
                );
                written.await
            }
        };
        self.writing.set(false);
        match outcome.unwrap_or_else(|_| Err(io::Error::other("no thread can be created"))) {
            Ok(()) => log::info!(target: TARGET, "histograms appended to {}", path.display()),
            Err(error) => log::error!("cannot write {}: {error}", path.display()),
        }
    }

    /// What was measured since the start; `None`: no thread can be created.
    pub(super) async fn summaries(&self, workers: &Workers) -> Option<Vec<HistogramStatus>> {
        let taken = take(workers).await;
        let totals = Arc::clone(&self.totals);
        let control = self.control_in_all.borrow().clone();
        let computed = aside::compute(move || {
            let mut totals = totals.lock();
            totals.add(&taken);
            totals.summaries(&control)
        });
        computed.await.ok()
    }
}

fn summary(worker: Option<u32>, name: &str, unit: &str, its: &Histogram<u64>) -> HistogramStatus {
    HistogramStatus {
        worker,
        name: name.to_owned(),
        unit: unit.to_owned(),
        count: its.len(),
        p50: its.value_at_quantile(0.5),
        p90: its.value_at_quantile(0.9),
        p99: its.value_at_quantile(0.99),
        p999: its.value_at_quantile(0.999),
        max: its.max(),
    }
}

/// The histograms of all workers. Those of workers that do not answer in time are lost.
async fn take(workers: &Workers) -> Vec<(u32, Box<Recorded>)> {
    let taken = workers.ask(Command::TakeHistograms).gather().await.all;
    let has = |worker: usize| taken.iter().any(|(taken, _)| *taken as usize == worker);
    let running = workers.handles.iter().enumerate();
    let running = running.filter(|(_, handle)| !handle.has_ended());
    for (worker, _) in running.filter(|(worker, _)| !has(*worker)) {
        log::warn!("worker {worker} did not answer in time: its histograms are lost");
    }
    taken
}

fn gauges(stats: &Numbers) -> String {
    let numbers = status::numbers(stats).into_iter();
    let numbers: Vec<_> = numbers
        .map(|(name, number)| format!("{name}={number}"))
        .collect();
    let [up, down] = stats.traffic.bytes();
    format!("{} bytes_up={up} bytes_down={down}", numbers.join(" "))
}

fn table(histograms: &[(&str, &str, &Histogram<u64>)]) -> String {
    let mut table = format!(
        "{:<12} {:>4} {:>10} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "", "unit", "count", "p50", "p90", "p99", "p99.9", "max"
    );
    for (name, unit, histogram) in histograms {
        let at = |quantile| histogram.value_at_quantile(quantile);
        table += &format!(
            "\n{name:<12} {unit:>4} {:>10} {:>12} {:>12} {:>12} {:>12} {:>12}",
            histogram.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            histogram.max()
        );
    }
    table
}

/// One interval per worker and metric. A new file begins with the format's header.
fn append(
    path: &Path,
    taken: &ByWorker,
    control: &Control,
    since: SystemTime,
    until: SystemTime,
) -> io::Result<()> {
    let mut file = sys::open_to_append(path, 0o666)?;
    let is_new = file.metadata()?.len() == 0;
    let bytes = encode((taken, control), since, until, is_new).map_err(io::Error::other)?;
    file.write_all(&bytes)
}

fn encode(
    (taken, control): (&ByWorker, &Control),
    since: SystemTime,
    until: SystemTime,
    with_header: bool,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    if with_header {
        builder.add_comment("[Histogram log format version 1.3]");
        builder.add_comment(concat!("[mahoraga ", env!("CARGO_PKG_VERSION"), "]"));
        // Whatever the metric's unit, the column of maxima shows the value itself.
        builder.with_max_value_divisor(1.0);
        builder.with_start_time(since);
    }
    let mut writer = builder
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| error.to_string())?;
    let start = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let length = until.duration_since(since).unwrap_or_default();
    for (worker, histograms) in taken {
        for (name, unit, histogram) in histograms.all() {
            let tag = format!("worker-{worker}.{name}_{unit}");
            let tag = Tag::new(&tag).ok_or("a tag without spaces")?;
            write_interval(&mut writer, histogram, start, length, tag)?;
        }
    }
    for (name, unit, histogram) in control.all() {
        let tag = format!("{name}_{unit}");
        let tag = Tag::new(&tag).ok_or("a tag without spaces")?;
        write_interval(&mut writer, histogram, start, length, tag)?;
    }
    drop(writer);
    Ok(bytes)
}

type Writer<'a, 'b> = hdrhistogram::serialization::interval_log::IntervalLogWriter<
    'a,
    'b,
    Vec<u8>,
    V2DeflateSerializer,
>;

fn write_interval(
    writer: &mut Writer<'_, '_>,
    histogram: &Histogram<u64>,
    start: Duration,
    length: Duration,
    tag: Tag<'_>,
) -> Result<(), String> {
    writer
        .write_histogram(histogram, start, length, Some(tag))
        .map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error.to_string(),
            IntervalLogWriterError::SerializeError(_) => "it can't be encoded".to_owned(),
        })
}

/// The log target of histograms, which are logged at every level: a signal requested them.
pub(crate) const TARGET: &str = "histograms";
const WRITE_TIME: Duration = Duration::from_secs(1);
