//! What the process gives up at its start.

use crate::balancer::Launch;
use crate::peers::{Backend, exchange_all};
use crate::watchdog::watched;

#[test]
fn no_thread_keeps_a_capability_that_it_has_no_use_for() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address)).workers(2);
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
        }
        let its = &balancer.ask(&["status", "--admin", "a.sock"])["privileges"];
        assert_eq!(its["no_new_privs"], true);
        assert!(its["capabilities"].as_array().unwrap().len() <= 2, "{its}");
        balancer.finish();
    });
}

#[test]
fn without_the_sandbox_it_keeps_what_its_user_has() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address)).switch("--no-sandbox");
        let balancer = launch.flag("--admin", "a.sock").start();
        exchange_all(balancer.address());
        let own = crate::process::Process(std::process::id());
        for set in ["CapPrm", "CapEff", "CapBnd", "NoNewPrivs"] {
            assert_eq!(balancer.process.status(set), own.status(set), "{set}");
        }
        balancer.finish();
    });
}

/// CAP_NET_BIND_SERVICE of linux/capability.h, as a bit of a set.
const NET_BIND_SERVICE: u64 = 1 << 10;
/// CAP_NET_ADMIN, which some kernels demand of those who attach filters to sockets.
const NET_ADMIN: u64 = 1 << 12;
