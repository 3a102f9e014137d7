//! Backends, bans and states in etcd. Its JSON gateway is played by a server of a few lines:
//! `scripts/etcd.sh` has the real one.

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
use crate::stage::{Guest, Stage, tally};
use crate::watchdog::{eventually, watched};

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
    /// By their names in base64.
    keys: Vec<Value>,
    /// Each with its prefix.
    watches: Vec<(String, TcpStream)>,
    connections: Vec<TcpStream>,
    has_ended: bool,
    /// It has refused a write of a ledger, as if another balancer had written before.
    has_refused: bool,
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

    fn put(&self, key: &str, value: &str) {
        self.change(key, Some(value));
    }

    fn change(&self, key: &str, value: Option<&str>) {
        self.state.lock().change(key, value);
    }

    /// The value of a key.
    fn value(&self, key: &str) -> Option<String> {
        let state = self.state.lock();
        let found = state.keys_under(key);
        found.first().map(|kv| decoded(&kv["value"]))
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
    fn change(&mut self, key: &str, value: Option<&str>) {
        self.revision += 1;
        let kv = json!({
            "key": STANDARD.encode(key),
            "value": value.map(|value| STANDARD.encode(value)).unwrap_or_default(),
            "mod_revision": self.revision.to_string(),
        });
        self.keys.retain(|its| its["key"] != kv["key"]);
        let event = match value {
            Some(_) => {
                self.keys.push(kv.clone());
                json!({ "kv": kv })
            }
            None => json!({ "type": "DELETE", "kv": kv }),
        };
        let result = json!({ "header": self.header(), "events": [event] });
        for (prefix, watch) in &mut self.watches {
            if key.starts_with(&**prefix) {
                send_line(watch, &result);
            }
        }
    }

    /// A transaction: its puts are done if all holds that it compares.
    fn compare(&mut self, body: &Value) -> Value {
        let holds = |compare: &Value| {
            let found = self.keys.iter().find(|kv| kv["key"] == compare["key"]);
            match compare["target"].as_str().unwrap() {
                "VERSION" => found.is_none(),
                "VALUE" => found.is_some_and(|kv| kv["value"] == compare["value"]),
                _ => {
                    found.map_or("0", |kv| kv["mod_revision"].as_str().unwrap())
                        == compare["mod_revision"]
                }
            }
        };
        let compares = body["compare"].as_array().unwrap();
        let is_write = compares.iter().any(|its| its["target"] == "MOD");
        let is_refused = is_write && !std::mem::replace(&mut self.has_refused, is_write);
        let succeeded = !is_refused && compares.iter().all(holds);
        let puts = body["success"].as_array().filter(|_| succeeded);
        for put in puts.into_iter().flatten() {
            let put = &put["request_put"];
            self.change(&decoded(&put["key"]), Some(&decoded(&put["value"])));
        }
        json!({ "header": self.header(), "succeeded": succeeded })
    }

    fn header(&self) -> Value {
        json!({ "revision": self.revision.to_string() })
    }

    fn keys_under(&self, prefix: &str) -> Vec<&Value> {
        let keys = self.keys.iter();
        keys.filter(|kv| decoded(&kv["key"]).starts_with(prefix))
            .collect()
    }
}

