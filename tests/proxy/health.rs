//! Probes through the whole program: a backend that fails gets no clients, and gets them again when
//! it recovers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

use crate::access_log::key_values;
use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers::{Backend, expect_end, ping, refusing_address};
use crate::server::{Kind, Server, greeted};
use crate::stage::{Guest, leave_all, tally};
use crate::watchdog::{eventually, watched};

const TCP: &str = "check: (type: \"tcp\", interval: \"100ms\", initial: \"probe\")";

/// Round robin over these backends, with this check.
fn probed(check: &str, backends: &str) -> Launch {
    Launch::with_pool(&format!("{check}, backends: [{backends}]"))
}

/// The port of the server that answers a client.
fn visit(balancer: &Balancer) -> Option<u16> {
    greeted(&balancer.connect())
}

/// The same over HTTP.
fn fetch(balancer: &Balancer) -> u16 {
    let mut stream = balancer.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = BufReader::new(stream).lines().last();
    answer.unwrap().unwrap().parse().unwrap()
}

fn opened(balancer: &Balancer, backend: &str) -> u64 {
    balancer.backend(backend)["opened"].as_u64().unwrap()
}

#[test]
fn a_killed_server_gets_no_session_until_it_is_back() {
    watched(|| {
        let mut servers = Server::start_all(Kind::Greeting, 2);
        let balancer = probed(TCP, &Server::ron(&servers)).workers(2).start();
        let names = [0, 1].map(|index: usize| servers[index].name());
        for name in &names {
            balancer.until(name, "health", "up");
        }
        let events = balancer.follow();
        for round in 0..2 {
            servers[0].kill();
            balancer.until(&names[0], "health", "down");
            let down = events.next("backend_down");
            assert_eq!(down["backend"], *names[0]);
            let backend = balancer.backend(&names[0]);
            assert_eq!(backend["check"], "connection refused", "{round}");
            assert_eq!(backend["in_rotation"], false);
            // Not even an attempt.
            let before = opened(&balancer, &names[0]);
            for _ in 0..20 {
                assert_eq!(visit(&balancer), Some(servers[1].address.port()));
            }
            assert_eq!(opened(&balancer, &names[0]), before);
            servers[0].restart();
            balancer.until(&names[0], "health", "up");
            assert_eq!(events.next("backend_up")["backend"], *names[0]);
            let back = servers[0].address.port();
            eventually("traffic returns", || visit(&balancer) == Some(back));
        }
        drop(events);
        balancer.finish();
    });
}

/// Each of thousands may go at once, with a network.
#[test]
fn of_many_backends_that_go_down_at_once_twenty_have_an_event_of_their_own() {
    watched(|| {
        let addresses: Vec<_> = (0..30).map(|_| refusing_address()).collect();
        let quoted = addresses.iter().map(|to| format!("\"{to}\""));
        let backends = quoted.collect::<Vec<_>>().join(", ");
        let check = "check: (type: \"tcp\", interval: \"200ms\", fall: 1)";
        let balancer = probed(check, &backends).start();
        for name in &addresses {
            balancer.until(name, "health", "down");
        }
        // The others are a number, which follows.
        let events = balancer.events("backend_down");
        let singly = events.iter().filter(|event| !event["backend"].is_null());
        assert_eq!(singly.count(), 20);
        assert!(events.len() <= 21, "{events:?}");
        balancer.finish();
    });
}

#[test]
fn a_backend_that_hangs_is_found_by_its_answers() {
    watched(|| {
        let servers = Server::start_all(Kind::Http, 2);
        let check = "check: (type: \"http\", interval: \"500ms\", timeout: \"500ms\", fall: 2)";
        let balancer = probed(check, &Server::ron(&servers)).start();
        let frozen = servers[0].name();
        balancer.until(&frozen, "health", "up");
        servers[0].freeze();
        balancer.until(&frozen, "health", "down");
        let why = balancer.backend(&frozen)["check"].to_string();
        assert!(why.contains("500ms"), "{why}");
        for _ in 0..10 {
            assert_eq!(fetch(&balancer), servers[1].address.port());
        }
        servers[0].thaw();
        balancer.until(&frozen, "health", "up");
        let back = servers[0].address.port();
        eventually("traffic returns", || fetch(&balancer) == back);
        balancer.finish();
    });
}

