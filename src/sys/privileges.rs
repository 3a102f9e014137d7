//! What the kernel lets this process do beyond its user's rights (capabilities(7)).

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, no_new_privs,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// A privilege that the process may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Listen on ports below 1024.
    NetBindService,
}

impl Capability {
    fn set(self) -> CapabilitySet {
        match self {
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
        }
    }
}

/// Gives up all capabilities of the calling thread and those that it makes but `keep`, of those
/// that it has. Programs that it executes get no others, not even as root or by a setuid file
/// (PR_SET_NO_NEW_PRIVS). Call it before there is a second thread.
///
/// # Errors
/// What prctl(2) or capset(2) say; the thread may have given up some by then.
pub fn keep_capabilities(keep: &[Capability]) -> io::Result<()> {
    let kept = keep
        .iter()
        .fold(CapabilitySet::empty(), |all, one| all | one.set());
    set_no_new_privs(true)?;
    let has = capabilities(None)?;
    // First what needs a capability itself.
    if has.effective.contains(CapabilitySet::SETPCAP) {
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
    }
    clear_ambient_capability_set()?;
    let left = has.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets {
            effective: left,
            permitted: left,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
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
            keep_capabilities(&[Capability::NetBindService]).unwrap();
            let first = effective_capabilities();
            keep_capabilities(&[]).unwrap();
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
