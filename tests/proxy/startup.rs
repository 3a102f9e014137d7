//! Where the program starts, and its error where it cannot.

use std::io;
use std::os::unix::fs::PermissionsExt;

use crate::balancer::Launch;
use crate::peers::{self, Backend, ping};
use crate::watchdog::watched;

/// The child may not make a ring: io_uring_setup(2) fails with this error, as under a container's
/// seccomp profile (seccomp(2)).
#[expect(unsafe_code, reason = "neither std nor socket2 has prctl")]
fn forbid_io_uring(errno: i32) -> io::Result<()> {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap_or(0);
    let errno = u32::try_from(errno).unwrap_or(0);
    let mut filter = [
        // The number of the system call is the first word of seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup, 0, 1),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | errno,
            0,
            0,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: no memory is handed over.
    let alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: `program` and its `filter` are read during the call only.
    let filtered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    match (alone, filtered) {
        (0, 0) => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn without_io_uring(errno: i32) -> String {
    let launch = Launch::to(&[peers::refusing_address()]);
    let (status, log) = launch.before_exec(move || forbid_io_uring(errno)).run();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(!log.contains("panic"), "{log}");
    log
}

#[test]
fn forbidden_io_uring_is_named_with_the_way_out() {
    watched(|| {
        let log = without_io_uring(libc::EPERM);
        for word in ["io_uring", "not permitted", "seccomp", "allow"] {
            assert!(log.contains(word), "{word} in {log}");
        }
    });
}

#[test]
fn absent_io_uring_is_named_with_the_way_out() {
    watched(|| {
        let log = without_io_uring(libc::ENOSYS);
        for word in ["io_uring", "not available", "CONFIG_IO_URING", "seccomp"] {
            assert!(log.contains(word), "{word} in {log}");
        }
    });
}

#[test]
fn an_address_in_use_is_named() {
    watched(|| {
        let (_held, address) = peers::listen();
        let (status, log) = Launch::between(&address, &[peers::refusing_address()]).run();
        assert_eq!(status.code(), Some(1), "{log}");
        let message = format!("on {address}: the address is in use: another process listens on it");
        assert!(log.contains(&message), "{log}");
    });
}

/// The kernel closes the files of a killed process's rings some time after it is gone.
#[test]
fn a_start_right_after_sigkill_gets_the_same_addresses() {
    watched(|| {
        let backend = Backend::echo();
        let (tcp, http) = (peers::free(), peers::free());
        let dir = std::env::temp_dir().join(format!("mahoraga-again-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let token = dir.join("token");
        std::fs::write(&token, "a-token-of-this-test").unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "(workers: 2, access_log: \"off\",
              admin: (socket: \"{0}/admin.sock\",
                      http: (bind: \"{http}\", read_token: \"{0}/token\")),
              listeners: [(bind: \"{tcp}\", pool: \"a\"),
                          (bind: \"unix:{0}/front.sock\", pool: \"a\")],
              pools: [(name: \"a\", backends: [\"{1}\"])])",
            dir.display(),
            backend.address
        );
        for _ in 0..5 {
            let balancer = Launch::with_config(&config, 2).workers(2).start();
            ping(&mut balancer.connect(), b"hello");
            // Dropped, it is killed.
        }
        let balancer = Launch::with_config(&config, 2).workers(2).start();
        let (status, log) = Launch::with_config(&config, 2).run();
        assert_eq!(status.code(), Some(1), "{log}");
        let message = format!(
            "another balancer (pid {}) uses this socket",
            balancer.process.0
        );
        assert!(log.contains(&message), "{log}");
        ping(&mut balancer.connect(), b"hello");
        balancer.finish();
        let left: Vec<_> = std::fs::read_dir(&dir).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        std::fs::remove_dir_all(dir).unwrap();
    });
}

#[test]
fn without_its_default_socket_a_balancer_serves() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        std::fs::write(launch.dir().join("mahoraga.sock"), "mine").unwrap();
        let balancer = launch.start();
        ping(&mut balancer.connect(), b"hello");
        let warning = "no admin API: mahoraga.sock: address in use: another file is there";
        assert_eq!(balancer.log().count(warning), 1, "{}", balancer.log().all());
        let left = std::fs::read_to_string(balancer.dir().join("mahoraga.sock"));
        assert_eq!(left.unwrap(), "mine");
        balancer.finish();
    });
}

/// As under `taskset -c`.
#[expect(unsafe_code, reason = "neither std nor socket2 sets affinity")]
fn run_on(cpu: usize) -> io::Result<()> {
    // SAFETY: a `cpu_set_t` is a bit mask: zeroes are an empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the CPUs of any machine lie within the mask.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is read during the call only.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn a_worker_runs_on_the_cpu_that_it_is_given() {
    watched(|| {
        let backend = Backend::echo();
        let last = mahoraga::sys::allowed_cpus().pop().unwrap();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let balancer = launch.before_exec(move || run_on(last)).start();
        let allowed = |thread| balancer.process.thread_status(thread, "Cpus_allowed_list");
        assert_eq!(allowed("worker-0"), last.to_string());
        ping(&mut balancer.connect(), b"hello");
        balancer.finish();
    });
}

#[test]
fn two_workers_have_a_cpu_each() {
    watched(|| {
        let cpus = mahoraga::sys::allowed_cpus();
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let balancer = launch.workers(2).start();
        for (worker, cpu) in ["worker-0", "worker-1"]
            .into_iter()
            .zip(cpus.iter().cycle())
        {
            let allowed = balancer.process.thread_status(worker, "Cpus_allowed_list");
            assert_eq!(allowed, cpu.to_string());
        }
        balancer.finish();
    });
}
