//! How much a client may make the control thread do before all others have their turn.

use std::time::Duration;

use tokio::time::sleep;

/// Counts what is done for a client, and pauses after so many steps. A sleep, as the runtime passes
/// operations of io_uring to the kernel only when no task is ready, and a task that yields always
/// is.
pub(super) struct Pace {
    at_once: u32,
    left: u32,
}

impl Pace {
    pub(super) fn new(at_once: u32) -> Self {
        Self {
            at_once,
            left: at_once,
        }
    }

    /// Whether the next step pauses.
    pub(super) fn is_due(&self) -> bool {
        self.left == 0
    }

    /// Pauses now.
    pub(super) async fn rest(&mut self) {
        sleep(PAUSE).await;
        self.left = self.at_once;
    }

    /// To be called before each step.
    pub(super) async fn step(&mut self) {
        if self.left == 0 {
            self.rest().await;
        }
        self.left -= 1;
    }
}

/// How long a client waits for its next turn.
pub(super) const PAUSE: Duration = Duration::from_millis(1);