/// Connects to it fail, so it is ejected too; when the probes find it down and then up, the
/// ejection ends.
#[test]
fn a_backend_that_recovers_is_no_longer_ejected() {
    watched(|| {
        let mut servers = Server::start_all(Kind::Http, 2);
        let check = "strategy: \"first\", check: (type: \"tcp\", interval: \"1s\")";
        let balancer = probed(check, &Server::ron(&servers)).start();
        let name = servers[0].name();
        servers[0].kill();
        // A backend that fails gets its share only.
        for _ in 0..50 {
            assert_eq!(fetch(&balancer), servers[1].address.port());
        }
        balancer.until_logged("is ejected for 30s");
        balancer.until(&name, "health", "down");
        servers[0].restart();
        balancer.until(&name, "health", "up");
        assert_eq!(
            balancer.backend(&name)["ejected_s"],
            serde_json::Value::Null
        );
        assert_eq!(fetch(&balancer), servers[0].address.port());
        balancer.finish();
    });
}

/// Clients of two backends; the probes find the first one down.
fn one_goes_down(on_down: &str) -> (Fleet, Balancer, Vec<Guest>) {
    let fleet = Fleet::of(2);
    let check = format!("{TCP}, on_down: \"{on_down}\"");
    let balancer = probed(&check, &fleet.ron(&[])).workers(2).start();
    let down = fleet.addresses().swap_remove(0);
    for name in fleet.addresses() {
        balancer.until(&name, "health", "up");
    }
    let guests = (0..8).map(|_| Guest::welcome(balancer.connect())).collect();
    fleet.stop(0);
    balancer.until(&down, "health", "down");
    (fleet, balancer, guests)
}

#[test]
fn sessions_of_a_backend_that_goes_down_go_on() {
    watched(|| {
        let (_fleet, balancer, mut guests) = one_goes_down("keep");
        let of = guests.iter().map(|guest| guest.backend);
        assert!(tally(2, of).iter().all(|guests| *guests > 0));
        for guest in &mut guests {
            ping(&mut guest.stream, b"still there");
        }
        leave_all(guests);
        balancer.finish();
    });
}

#[test]
fn on_down_close_closes_the_sessions_of_a_backend_that_goes_down() {
    watched(|| {
        let (_fleet, balancer, guests) = one_goes_down("close");
        let (closed, mut stay): (Vec<_>, Vec<_>) =
            guests.into_iter().partition(|guest| guest.backend == 0);
        assert!(!closed.is_empty() && !stay.is_empty());
        let count = closed.len();
        for mut guest in closed {
            // By an end or by a reset; not by the watchdog.
            let _ = guest.stream.read(&mut [0]).map(|read| assert_eq!(read, 0));
        }
        for guest in &mut stay {
            ping(&mut guest.stream, b"still there");
        }
        eventually("the access log has the reason", || {
            let lines = balancer.output().lines_with("");
            let reasons = lines.iter().map(|line| key_values(line)["reason"].clone());
            reasons.filter(|reason| reason == "backend_down").count() == count
        });
        leave_all(stay);
        balancer.finish();
    });
}

