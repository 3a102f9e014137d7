//! SIGHUP: the configuration is read again while sessions go on.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::peers::{self, connect};
use crate::stage::{Guest, Stage, leave_all, source, tally};
use crate::watchdog::{eventually, watched};

/// Rewrites the file of `Launch::with_pool` with other fields of the pool, and reloads it.
pub(crate) fn reload(stage: &Stage, pool: &str) {
    reload_with(stage, pool, "");
}

/// The same with more listeners.
fn reload_with(stage: &Stage, pool: &str, listeners: &str) {
    let workers = stage.balancer.workers();
    let config = format!(
        "(workers: {workers}, \
         listeners: [(bind: \"127.0.0.1:0\", pool: \"default\"), {listeners}],\n\
         pools: [(name: \"default\", {pool})])"
    );
    fs::write(stage.balancer.dir().join("config.ron"), config).unwrap();
    let before = stage.balancer.log().count("reload: ");
    stage.balancer.process.signal(libc::SIGHUP);
    eventually("the configuration was read", || {
        stage.balancer.log().count("reload: ") > before
    });
}

#[test]
fn strategy_and_backends_change_while_sessions_go_on() {
    watched(|| {
        let fleet = Fleet::of(4);
        let backends = fleet.ron(&[]);
        let launch = Launch::with_pool(&format!("strategy: \"first\", backends: [{backends}]"));
        let mut stage = Stage::start(launch.workers(2), "first", fleet);
        let mut guests = stage.hold_all(6);
        assert_eq!(stage.fleet.held(), [6, 0, 0, 0]);
        stage.expect_too("least_connections");
        reload(
            &stage,
            &format!("strategy: \"least_connections\", backends: [{backends}]"),
        );
        // Counts continue: the first backend has its six already.
        eventually("every worker routes by it", || {
            guests.push(stage.hold());
            stage.fleet.held()[1..].iter().all(|held| *held >= 2)
        });
        assert!(stage.fleet.held()[0] <= 8, "{:?}", stage.fleet.held());
        leave_all(guests);
        stage.finish();
    });
}

#[test]
fn clients_stay_with_their_backends_over_a_reload() {
    watched(|| {
        let fleet = Fleet::of(5);
        let forth = fleet.ron(&[]);
        let mut backwards: Vec<_> = forth.split_inclusive("), ").collect();
        backwards.reverse();
        let pool =
            |backends: &str| format!("strategy: \"sticky_round_robin\", backends: [{backends}]");
        let launch = Launch::with_pool(&pool(&forth)).workers(2);
        let stage = Stage::start(launch, "sticky_round_robin", fleet);
        let visits = || -> Vec<_> { (0..20).map(|n| stage.visit_from(source(n))).collect() };
        let before = visits();
        assert_eq!(tally(5, before.clone()).len(), 5);
        reload(&stage, &pool(&backwards.concat()));
        assert_eq!(visits(), before);
        stage.finish();
    });
}

#[test]
fn listeners_come_and_go_while_sessions_go_on() {
    watched(|| {
        let fleet = Fleet::of(2);
        let pool = format!("strategy: \"first\", backends: [{}]", fleet.ron(&[]));
        let stage = Stage::start(Launch::with_pool(&pool).workers(2), "first", fleet);
        let mut guests = stage.hold_all(4);
        let added = "(name: \"tcp\", bind: \"127.0.0.1:0\", pool: \"default\"),
            (name: \"unix\", bind: \"unix:second.sock\", pool: \"default\")";
        let path = stage.balancer.dir().join("second.sock");
        for round in 1..=3 {
            reload_with(&stage, &pool, added);
            let listening = stage.balancer.log().lines_with("listener `tcp` on ");
            assert_eq!(listening.len(), round);
            let second = listening[round - 1].rsplit(' ').next().unwrap();
            let second: SocketAddr = second.parse().unwrap();
            // All of them are served: each worker has its socket of the new group.
            let come = |_| Guest::welcome(connect(second));
            guests.extend((0..20).map(come));
            let mut unix = UnixStream::connect(&path).unwrap();
            unix.read_exact(&mut [0]).unwrap();
            reload(&stage, &pool);
            eventually("the socket is removed", || !path.exists());
            eventually("no listener remains there", || {
                TcpStream::connect(second).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
            });
            // The sessions of both go on.
            unix.shutdown(Shutdown::Write).unwrap();
            assert_eq!(unix.read_to_end(&mut Vec::new()).unwrap(), 0);
            leave_all(guests.split_off(4));
            stage.visit();
        }
        leave_all(guests);
        assert_eq!(stage.balancer.number("listeners_lost"), 0);
        stage.finish();
    });
}

/// Clients one after the other, until `stop`: the number served, and the errors of the others.
fn visit_until(stop: &AtomicBool, at: SocketAddr) -> (u32, Vec<std::io::Error>) {
    let (mut served, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let visit = || {
            let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(10))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.read_exact(&mut [0])
        };
        match visit() {
            Ok(()) => served += 1,
            Err(error) => failed.push(error),
        }
    }
    (served, failed)
}

