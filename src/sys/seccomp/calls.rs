//! The system calls of the filters.

use super::{Allowed, Only};

/// What no thread of a balancer ever calls, but an attacker might who has taken one over.
pub(super) fn deadly() -> impl Iterator<Item = Allowed> {
    let plain = DEADLY.iter().map(|&call| (call, None));
    // A child in a namespace of its own.
    let namespaces = NAMESPACES.map(|flag| (libc::SYS_clone, Some(Only::With(0, flag))));
    plain.chain(namespaces)
}

const DEADLY: &[libc::c_long] = &[
    // Programs, and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    // The kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_reboot,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_open_by_handle_at,
];

/// What a worker calls once it serves.
pub(super) fn worker() -> impl Iterator<Item = Allowed> {
    let plain = BASIC.iter().chain(WORKER).chain(LEGACY_WORKER);
    let plain = plain.map(|&call| (call, None));
    let sockets = SOCKETS.map(|(family, kind)| {
        let socket = Only::Socket(family.unsigned_abs(), kind.unsigned_abs());
        (libc::SYS_socket, Some(socket))
    });
    plain.chain(sockets).chain([
        // Bytes that are not acknowledged; no terminal, no device.
        (libc::SYS_ioctl, Some(Only::Value(1, TIOCOUTQ))),
        // Memory to execute is never needed.
        (libc::SYS_mmap, Some(Only::Without(2, EXECUTE))),
        (libc::SYS_mprotect, Some(Only::Without(2, EXECUTE))),
        // A panic aborts.
        (libc::SYS_tgkill, Some(Only::Value(2, ABORT))),
    ])
}

/// What all threads call, from before the first thread to the end.
pub(super) fn process() -> impl Iterator<Item = Allowed> {
    let all = [BASIC, WORKER, LEGACY_WORKER, PROCESS, LEGACY_PROCESS];
    let plain = all.into_iter().flatten().map(|&call| (call, None));
    let elements = MAP_ELEMENTS.map(|command| (libc::SYS_bpf, Some(Only::Value(0, command))));
    plain.chain(elements)
}

/// What the C library and the standard library call in any thread: memory, locks, time, its end.
const BASIC: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getcpu,
    // Where the clock can't be read without a call.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What a worker calls besides: its ring, sockets, pipes and eventfds that it has.
const WORKER: &[libc::c_long] = &[
    libc::SYS_io_uring_enter,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_splice,
    libc::SYS_pipe2,
    libc::SYS_fcntl,
    libc::SYS_close,
    libc::SYS_ppoll,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_accept4,
    // The backlog of a listening socket.
    libc::SYS_listen,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
];

/// The sockets that a worker makes: of connections, and of datagrams to ask for routes by. None
/// shows or makes packets of others, for which it may have the capability.
const SOCKETS: [(libc::c_int, libc::c_int); 5] = [
    (libc::AF_UNIX, libc::SOCK_STREAM),
    (libc::AF_INET, libc::SOCK_STREAM),
    (libc::AF_INET6, libc::SOCK_STREAM),
    (libc::AF_INET, libc::SOCK_DGRAM),
    (libc::AF_INET6, libc::SOCK_DGRAM),
];

#[cfg(target_arch = "x86_64")]
const LEGACY_WORKER: &[libc::c_long] = &[libc::SYS_poll, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY_WORKER: &[libc::c_long] = &[];

/// What the other threads call besides: rings and threads of their own, files, names, signals.
const PROCESS: &[libc::c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_register,
    // Filters and tables of workers.
    libc::SYS_seccomp,
    libc::SYS_prctl,
    libc::SYS_close_range,
    libc::SYS_sched_setaffinity,
    // Threads.
    libc::SYS_clone,
    // Absent all the same, without a line in the kernel's log.
    libc::SYS_clone3,
    libc::SYS_set_tid_address,
    libc::SYS_get_robust_list,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigpending,
    libc::SYS_signalfd4,
    // Memory. A library that looks up names may be loaded when the first name is looked up.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_msync,
    // Descriptors.
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ioctl,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_flock,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_accept,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    // Files.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    // SQLite gives its log to the owner of its file.
    libc::SYS_fchown,
    libc::SYS_umask,
    // Who and what this process is, and what it may use.
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

#[cfg(target_arch = "x86_64")]
const LEGACY_PROCESS: &[libc::c_long] = &[
    libc::SYS_arch_prctl,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_create,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_chmod,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY_PROCESS: &[libc::c_long] = &[];

/// Commands of bpf(2) on the elements of a map that is open already: look up, update, delete, and
/// go on to the next one (linux/bpf.h). None loads a program or makes a map.
const MAP_ELEMENTS: [u32; 4] = [1, 2, 3, 4];
/// Of an ioctl(2) on a socket: the bytes in its send buffer.
const TIOCOUTQ: u32 = 0x5411;
/// Flags of clone(2) that make a namespace.
const NAMESPACES: [u32; 7] = [
    libc::CLONE_NEWNS.unsigned_abs(),
    libc::CLONE_NEWCGROUP.unsigned_abs(),
    libc::CLONE_NEWUTS.unsigned_abs(),
    libc::CLONE_NEWIPC.unsigned_abs(),
    libc::CLONE_NEWUSER.unsigned_abs(),
    libc::CLONE_NEWPID.unsigned_abs(),
    libc::CLONE_NEWNET.unsigned_abs(),
];
const EXECUTE: u32 = libc::PROT_EXEC.unsigned_abs();
const ABORT: u32 = libc::SIGABRT.unsigned_abs();
