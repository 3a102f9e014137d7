//! What failed attempts to connect leave at their session.

use std::sync::Arc;

use crate::fault::Fault;
use crate::kernel::Errno;
use crate::pool::Backend;
use crate::session::Event;

use super::slot::Slot;

/// What failed attempts of a session leave. Most sessions have none: it is made by the first one.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    /// Backends that are not tried again soon, as indices into the listener's pool.
    pub(super) tried: Vec<u16>,
    /// The number of the only backend that it goes to: it asks to cancel what a session there does.
    pub(super) only: Option<u32>,
    /// It has that session's key, so that it gets there however full the backend is.
    pub(super) has_key: bool,
    /// Why the last handshake of TLS with a backend failed.
    pub(super) tls_error: Option<Arc<str>>,
    /// The first that failed, up to [`TRIES_KEPT`].
    first: Vec<FailedTry>,
    /// All that failed.
    failed: u32,
}

/// A connect that failed.
#[derive(Clone, Debug)]
pub struct FailedTry {
    /// The backend, with the address that was connected to.
    pub backend: Arc<Backend>,
    /// Whose fault it was.
    pub fault: Fault,
    /// The kernel's error; ECANCELED where the attempt's time was over.
    pub errno: Errno,
    /// From the attempt's begin to its end, in ns.
    pub took: u64,
}

impl Slot {
    /// Backends that earlier attempts failed on, as indices into its pool.
    pub(super) fn tried(&self) -> &[u16] {
        self.tries.as_ref().map_or(&[], |tries| &tries.tried)
    }

    /// The number of the only backend that it goes to: it asks to cancel what a session there does.
    pub(super) fn only(&self) -> Option<u32> {
        self.tries.as_ref()?.only
    }

    /// Whether it needs no place at that backend: it frees one.
    pub(super) fn goes_beyond_limits(&self) -> bool {
        let tries = self.tries.as_ref();
        tries.is_some_and(|tries| tries.has_key)
    }
}

impl Tries {
    /// The first that failed, in their order.
    #[must_use]
    pub fn first(&self) -> &[FailedTry] {
        &self.first
    }

    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Why no backend is left that the client can be connected to: the connects that failed, or
    /// that none began at its address.
    pub(super) fn spent(&self) -> Event {
        match self.failed {
            0 => Event::Misfit,
            _ => Event::Spent,
        }
    }

    pub(super) fn on_failed(&mut self, failed: FailedTry) {
        self.failed = self.failed.saturating_add(1);
        if self.first.len() < TRIES_KEPT {
            self.first.push(failed);
        }
    }
}

/// Attempts of a session that are kept with what they failed by.
pub const TRIES_KEPT: usize = 4;