fn decoded(base64: &Value) -> String {
    let bytes = STANDARD.decode(base64.as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
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
        let body: Value = serde_json::from_slice(&body).unwrap();
        let mut state = state.lock();
        if path == "/v3/watch" {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            writer.write_all(head).unwrap();
            let created = json!({ "header": state.header(), "created": true });
            send_line(&mut writer, &created);
            let prefix = decoded(&body["create_request"]["key"]);
            state.watches.push((prefix, writer.try_clone().unwrap()));
        } else {
            let answer = match &*path {
                "/v3/lease/grant" => json!({ "ID": "7", "TTL": body["TTL"] }),
                "/v3/lease/keepalive" => json!({ "result": { "ID": "7", "TTL": "2" } }),
                "/v3/kv/txn" => state.compare(&body),
                "/v3/kv/put" => {
                    state.change(&decoded(&body["key"]), Some(&decoded(&body["value"])));
                    json!({ "header": state.header() })
                }
                "/v3/kv/deleterange" => {
                    state.change(&decoded(&body["key"]), None);
                    json!({ "header": state.header() })
                }
                _ => {
                    let keys = state.keys_under(&decoded(&body["key"]));
                    json!({ "header": state.header(), "kvs": keys })
                }
            };
            let answer = answer.to_string();
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
        etcd.put("/pools/web/one", &with(&at[0], ""));
        // Twice the same, so that the next endpoint is asked at once.
        let source = format!(
            "discover: (etcd: (endpoints: [\"{0}\", \"{0}\"], prefix: \"/pools/web/\")), \
             backends: []",
            etcd.endpoint
        );
        let launch = Launch::with_pool(&source).workers(1);
        let stage = Stage::start(launch, "round_robin", fleet);
        let balancer = &stage.balancer;
        eventually("it is found", || balancer.find_backend("one").is_some());
        assert_eq!(stage.visits(2), [0, 0]);
        etcd.put("/pools/web/two", &with(&at[1], ", \"weight\": 2"));
        eventually("it joins", || balancer.find_backend("two").is_some());
        balancer.until_adopted();
        assert_eq!(tally(2, stage.visits(6)), [2, 4]);
        etcd.put("/pools/web/one", &with(&at[0], ", \"state\": \"drain\""));
        balancer.until("one", "state", "drain");
        balancer.until_adopted();
        assert_eq!(stage.visits(3), [1, 1, 1]);
        // A bad value changes nothing, and is told with its key.
        etcd.put("/pools/web/two", "oops");
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

#[test]
fn a_fleet_bans_clients_and_drains_backends_by_etcd() {
    watched(|| {
        let fleet = Fleet::of(2);
        let at = fleet.addresses();
        let etcd = Gateway::start();
        let state = format!("/fleet/states/default/{}", at[0]);
        etcd.put(&state, r#"{"state": "maint"}"#);
        let source = format!(
            "fleet: (etcd: (endpoints: [\"{0}\", \"{0}\"], prefix: \"/fleet/\"), \
             share_bans: false)",
            etcd.endpoint
        );
        let backends = format!("backends: [\"{}\", \"{}\"]", at[0], at[1]);
        let launch = Launch::with_pool(&backends).settings(&source).workers(1);
        let stage = Stage::start(launch, "round_robin", fleet);
        let balancer = &stage.balancer;
        balancer.until(&at[0], "state", "maint");
        balancer.until_adopted();
        assert_eq!(stage.visits(3), [1, 1, 1]);
        // An operator of this balancer can't bring it back.
        balancer.ask(&["ready", &at[0]]);
        assert_eq!(balancer.backend(&at[0])["state"], "maint");
        etcd.change(&state, None);
        balancer.until(&at[0], "state", "ready");
        // A ban closes open sessions, and ends with its key.
        let mut guest = stage.hold();
        etcd.put("/fleet/bans/127.0.0.0/8", r#"{"reason": "floods"}"#);
        assert!(guest.stream.read(&mut [0]).is_err(), "it is reset");
        assert!(Guest::try_come(balancer.address()).is_none());
        let ban = &balancer.ask(&["bans"])[0];
        let told = [&ban["prefix"], &ban["by"], &ban["reason"]];
        assert_eq!(told, ["127.0.0.0/8", "fleet", "floods"]);
        let refused = balancer.run(&["unban", "127.0.0.0/8"]);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            why.contains("the key `/fleet/bans/127.0.0.0/8` of etcd bans it"),
            "{why}"
        );
        etcd.put("/fleet/bans/all", "{}");
        balancer.until_logged("key `/fleet/bans/all`: invalid prefix `all`");
        etcd.change("/fleet/bans/127.0.0.0/8", None);
        eventually("it is over", || {
            Guest::try_come(balancer.address()).is_some()
        });
        // What is shared stays while etcd is away.
        etcd.put(&state, r#"{"state": "drain"}"#);
        balancer.until(&at[0], "state", "drain");
        etcd.end();
        balancer.until_logged("the fleet's state in etcd: ");
        assert_eq!(balancer.backend(&at[0])["state"], "drain");
        stage.finish();
    });
}

#[test]
fn own_bans_are_written_to_etcd_and_any_balancer_lifts_them() {
    watched(|| {
        let etcd = Gateway::start();
        let source = format!(
            "fleet: (etcd: (endpoints: [\"{0}\", \"{0}\"], prefix: \"/fleet/\"))",
            etcd.endpoint
        );
        let launch = Launch::with_pool("backends: [\"127.0.0.1:1\"]").settings(&source);
        let balancer = launch.start();
        balancer.ask(&["ban", "192.0.2.9", "--for", "1h", "--reason", "floods"]);
        let own = "/fleet/bans/192.0.2.9";
        eventually("it is written", || etcd.value(own).is_some());
        let value: Value = serde_json::from_str(&etcd.value(own).unwrap()).unwrap();
        assert_eq!(value["reason"], "floods");
        assert!(value["until"].is_string());
        balancer.ask(&["unban", "192.0.2.9"]);
        eventually("its key is gone", || etcd.value(own).is_none());
        // One of another balancer.
        etcd.put("/fleet/bans/192.0.2.10", "{}");
        let is_banned = |network| {
            let bans = balancer.ask(&["bans"]);
            let mut bans = bans.as_array().unwrap().iter();
            bans.any(|ban| ban["prefix"] == network)
        };
        eventually("it is banned here too", || is_banned("192.0.2.10"));
        balancer.ask(&["unban", "192.0.2.10"]);
        eventually("its key is gone", || {
            etcd.value("/fleet/bans/192.0.2.10").is_none()
        });
        eventually("nothing bans it", || !is_banned("192.0.2.10"));
        etcd.end();
        balancer.until_logged("the fleet's state in etcd: ");
        balancer.finish();
    });
}

#[test]
fn a_limit_of_the_fleet_is_a_share_until_its_lease_ends() {
    watched(|| {
        let etcd = Gateway::start();
        let other = r#"{"other": {"connections": {"limit": 3, "share": 1, "base": 1}}}"#;
        etcd.put("/fleet/limits/ledger", other);
        etcd.put("/fleet/limits/members/other", "it");
        let limits = format!(
            "fleet: (etcd: (endpoints: [\"{0}\"], prefix: \"/fleet/\"), name: \"lb\", \
             lease: \"2s\"), fleet_max_connections: 3, rate_limit: (rate: 9000, fleet: true)",
            etcd.endpoint
        );
        let fleet = Fleet::of(1);
        let backends = format!("backends: [\"{}\"]", fleet.addresses()[0]);
        let launch = Launch::with_pool(&backends).settings(&limits).workers(1);
        let stage = Stage::start(launch, "round_robin", fleet);
        let balancer = &stage.balancer;
        // The other one has the third, and more may be asked for than there is.
        let guests = [stage.hold(), stage.hold()];
        let limit = || balancer.ask(&["status"])["fleet"]["limits"][0].clone();
        eventually("it has all that is free", || limit()["share"] == 2);
        assert_eq!(
            [&limit()["limit"], &limit()["whole"]],
            [&json!("connections"), &json!(3)]
        );
        assert_eq!([&limit()["base"], &limit()["given"]], [1, 3]);
        let status = balancer.ask(&["status"])["fleet"].clone();
        assert_eq!([&status["members"], &status["leased"]], [2, 2]);
        assert_eq!(
            [&status["has_lease"], &status["conflicts"]],
            [&json!(true), &json!(1)]
        );
        balancer.note_figures();
        etcd.end();
        balancer.until_logged("limits of the fleet: no lease");
        assert_eq!([&limit()["share"], &limit()["used"]], [1, 2]);
        drop(guests);
        stage.finish();
    });
}
