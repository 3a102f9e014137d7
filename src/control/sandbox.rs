//! What the process may do: it gives up what a balancer does not need before it has a second
//! thread, so that all threads begin without.

use std::sync::OnceLock;

use crate::admin::model::PrivilegesStatus;
use crate::sys::{self, Capability};

use super::{StartError, syn_filter};

/// Gives up every capability but those that listening, and dropping banned clients, need, unless the
/// operator wants to keep all. Call it once, before there is a second thread.
///
/// # Errors
/// [`StartError::Thread`]: the kernel refuses that.
pub fn enter(wanted: bool) -> Result<(), StartError> {
    syn_filter::prepare();
    if wanted {
        let mut keep = vec![Capability::NetBindService];
        if sys::filters_need_net_admin() {
            keep.push(Capability::NetAdmin);
        }
        let kept = sys::keep_capabilities(&keep);
        kept.map_err(|error| StartError::Thread {
            what: "give up capabilities (--no-sandbox keeps them)",
            error,
        })?;
    }
    // The control thread must not ask for it later: that may ask a directory service.
    let user = sys::Account::own().ok().flatten();
    let name = user.map_or_else(|| format!("uid {}", sys::user_id()), |user| user.name);
    let _ = USER.set(name);
    Ok(())
}

/// What is in force in the calling thread.
pub(super) fn status() -> PrivilegesStatus {
    PrivilegesStatus {
        user: USER.get().cloned().unwrap_or_default(),
        capabilities: sys::effective_capabilities(),
        no_new_privs: sys::has_no_new_privileges(),
    }
}

/// The name of the user that the process runs as.
static USER: OnceLock<String> = OnceLock::new();
