//! What is done with clients that a rule refuses.

use std::sync::Arc;

use super::Limit;

/// What a rule does with a client that it refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is reset at once.
    #[default]
    Reset,
    /// It hears nothing more, as if the machine were gone.
    Drop,
    /// It stays connected, and nothing is read from it.
    Tarpit,
}

impl Action {
    /// Every one with its name.
    pub const ALL: [(&'static str, Self); 3] = [
        ("reset", Self::Reset),
        ("drop", Self::Drop),
        ("tarpit", Self::Tarpit),
    ];
}

/// How long refused clients are held whose rule does not reset them, and how many.
#[derive(Clone, Debug)]
pub struct Pit {
    /// Those that are held, over all workers. It outlives snapshots.
    pub slots: Arc<Limit>,
    /// In ns.
    pub time: u64,
}
