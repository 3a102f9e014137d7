//! What the process gives up at its start.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::slice::from_ref;

use crate::balancer::Launch;
use crate::peers::{Backend, exchange_all};
use crate::watchdog::{eventually, watched};

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
                let beyond = status.mask(set) & !NET_ADMIN;
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
        assert!(its["capabilities"].as_array().unwrap().len() <= 1, "{its}");
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

/// An address of this test alone, as low ports are few.
fn own_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f80_0000 | (std::process::id() << 3 | number) & 0x7f_ffff)
}

/// These tests become another user. Without root there is nothing to become.
fn is_root() -> bool {
    mahoraga::sys::user_id() == 0
}

#[test]
fn root_becomes_another_user_and_still_listens_on_low_ports() {
    if !is_root() {
        return;
    }
    watched(|| {
        let backend = Backend::echo();
        let at = own_address(0);
        let file = |listeners: &str| {
            format!(
                "(workers: 1, user: \"daemon\", admin: \"a.sock\", listeners: [{listeners}], \
                 pools: [(name: \"default\", backends: [\"{}\"])])",
                backend.address
            )
        };
        let first = format!("(bind: \"{at}:81\", pool: \"default\")");
        let launch = Launch::with_config(&file(&first), 1);
        chown(launch.dir(), Some(DAEMON), Some(DAEMON)).unwrap();
        let balancer = launch.start();
        exchange_all(balancer.address());
        for status in balancer.process.all_threads() {
            assert_eq!(status.value("Uid"), "1\t1\t1\t1", "{status:?}");
            assert_eq!(status.value("Gid"), "1\t1\t1\t1", "{status:?}");
            assert_eq!(status.value("Groups"), "1", "{status:?}");
            assert_eq!(status.mask("CapPrm") & !NET_ADMIN, 0, "{status:?}");
        }
        let its = &balancer.ask(&["status", "--admin", "a.sock"])["privileges"];
        assert_eq!(its["user"], "daemon");
        // The helper is another process, with that privilege alone.
        let helper = balancer.process.children();
        let [helper] = &helper[..] else {
            panic!("expected one helper: {helper:?}");
        };
        assert_eq!(helper.status("Name"), "mahoraga-helper");
        assert_eq!(helper.status("Uid"), "1\t1\t1\t1");
        let has = u64::from_str_radix(&helper.status("CapEff"), 16).unwrap();
        assert_eq!(has, NET_BIND_SERVICE);
        // A reload listens on another one.
        let second = format!("{first}, (bind: \"{at}:82\", pool: \"default\")");
        fs::write(balancer.dir().join("config.ron"), file(&second)).unwrap();
        balancer.words(&["reload", "--admin", "a.sock"]);
        exchange_all((at, 82).into());
        fs::write(balancer.dir().join("config.ron"), file(&first)).unwrap();
        balancer.words(&["reload", "--admin", "a.sock"]);
        let helper = *helper;
        balancer.finish();
        eventually("the helper's end", || !helper.exists());
    });
}

#[test]
fn without_a_file_to_read_again_the_helper_ends_after_the_start() {
    if !is_root() {
        return;
    }
    watched(|| {
        let backend = Backend::echo();
        let from = format!("{}:83", own_address(1));
        let balancer = Launch::between(&from, from_ref(&backend.address)).start();
        exchange_all(balancer.address());
        eventually("no helper", || balancer.process.children().is_empty());
        for status in balancer.process.all_threads() {
            assert_eq!(status.mask("CapEff") & !NET_ADMIN, 0, "{status:?}");
        }
        balancer.finish();
    });
}

#[test]
fn a_start_names_each_file_that_its_user_could_not_open_again() {
    if !is_root() {
        return;
    }
    watched(|| {
        let file = "(user: \"daemon\", access_log: \"logs/access.log\", \
                    admin: (socket: \"run/a.sock\", \
                    audit_log: \"logs/audit.log\", http: (bind: \"127.0.0.1:0\", \
                    read_token: \"read.token\")), \
                    bans: (file: \"run/bans\"), \
                    access_lists: [(name: \"feed\", file: \"feed.txt\", others: \"allow\")], \
                    listeners: [(bind: \"127.0.0.1:0\", pool: \"web\", access_list: \"feed\")], \
                    pools: [(name: \"web\", discover: (file: \"backends.txt\"))])";
        let launch = Launch::with_config(file, 1);
        let dir = launch.dir().to_owned();
        for name in ["logs", "run"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        for name in ["config.ron", "read.token", "feed.txt", "backends.txt"] {
            fs::write(dir.join(name), "a-token-of-some-length-1234567890\n").unwrap();
            let secret = fs::Permissions::from_mode(0o600);
            fs::set_permissions(dir.join(name), secret).unwrap();
        }
        let (status, log) = launch.run();
        assert_eq!(status.code(), Some(2), "{log}");
        for name in [
            "config.ron",
            "logs/access.log",
            "logs/audit.log",
            "run/a.sock",
            "run/bans",
            "read.token",
            "feed.txt",
            "backends.txt",
        ] {
            let named = log
                .lines()
                .any(|line| line.starts_with("error: ") && line.contains(name));
            assert!(named, "{name}: {log}");
        }
    });
}

#[test]
fn a_user_that_does_not_exist_is_a_mistake() {
    if !is_root() {
        return;
    }
    watched(|| {
        let launch = Launch::with_pool("backends: [\"127.0.0.1:1\"]");
        let (status, log) = launch.settings("user: \"no-such-user\"").run();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains("invalid user `no-such-user`"), "{log}");
    });
}

/// A user that every Debian has, without files of its own.
const DAEMON: u32 = 1;
/// CAP_NET_BIND_SERVICE of linux/capability.h, as a bit of a set.
const NET_BIND_SERVICE: u64 = 1 << 10;
/// CAP_NET_ADMIN, the same.
const NET_ADMIN: u64 = 1 << 12;
