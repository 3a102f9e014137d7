//! Files that never answer: FIFOs without another end, in place of every file that is named to the
//! balancer. The control thread goes on.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;

use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, ping};
use crate::watchdog::{eventually, watched};

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// A FIFO that can be opened to write, and is never read.
fn unread(path: &Path) -> File {
    fifo(path);
    let both = OpenOptions::new().read(true).write(true).open(path);
    both.unwrap()
}

fn launch(backend: &Backend, settings: &str) -> Launch {
    let pool = format!("backends: [\"{}\"]", backend.address);
    Launch::with_pool(&pool).settings(settings)
}

/// It answers clients and operators.
fn expect_alive(balancer: &Balancer) {
    assert_eq!(balancer.ask(&["status"])["stage"], "ready");
    ping(&mut balancer.connect(), b"hello");
}

#[test]
fn a_configuration_that_is_a_fifo_is_refused_and_the_next_one_read() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = launch(&backend, "").start();
        let path = balancer.dir().join("config.ron");
        let text = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fifo(&path);
        balancer.process.signal(libc::SIGHUP);
        eventually("it is refused", || {
            balancer
                .log()
                .count("this is a FIFO: expected a regular file")
                > 0
        });
        expect_alive(&balancer);
        fs::remove_file(&path).unwrap();
        fs::write(&path, text).unwrap();
        balancer.words(&["reload"]);
        expect_alive(&balancer);
        balancer.finish();
    });
}

#[test]
fn a_fifo_without_a_reader_is_no_access_log() {
    watched(|| {
        let backend = Backend::echo();
        let launch = launch(&backend, "access_log: \"log\"");
        fifo(&launch.dir().join("log"));
        let (status, said) = launch.run();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("no process reads this FIFO"), "{said}");
    });
}

#[test]
fn a_rotated_access_log_is_opened_once_it_has_a_reader_again() {
    watched(|| {
        let backend = Backend::echo();
        let launch = launch(&backend, "access_log: \"log\"");
        let path = launch.dir().join("log");
        let reader = unread(&path);
        let balancer = launch.start();
        drop(reader);
        balancer.process.signal(libc::SIGHUP);
        eventually("it is told", || {
            balancer.log().count("cannot open the access log") == 1
        });
        expect_alive(&balancer);
        let reader = OpenOptions::new().read(true).write(true).open(&path);
        eventually("it is open", || balancer.log().count("is open again") == 1);
        expect_alive(&balancer);
        balancer.finish();
        drop(reader);
    });
}

#[test]
fn unread_logs_stop_nothing() {
    watched(|| {
        let backend = Backend::echo();
        let settings = "histogram_log: \"hlog\", admin: (audit_log: \"audit\")";
        let launch = launch(&backend, settings);
        let unread = ["hlog", "audit"].map(|name| unread(&launch.dir().join(name)));
        let balancer = launch.start();
        for limit in 0..200 {
            balancer.process.signal(libc::SIGUSR1);
            if limit % 20 == 0 {
                balancer.words(&["reload"]);
            }
        }
        expect_alive(&balancer);
        balancer.process.signal(libc::SIGTERM);
        drop(balancer);
        drop(unread);
    });
}
