//! Backends that are discovered: in a file, and by name.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers::{self, Backend, echo, ping};
use crate::stage::{Guest, Stage, leave_all};
use crate::watchdog::{eventually, watched};

/// Writes the list of backends; replaces the file at once, as a writer of such files should.
fn lister(launch: &Launch) -> impl Fn(&[String]) + use<> {
    let path = launch.dir().join("web.backends");
    move |names| {
        let new = path.with_extension("new");
        fs::write(&new, names.join("\n") + "\n").unwrap();
        fs::rename(&new, &path).unwrap();
    }
}

#[test]
fn what_a_file_lists_joins_and_what_it_lists_no_more_drains() {
    watched(|| {
        let fleet = Fleet::of(3);
        let names = fleet.addresses();
        let launch = Launch::with_pool("discover: (file: \"web.backends\"), backends: []");
        let path = launch.dir().join("web.backends");
        let list = lister(&launch);
        list(&names[..1]);
        let stage = Stage::start(launch.workers(2), "round_robin", fleet);
        eventually("it is found", || {
            stage.balancer.find_backend(&names[0]).is_some()
        });
        assert_eq!(stage.visits(4), [0; 4]);
        list(&names[..2]);
        eventually("it joins", || stage.visit() == 1);
        let mut guests = stage.hold_all(8);
        list(&names[1..]);
        eventually("one joins and one drains", || {
            let visits = stage.visits(6);
            !visits.contains(&0) && visits.contains(&2)
        });
        assert_eq!(stage.balancer.backend(&names[0])["leaving"], true);
        for guest in &mut guests {
            ping(&mut guest.stream, b"still there");
        }
        // When the file cannot be read, the last one that could stays in force.
        fs::write(&path, "what is this?\n").unwrap();
        stage.balancer.until_logged("web.backends");
        leave_all(guests);
        eventually("it is gone", || {
            stage.balancer.find_backend(&names[0]).is_none()
        });
        assert!(
            stage
                .visits(6)
                .iter()
                .all(|backend| [1, 2].contains(backend))
        );
        stage.finish();
    });
}

#[test]
fn a_backend_in_maint_that_was_away_comes_back_in_maint() {
    watched(|| {
        let fleet = Fleet::of(2);
        let names = fleet.addresses();
        let launch = Launch::with_pool("discover: (file: \"web.backends\"), backends: []");
        let list = lister(&launch);
        let is_listed = |balancer: &Balancer, name| balancer.find_backend(name).is_some();
        list(&names);
        let stage = Stage::start(launch.workers(1), "round_robin", fleet);
        let balancer = &stage.balancer;
        let [one, other] = [&names[0], &names[1]];
        eventually("both are found", || {
            is_listed(balancer, one) && is_listed(balancer, other)
        });
        balancer.ask(&["maint", one]);
        balancer.until(one, "state", "maint");
        let shown = balancer.ask(&["config", "show"]);
        let comment = format!("\n// default/{one}: maint\n");
        assert!(shown["ron"].as_str().unwrap().contains(&comment), "{shown}");
        list(&names[1..]);
        eventually("it is away", || !is_listed(balancer, one));
        balancer.ask(&["weight", other, "3"]);
        list(&names);
        eventually("it is back", || is_listed(balancer, one));
        assert_eq!(balancer.backend(one)["state"], "maint");
        assert_eq!(stage.visits(6), [1; 6]);
        stage.finish();
    });
}

#[test]
fn the_first_backends_of_a_new_pool_end_no_outage() {
    watched(|| {
        let launch = Launch::with_pool("backends: [\"127.0.0.1:1\"]");
        let list = lister(&launch);
        list(&["127.0.0.1:2".to_owned()]);
        let balancer = launch.start();
        let new = "(name: \"new\", discover: (file: \"web.backends\"), backends: [])])";
        balancer.edit(|file| file.replace(", ])", &format!(", {new}")));
        balancer.words(&["reload"]);
        eventually("its backend joins", || {
            balancer
                .ask(&["backends", "--pool", "new"])
                .as_array()
                .unwrap()
                .len()
                == 1
        });
        for kind in ["pool_down", "pool_up"] {
            assert_eq!(balancer.events(kind).len(), 0, "{kind}");
        }
        balancer.finish();
    });
}

