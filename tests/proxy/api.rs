//! The admin API over its socket: it answers however busy the workers are.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;

use serde_json::Value;

use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, ping};
use crate::watchdog::{eventually, patience, watched};

/// Requests something from a balancer with the default socket: the status code, and the answer.
pub(crate) fn ask(balancer: &Balancer, method: &str, path: &str, body: &str) -> (u16, Value) {
    let socket = balancer.dir().join("mahoraga.sock");
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(patience())).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap())
}

/// The answer of an endpoint.
#[track_caller]
pub(crate) fn look(balancer: &Balancer, path: &str) -> Value {
    let (code, message) = ask(balancer, "GET", path, "");
    assert_eq!(code, 200, "{path}: {message}");
    if path == "/v1/status" || path == "/v1/pools" {
        balancer.note_figures();
    }
    message
}

fn launch(backend: &Backend) -> Launch {
    let launch = Launch::to(std::slice::from_ref(&backend.address));
    launch.flag("--admin", "mahoraga.sock")
}

/// The most frequent requests, and a change that every worker has to apply.
fn expect_answers(balancer: &Balancer, sessions: usize) {
    let status = look(balancer, "/v1/status");
    assert_eq!(status["stage"], "ready");
    let pools = look(balancer, "/v1/pools");
    let backend = pools[0]["backends"][0]["name"].as_str().unwrap().to_owned();
    let listed = look(balancer, "/v1/sessions");
    assert_eq!(listed.as_array().unwrap().len(), sessions, "{listed}");
    look(balancer, "/v1/histograms");
    let path = format!("/v1/pools/default/backends/{backend}");
    let (code, message) = ask(balancer, "PATCH", &path, "{\"weight\": 2}");
    assert_eq!(code, 200, "{message}");
    eventually("every worker routes by it", || {
        let status = look(balancer, "/v1/status");
        let workers = status["workers"].as_array().unwrap().iter();
        workers
            .map(|worker| &worker["snapshot"])
            .all(|its| *its == message["snapshot"])
    });
}

#[test]
fn it_answers_at_the_limit_of_connections() {
    watched(|| {
        let backend = Backend::echo();
        let launch = launch(&backend).workers(2);
        let balancer = launch.flag("--max-connections", "4").start();
        let mut served: Vec<TcpStream> = Vec::new();
        while served.len() < 4 {
            let mut client = balancer.connect();
            ping(&mut client, b"served");
            served.push(client);
        }
        let mut waiting: Vec<_> = (0..40).map(|_| balancer.connect()).collect();
        expect_answers(&balancer, 4);
        drop(served);
        // A session that ends gives its place to the next client: clients reach the workers in any
        // order.
        thread::scope(|scope| {
            for mut client in waiting.drain(..) {
                scope.spawn(move || ping(&mut client, b"at last"));
            }
        });
        balancer.finish();
    });
}

/// The control thread has a table of descriptors of its own.
#[test]
fn it_answers_while_a_worker_has_no_descriptor_left() {
    watched(|| {
        let backend = Backend::echo();
        let launch = launch(&backend).flag("--connect-timeout", "60s");
        let balancer = launch.start();
        let mut early: Vec<_> = (0..60).map(|_| balancer.connect()).collect();
        for client in &mut early {
            ping(client, b"before");
        }
        let limit = balancer.process.leave_room(0, 1);
        let mut late: Vec<_> = (0..40).map(|_| balancer.connect()).collect();
        eventually("it runs out of them", || {
            balancer.number("accept_exhausted") > 0
        });
        let sessions = look(&balancer, "/v1/status")["connections"].as_u64();
        expect_answers(&balancer, usize::try_from(sessions.unwrap()).unwrap());
        balancer.process.limit_descriptors(limit);
        for client in &mut late {
            ping(client, b"at last");
        }
        drop((early, late));
        balancer.finish();
    });
}
