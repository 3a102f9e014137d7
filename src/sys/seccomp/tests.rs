//! What the filters let through, and what they do not, each in a process of its own.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::{env, thread};

use socket2::{Domain, Type};

use super::*;
use crate::sys::drop_privileges;

/// Runs a test of this file again in a process of its own, whose variable names a call. Returns the
/// signal that ends it, or its exit code.
fn outcome(test: &str, call: &str) -> Result<i32, Option<i32>> {
    let mut command = Command::new(env::current_exe().unwrap());
    let test = format!("sys::seccomp::tests::{test}");
    command.args(["--exact", &test, "--nocapture"]);
    let status = command.env(CALL, call).output().unwrap().status;
    status.signal().ok_or_else(|| status.code())
}

/// In the process of [`outcome`]: confines a thread and makes the call there.
fn is_asked(confine: fn() -> io::Result<()>) -> bool {
    let Ok(call) = env::var(CALL) else {
        return false;
    };
    settle_allocator();
    // From here on threads keep far more memory before they shrink.
    drop(std::hint::black_box(vec![1_u8; 24 << 20]));
    let calls = thread::spawn(move || {
        drop_privileges(None, &[]).unwrap();
        confine().unwrap();
        match &*call {
            "open" | "execve" => misbehave(&call),
            "datagram" => drop(std::net::UdpSocket::bind("[::1]:0")),
            "raw" => drop(socket2::Socket::new(Domain::IPV4, Type::RAW, None)),
            "packet" => drop(socket2::Socket::new(Domain::PACKET, Type::DGRAM, None)),
            "socket" => drop(std::net::TcpListener::bind("127.0.0.1:0")),
            "unlisted" => {
                // SAFETY: no memory is handed over.
                let answer = unsafe { libc::syscall(libc::SYS_getpriority, 0, 0) };
                let error = io::Error::last_os_error();
                let errno = error.raw_os_error();
                assert!(answer == -1 && errno == Some(libc::ENOSYS), "{error}");
            }
            "namespace" => {
                let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
                // SAFETY: no memory is handed over.
                if unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } == 0 {
                    // SAFETY: the child was made, and ends at once.
                    unsafe { libc::_exit(0) };
                }
            }
            "thread" => thread::spawn(|| {}).join().unwrap(),
            "memory" => {
                for kilobytes in [1, 60, 200, 4_000] {
                    let blocks: Vec<Vec<u8>> = (0..64).map(|_| vec![1; kilobytes << 10]).collect();
                    drop(std::hint::black_box(blocks));
                }
            }
            other => panic!("no such call: {other}"),
        }
    });
    // The other threads of this process are the test's.
    calls.join().unwrap();
    true
}

#[test]
fn a_worker_that_opens_or_executes_a_file_dies_at_once() {
    if is_asked(confine_worker) {
        return;
    }
    let test = "a_worker_that_opens_or_executes_a_file_dies_at_once";
    for call in ["open", "execve", "unlisted", "raw", "packet"] {
        assert_eq!(outcome(test, call), Ok(libc::SIGSYS), "{call}");
    }
    for call in ["memory", "datagram", "socket"] {
        assert_eq!(outcome(test, call), Err(Some(0)), "{call}");
    }
}

#[test]
fn other_threads_open_files_and_execute_none() {
    if is_asked(confine_process) {
        return;
    }
    let test = "other_threads_open_files_and_execute_none";
    for call in ["open", "socket", "memory", "thread", "unlisted"] {
        assert_eq!(outcome(test, call), Err(Some(0)), "{call}");
    }
    for call in ["execve", "namespace"] {
        assert_eq!(outcome(test, call), Ok(libc::SIGSYS), "{call}");
    }
}

/// The profile for containers lets through what the filters do.
#[test]
fn the_profile_for_containers_has_every_call() {
    let profile = include_str!("../../../scripts/seccomp.json");
    let profile: serde_json::Value = serde_json::from_str(profile).unwrap();
    let groups = profile["syscalls"].as_array().unwrap().iter();
    let names = groups.flat_map(|group| group["names"].as_array().unwrap());
    let names: HashSet<_> = names.filter_map(serde_json::Value::as_str).collect();
    let (_, allowed) = include_str!("calls.rs").split_once("fn worker()").unwrap();
    let calls: HashSet<_> = allowed
        .split("libc::SYS_")
        .skip(1)
        .filter_map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
        })
        .collect();
    assert!(calls.len() > 100, "{calls:?}");
    let missing: Vec<_> = calls.difference(&names).collect();
    assert!(
        missing.is_empty(),
        "not in scripts/seccomp.json: {missing:?}"
    );
}

/// The variable of [`outcome`].
const CALL: &str = "MAHORAGA_TEST_SECCOMP";