/// A name server that has one set of IPv4 addresses for every name: an answer is the question, with
/// its records after it (RFC 1035, 4.1).
pub(crate) fn name_server(addresses: &Arc<Mutex<Vec<Ipv4Addr>>>) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap().to_string();
    let addresses = Arc::clone(addresses);
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let name = question[12..].iter().position(|byte| *byte == 0).unwrap();
            // After the name come its type and class; further records of the question (EDNS) are
            // left out.
            let end = 12 + name + 5;
            assert!(end <= length);
            let is_a = question[end - 4..end - 2] == [0, 1];
            let known = if is_a {
                addresses.lock().clone()
            } else {
                Vec::new()
            };
            let mut answer = question[..end].to_vec();
            let count = u8::try_from(known.len()).unwrap();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
            for address in known {
                // The question's name, A, IN, for a second, four bytes.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(address.octets());
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    at
}

#[test]
fn what_a_name_means_joins_and_what_it_means_no_more_drains() {
    watched(|| {
        let (backends, port) = greeting_at(&["127.0.0.1", "127.0.0.2"]);
        let first = &backends[0];
        let [one, two] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
        let known = Arc::new(Mutex::new(vec![one]));
        let server = name_server(&known);
        let pool = format!("discover: (dns: \"web.test\", port: {port}), backends: []");
        let launch = Launch::with_pool(&pool).settings(&format!("resolvers: [\"{server}\"]"));
        let balancer = launch.start();
        let visit = || Guest::welcome(balancer.connect()).leave();
        balancer.until_logged("127.0.0.1:");
        eventually("it is found", || {
            balancer.find_backend(&first.address).is_some()
        });
        assert_eq!(visit(), 1);
        let mut guest = Guest::welcome(balancer.connect());
        *known.lock() = vec![two];
        eventually("another has its place", || visit() == 2);
        assert_eq!(visit(), 2);
        assert_eq!(balancer.backend(&first.address)["leaving"], true);
        ping(&mut guest.stream, b"still there");
        guest.leave();
        balancer.finish();
    });
}

/// Pools without a backend would lose clients until the first answer, while those in force are
/// well.
#[test]
fn a_reload_takes_effect_once_its_names_are_known() {
    watched(|| {
        let (backends, port) = greeting_at(&["127.0.0.1", "127.0.0.2"]);
        let [one, two] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
        let known = Arc::new(Mutex::new(Vec::new()));
        let server = name_server(&known);
        let mut pool = format!("backends: [\"{}\"]", backends[0].address);
        let launch = Launch::with_pool(&pool).settings(&format!("resolvers: [\"{server}\"]"));
        let balancer = launch.start();
        let visit = || Guest::welcome(balancer.connect()).leave();
        let next = [
            (format!("backends: [\"db.test:{port}\"]"), two, 2),
            (
                format!("discover: (dns: \"web.test\", port: {port}), backends: []"),
                one,
                1,
            ),
        ];
        for (new, address, number) in next {
            // The server answers once this is let go.
            let mut silent = known.lock();
            *silent = vec![address];
            let before = visit();
            balancer.edit(|file| file.replace(&pool, &new));
            thread::scope(|scope| {
                let reload = scope.spawn(|| balancer.words(&["reload"]));
                for _ in 0..10 {
                    assert_eq!(visit(), before);
                    thread::sleep(Duration::from_millis(20));
                }
                drop(silent);
                while !reload.is_finished() {
                    visit();
                }
            });
            eventually("the new ones serve", || visit() == number);
            pool = new;
        }
        balancer.finish();
    });
}

/// The balancer knows good addresses, and the names of the new file have none yet.
#[test]
fn a_reload_whose_names_have_no_answer_keeps_the_known_backends() {
    watched(|| {
        let (backends, port) = greeting_at(&["127.0.0.1", "127.0.0.2"]);
        let [one, two] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
        let known = Arc::new(Mutex::new(Vec::new()));
        let server = name_server(&known);
        let mut pool = format!(
            "backends: [(name: \"a\", address: \"{}\")]",
            backends[0].address
        );
        let launch = Launch::with_pool(&pool).settings(&format!("resolvers: [\"{server}\"]"));
        let balancer = launch.start();
        let visit = || Guest::welcome(balancer.connect()).leave();
        let alerts = || balancer.ask(&["status"])["alerts"].to_string();
        let next = [
            (format!("backends: [\"db.test:{port}\"]"), two, 2),
            (
                format!("discover: (dns: \"web.test\", port: {port}), backends: []"),
                one,
                1,
            ),
        ];
        for (new, address, number) in next {
            let before = visit();
            *known.lock() = Vec::new();
            balancer.edit(|file| file.replace(&pool, &new));
            let kept = "no name has an address yet; keeping the last 1 known backend";
            balancer.words(&["reload"]);
            balancer.until_logged(kept);
            assert!(alerts().contains(kept), "{}", alerts());
            assert_eq!(visit(), before);
            // Another reload changes nothing about it.
            balancer.edit(|file| format!("{file}\n// again"));
            balancer.words(&["reload"]);
            assert_eq!(visit(), before);
            *known.lock() = vec![address];
            eventually("the new one serves", || visit() == number);
            assert!(!alerts().contains(kept), "{}", alerts());
            pool = new;
        }
        balancer.finish();
    });
}

