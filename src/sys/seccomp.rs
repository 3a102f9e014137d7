//! Filters of system calls (seccomp(2)): one that all threads have, and a narrow one that each
//! worker has besides.
//!
//! A filter sees system calls only. What goes through a ring it does not see: a worker's ring is
//! restricted by itself, and that of the control thread is not.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

mod calls;

/// Which values of an argument a filter lets through.
#[derive(Clone, Copy)]
enum Only {
    /// The argument at this place has this value.
    Value(u8, u32),
    /// The argument at this place has none of these bits.
    Without(u8, u32),
    /// The argument at this place has all of these bits.
    With(u8, u32),
    /// It is a socket of this family and this kind.
    Socket(u32, u32),
}

/// A system call by number, and the argument that decides, if one does.
type Allowed = (libc::c_long, Option<Only>);

/// Whether there are filters for this architecture.
#[must_use]
pub fn can_filter_calls() -> bool {
    TargetArch::try_from(ARCH).is_ok()
}

/// Confines the calling thread and those that it makes to what a balancer calls. Other calls fail
/// by ENOSYS, as on a kernel that lacks them, and the kernel logs them. Those that execute a
/// program, trace a process or change the system end the process.
///
/// # Errors
/// What seccomp(2) says; `Unsupported`: there are no filters for this architecture.
pub fn confine_process() -> io::Result<()> {
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    // A filter can't see the flags of clone3(2). The C library takes clone(2) where that is absent,
    // and each balancer asks for it: no line of the kernel's log is about that.
    let unseen = program(
        [(libc::SYS_clone3, None)],
        SeccompAction::Allow,
        absent.clone(),
    )?;
    let deadly = program(
        calls::deadly(),
        SeccompAction::Allow,
        SeccompAction::KillProcess,
    )?;
    let allowed = program(calls::process(), absent, SeccompAction::Allow)?;
    apply(&unseen, 0)?;
    apply(&deadly, libc::SECCOMP_FILTER_FLAG_LOG)?;
    apply(&allowed, libc::SECCOMP_FILTER_FLAG_LOG)
}

/// Confines the calling thread to what a worker calls. Any other call ends the process: only code
/// that is not the worker's own makes one.
///
/// # Errors
/// As [`confine_process`].
pub fn confine_worker() -> io::Result<()> {
    let allowed = calls::worker();
    let program = program(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?;
    apply(&program, libc::SECCOMP_FILTER_FLAG_LOG)
}

/// A filter that does `listed` on these calls, and `others` on all others.
fn program(
    calls: impl IntoIterator<Item = Allowed>,
    others: SeccompAction,
    listed: SeccompAction,
) -> io::Result<BpfProgram> {
    let architecture = TargetArch::try_from(ARCH).map_err(|_| io::ErrorKind::Unsupported)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, only) in calls {
        // Without a rule of its own a call is listed whatever its arguments.
        let rules = rules.entry(call).or_default();
        rules.extend(only.map(rule).transpose().map_err(io::Error::other)?);
    }
    SeccompFilter::new(rules, others, listed, architecture)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

fn rule(only: Only) -> Result<SeccompRule, seccompiler::BackendError> {
    let masked = |bits: u32| SeccompCmpOp::MaskedEq(bits.into());
    let all = match only {
        Only::Value(place, value) => vec![(place, SeccompCmpOp::Eq, value)],
        Only::Without(place, bits) => vec![(place, masked(bits), 0)],
        Only::With(place, bits) => vec![(place, masked(bits), bits)],
        Only::Socket(family, kind) => {
            vec![(0, SeccompCmpOp::Eq, family), (1, masked(KIND), kind)]
        }
    };
    let conditions = all.into_iter().map(|(place, comparison, value)| {
        SeccompCondition::new(place, SeccompCmpArgLen::Dword, comparison, value.into())
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// The bits of a socket's type that say its kind; the others are flags (socket(2)).
const KIND: u32 = 0xf;

/// Adds a filter to those of the calling thread, which must have no_new_privs. With
/// SECCOMP_FILTER_FLAG_LOG the kernel logs what it does not let through.
fn apply(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `filter` and `program`, whose statements have the kernel's form, are read during the
    // call only.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    if failed == 0 {
        return Ok(());
    }
    // systemd's list of what a service needs has prctl(2), and in older releases not seccomp(2).
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: as above.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the allocator ask now what it asks once: glibc opens a file of /proc the first time that
/// it shrinks the memory of a thread, and behind the filter of a worker that would end the process.
///
/// Call it before much memory was freed: from then on glibc shrinks only what is far larger than
/// what is freed here (mallopt(3), `M_MMAP_THRESHOLD`).
pub fn settle_allocator() {
    let shrink = || {
        // Together they are more than an allocator keeps when they are gone, and each of them is
        // too small to be mapped by itself.
        let blocks: Vec<Vec<u8>> = (0..64).map(|_| Vec::with_capacity(60 << 10)).collect();
        drop(std::hint::black_box(blocks));
    };
    // The first thread's memory is shrunk without that question. No thread: it will be asked later.
    if let Ok(thread) = thread::Builder::new().spawn(shrink) {
        let _ = thread.join();
    }
}

/// Makes the call of this name, for a test that sees it forbidden.
pub fn misbehave(call: &str) {
    match call {
        "open" => drop(File::open("/dev/null")),
        "execve" => drop(Command::new("/bin/true").exec()),
        "panic" => panic!("a test wants it"),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
