//! The test plays the manager. The manager's requests are in the process's environment, so each
//! test runs itself again as a child: a test of the name `child`, with its task in `CHILD`.

use std::env;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::config::Listener;

fn listener(name: &str, bind: &str) -> Listener {
    Listener {
        name: name.to_owned(),
        ..Listener::at(bind.parse().unwrap(), 0)
    }
}

fn handed(name: &str, address: Option<&str>) -> Handed {
    Handed {
        name: name.to_owned(),
        address: address.map(|address| address.parse().unwrap()),
    }
}

#[test]
fn addresses_come_before_names() {
    let listeners = [
        listener("web", "0.0.0.0:80"),
        listener("web6", "[::]:80"),
        listener("db", "unix:/run/db"),
    ];
    let all = [
        handed("web", Some("[::]:80")),
        handed("web", Some("0.0.0.0:80")),
        handed("unknown", Some("unix:/run/db")),
    ];
    assert_eq!(assign(&listeners, &all), [Some(1), Some(0), Some(2)]);
    let others = [
        handed("db", None),
        handed("web", Some("127.0.0.1:8080")),
        handed("web", Some("127.0.0.1:8081")),
        handed("unknown", Some("127.0.0.1:80")),
    ];
    assert_eq!(assign(&listeners, &others), [Some(2), Some(0), None, None]);
}

/// The task of a child; in a run of all tests there is none.
#[test]
fn child() {
    match env::var("CHILD").as_deref() {
        Ok("tell") => {
            ready("all is well");
            reloading();
            alive();
            stopping("bye");
            assert_eq!(watchdog_period(), Some(Duration::from_millis(1_500)));
        }
        Ok("alone") => {
            ready("nobody hears this");
            assert_eq!(watchdog_period(), None);
            assert_eq!(activated(&[]).unwrap().by_listener.len(), 0);
        }
        Ok("listen") => {
            let bind = env::var("BIND").unwrap();
            let listeners = [
                listener("elsewhere", "127.0.0.1:1"),
                listener("by-address", &bind),
                listener("by-name", "unix:/nowhere"),
            ];
            let found = activated(&listeners).unwrap();
            let places: Vec<_> = found.by_listener.keys().copied().collect();
            assert_eq!(places, [1, 2]);
            // The third socket has no user: it is closed.
            assert!(File::open("/proc/self/fd/5").is_err());
            for gone in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
                assert!(env::var_os(gone).is_none(), "{gone}");
            }
            let socket = TcpListener::from(found.by_listener.into_values().next().unwrap());
            assert_eq!(socket.local_addr().unwrap().to_string(), bind);
            socket.accept().unwrap();
        }
        _ => {}
    }
}

/// This program again, with [`child`] alone.
fn arguments() -> Vec<String> {
    let test = module_path!().split_once("::").unwrap().1;
    let program = env::current_exe().unwrap().display().to_string();
    let exact = ["--exact", "--test-threads=1"].map(str::to_owned);
    let mut arguments = vec![program, format!("{test}::child")];
    arguments.extend(exact);
    arguments
}

fn command(what: &str) -> Command {
    let mut arguments = arguments().into_iter();
    let mut command = Command::new(arguments.next().unwrap());
    command
        .args(arguments)
        .env("CHILD", what)
        .stdin(Stdio::null());
    command
}

fn directory(test: &str) -> PathBuf {
    let directory = env::temp_dir().join(format!("mahoraga-{test}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

#[test]
fn the_manager_is_notified() {
    let directory = directory("notify");
    let path = directory.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut child = command("tell");
    child
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "3000000");
    let output = child.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut bytes = [0; 256];
    let mut reported = || {
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    assert_eq!(reported(), "READY=1\nSTATUS=all is well\n");
    let reloading = reported();
    let since = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .unwrap();
    assert!(since.trim().parse::<u64>().unwrap() > 0, "{reloading}");
    assert_eq!(reported(), "WATCHDOG=1\n");
    assert_eq!(reported(), "STOPPING=1\nSTATUS=bye\n");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn without_a_manager_nothing_happens() {
    let mut child = command("alone");
    for of_a_manager in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID"] {
        child.env_remove(of_a_manager);
    }
    // The variables name another process: they are ignored.
    child.env("LISTEN_PID", "1").env("LISTEN_FDS", "2");
    let output = child.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn sockets_are_handed_in() {
    let directory = directory("activation");
    let by_address = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = by_address.local_addr().unwrap();
    let by_name = UnixListener::bind(directory.join("socket")).unwrap();
    let no_listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Moves descriptors from where std can put them to where the manager would.
    let script = "exec 3<&0 4<&1 5<&2 0</dev/null 1>\"$OUT\" 2>&1; LISTEN_PID=$$ exec \"$@\"";
    let out = directory.join("out");
    let mut child = Command::new("sh");
    child.args(["-c", script, "sh"]).args(arguments());
    child.env("CHILD", "listen");
    child.env("BIND", address.to_string()).env("OUT", &out);
    child
        .env("LISTEN_FDS", "3")
        .env("LISTEN_FDNAMES", "unknown:by-name:junk");
    child.stdin(OwnedFd::from(by_address));
    child.stdout(OwnedFd::from(by_name));
    child.stderr(OwnedFd::from(no_listener));
    let client = std::net::TcpStream::connect(address).unwrap();
    let status = child.status().unwrap();
    let message = std::fs::read_to_string(&out).unwrap();
    assert!(status.success(), "{message}");
    drop(client);
    std::fs::remove_dir_all(&directory).unwrap();
}
