//! Threads, signals and limits of the process.

use std::fs;
use std::io;
use std::mem;
use std::ptr;

/// The CPUs that the process may run on, by number (sched_getaffinity(2)).
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a `cpu_set_t` is a bit mask: zeroes are an empty one.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is written during the call only.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if failed != 0 {
        return Vec::new();
    }
    let max = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: the numbers are below CPU_SETSIZE, within the mask.
    (0..max)
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// Keeps the calling thread on this CPU.
///
/// # Errors
/// What sched_setaffinity(2) says.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: a `cpu_set_t` is a bit mask: zeroes are an empty one.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` comes from `allowed_cpus`, so lies within the mask.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is read during the call only.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets timeouts of the calling thread end on time instead of up to 50 µs later
/// (PR_SET_TIMERSLACK): a paced stream is visited every 100 µs.
pub fn precise_timers() {
    // SAFETY: no memory is handed over.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000, 0, 0, 0) };
}

/// Blocks every signal in the calling thread and those that it makes (pthread_sigmask(3)).
pub fn block_signals() {
    // SAFETY: a `sigset_t` is a bit mask: zeroes are an empty one.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `all` is written during the call only.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` is read during the call only; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut()) };
}

/// The soft and the hard limit of descriptors (RLIMIT_NOFILE), for each descriptor table.
#[must_use]
pub fn descriptor_limit() -> (u64, u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is written during the call only.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

/// Raises the soft limit of descriptors to the hard one and answers with what holds then.
pub fn raise_descriptor_limit() -> u64 {
    let (_, hard) = descriptor_limit();
    let limit = libc::rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: `limit` is read during the call only.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    descriptor_limit().0
}

/// The running kernel's release, such as 6.18.0.
#[must_use]
pub fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(
        |_| "unknown release".to_owned(),
        |release| release.trim().to_owned(),
    )
}

/// The value of `kernel.io_uring_disabled`, where there is one (6.6).
#[must_use]
pub fn io_uring_disabled() -> Option<u32> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()?
        .trim()
        .parse()
        .ok()
}
