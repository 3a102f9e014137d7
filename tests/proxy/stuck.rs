//! Files that never answer, and endless input: FIFOs without another end for every file that the
//! balancer opens, long files, and a name server that floods. The control thread goes on.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::api;
use crate::balancer::{Balancer, Launch};
use crate::moved::note_figures_at;
use crate::peers::{Backend, ping};
use crate::process::Process;
use crate::watchdog::{eventually, patience, watched};

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// A FIFO that can be opened to write, and that no process reads.
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
        let (status, message) = launch.run();
        assert_eq!(status.code(), Some(1), "{message}");
        assert!(message.contains("no process reads this FIFO"), "{message}");
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
        eventually("the failure is logged", || {
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
        let settings = "histogram_log: \"hlog\", access_log: (to: \"access\"), \
                        admin: (audit_log: \"audit\")";
        let launch = launch(&backend, settings);
        let names = ["hlog", "access", "audit"];
        let unread = names.map(|name| unread(&launch.dir().join(name)));
        let mut balancer = launch.start();
        for limit in 0..200 {
            balancer.process.signal(libc::SIGUSR1);
            if limit % 20 == 0 {
                balancer.words(&["reload"]);
            }
        }
        expect_alive(&balancer);
        balancer.process.signal(libc::SIGTERM);
        assert_eq!(balancer.wait().code(), Some(0));
        drop(unread);
    });
}

#[test]
fn a_token_and_a_certificate_that_are_fifos_are_refused_and_the_next_ones_read() {
    watched(|| {
        let backend = Backend::echo();
        let token = "admin: (http: (bind: \"127.0.0.1:0\", read_token: \"./token\"))";
        let launch = launch(&backend, token);
        let path = launch.dir().join("token");
        let write = |path: &Path| {
            let _ = fs::remove_file(path);
            fs::write(path, "a-token-of-this-test").unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        };
        write(&path);
        let balancer = launch.start();
        fs::remove_file(&path).unwrap();
        fifo(&path);
        balancer.process.signal(libc::SIGHUP);
        balancer.until_logged("cannot read the token file ./token: this is a FIFO");
        expect_alive(&balancer);
        write(&path);
        balancer.words(&["reload"]);

        fifo(&balancer.dir().join("ca.pem"));
        let config = balancer.dir().join("config.ron");
        let good = fs::read_to_string(&config).unwrap();
        let check = "name: \"default\", check: (type: \"tls\", \
                     tls: (sni: \"a.test\", verify: \"./ca.pem\"))";
        fs::write(&config, good.replace("name: \"default\"", check)).unwrap();
        balancer.process.signal(libc::SIGHUP);
        balancer.until_logged("ca.pem: this is a FIFO");
        expect_alive(&balancer);
        fs::write(&config, good).unwrap();
        balancer.words(&["reload"]);
        balancer.finish();
    });
}

/// Sends a request to the API on a socket, and returns the answer.
fn ask(socket: &Path, request: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(patience())).unwrap();
    let head = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    write!(stream, "{request} {head}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn watchers_that_read_nothing_delay_nothing() {
    watched(|| {
        let backend = Backend::echo();
        let launch = launch(&backend, "");
        let socket = launch.dir().join("mahoraga.sock");
        let balancer = launch.start();
        let watchers: Vec<_> = (0..10)
            .map(|_| {
                let mut watcher = UnixStream::connect(&socket).unwrap();
                let request = "GET /v1/events?recent=256 HTTP/1.1\r\nHost: localhost\r\n\r\n";
                watcher.write_all(request.as_bytes()).unwrap();
                watcher
            })
            .collect();
        let pools = api::look(&balancer, "/v1/pools");
        let name = |its: &Value| its["name"].as_str().unwrap().to_owned();
        let (pool, backend) = (name(&pools[0]), name(&pools[0]["backends"][0]));
        let path = format!("/v1/pools/{pool}/backends/{backend}");
        // More events than sockets take that are not read.
        for nth in 0..400 {
            let weight = format!("{{\"weight\": {}}}", 1 + nth % 2);
            let (code, answer) = api::ask(&balancer, "PATCH", &path, &weight);
            assert_eq!(code, 200, "{answer}");
        }
        expect_alive(&balancer);
        drop(watchers);
        balancer.finish();
    });
}

