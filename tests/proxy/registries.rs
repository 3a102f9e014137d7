//! Backends in Consul and in Kubernetes, both played by a server of a few lines: no real one was
//! tried.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::stage::{Stage, tally};
use crate::watchdog::{eventually, watched};

/// One that has a service, and sends its changes. It closes its first connection without a word.
struct Registry {
    endpoint: String,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Of the last change.
    version: u64,
    /// The instances of Consul, or the slice of Kubernetes.
    service: Value,
    watches: Vec<TcpStream>,
    connections: Vec<TcpStream>,
    has_ended: bool,
}

impl Registry {
    fn start(service: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            version: 1,
            service,
            watches: Vec::new(),
            connections: Vec::new(),
            has_ended: false,
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&shared));
                if n == 0 || state.lock().has_ended {
                    continue;
                }
                let copy = stream.try_clone().unwrap();
                state.lock().connections.push(copy);
                // A client that goes ends it.
                thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        Self { endpoint, state }
    }

    fn change(&self, service: Value) {
        let mut state = self.state.lock();
        state.version += 1;
        state.service = service;
        let event = json!({ "type": "MODIFIED", "object": state.versioned() });
        for watch in &mut state.watches {
            send_line(watch, &event);
        }
    }

    /// Every connection breaks, and new ones do at once.
    fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    /// The slice, with its version.
    fn versioned(&self) -> Value {
        let mut slice = self.service.clone();
        if let Some(slice) = slice.as_object_mut() {
            let version = self.version.to_string();
            let metadata = json!({ "name": "web-abc", "resourceVersion": version });
            slice.insert("metadata".to_owned(), metadata);
        }
        slice
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(rest) = line.strip_prefix("GET ") {
                path = rest.split(' ').next().unwrap().to_owned();
            }
        }
        let (version, answer) = if path.contains("&watch=1&") {
            writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            let mut state = state.lock();
            // It may have changed since the list.
            if !path.ends_with(&format!("&resourceVersion={}", state.version)) {
                let event = json!({ "type": "MODIFIED", "object": state.versioned() });
                send_line(&mut writer, &event);
            }
            state.watches.push(writer.try_clone()?);
            continue;
        } else if path.starts_with("/apis/") {
            let state = state.lock();
            let metadata = json!({ "resourceVersion": state.version.to_string() });
            let list = json!({ "metadata": metadata, "items": [state.versioned()] });
            (state.version, list)
        } else if let Some((_, rest)) = path.split_once("&index=") {
            let index = rest.split('&').next().unwrap().parse().unwrap();
            while state.lock().version <= index && !state.lock().has_ended {
                thread::sleep(Duration::from_millis(5));
            }
            let state = state.lock();
            (state.version, state.service.clone())
        } else {
            (0, json!("well"))
        };
        let answer = answer.to_string();
        let length = answer.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nx-consul-index: {version}\r\ncontent-length: {length}\r\n\r\n"
        );
        writer.write_all((head + &answer).as_bytes())?;
    }
}

fn send_line(to: &mut TcpStream, event: &Value) {
    let line = event.to_string() + "\n";
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let _ = to.write_all(chunk.as_bytes());
}

/// The IP and the port of a backend.
fn parts(at: &str) -> (&str, u16) {
    let (ip, port) = at.rsplit_once(':').unwrap();
    (ip, port.parse().unwrap())
}

/// An instance of Consul.
fn instance(at: &str, weight: u16) -> Value {
    let (ip, port) = parts(at);
    json!({
        "Node": { "Node": "foobar", "Address": "10.1.10.12" },
        "Service": {
            "ID": at, "Service": "web", "Address": ip, "Port": port,
            "Weights": { "Passing": weight, "Warning": 1 },
        },
        "Checks": [{ "CheckID": "serfHealth", "Status": "passing" }],
    })
}

#[test]
fn a_pool_has_the_instances_and_weights_of_consul_and_keeps_them_without_it() {
    watched(|| {
        let fleet = Fleet::of(2);
        let at = fleet.addresses();
        let consul = Registry::start(json!([instance(&at[0], 1)]));
        // Twice the same, so that the next endpoint is asked at once.
        let source = format!(
            "discover: (consul: (service: \"web\", endpoints: [\"{0}\", \"{0}\"])), backends: []",
            consul.endpoint
        );
        let launch = Launch::with_pool(&source).workers(1);
        let stage = Stage::start(launch, "round_robin", fleet);
        let balancer = &stage.balancer;
        eventually("it is found", || balancer.find_backend(&at[0]).is_some());
        assert_eq!(stage.visits(2), [0, 0]);
        consul.change(json!([instance(&at[0], 1), instance(&at[1], 2)]));
        eventually("it joins", || balancer.find_backend(&at[1]).is_some());
        balancer.until_adopted();
        assert_eq!(tally(2, stage.visits(6)), [2, 4]);
        let status = &balancer.ask(&["status"])["consul"];
        assert_eq!([&status["services"], &status["watched"]], [1, 1]);
        assert_eq!([&status["failures"], &status["changes"]], [1, 1]);
        consul.end();
        eventually("it is noticed", || {
            balancer.ask(&["status"])["consul"]["failures"] != 1
        });
        balancer.until_logged("keeping the last known addresses");
        assert_eq!(tally(2, stage.visits(3)), [1, 2]);
        stage.balancer.finish();
    });
}

#[test]
fn a_pool_has_the_endpoints_of_kubernetes_and_keeps_them_without_it() {
    watched(|| {
        let fleet = Fleet::of(2);
        let at = fleet.addresses();
        // They have one address, and ports of their own: each is a slice of its port.
        let slice = |at: &str, is_ready: bool| {
            let (ip, port) = parts(at);
            let conditions =
                json!({ "ready": is_ready, "serving": true, "terminating": !is_ready });
            json!({
                "addressType": "IPv4",
                "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
                "endpoints": [{ "addresses": [ip], "conditions": conditions }],
            })
        };
        let server = Registry::start(slice(&at[0], true));
        let source = format!(
            "discover: (kubernetes: (service: \"web\", namespace: \"shop\", port: \"http\", \
             endpoints: [\"{0}\", \"{0}\"])), backends: []",
            server.endpoint
        );
        let launch = Launch::with_pool(&source).workers(1);
        let stage = Stage::start(launch, "round_robin", fleet);
        let balancer = &stage.balancer;
        eventually("it is found", || balancer.find_backend(&at[0]).is_some());
        assert_eq!(stage.visits(2), [0, 0]);
        server.change(slice(&at[1], true));
        eventually("it joins", || balancer.find_backend(&at[1]).is_some());
        balancer.until_adopted();
        assert_eq!(stage.visits(2), [1, 1]);
        // It is the last one, so it takes clients to its end.
        server.change(slice(&at[1], false));
        // An empty slice changes nothing, and is told.
        server.change(json!({ "addressType": "IPv4", "endpoints": null, "ports": null }));
        balancer.until_logged("have no such port of TCP; keeping the last known addresses");
        assert_eq!(stage.visits(2), [1, 1]);
        let status = &balancer.ask(&["status"])["kubernetes"];
        assert_eq!([&status["services"], &status["watched"]], [1, 1]);
        assert_eq!([&status["failures"], &status["changes"]], [1, 3]);
        server.end();
        eventually("it is noticed", || {
            balancer.ask(&["status"])["kubernetes"]["watched"] == 0
        });
        assert_eq!(stage.visits(2), [1, 1]);
        stage.balancer.finish();
    });
}