/// The balancer recognises its own address in every form: one that it listens on, one that it
/// listened on until now, and one that includes another.
#[test]
fn an_address_changes_its_form_and_comes_back_and_no_client_is_lost() {
    watched(|| {
        let fleet = Fleet::of(2);
        let pool = format!("strategy: \"random\", backends: [{}]", fleet.ron(&[]));
        let stage = Stage::start(Launch::with_pool(&pool).workers(2), "random", fleet);
        let at: SocketAddr = peers::free().parse().unwrap();
        let port = at.port();
        let listener = |bind: &str| format!("(name: \"x\", bind: \"{bind}\", pool: \"default\")");
        let forms = ["127.0.0.1", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]"];
        let forms = forms.map(|host| listener(&format!("{host}:{port}")));
        reload_with(&stage, &pool, &forms[0]);
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || visit_until(&stop, at))
            })
            .collect();
        for _ in 0..2 {
            for form in forms.iter().chain(forms.iter().rev()) {
                reload_with(&stage, &pool, form);
            }
        }
        // The listener is removed, and added back at once.
        for _ in 0..10 {
            reload(&stage, &pool);
            reload_with(&stage, &pool, &forms[0]);
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let (served, failed) = client.join().unwrap();
            assert!(
                served > 0 && failed.is_empty(),
                "{served} served, {failed:?}"
            );
        }
        let refused = stage
            .balancer
            .log()
            .count("reload: the old configuration stays");
        assert_eq!(refused, 0);
        assert_eq!(stage.balancer.number("listeners_lost"), 0);
        reload(&stage, &pool);
        stage.finish();
    });
}

#[test]
fn a_unix_listener_comes_back_by_another_path_and_name() {
    watched(|| {
        let fleet = Fleet::of(2);
        let pool = format!("strategy: \"random\", backends: [{}]", fleet.ron(&[]));
        let stage = Stage::start(Launch::with_pool(&pool), "random", fleet);
        let path = stage.balancer.dir().join("x.sock");
        let forms = [
            "(name: \"x\", bind: \"unix:x.sock\", pool: \"default\")".to_owned(),
            format!(
                "(name: \"y\", bind: \"unix:{}\", pool: \"default\")",
                path.display()
            ),
        ];
        for round in 0..6 {
            reload_with(&stage, &pool, &forms[round % 2]);
            let mut unix = UnixStream::connect(&path).unwrap();
            unix.read_exact(&mut [0]).unwrap();
        }
        for _ in 0..5 {
            reload(&stage, &pool);
            eventually("the socket is removed", || !path.exists());
            reload_with(&stage, &pool, &forms[0]);
            let mut unix = UnixStream::connect(&path).unwrap();
            unix.read_exact(&mut [0]).unwrap();
        }
        let refused = stage
            .balancer
            .log()
            .count("reload: the old configuration stays");
        assert_eq!(refused, 0);
        reload(&stage, &pool);
        stage.finish();
    });
}

#[test]
fn an_address_in_use_leaves_the_old_in_force() {
    watched(|| {
        let fleet = Fleet::of(2);
        let backends = fleet.ron(&[]);
        let pool = format!("strategy: \"first\", backends: [{backends}]");
        let stage = Stage::start(Launch::with_pool(&pool), "first", fleet);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().map(|at| (taken, at)).unwrap();
        // The file changes the pool too, and the first of the new listeners could listen.
        let barren = "strategy: \"first\", backends: [\"127.0.0.1:1\"]";
        let listeners = format!(
            "(name: \"free\", bind: \"unix:free.sock\", pool: \"default\"),
             (name: \"taken\", bind: \"{}\", pool: \"default\")",
            taken.1
        );
        reload_with(&stage, barren, &listeners);
        let error_line = format!("listener `taken`: cannot listen on {}", taken.1);
        eventually(&error_line, || stage.balancer.log().count(&error_line) == 1);
        let free = stage.balancer.dir().join("free.sock");
        eventually("the new socket is removed", || !free.exists());
        leave_all(stage.hold_all(3));
        stage.finish();
    });
}

#[test]
fn a_wrong_file_leaves_the_old_configuration_in_force() {
    watched(|| {
        let fleet = Fleet::of(2);
        let backends = fleet.ron(&[]);
        let launch = Launch::with_pool(&format!("strategy: \"first\", backends: [{backends}]"));
        let stage = Stage::start(launch, "first", fleet);
        for (wrong, error_line) in [
            ("strategy: \"fist\", backends: []", "did you mean `first`?"),
            ("backends: [", "expected a value here"),
        ] {
            reload(&stage, wrong);
            eventually(error_line, || stage.balancer.log().count(error_line) == 1);
        }
        fs::remove_file(stage.balancer.dir().join("config.ron")).unwrap();
        stage.balancer.process.signal(libc::SIGHUP);
        eventually("the missing file is logged", || {
            stage.balancer.log().count("there is no such file") == 1
        });
        // Each refusal is logged once, and each record is one line.
        let log = stage.balancer.log();
        assert_eq!(log.count("reload: the old configuration stays"), 3);
        let log = log.all();
        let mut running = log.lines().skip_while(|line| !line.starts_with("[20"));
        assert!(running.all(|line| line.starts_with("[20")), "{log}");
        assert_eq!(stage.visits(3), [0; 3]);
        stage.finish();
    });
}

#[test]
fn json_records_hold_one_object_each() {
    watched(|| {
        let config = "(workers: 1, log_format: \"json\", \
            listeners: [(bind: \"127.0.0.1:0\", pool: \"p\")], \
            pools: [(name: \"p\", backends: [\"127.0.0.1:1\"])])";
        let balancer = Launch::with_config(config, 1).start();
        fs::write(balancer.dir().join("config.ron"), "(\npools: [").unwrap();
        balancer.process.signal(libc::SIGHUP);
        let refused = "reload: the old configuration stays";
        eventually("a refusal", || balancer.log().count(refused) == 1);
        let lines = balancer.log().lines_with("");
        let records: Vec<Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let message = |record: &Value| record["message"].as_str().unwrap().to_owned();
        let found = records.iter().find(|one| message(one).starts_with(refused));
        let found = found.unwrap();
        assert_eq!(found["level"], "error");
        assert!(message(found).contains("\nconfig.ron:2:"), "{found}");
        balancer.finish();
    });
}