#[test]
fn an_operational_log_without_a_reader_drops_and_counts() {
    watched(|| {
        let backend = Backend::echo();
        let launch = launch(&backend, "");
        let socket = launch.dir().join("mahoraga.sock");
        let config = launch.dir().join("config.ron");
        let mut child = launch.spawn();
        let status = || ask(&socket, "GET /v1/status");
        eventually("it is ready", || {
            status().is_some_and(|status| status["stage"] == "ready")
        });
        let good = fs::read(&config).unwrap();
        // The log has the error a hundred times.
        let wrong = format!("\"{}\",\n", "x".repeat(150)).repeat(120);
        let wrong = format!("backends: [{wrong}");
        let bad = String::from_utf8_lossy(&good).replace("backends: [", &wrong);
        fs::write(&config, bad).unwrap();
        eventually("lines are dropped", || {
            for _ in 0..10 {
                ask(&socket, "POST /v1/reload").unwrap();
            }
            status().unwrap()["log_lines_dropped"].as_u64().unwrap() > 0
        });
        note_figures_at(&socket);
        fs::write(&config, good).unwrap();
        let reloaded = ask(&socket, "POST /v1/reload").unwrap();
        assert!(reloaded["snapshot"].is_u64(), "{reloaded}");
        Process(child.id()).signal(libc::SIGTERM);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_long_file_of_backends_is_read_in_time_and_bounded() {
    watched(|| {
        let launch = Launch::with_pool("discover: (file: \"list\"), backends: []");
        let list = launch.dir().join("list");
        let lines = (0..60_000).map(|n| format!("127.0.{}.{}:9\n", n / 250, n % 250 + 1));
        let lines: String = lines.collect();
        assert!(lines.len() < 1 << 20);
        fs::write(&list, lines).unwrap();
        let balancer = launch.start();
        balancer.until_logged("59000 backends left out");
        assert_eq!(balancer.ask(&["status"])["stage"], "ready");
        let backend = Backend::echo();
        fs::write(&list, format!("{}\n", backend.address)).unwrap();
        eventually("the new file is read", || {
            balancer.find_backend(&backend.address).is_some()
        });
        balancer.words(&["reload"]);
        expect_alive(&balancer);
        balancer.finish();
    });
}

/// A name server that knows 30 services on targets of 60 addresses each, whatever the name.
fn flooding_name_server() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let name = question[12..].iter().position(|byte| *byte == 0).unwrap();
            let end = 12 + name + 5;
            let of_target = question[14];
            // The name of the question, type, IN, for an hour, and what follows.
            let record = |kind: u8, data: &[u8]| {
                let length = u8::try_from(data.len()).unwrap();
                let head = [0xc0, 12, 0, kind, 0, 1, 0, 0, 14, 16, 0, length];
                [&head, data].concat()
            };
            let records: Vec<Vec<u8>> = match question[end - 3] {
                1 => (0..60)
                    .map(|n| record(1, &[127, 9, of_target, n + 1]))
                    .collect(),
                // Priority, weight, port 9, and a name of two letters.
                33 => (0..30)
                    .map(|n| record(33, &[0, 1, 0, 1, 0, 9, 2, b't', b'A' + n, 0]))
                    .collect(),
                _ => Vec::new(),
            };
            let mut answer = question[..end].to_vec();
            let count = u8::try_from(records.len()).unwrap();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
            answer.extend(records.concat());
            socket.send_to(&answer, from).unwrap();
        }
    });
    at
}

#[test]
fn a_name_server_that_floods_is_bounded() {
    watched(|| {
        let server = flooding_name_server();
        let launch = Launch::with_pool("discover: (srv: \"_a._tcp.test\"), backends: []");
        let launch = launch.settings(&format!("resolvers: [\"{server}\"]"));
        let balancer = launch.start();
        balancer.until_logged("left out: the limit is 1000");
        assert_eq!(balancer.ask(&["status"])["stage"], "ready");
        let pools = balancer.ask(&["pools"]);
        assert_eq!(pools[0]["backends"].as_array().unwrap().len(), 1_000);
        let backend = Backend::echo();
        let config = balancer.dir().join("config.ron");
        let text = fs::read_to_string(&config).unwrap();
        let declared = format!("backends: [\"{}\"]", backend.address);
        let text = text.replace("discover: (srv: \"_a._tcp.test\"), backends: []", &declared);
        fs::write(&config, text).unwrap();
        balancer.words(&["reload"]);
        expect_alive(&balancer);
        balancer.finish();
    });
}
