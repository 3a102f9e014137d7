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
    block_all();
}

/// Runs something with every signal blocked in the calling thread: threads that it makes block them
/// from their first moment on.
pub fn with_signals_blocked<T>(run: impl FnOnce() -> T) -> T {
    let before = block_all();
    let outcome = run();
    // SAFETY: `before` is read during the call only; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    outcome
}

/// Blocks every signal in the calling thread. Returns those that were blocked before.
fn block_all() -> libc::sigset_t {
    // SAFETY: a `sigset_t` is a bit mask: zeroes are an empty one.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    let mut before = all;
    // SAFETY: `all` is written during the call only.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` is read and `before` is written during the call only.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    before
}

/// What the balancer does on a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// It stops the program.
    Stop,
    /// It asks the program for something.
    Request,
    /// The signal is ignored.
    Nothing,
    /// The kernel's default: faults, job control, SIGKILL, and signals that the kernel ignores.
    Default,
}

/// The one table of signals. By default most of them end a program, so it has each one that another
/// process may send for no good reason.
///
/// SIGXCPU and SIGXFSZ are ignored as well. The soft RLIMIT_CPU is a warning, sent once a second,
/// and a balancer that runs for months passes any: only the hard limit, a SIGKILL, ends it. A write
/// beyond RLIMIT_FSIZE fails with EFBIG, which is reported where it happens.
fn meaning(signal: libc::c_int) -> Meaning {
    match signal {
        libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => Meaning::Stop,
        libc::SIGHUP | libc::SIGUSR1 | libc::SIGUSR2 => Meaning::Request,
        // Timers that it never sets; readiness and power, which it never requests.
        libc::SIGALRM | libc::SIGVTALRM | libc::SIGPROF | libc::SIGIO | libc::SIGPWR => {
            Meaning::Nothing
        }
        libc::SIGSTKFLT | libc::SIGXCPU | libc::SIGXFSZ => Meaning::Nothing,
        // The C library keeps those below SIGRTMIN to itself.
        real_time if real_time >= libc::SIGRTMIN() => Meaning::Nothing,
        _ => Meaning::Default,
    }
}

/// All signals that mean this.
fn signals(which: Meaning) -> impl Iterator<Item = libc::c_int> {
    (1..=libc::SIGRTMAX()).filter(move |&signal| meaning(signal) == which)
}

/// All signals that the balancer handles or ignores.
fn handled() -> impl Iterator<Item = libc::c_int> {
    (1..=libc::SIGRTMAX()).filter(|&signal| meaning(signal) != Meaning::Default)
}

/// Blocks the signals of the table until the program has set what they do. Call it before anything
/// else; [`release_signals`] or [`await_signals`] follows.
pub fn hold_signals() {
    mask_signals(libc::SIG_BLOCK, handled());
}

/// Unblocks those signals: they run the handlers that were installed meanwhile, or else have their
/// default effect.
pub fn release_signals() {
    mask_signals(libc::SIG_UNBLOCK, handled());
}

/// Prepares a program that handles signals once it runs. Until then a signal that stops it ends it
/// at once with exit code 0, since nothing is open yet. Signals that request something stay blocked
/// until [`release_signals`]. Those that mean nothing are ignored for good.
pub fn await_signals() {
    for signal in signals(Meaning::Nothing) {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    for signal in signals(Meaning::Stop) {
        let handler: extern "C" fn(libc::c_int) = end_at_once;
        // SAFETY: the handler makes a single call that is async-signal-safe (signal-safety(7)).
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    let released = signals(Meaning::Stop).chain(signals(Meaning::Nothing));
    mask_signals(libc::SIG_UNBLOCK, released);
}

/// Blocks signals again and removes the handlers of [`await_signals`], so that tokio can install
/// its own, which would call the old ones too. [`release_signals`] follows.
pub fn replace_handlers() {
    hold_signals();
    for signal in signals(Meaning::Stop) {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

extern "C" fn end_at_once(_: libc::c_int) {
    // SAFETY: no memory is handed over.
    unsafe { libc::_exit(0) };
}

/// Blocks or unblocks signals in the calling thread and those that it makes.
fn mask_signals(how: libc::c_int, signals: impl Iterator<Item = libc::c_int>) {
    // SAFETY: a `sigset_t` is a bit mask: zeroes are an empty one.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    for signal in signals {
        // SAFETY: `set` is written during the call only.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: `set` is read during the call only; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
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

/// Raises the soft limit of descriptors to the hard one, and returns the limit that is in force
/// then.
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

/// The name of this machine; `-` where it has none that a line of a log may hold.
#[must_use]
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let is_plain = (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    if is_plain { name } else { "-" }.to_owned()
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