/// It was down for a moment: sessions that were not closed by then stay with it.
#[test]
fn a_backend_that_is_up_again_keeps_the_sessions_that_are_left() {
    watched(|| {
        let fleet = Fleet::of(2);
        let check = "check: (type: \"tcp\", interval: \"100ms\", rise: 1, fall: 1), \
                     panic_below: 0, on_down: (close_over: \"8s\")";
        let balancer = probed(check, &fleet.ron(&[])).start();
        let name = fleet.addresses().swap_remove(0);
        let guests: Vec<_> = (0..80)
            .map(|_| Guest::welcome(balancer.connect()))
            .collect();
        let events = balancer.follow();
        fleet.stop(0);
        events.next("backend_down");
        fleet.start(0);
        events.next("backend_up");
        balancer.until(&name, "health", "up");
        let left = || balancer.backend(&name)["connections"].as_u64().unwrap();
        let before = left();
        assert!(before > 0);
        // Of 40 one is closed every 200 ms.
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(before - left() <= 1, "{before} to {}", left());
        drop(events);
        drop(guests);
        balancer.finish();
    });
}

#[test]
fn it_is_ready_from_the_first_round_of_probes_until_it_stops() {
    watched(|| {
        let servers = Server::start_all(Kind::Http, 2);
        servers[1].freeze();
        let check = "check: (type: \"http\", interval: \"10s\", timeout: \"10s\", \
                      initial: \"probe\")";
        let mut balancer = probed(check, &Server::ron(&servers)).start();
        assert_eq!(balancer.http_status("/healthz"), 200);
        assert_eq!(balancer.http_status("/readyz"), 503);
        assert_eq!(balancer.ask(&["status"])["stage"], "starting");
        servers[1].thaw();
        eventually("it is ready", || balancer.http_status("/readyz") == 200);
        assert_eq!(balancer.ask(&["status"])["stage"], "ready");
        let client = balancer.connect();
        (&client).write_all(b"GET").unwrap();
        eventually("a session", || {
            balancer.ask(&["status"])["connections"] == 1
        });
        balancer.process.signal(libc::SIGTERM);
        eventually("it stops", || balancer.http_status("/readyz") == 503);
        assert_eq!(balancer.http_status("/healthz"), 200);
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut &client);
        assert_eq!(balancer.wait().code(), Some(0));
    });
}

#[test]
fn what_a_backend_counts_as_before_its_probes() {
    watched(|| {
        for (initial, before) in [("up", "up"), ("down", "down"), ("probe", "down")] {
            let servers = Server::start_all(Kind::Http, 1);
            servers[0].freeze();
            let check = format!(
                "check: (type: \"http\", interval: \"4s\", timeout: \"4s\", rise: 1, \
                 initial: \"{initial}\")"
            );
            let balancer = probed(&check, &Server::ron(&servers)).start();
            let backend = balancer.backend(&servers[0].name());
            assert_eq!(backend["health"], before);
            // Else it reads as if a probe had failed.
            let why = (before == "down").then_some("not probed yet");
            assert_eq!(backend["check"].as_str(), why);
            servers[0].thaw();
            balancer.until(&servers[0].name(), "health", "up");
        }
    });
}

#[test]
fn pools_that_name_the_same_backend_share_its_probe() {
    watched(|| {
        let sick = Arc::new(AtomicBool::new(false));
        let backends = [(); 2].map(|()| {
            let sick = Arc::clone(&sick);
            Backend::tcp("127.0.0.1:0", move |mut stream| {
                let status = if sick.load(Ordering::SeqCst) {
                    500
                } else {
                    200
                };
                // The probe closes once it has read enough.
                let _ = write!(stream, "HTTP/1.1 {status} -\r\n\r\n");
                drop(stream.read_to_end(&mut Vec::new()));
            })
        });
        let [shared, own] = &backends;
        let check = "check: (type: \"http\", interval: \"100ms\")";
        let more = format!(
            "(name: \"other\", {check}, backends: [\"{}\"])",
            shared.address
        );
        let all = format!("\"{}\", \"{}\"", shared.address, own.address);
        let balancer = probed(check, &all).more_pools(&more).start();
        eventually("many probes", || own.accepted() >= 25);
        let probes = [shared.accepted(), own.accepted()];
        assert!(probes[0] < probes[1] * 3 / 2, "{probes:?}");
        sick.store(true, Ordering::SeqCst);
        eventually("both pools know", || {
            let backends = balancer.ask(&["backends"]);
            let backends = backends.as_array().unwrap().iter();
            backends.filter(|its| its["health"] == "down").count() == 3
        });
        balancer.finish();
    });
}

