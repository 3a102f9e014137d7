//! What the process may do: it gives up what a balancer does not need before it has a second
//! thread, so that all threads begin without.

use std::cell::Cell;
use std::env;
use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;

use crate::admin::model::PrivilegesStatus;
use crate::sys::{self, Account, Capability};

use super::{StartError, syn_filter};

/// Which user a balancer that root starts becomes.
#[derive(Clone, Copy, Debug)]
pub enum RunAs<'a> {
    /// It stays what it is.
    Unchanged,
    /// The user that the configuration names; `None`: `mahoraga`, if there is one.
    Configured(Option<&'a str>),
}

/// What the operator asks of the sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox {
    /// Off: the process keeps all that its user has.
    pub is_on: bool,
    /// Whether pools connect from their clients' addresses, for which a capability is kept.
    pub is_transparent: bool,
    /// Whether the helper stays after the start, for a reload.
    pub keeps_helper: bool,
}

/// What [`enter`] has put in force.
#[derive(Debug)]
struct Entered {
    /// The name of the user that the process runs as.
    user: String,
    /// All threads are confined to the system calls that they need.
    is_confined: bool,
    /// The helper stays after the start.
    keeps_helper: bool,
    /// There was a helper: the start could listen on ports below 1024.
    had_ports: bool,
    /// The start could have connected from clients' addresses, and gave that up.
    gave_up_transparency: bool,
}

/// Becomes another user, gives up all capabilities but to drop banned clients where the kernel
/// wants one for that, and to connect from clients' addresses where that is asked, and confines the
/// process to the system calls of a balancer, unless the operator wants to keep all. A helper
/// process keeps the privilege to listen on ports below 1024, where this one had it, for the
/// addresses that it finds by `may_bind`. Call it once, before there is a second thread.
///
/// Returns warnings: what this machine or this start does without.
///
/// # Errors
/// [`StartError::User`]: there is no such user; [`StartError::Thread`]: the kernel refuses it.
pub fn enter(
    asked: Sandbox,
    run_as: RunAs<'_>,
    may_bind: &dyn Fn(SocketAddr) -> bool,
) -> Result<Vec<String>, StartError> {
    syn_filter::prepare();
    let mut warnings = Vec::new();
    let user = match asked.is_on {
        true => user_to_become(run_as, &mut warnings)?,
        false => None,
    };
    let is_confined = asked.is_on && sys::can_filter_calls();
    let entered = Entered {
        user: name_of(user.as_ref()),
        is_confined,
        keeps_helper: asked.keeps_helper,
        had_ports: asked.is_on && sys::has_capability(Capability::NetBindService),
        gave_up_transparency: asked.is_on
            && !asked.is_transparent
            && transparency_capability().is_some(),
    };
    let _ = ENTERED.set(entered);
    if !asked.is_on {
        let lost = "--no-sandbox: a client that makes this process run foreign code gets all \
                    rights of the user that started it";
        return Ok(vec![lost.to_owned()]);
    }
    let kernel = |what| move |error| StartError::Thread { what, error };
    if sys::has_capability(Capability::NetBindService) {
        sys::start_helper(user.as_ref(), may_bind).map_err(kernel("start the helper process"))?;
    }
    let mut keep = Vec::new();
    if sys::filters_need_net_admin() {
        keep.push(Capability::NetAdmin);
    }
    if asked.is_transparent && keep.is_empty() {
        keep.extend(transparency_capability());
    }
    sys::drop_privileges(user.as_ref(), &keep)
        .map_err(kernel("give up privileges (--no-sandbox keeps them)"))?;
    if is_confined {
        let what = "filter system calls (--no-sandbox does without)";
        sys::confine_process().map_err(kernel(what))?;
    } else {
        let on = env::consts::ARCH;
        warnings.push(format!(
            "system calls are not filtered: there is no filter for {on}"
        ));
    }
    Ok(warnings)
}

