//! An operator's work around the program: rotating logs, filling disks, replacing socket files.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::balancer::Launch;
use crate::peers::{Backend, ping};
use crate::watchdog::{eventually, watched};

#[test]
fn a_rotated_log_is_opened_again() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let balancer = launch.flag("--access-log", "access.log").start();
        let (log, old) = (
            balancer.dir().join("access.log"),
            balancer.dir().join("access.log.1"),
        );
        let lines = |path: &std::path::Path| {
            fs::read_to_string(path).map_or(0, |text| text.lines().count())
        };
        ping(&mut balancer.connect(), b"before");
        eventually("a line", || lines(&log) == 1);
        fs::rename(&log, &old).unwrap();
        balancer.process.signal(libc::SIGHUP);
        eventually("the new file", || log.exists());
        // The file exists a moment before lines go to it.
        eventually("a line in the new file", || {
            ping(&mut balancer.connect(), b"after");
            lines(&log) > 0
        });
        balancer.finish();
    });
}

#[test]
fn logs_are_opened_again_without_reading_the_file() {
    watched(|| {
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        let settings = "access_log: (to: \"access.log\"), admin: (audit_log: \"audit.log\")";
        let balancer = Launch::with_pool(&pool).settings(settings).start();
        for name in ["access.log", "audit.log"] {
            let path = balancer.dir().join(name);
            fs::rename(&path, balancer.dir().join(format!("{name}.1"))).unwrap();
        }
        let message = balancer.words(&["reopen"]);
        assert_eq!(message, "opened again: access.log, audit.log\n");
        let lines = |name: &str| {
            fs::read_to_string(balancer.dir().join(name)).map_or(0, |text| text.lines().count())
        };
        eventually("lines in the new files", || {
            balancer.words(&["set", "global", "--max-connections", "100"]);
            ping(&mut balancer.connect(), b"after");
            lines("access.log") > 0 && lines("audit.log") > 0
        });
        assert_eq!(balancer.log().count("reload: "), 0);
        balancer.finish();
    });
}

#[test]
fn a_log_that_cannot_be_opened_again_fails_the_command() {
    watched(|| {
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        let settings = "access_log: (to: \"logs/access.log\"), \
                        admin: (audit_log: \"logs/audit.log\")";
        let launch = Launch::with_pool(&pool).settings(settings);
        let [logs, moved] = ["logs", "moved"].map(|name| launch.dir().join(name));
        fs::create_dir(&logs).unwrap();
        let balancer = launch.start();
        fs::rename(&logs, &moved).unwrap();
        let (code, message) = balancer.refusal(&["reopen"]);
        assert_eq!(code, Some(1));
        for name in ["access.log", "audit.log"] {
            let want = format!("cannot open logs/{name}: No such file or directory");
            assert!(message.contains(&want), "{message}");
        }
        // A signal has no answer: the log has the errors.
        balancer.process.signal(libc::SIGHUP);
        balancer.until_logged("cannot open the access log logs/access.log again");
        balancer.until_logged("cannot open the audit log logs/audit.log again");
        fs::create_dir(&logs).unwrap();
        assert_eq!(
            balancer.words(&["reopen"]),
            "opened again: logs/access.log, logs/audit.log\n"
        );
        assert!(logs.join("access.log").exists() && logs.join("audit.log").exists());
        balancer.finish();
    });
}

#[test]
fn lines_that_a_full_disk_refuses_are_counted_and_seldom_reported() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let balancer = launch.flag("--access-log", "/dev/full").start();
        for _ in 0..100 {
            ping(&mut balancer.connect(), b"hello");
        }
        // While no further session ends.
        eventually("the log counts all lost lines", || {
            balancer.log().all().contains("100 in all")
        });
        assert_eq!(balancer.number("log_unwritten"), 100);
        assert!(balancer.log().count("lines were lost") < 50);
        balancer.finish();
    });
}

#[test]
fn a_socket_file_of_another_process_is_left_alone() {
    watched(|| {
        let launch = Launch::between("unix:front.sock", &["unix:back.sock".to_owned()]);
        let _backend = Backend::unix_echo(&launch.dir().join("back.sock"));
        let mut balancer = launch.start();
        let front = balancer.dir().join("front.sock");
        ping(&mut UnixStream::connect(&front).unwrap(), b"hello");
        fs::remove_file(&front).unwrap();
        let _other = UnixListener::bind(&front).unwrap();
        balancer.process.signal(libc::SIGTERM);
        eventually("its end", || balancer.has_ended());
        assert!(front.exists(), "the other's socket is still there");
    });
}

#[test]
fn removed_socket_files_come_back_at_a_reload() {
    watched(|| {
        let file = "(workers: 1, listeners: [(bind: \"unix:front.sock\", pool: \"main\")], \
                    pools: [(name: \"main\", backends: [\"unix:back.sock\"])])";
        let launch = Launch::with_config(file, 1);
        let _backend = Backend::unix_echo(&launch.dir().join("back.sock"));
        let balancer = launch.start();
        let [front, admin] = ["front.sock", "mahoraga.sock"].map(|name| balancer.dir().join(name));
        let mut before = UnixStream::connect(&front).unwrap();
        ping(&mut before, b"hello");
        let waits = UnixStream::connect(&front);
        fs::remove_file(&front).unwrap();
        assert!(balancer.words(&["reload"]).contains("in force"));
        ping(&mut UnixStream::connect(&front).unwrap(), b"hello");
        ping(&mut waits.unwrap(), b"hello");
        ping(&mut before, b"hello");
        drop(before);
        for path in [&front, &admin] {
            fs::remove_file(path).unwrap();
        }
        balancer.process.signal(libc::SIGHUP);
        eventually("the files are back", || front.exists() && admin.exists());
        assert!(balancer.words(&["reload"]).contains("nothing has changed"));
        ping(&mut UnixStream::connect(&front).unwrap(), b"hello");
        balancer.finish();
        assert!(!front.exists() && !admin.exists(), "the end removes them");
    });
}

#[test]
fn socket_files_come_back_at_sighup_without_a_configuration_file() {
    watched(|| {
        let launch = Launch::between("unix:front.sock", &["unix:back.sock".to_owned()]);
        let _backend = Backend::unix_echo(&launch.dir().join("back.sock"));
        let balancer = launch.start();
        let [front, admin] = ["front.sock", "mahoraga.sock"].map(|name| balancer.dir().join(name));
        for path in [&front, &admin] {
            fs::remove_file(path).unwrap();
        }
        balancer.process.signal(libc::SIGHUP);
        eventually("the files are back", || front.exists() && admin.exists());
        eventually("the API answers there", || {
            UnixStream::connect(&admin).is_ok()
        });
        assert_eq!(balancer.ask(&["status"])["stage"], "ready");
        ping(&mut UnixStream::connect(&front).unwrap(), b"hello");
        assert_eq!(balancer.log().count("reload: the old"), 0);
        balancer.finish();
    });
}
