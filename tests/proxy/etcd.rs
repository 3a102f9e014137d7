//! Backends in etcd. Its JSON gateway is played by a server of a few lines: `scripts/etcd.sh` has
//! the real one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::stage::{Stage, tally};
use crate::watchdog::{eventually, watched};

const PREFIX: &str = "/pools/web/";

/// One that has keys, and tells each watch of their changes. It closes its first connection without
/// a word.
#[derive(Clone)]
struct Gateway {
    endpoint: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    keys: Vec<Value>,
    watches: Vec<TcpStream>,
    connections: Vec<TcpStream>,
    has_ended: bool,
}

impl Gateway {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        let state = Arc::clone(&gateway.state);
        thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&state));
                if n == 0 || state.lock().has_ended {
                    continue;
                }
                let copy = stream.try_clone().unwrap();
                state.lock().connections.push(copy);
                thread::spawn(move || serve(stream, &state));
            }
        });
        gateway
    }

    fn put(&self, name: &str, value: &str) {
        let mut state = self.state.lock();
        state.revision += 1;
        let kv = json!({
            "key": STANDARD.encode(format!("{PREFIX}{name}")),
            "value": STANDARD.encode(value),
            "mod_revision": state.revision.to_string(),
        });
        state.keys.retain(|its| its["key"] != kv["key"]);
        state.keys.push(kv.clone());
        let result = json!({ "header": state.header(), "events": [{ "kv": kv }] });
        for watch in &mut state.watches {
            send_line(watch, &result);
        }
    }

    /// Every connection breaks, and new ones do at once.
    fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        state.watches.clear();
    }
}

impl State {
    fn header(&self) -> Value {
        json!({ "revision": self.revision.to_string() })
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut length, mut line) = (String::new(), 0, String::new());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(rest) = line.strip_prefix("POST ") {
                path = rest.split(' ').next().unwrap().to_owned();
            } else if let Some(number) = line.strip_prefix("content-length: ") {
                length = number.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut state = state.lock();
        if path == "/v3/watch" {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            writer.write_all(head).unwrap();
            let created = json!({ "header": state.header(), "created": true });
            send_line(&mut writer, &created);
            state.watches.push(writer.try_clone().unwrap());
        } else {
            let answer = json!({ "header": state.header(), "kvs": state.keys }).to_string();
            let length = answer.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let _ = writer.write_all((head + &answer).as_bytes());
        }
    }
}

fn send_line(to: &mut TcpStream, result: &Value) {
    let line = json!({ "result": result }).to_string() + "\n";
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let _ = to.write_all(chunk.as_bytes());
}

#[test]
fn a_pool_has_the_backends_weights_and_states_of_etcd_and_keeps_them_without_it() {
    watched(|| {
        let fleet = Fleet::of(2);
        let at = fleet.addresses();
        let etcd = Gateway::start();
        let with = |at: &str, more: &str| format!(r#"{{"address": "{at}"{more}}}"#);
        etcd.put("one", &with(&at[0], ""));
        // Twice the same, so that the next endpoint is asked at once.
        let source = format!(
            "discover: (etcd: (endpoints: [\"{0}\", \"{0}\"], prefix: \"{PREFIX}\")), backends: []",
            etcd.endpoint
        );
        let launch = Launch::with_pool(&source).workers(1);
        let stage = Stage::start(launch, "round_robin", fleet);
        let balancer = &stage.balancer;
        eventually("it is found", || balancer.find_backend("one").is_some());
        assert_eq!(stage.visits(2), [0, 0]);
        etcd.put("two", &with(&at[1], ", \"weight\": 2"));
        eventually("it joins", || balancer.find_backend("two").is_some());
        balancer.until_adopted();
        assert_eq!(tally(2, stage.visits(6)), [2, 4]);
        etcd.put("one", &with(&at[0], ", \"state\": \"drain\""));
        balancer.until("one", "state", "drain");
        balancer.until_adopted();
        assert_eq!(stage.visits(3), [1, 1, 1]);
        // A bad value changes nothing, and is told with its key.
        etcd.put("two", "oops");
        balancer.until_logged("key `/pools/web/two`: invalid value: expected JSON");
        assert_eq!(stage.visits(2), [1, 1]);
        let status = &balancer.ask(&["status"])["etcd"];
        assert_eq!([&status["prefixes"], &status["watched"]], [1, 1]);
        assert_eq!([&status["failures"], &status["changes"]], [1, 3]);
        // Without etcd all stays as it is.
        etcd.end();
        eventually("it is noticed", || {
            balancer.ask(&["status"])["etcd"]["watched"] == 0
        });
        assert_eq!(stage.visits(2), [1, 1]);
        assert_eq!(balancer.backend("one")["state"], "drain");
        // Its lines name backends by their keys.
        stage.balancer.finish();
    });
}
