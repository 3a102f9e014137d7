//! The service manager: the notifications to it, and the socket that it hands in.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::{env, fs, io};

use crate::peers::Backend;
use crate::process::Process;
use crate::watchdog::{patience, watched};

/// Kills the process when the test ends, also by a panic.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already if the test passed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_manager_is_notified_and_its_socket_is_used() {
    watched(|| {
        let dir = env::temp_dir().join(format!("mahoraga-systemd-{}", std::process::id()));
        fs::create_dir_all(dir.join("run")).unwrap();
        let notices = UnixDatagram::bind(dir.join("notify")).unwrap();
        notices.set_read_timeout(Some(patience())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = listener.local_addr().unwrap();
        let backend = Backend::echo();
        let write = |bind: &str| {
            let config = format!(
                "(access_log: (to: \"off\"),
                  listeners: [(name: \"web\", bind: \"{bind}\", pool: \"p\")],
                  pools: [(name: \"p\", check: (type: \"tcp\", interval: \"200ms\"),
                           backends: [\"{}\"])])",
                backend.address
            );
            fs::write(dir.join("config.ron"), config).unwrap();
        };
        write(&bind.to_string());
        let mut service = start(&dir, &listener);
        // The manager keeps listening: no client is refused while the service is started again.
        let notified = |word: &str| loop {
            let mut text = [0; 1_024];
            let length = notices.recv(&mut text).unwrap();
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            if text.contains(word) {
                return text;
            }
        };
        notified("READY=1");
        notified("WATCHDOG=1");
        // The file names no admin socket: it is at the manager's path for it.
        assert!(dir.join("run/mahoraga.sock").exists());
        let mut client = TcpStream::connect(bind).unwrap();
        client.write_all(b"through").unwrap();
        client.read_exact(&mut [0; 7]).unwrap();
        let process = Process(service.0.id());
        process.signal(libc::SIGHUP);
        assert!(notified("RELOADING=1").contains("MONOTONIC_USEC="));
        notified("READY=1");
        // No other process can listen there while the manager does: the socket waits for its
        // return.
        for bind in ["127.0.0.1:0", &bind.to_string()] {
            write(bind);
            process.signal(libc::SIGHUP);
            notified("RELOADING=1");
            notified("READY=1");
        }
        let mut again = TcpStream::connect(bind).unwrap();
        again.write_all(b"through").unwrap();
        again.read_exact(&mut [0; 7]).unwrap();
        drop(again);
        process.signal(libc::SIGTERM);
        notified("STOPPING=1");
        drop(client);
        assert!(service.0.wait().unwrap().success());
        let log = fs::read_to_string(dir.join("log")).unwrap();
        assert!(
            log.contains("listener `web` uses the passed socket `web`"),
            "{log}"
        );
        fs::remove_dir_all(dir).unwrap();
    });
}

/// As systemd starts a service: the socket is descriptor 3, and the environment names this process.
#[expect(unsafe_code, reason = "between fork and exec little is allowed")]
fn start(dir: &std::path::Path, listener: &TcpListener) -> Service {
    let program = env!("CARGO_BIN_EXE_mahoraga");
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("LISTEN_PID=$$ exec {program} run")])
        .current_dir(dir)
        .env_remove("MAHORAGA_LOG")
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("RUNTIME_DIRECTORY", dir.join("run"))
        .env("WATCHDOG_USEC", "400000")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "web")
        .stdin(Stdio::null())
        .stderr(fs::File::create(dir.join("log")).unwrap());
    let socket = listener.as_raw_fd();
    let hand_over = move || {
        // SAFETY: no memory is handed over; the child has descriptor 3 to itself.
        match unsafe { libc::dup2(socket, 3) } {
            3 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: it makes a plain system call only, and allocates nothing.
    unsafe { command.pre_exec(hand_over) };
    Service(command.spawn().unwrap())
}