/// As [`enter`] with a sandbox, but only takes the rights that the balancer would have: for a look
/// at the files that a start would open.
///
/// # Errors
/// As [`enter`].
pub fn take_rights(run_as: RunAs<'_>, is_transparent: bool) -> Result<(), StartError> {
    let user = user_to_become(run_as, &mut Vec::new())?;
    let entered = Entered {
        user: name_of(user.as_ref()),
        is_confined: false,
        keeps_helper: false,
        had_ports: false,
        gave_up_transparency: false,
    };
    let keep = transparency_capability().filter(|_| is_transparent);
    let keep = keep.as_slice();
    let _ = ENTERED.set(entered);
    // Where it stays root it opens files by their permissions, as a start does.
    sys::drop_privileges(user.as_ref(), keep).map_err(|error| StartError::Thread {
        what: "take the rights of the balancer's user",
        error,
    })
}

/// What lets this thread connect from clients' addresses (ip(7), IP_TRANSPARENT), of what it has:
/// the lesser one where it has both.
fn transparency_capability() -> Option<Capability> {
    let all = [Capability::NetRaw, Capability::NetAdmin];
    all.into_iter().find(|one| sys::has_capability(*one))
}

/// The name of the user that the process becomes, or of its own. The control thread must not ask
/// for it later: that may ask a directory service.
fn name_of(user: Option<&Account>) -> String {
    let own = user.cloned().or_else(|| Account::own().ok().flatten());
    own.map_or_else(|| format!("uid {}", sys::user_id()), |own| own.name)
}

/// The user to become; `None`: the process stays what it is.
fn user_to_become(
    run_as: RunAs<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Account>, StartError> {
    let RunAs::Configured(configured) = run_as else {
        return Ok(None);
    };
    let name = configured.unwrap_or(USER);
    let look_up = |name| {
        Account::named(name).map_err(|error| StartError::Thread {
            what: "look up the user to run as",
            error,
        })
    };
    if sys::user_id() != 0 {
        if let Some(name) = configured
            && look_up(name)?.map(|user| user.uid) != Some(sys::user_id())
        {
            warnings.push(format!(
                "user: only root can become `{name}`; the balancer runs as the user that started it"
            ));
        }
        return Ok(None);
    }
    match look_up(name)? {
        Some(user) if user.uid == 0 => Ok(None),
        Some(user) => Ok(Some(user)),
        None if configured.is_some() => Err(StartError::User {
            name: name.to_owned(),
        }),
        None => {
            warnings.push(format!(
                "the balancer runs as root, because there is no user `{USER}`: create one \
                 (useradd --system {USER}), name another by `user`, or write user: \"root\""
            ));
            Ok(None)
        }
    }
}

/// The name of the user that the process runs as.
pub(super) fn user() -> String {
    ENTERED
        .get()
        .map_or_else(String::new, |entered| entered.user.clone())
}

/// The start has listened on all ports. Ends the helper, unless a reload may listen on more.
pub(super) fn end_start(can_reload: bool) {
    let keeps = ENTERED.get().is_some_and(|entered| entered.keeps_helper);
    if !(can_reload && keeps) {
        sys::dismiss_helper();
    }
}

/// Whether it could listen on ports below 1024 at the start, and can't at a reload.
pub(super) fn gave_up_ports() -> bool {
    let entered = ENTERED.get();
    entered.is_some_and(|entered| entered.had_ports && !entered.keeps_helper)
}

/// Whether a start could have connected from clients' addresses, and no pool did then.
pub(super) fn gave_up_transparency() -> bool {
    let entered = ENTERED.get();
    entered.is_some_and(|entered| entered.gave_up_transparency)
}

/// Confines a worker's thread once it has all that it needs.
///
/// # Errors
/// What seccomp(2) says.
pub(super) fn confine_worker() -> io::Result<()> {
    if ENTERED.get().is_some_and(|entered| entered.is_confined) {
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
        user: user(),
        capabilities: sys::effective_capabilities(),
        no_new_privs: sys::has_no_new_privileges(),
        calls_filtered: entered.is_some_and(|entered| entered.is_confined),
    }
}

/// The user that a balancer becomes that root starts, if this machine has it.
const USER: &str = "mahoraga";
static ENTERED: OnceLock<Entered> = OnceLock::new();
thread_local! {
    static MAY_OPEN_FILES: Cell<bool> = const { Cell::new(true) };
}