/// Of two backends one passes its check, and the other fails it, for this reason.
#[track_caller]
fn expect_verdicts(check: &str, sound: &str, wrong: &str, why: &str) {
    let check = format!("check: ({check}, interval: \"100ms\", initial: \"probe\")");
    let balancer = probed(&check, &format!("\"{sound}\", \"{wrong}\"")).start();
    balancer.until(sound, "health", "up");
    // On an overloaded machine a probe may have no result at first.
    eventually(&format!("the other fails: {why}"), || {
        let backend = balancer.backend(wrong);
        let message = backend["check"].as_str().unwrap_or_default();
        backend["health"] == "down"
            && !message.starts_with("not probed")
            && !message.is_empty()
            && message.contains(why)
    });
    balancer.finish();
}

/// Answers each line with another.
fn answers(answer: &'static str) -> Backend {
    Backend::tcp("127.0.0.1:0", move |stream| {
        let lines = BufReader::new(&stream).lines().map_while(Result::ok);
        // The probe closes once it has read enough.
        let _ = lines
            .take_while(|_| (&stream).write_all(answer.as_bytes()).is_ok())
            .count();
    })
}

#[test]
fn an_answer_is_expected() {
    watched(|| {
        let (sound, wrong) = (answers("+PONG\r\n"), answers("-LOADING\r\n"));
        let check = "type: \"send_expect\", send: \"PING\\r\\n\", expect: \"+PONG\"";
        expect_verdicts(check, &sound.address, &wrong.address, "");
        let check = check.replace("expect: \"+PONG\"", "expect_regex: \"^.P[A-Z]NG\"");
        expect_verdicts(&check, &sound.address, &wrong.address, "");
    });
}

#[test]
fn a_status_is_expected() {
    watched(|| {
        let sound = answers("HTTP/1.1 204 No Content\r\n\r\n");
        let wrong = answers("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        let check = "type: \"http\", path: \"/health\", host: \"web.test\"";
        expect_verdicts(check, &sound.address, &wrong.address, "503");
    });
}

#[test]
fn a_handshake_is_expected() {
    watched(|| {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["db.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key);
        let config = Arc::new(config.unwrap());
        let sound = Backend::tcp("127.0.0.1:0", move |mut stream: TcpStream| {
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            // The probe closes after the handshake.
            let _ = rustls::Stream::new(&mut tls, &mut stream).read(&mut [0]);
        });
        let wrong = answers("what?\r\n");
        let path = std::env::temp_dir().join(format!("mahoraga-ca-{}.pem", std::process::id()));
        std::fs::write(&path, cert.pem()).unwrap();
        let trusting = format!(
            "type: \"tls\", tls: (sni: \"db.test\", verify: \"{}\")",
            path.display()
        );
        expect_verdicts(&trusting, &sound.address, &wrong.address, "");
        std::fs::remove_file(path).unwrap();
        // The check succeeds with its own certificate, and fails with those of the machine.
        let balancer = probed(
            "check: (type: \"tls\", tls: (sni: \"db.test\", verify: \"system\"), \
             interval: \"100ms\", initial: \"probe\")",
            &format!("\"{}\"", sound.address),
        );
        let balancer = balancer.start();
        balancer.until_logged("is down");
        balancer.finish();
    });
}

#[test]
fn a_check_that_starts_a_process_is_refused() {
    watched(|| {
        for check in ["\"command\"", "(type: \"command\", interval: \"1s\")"] {
            let launch = probed(&format!("check: {check}"), "\"127.0.0.1:1\"");
            let (status, message) = launch.run();
            assert_eq!(status.code(), Some(2));
            assert!(message.contains("would start a process"), "{message}");
        }
    });
}
