//! What the process gives up at its start.

use std::collections::HashMap;
use std::env::consts::ARCH;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::slice::from_ref;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::balancer::Launch;
use crate::peers::{Backend, exchange_all};
use crate::process::Process;
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
            // Only who may give up capabilities for later programs can empty the bounding set.
            let bounding = can_set_capabilities().then_some("CapBnd");
            for set in ["CapPrm", "CapEff"].into_iter().chain(bounding) {
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
        let own = Process(std::process::id());
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

/// Whether this process, and the balancer that it starts, has CAP_SETPCAP.
fn can_set_capabilities() -> bool {
    let own = Process(std::process::id()).status("CapEff");
    u64::from_str_radix(&own, 16).unwrap() & SETPCAP != 0
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
fn without_the_helper_a_reload_listens_on_no_other_low_port() {
    let free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if !is_root() || free.trim().parse::<u16>().unwrap() < 1024 {
        return;
    }
    watched(|| {
        let backend = Backend::echo();
        let at = own_address(2);
        let file = |ports: &[u16]| {
            let listeners = ports
                .iter()
                .map(|port| format!("(bind: \"{at}:{port}\", pool: \"default\"),"));
            format!(
                "(workers: 1, user: \"root\", admin: \"a.sock\", listeners: [{}], \
                 pools: [(name: \"default\", backends: [\"{}\"])])",
                listeners.collect::<String>(),
                backend.address
            )
        };
        let balancer = Launch::with_config(&file(&[84]), 1)
            .switch("--no-helper")
            .start();
        exchange_all(balancer.address());
        eventually("no helper", || balancer.process.children().is_empty());
        fs::write(balancer.dir().join("config.ron"), file(&[84, 85])).unwrap();
        let (code, why) = balancer.refusal(&["reload", "--admin", "a.sock"]);
        let remedy = "restart the balancer: with --no-helper only a start can listen";
        assert!(code.is_some() && why.contains(remedy), "{why}");
        exchange_all(balancer.address());
        balancer.finish();
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
                    bans: (file: \"run/bans\", import: \"bans.txt\"), \
                    access_lists: [(name: \"feed\", file: \"feed.txt\", others: \"allow\")], \
                    listeners: [(bind: \"127.0.0.1:0\", pool: \"web\", access_list: \"feed\")], \
                    pools: [(name: \"web\", discover: (file: \"backends.txt\"))])";
        let launch = Launch::with_config(file, 1);
        let dir = launch.dir().to_owned();
        for name in ["logs", "run"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let files = [
            "config.ron",
            "read.token",
            "feed.txt",
            "backends.txt",
            "bans.txt",
        ];
        for name in files {
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
            "bans.txt",
            "read.token",
            "feed.txt",
            "backends.txt",
        ] {
            let named = log
                .lines()
                .any(|line| line.starts_with("error: ") && line.contains(name));
            assert!(named, "{name}: {log}");
        }
        // It is opened at SIGUSR1 only: the balancer works without it.
        let warned = log.contains("can't write the histogram log, `mahoraga.hlog`, at SIGUSR1");
        assert!(warned, "{log}");
    });
}

/// It would serve, and no command could reach it until its next start.
#[test]
fn a_start_without_a_place_for_the_default_admin_socket_is_refused() {
    if !is_root() {
        return;
    }
    watched(|| {
        let launch = Launch::with_pool("backends: [\"127.0.0.1:1\"]");
        let launch = launch.settings("user: \"daemon\"");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(launch.dir(), open).unwrap();
        let (status, log) = launch.run();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(
            log.contains("allow user `daemon` to write to its directory"),
            "{log}"
        );
        assert!(log.contains("admin: \"off\""), "{log}");
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

/// The profile has other names than numbers: those of this machine, from the headers of its kernel.
/// `None`: they are not installed.
fn profile_for_containers() -> Option<BpfProgram> {
    let headers = format!("/usr/include/{ARCH}-linux-gnu/asm/unistd_64.h");
    let headers = fs::read_to_string(headers).ok()?;
    let numbers = headers.lines().filter_map(|line| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name, number.trim().parse::<i64>().ok()?))
    });
    let numbers: HashMap<_, _> = numbers.collect();
    let profile = include_str!("../../scripts/seccomp.json");
    let profile: serde_json::Value = serde_json::from_str(profile).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let others = profile["defaultErrnoRet"].as_u64().unwrap();
    let mut calls = Vec::new();
    for group in profile["syscalls"].as_array().unwrap() {
        assert_eq!(group["action"], "SCMP_ACT_ALLOW");
        let names = group["names"].as_array().unwrap().iter();
        // Some are of other machines, or younger than the headers.
        let known = names.filter_map(|name| numbers.get(name.as_str()?));
        calls.extend(known.map(|number| (*number, Vec::new())));
    }
    assert!(calls.len() > 150, "{}", calls.len());
    let others = SeccompAction::Errno(others.try_into().unwrap());
    let machine = TargetArch::try_from(ARCH).unwrap();
    let filter = SeccompFilter::new(
        calls.into_iter().collect(),
        others,
        SeccompAction::Allow,
        machine,
    );
    Some(filter.unwrap().try_into().unwrap())
}

/// As a container runtime does it: the filter is there before the program.
#[test]
fn it_starts_serves_and_stops_under_the_profile_for_containers() {
    watched(|| {
        let Some(filter) = profile_for_containers() else {
            eprintln!("skipped: install linux-libc-dev, which numbers the system calls");
            return;
        };
        let backend = Backend::echo();
        let (user, port) = match is_root() {
            true => ("user: \"daemon\",", 86),
            false => ("", 0),
        };
        let file = format!(
            "(workers: 2, {user} admin: \"a.sock\", access_log: \"access.log\", \
             bans: (file: \"bans\"), \
             listeners: [(bind: \"{}:{port}\", pool: \"default\")], \
             pools: [(name: \"default\", backends: [\"{}\"], \
             check: (type: \"tcp\", interval: \"100ms\"))])",
            own_address(3),
            backend.address
        );
        let launch = Launch::with_config(&file, 1).workers(2);
        if is_root() {
            chown(launch.dir(), Some(DAEMON), Some(DAEMON)).unwrap();
        }
        let apply = move || apply_filter(&filter).map_err(std::io::Error::other);
        let balancer = launch.before_exec(apply).start();
        exchange_all(balancer.address());
        // Those of the profile, of the process, and of the worker.
        let filters = balancer
            .process
            .thread_status("worker-0", "Seccomp_filters");
        assert_eq!(filters, "5");
        balancer.words(&["ban", "127.200.0.0/16", "--admin", "a.sock"]);
        balancer.words(&["reload", "--admin", "a.sock"]);
        let its = &balancer.ask(&["status", "--admin", "a.sock"])["privileges"];
        assert_eq!(its["calls_filtered"], true, "{its}");
        eventually("the ban is kept", || balancer.dir().join("bans").exists());
        balancer.finish();
    });
}

/// A user that every Debian has, without files of its own.
const DAEMON: u32 = 1;
/// CAP_NET_BIND_SERVICE of linux/capability.h, as a bit of a set.
const NET_BIND_SERVICE: u64 = 1 << 10;
/// CAP_SETPCAP, the same.
const SETPCAP: u64 = 1 << 8;
/// CAP_NET_ADMIN, the same.
const NET_ADMIN: u64 = 1 << 12;
