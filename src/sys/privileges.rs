//! What the kernel lets this process do beyond its user's rights (capabilities(7)).

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, no_new_privs,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
};
use socket2::{Domain, SockFilter, Socket, Type};

use super::users::Account;

/// A privilege that the process may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Listen on ports below 1024.
    NetBindService,
    /// Attach filters to sockets, where the kernel demands that for it.
    NetAdmin,
    /// Begin connections at addresses that this machine does not have.
    NetRaw,
}

impl Capability {
    fn set(self) -> CapabilitySet {
        match self {
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::NetRaw => CapabilitySet::NET_RAW,
        }
    }
}

/// Becomes a user, if one is named, with that user's groups, and gives up all capabilities of the
/// calling thread and those that it makes but `keep`, of those that it has, and but CAP_IPC_LOCK,
/// which each thread gives up by [`done_with_rings`]: the limit of locked memory would count the
/// memory of rings, those of all balancers of the user together. Programs that the thread executes
/// get none but `keep`, not even as root or by a setuid file (PR_SET_NO_NEW_PRIVS). Call it before
/// there is a second thread.
///
/// # Errors
/// What prctl(2), setresuid(2), capset(2) and the like say; the thread may have given up some by
/// then.
pub fn drop_privileges(user: Option<&Account>, keep: &[Capability]) -> io::Result<()> {
    let kept = keep
        .iter()
        .fold(CapabilitySet::empty(), |all, one| all | one.set());
    set_no_new_privs(true)?;
    let has = capabilities(None)?;
    // First what needs a capability itself.
    if has.effective.contains(CapabilitySet::SETPCAP) {
        shrink_bounding_set(kept)?;
    }
    if let Some(user) = user {
        // The change from root to another user would take them all.
        set_keep_capabilities(true)?;
        user.become_it()?;
        set_keep_capabilities(false)?;
    }
    clear_ambient_capability_set()?;
    have(has.permitted & (kept | CapabilitySet::IPC_LOCK))
}

fn shrink_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether the calling thread has a capability.
#[must_use]
pub fn has_capability(wanted: Capability) -> bool {
    capabilities(None).is_ok_and(|has| has.effective.contains(wanted.set()))
}

/// The calling thread makes no more rings: it gives up CAP_IPC_LOCK, if it is one that can gain no
/// privileges. Others keep what they have.
///
/// # Errors
/// What capset(2) says.
pub fn done_with_rings() -> io::Result<()> {
    let has = capabilities(None)?;
    let own = CapabilitySet::IPC_LOCK;
    if has.permitted.contains(own) && no_new_privs()? {
        have(has.permitted - own)?;
    }
    Ok(())
}

/// Whether the kernel lets no thread without CAP_NET_ADMIN attach a filter to a socket, as some
/// kernels after 6.12 do. False where this thread has not got it either, and where a filter can't
/// be tried at all.
#[must_use]
pub fn filters_need_net_admin() -> bool {
    let tried = || -> io::Result<bool> {
        let before = capabilities(None)?;
        let own = Capability::NetAdmin.set();
        if !before.effective.contains(own) {
            return Ok(false);
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let without = CapabilitySets {
            effective: before.effective - own,
            ..before
        };
        set_capabilities(None, without)?;
        let tried = socket.attach_filter(&[pass_all()]);
        set_capabilities(None, before)?;
        Ok(tried.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied))
    };
    tried().unwrap_or(false)
}

/// An instruction of classic BPF that lets all bytes of a packet pass.
fn pass_all() -> SockFilter {
    let verdict = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or(0);
    SockFilter::new(verdict, 0, 0, u32::MAX)
}

fn have(left: CapabilitySet) -> io::Result<()> {
    let left = CapabilitySets {
        effective: left,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, left)?)
}

/// The capabilities that the calling thread may use, by name.
#[must_use]
pub fn effective_capabilities() -> Vec<String> {
    let effective = capabilities(None).map(|has| has.effective);
    let effective = effective.unwrap_or(CapabilitySet::empty());
    let named = effective.iter_names();
    named.map(|(name, _)| format!("CAP_{name}")).collect()
}

/// Whether programs that the calling thread executes get no more privileges than it has.
#[must_use]
pub fn has_no_new_privileges() -> bool {
    no_new_privs().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_gives_up_all_but_what_it_keeps() {
        let before = effective_capabilities();
        let outcome = thread::spawn(|| {
            drop_privileges(None, &[Capability::NetBindService]).unwrap();
            done_with_rings().unwrap();
            let first = effective_capabilities();
            drop_privileges(None, &[]).unwrap();
            let second = effective_capabilities();
            (first, second, has_no_new_privileges())
        });
        let (first, second, locked) = outcome.join().unwrap();
        let bind = "CAP_NET_BIND_SERVICE".to_owned();
        let had = before.contains(&bind);
        assert_eq!(first, if had { vec![bind] } else { Vec::new() });
        assert!(second.is_empty() && locked);
        // Others keep theirs.
        assert_eq!(effective_capabilities(), before);
    }
}
