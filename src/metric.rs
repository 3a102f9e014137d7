//! What a figure is: its name, kind, unit and meaning, from which all that shows it is made.

/// A figure that the balancer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name within its subject, such as `sessions` of a worker.
    pub name: &'static str,
    /// How it changes.
    pub kind: Kind,
    /// What it is in; `None`: it is a count, or a share.
    pub unit: Option<Unit>,
    /// What it counts or measures: a sentence or more.
    pub help: &'static str,
}

/// How a figure changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up until the process or its subject ends.
    Counter,
    /// How often values were within bounds, since the start.
    Histogram,
}

/// What a figure is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}
