//! One of many, in words: what a report shows beside a count.

use parking_lot::Mutex;

/// The first one since it was last taken. Any thread may note one.
#[derive(Debug, Default)]
pub struct Example(Mutex<Option<String>>);

impl Example {
    /// Takes note of one, where no other one waits to be taken.
    pub fn note(&self, what: impl FnOnce() -> String) {
        // One that is lost as others hold the lock is not missed.
        if let Some(mut first) = self.0.try_lock()
            && first.is_none()
        {
            *first = Some(what());
        }
    }

    /// Takes it.
    #[must_use]
    pub fn take(&self) -> Option<String> {
        self.0.lock().take()
    }
}
