//! SIGUSR1: each worker's histograms as a table in the log, and appended to a file that the tools
//! of HdrHistogram read (V2 log format, a tag per worker and metric).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam::channel;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::session::CloseReason;
use crate::worker::{Command, Histograms, Numbers};

use super::crew::Crew;

/// The file, and since when the next entry counts.
pub(super) struct HistogramLog {
    path: PathBuf,
    since: SystemTime,
}

impl HistogramLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            since: SystemTime::now(),
        }
    }

    /// Takes the histograms of all workers and writes them down. The next time counts from here.
    pub(super) async fn dump(&mut self, crew: &Crew) {
        let taken = take(crew).await;
        let until = SystemTime::now();
        let since = std::mem::replace(&mut self.since, until);
        let seconds = until
            .duration_since(since)
            .unwrap_or_default()
            .as_secs_f64();
        for (worker, stats) in crew.stats.iter().enumerate() {
            log::info!(target: TARGET, "worker {worker}: {}", gauges(stats));
        }
        for (worker, histograms) in &taken {
            log::info!(
                "worker {worker}: last {seconds:.1} s\n{}",
                table(histograms)
            );
        }
        for worker in (0..crew.stats.len()).filter(|&worker| !has(&taken, worker)) {
            log::warn!("worker {worker} did not answer in time: its histograms are lost");
        }
        match self.append(taken, since, until).await {
            Ok(()) => log::info!(target: TARGET, "histograms appended to {}", self.path.display()),
            Err(error) => log::error!("{} can't be written: {error}", self.path.display()),
        }
    }

    /// Writes on a thread of its own: a file may be a pipe that nobody reads, or on a disk that
    /// does not answer, and signals go on being answered meanwhile.
    async fn append(
        &self,
        taken: Vec<(u32, Box<Histograms>)>,
        since: SystemTime,
        until: SystemTime,
    ) -> io::Result<()> {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let path = self.path.clone();
        std::thread::Builder::new()
            .name("histograms".to_owned())
            .spawn(move || done.send(append(&path, &taken, since, until)))?;
        match tokio::time::timeout(WRITE_TIME, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn has(taken: &[(u32, Box<Histograms>)], worker: usize) -> bool {
    taken.iter().any(|(taken, _)| *taken as usize == worker)
}

/// Histograms by worker, in their order; of those workers that answered in time.
async fn take(crew: &Crew) -> Vec<(u32, Box<Histograms>)> {
    let (reply, replies) = channel::bounded(crew.stats.len());
    crew.tell_all(|| Command::TakeHistograms(reply.clone()));
    drop(reply);
    let mut taken = Vec::new();
    for _ in 0..ANSWER_POLLS {
        taken.extend(replies.try_iter());
        if taken.len() == crew.stats.len() {
            break;
        }
        tokio::time::sleep(ANSWER_POLL).await;
    }
    taken.sort_by_key(|(worker, _)| *worker);
    taken
}

fn gauges(stats: &Numbers) -> String {
    let mut line = String::new();
    let numbers = [
        ("sessions", &stats.sessions),
        ("buffers", &stats.buffers),
        ("pipes", &stats.pipes),
        ("parked", &stats.parked),
        ("accepted", &stats.accepted),
        ("peek_misses", &stats.peek_misses),
        ("connect_failures", &stats.connect_failures),
        ("accept_pauses", &stats.accept_pauses),
        ("accept_exhausted", &stats.accept_exhausted),
        ("listeners_lost", &stats.listeners_lost),
        ("log_dropped", &stats.log_dropped),
    ];
    for (name, number) in numbers {
        line += &format!("{name}={} ", number.get());
    }
    let closed = CloseReason::ALL.into_iter().zip(&stats.closed);
    for (reason, number) in closed.filter(|(_, number)| number.get() > 0) {
        line += &format!("closed.{reason}={} ", number.get());
    }
    line.trim_end().to_owned()
}

fn table(histograms: &Histograms) -> String {
    let mut table = format!(
        "{:<12} {:>4} {:>10} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "", "unit", "count", "p50", "p90", "p99", "p99.9", "max"
    );
    for (name, unit, histogram) in histograms.all() {
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
    taken: &[(u32, Box<Histograms>)],
    since: SystemTime,
    until: SystemTime,
) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    let is_new = file.metadata()?.len() == 0;
    let bytes = encode(taken, since, until, is_new).map_err(io::Error::other)?;
    file.write_all(&bytes)
}

fn encode(
    taken: &[(u32, Box<Histograms>)],
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
        .map_err(|error| format!("{error:?}"))
}

/// The log target of what a signal asked for: it is shown whatever the log's level.
pub(crate) const TARGET: &str = "histograms";
const WRITE_TIME: Duration = Duration::from_secs(1);
const ANSWER_POLL: Duration = Duration::from_millis(2);
/// Half a second: a worker that takes longer has a loop turn that long.
const ANSWER_POLLS: u32 = 250;
