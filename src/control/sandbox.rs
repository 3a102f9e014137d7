//! What the process may do: it gives up what a balancer does not need before it has a second
//! thread, so that all threads begin without.

use std::cell::Cell;
use std::env;
use std::io;
use std::sync::OnceLock;

use crate::admin::model::PrivilegesStatus;
use crate::sys::{self, Capability};

use super::{StartError, syn_filter};

/// What [`enter`] has put in force.
#[derive(Debug)]
struct Entered {
    /// The name of the user that the process runs as.
    user: String,
    /// All threads are confined to the system calls that they need.
    is_confined: bool,
}

/// Gives up every capability but those that listening, and dropping banned clients, need, and
/// confines the process to the system calls of a balancer, unless the operator wants to keep all.
/// Call it once, before there is a second thread.
///
/// Returns a warning where this machine can't do a part of it.
///
/// # Errors
/// [`StartError::Thread`]: the kernel refuses it.
pub fn enter(wanted: bool) -> Result<Option<String>, StartError> {
    syn_filter::prepare();
    // The control thread must not ask for it later: that may ask a directory service.
    let user = sys::Account::own().ok().flatten();
    let user = user.map_or_else(|| format!("uid {}", sys::user_id()), |user| user.name);
    let is_confined = wanted && sys::can_filter_calls();
    let _ = ENTERED.set(Entered { user, is_confined });
    if !wanted {
        return Ok(None);
    }
    let mut keep = vec![Capability::NetBindService];
    if sys::filters_need_net_admin() {
        keep.push(Capability::NetAdmin);
    }
    sys::keep_capabilities(&keep).map_err(|error| StartError::Thread {
        what: "give up capabilities (--no-sandbox keeps them)",
        error,
    })?;
    if !is_confined {
        return Ok(Some(format!(
            "system calls are not filtered: there is no filter for {}",
            env::consts::ARCH
        )));
    }
    let confined = sys::confine_process().map_err(|error| StartError::Thread {
        what: "filter system calls (--no-sandbox does without)",
        error,
    });
    confined.map(|()| None)
}

/// Confines a worker's thread once it has all that it needs.
///
/// # Errors
/// What seccomp(2) says.
pub(super) fn confine_worker() -> io::Result<()> {
    if ENTERED.get().is_some_and(|entered| entered.is_confined) {
        sys::settle_allocator();
        sys::confine_worker()?;
        MAY_OPEN_FILES.set(false);
    }
    Ok(())
}

/// Whether the calling thread may open files, as a trace of a panic does to name its places.
#[must_use]
pub fn may_open_files() -> bool {
    MAY_OPEN_FILES.get()
}

/// Makes the call that a test wants to see forbidden, in a worker that is confined. A program that
/// is built for use makes none.
pub(super) fn misbehave() {
    if cfg!(debug_assertions)
        && let Ok(what) = env::var("MAHORAGA_TEST_MISBEHAVE")
    {
        sys::misbehave(&what);
    }
}

/// What is in force in the calling thread.
pub(super) fn status() -> PrivilegesStatus {
    let entered = ENTERED.get();
    PrivilegesStatus {
        user: entered.map_or_else(String::new, |entered| entered.user.clone()),
        capabilities: sys::effective_capabilities(),
        no_new_privs: sys::has_no_new_privileges(),
        calls_filtered: entered.is_some_and(|entered| entered.is_confined),
    }
}

static ENTERED: OnceLock<Entered> = OnceLock::new();
thread_local! {
    static MAY_OPEN_FILES: Cell<bool> = const { Cell::new(true) };
}
