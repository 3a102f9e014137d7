//! What the process gives up at its start.

use std::os::unix::process::ExitStatusExt;
use std::slice::from_ref;

use crate::balancer::Launch;
use crate::peers::{Backend, exchange_all};
use crate::watchdog::watched;

#[test]
fn no_thread_keeps_a_capability_that_it_has_no_use_for() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(from_ref(&backend.address)).workers(2);
        let balancer = launch.flag("--admin", "a.sock").start();
        exchange_all(balancer.address());
        let threads = balancer.process.all_threads();
        assert!(threads.len() > 3, "{threads:?}");
        for status in &threads {
            for set in ["CapInh", "CapAmb"] {
                assert_eq!(status.mask(set), 0, "{status:?}");
            }
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                let beyond = status.mask(set) & !(NET_BIND_SERVICE | NET_ADMIN);
                assert_eq!(beyond, 0, "{set} of {status:?}");
            }
            assert_eq!(status.value("NoNewPrivs"), "1", "{status:?}");
            assert_eq!(status.value("Seccomp"), "2", "{status:?}");
        }
        let filters = |thread: &str| -> u32 {
            let filters = balancer.process.thread_status(thread, "Seccomp_filters");
            filters.parse().unwrap()
        };
        for worker in ["worker-0", "worker-1"] {
            assert_eq!(filters(worker), filters("mahoraga") + 1);
        }
        let its = &balancer.ask(&["status", "--admin", "a.sock"])["privileges"];
        assert_eq!(
            (&its["no_new_privs"], &its["calls_filtered"]),
            (&true.into(), &true.into())
        );
        assert!(its["capabilities"].as_array().unwrap().len() <= 2, "{its}");
        balancer.finish();
    });
}

#[test]
fn without_the_sandbox_it_keeps_what_its_user_has() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(from_ref(&backend.address)).switch("--no-sandbox");
        let balancer = launch.flag("--admin", "a.sock").start();
        exchange_all(balancer.address());
        let own = crate::process::Process(std::process::id());
        for set in ["CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"] {
            assert_eq!(balancer.process.status(set), own.status(set), "{set}");
        }
        balancer.finish();
    });
}

/// A call that only foreign code makes in a worker ends the process before it is done.
#[test]
fn a_worker_that_opens_or_executes_a_file_ends_the_process() {
    watched(|| {
        for call in ["open", "execve"] {
            let launch = Launch::to(&["127.0.0.1:1".to_owned()]);
            let (status, log) = launch.variable("MAHORAGA_TEST_MISBEHAVE", call).run();
            assert_eq!(
                status.signal(),
                Some(libc::SIGSYS),
                "{call}: {status:?} {log}"
            );
        }
    });
}

/// A trace opens files, and the filter would kill before the message is written.
#[test]
fn a_worker_that_panics_says_so_and_aborts() {
    watched(|| {
        let launch = Launch::to(&["127.0.0.1:1".to_owned()]);
        let launch = launch.variable("MAHORAGA_TEST_MISBEHAVE", "panic");
        let (status, log) = launch.variable("RUST_BACKTRACE", "1").run();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{log}");
        assert!(
            log.contains("panicked at") && log.contains("no backtrace"),
            "{log}"
        );
    });
}

/// CAP_NET_BIND_SERVICE of linux/capability.h, as a bit of a set.
const NET_BIND_SERVICE: u64 = 1 << 10;
/// CAP_NET_ADMIN, which some kernels demand of those who attach filters to sockets.
const NET_ADMIN: u64 = 1 << 12;