/// A backend's new host name has no answer yet.
#[test]
fn a_backend_keeps_its_address_until_its_name_has_one() {
    watched(|| {
        let (backends, port) = greeting_at(&["127.0.0.1", "127.0.0.2"]);
        let known = Arc::new(Mutex::new(Vec::new()));
        let server = name_server(&known);
        let pool = format!(
            "backends: [(name: \"a\", address: \"{}\")]",
            backends[0].address
        );
        let launch = Launch::with_pool(&pool).settings(&format!("resolvers: [\"{server}\"]"));
        let balancer = launch.start();
        let visit = || Guest::welcome(balancer.connect()).leave();
        let new = format!("backends: [(name: \"a\", address: \"db.test:{port}\")]");
        balancer.edit(|file| file.replace(&pool, &new));
        balancer.words(&["reload"]);
        assert_eq!(visit(), 1);
        assert_eq!(balancer.backend("a")["resolved"], *backends[0].address);
        *known.lock() = vec![Ipv4Addr::new(127, 0, 0, 2)];
        eventually("the new one serves", || visit() == 2);
        balancer.finish();
    });
}

/// A server on each of these addresses, with one port, that greets with a number.
fn greeting_at(hosts: &[&str]) -> (Vec<Backend>, u16) {
    let port = peers::free().rsplit(':').next().unwrap().parse().unwrap();
    let greets = |number: u8| {
        move |mut stream: std::net::TcpStream| {
            // A probe may have closed already.
            if std::io::Write::write_all(&mut stream, &[number]).is_ok() {
                echo(stream);
            }
        }
    };
    let start = |(number, host)| Backend::tcp(&format!("{host}:{port}"), greets(number));
    ((1..).zip(hosts).map(start).collect(), port)
}

#[test]
fn a_host_name_stays_the_backend_whatever_it_means() {
    watched(|| {
        let (_backends, port) = greeting_at(&["127.0.0.1", "127.0.0.2"]);
        let [one, two] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
        let known = Arc::new(Mutex::new(Vec::new()));
        let server = name_server(&known);
        let name = format!("Db-1.test:{port}");
        let check = "check: (type: \"tcp\", interval: \"100ms\")";
        let pool = format!("{check}, ejection: \"off\", backends: [\"{name}\"]");
        let launch = Launch::with_pool(&pool).settings(&format!("resolvers: [\"{server}\"]"));
        let balancer = launch.start();
        let visit = || Guest::welcome(balancer.connect()).leave();
        // Without an address the backend exists, and is not selected.
        balancer.until(&name, "health", "unresolved");
        let backend = balancer.backend(&name);
        assert_eq!(backend["in_rotation"], false);
        assert_eq!(backend["last_change"]["to"], "unresolved");
        assert_eq!(backend["times_down"], 0);
        balancer.until_logged("has no address");
        let events = balancer.follow();
        *known.lock() = vec![one];
        assert_eq!(events.next("backend_resolved")["backend"], *name);
        balancer.until(&name, "health", "up");
        assert_eq!(visit(), 1);
        let backend = balancer.backend(&name);
        assert_eq!(backend["address"], *name);
        assert_eq!(backend["resolved"], format!("127.0.0.1:{port}"));
        let mut guest = Guest::welcome(balancer.connect());
        *known.lock() = vec![two];
        events.next("backend_resolved");
        eventually("new sessions go to the new address", || visit() == 2);
        let backend = balancer.backend(&name);
        assert_eq!(backend["connections"], 1, "it is the same backend");
        assert_eq!(backend["health"], "up");
        ping(&mut guest.stream, b"still there");
        guest.leave();
        // An operator's commands and the file know it by its name.
        balancer.ask(&["drain", &format!("default/{name}")]);
        balancer.until(&name, "state", "drain");
        drop(events);
        balancer.finish();
    });
}
