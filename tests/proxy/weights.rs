//! Routes and their weights, changed by commands.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers::{self, ping};
use crate::stage::{Guest, source};
use crate::watchdog::{eventually, watched};

const EDGE: &str = "127.0.0.1:0";
const CANARY: &str = "(client: [\"127.0.0.0/8\"], pools: [(name: \"old\", weight: 95), \
                      (name: \"new\", weight: 5)])";

/// A listener whose clients go to pool `old`, and by these routes.
fn start(fleet: &Fleet, routes: &str) -> Balancer {
    let [old, new] = &fleet.addresses()[..] else {
        panic!("two backends");
    };
    let text = format!(
        "(workers: 2, listeners: [(bind: \"{EDGE}\", pool: \"old\", routes: [{routes}])],\n\
         pools: [(name: \"old\", backends: [\"{old}\"]), (name: \"new\", backends: [\"{new}\"])])"
    );
    Launch::with_config(&text, 1).workers(2).start()
}

/// The backend that each of 60 clients gets, of which each has an address of its own.
fn backends(balancer: &Balancer) -> Vec<usize> {
    balancer.until_adopted();
    let clients = 0..60;
    let visit = |n| Guest::welcome(peers::connect_from(source(n), balancer.address())).leave();
    clients.map(visit).collect()
}

fn weigh(balancer: &Balancer, weights: &[&str]) -> String {
    balancer.words(&[&["set", "route", EDGE, "1"], weights].concat())
}

fn news(backends: &[usize]) -> usize {
    backends.iter().sum()
}

/// Clients come all the time while `act` runs, and each must get a backend.
fn under_connections(balancer: &Balancer, act: impl FnOnce()) {
    let (has_ended, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for n in 0..4 {
            let (has_ended, count) = (&has_ended, &count);
            scope.spawn(move || {
                for from in 100 * (n + 1).. {
                    let stream = peers::connect_from(source(from % 20_000), balancer.address());
                    Guest::welcome(stream).leave();
                    count.fetch_add(1, Ordering::Relaxed);
                    if has_ended.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        act();
        let before = count.load(Ordering::Relaxed);
        eventually("clients came since", || {
            count.load(Ordering::Relaxed) > before + 4
        });
        has_ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_canary_gets_all_clients_by_commands_and_none_fails() {
    watched(|| {
        let fleet = Fleet::of(2);
        let balancer = start(&fleet, CANARY);
        let few = backends(&balancer);
        let mut open = Guest::welcome(peers::connect_from(source(0), balancer.address()));
        under_connections(&balancer, || {
            let words = weigh(&balancer, &["old=50", "new=50"]);
            assert!(
                words.ends_with("route 1 of 127.0.0.1:0 has old 50 (50 %), new 50 (50 %)\n"),
                "{words}"
            );
            let half = backends(&balancer);
            // One run of 10^4 would have fewer than 15 or more than 45 of 60; runs do not differ.
            assert!(
                news(&few) < 15 && (15..=45).contains(&news(&half)),
                "{few:?} {half:?}"
            );
            let mut both = few.iter().zip(&half);
            assert!(both.all(|(before, now)| before <= now), "{few:?} {half:?}");
            weigh(&balancer, &["new=100", "old=0"]);
            assert_eq!(news(&backends(&balancer)), 60);
            // The file is read again with other settings.
            balancer.edit(|text| text.replace("pool: \"old\", routes", "pool: \"new\", routes"));
            let words = balancer.words(&["reload"]);
            let holds = "1 change by command still holds: listener 127.0.0.1:0: route (client: \
                         [\"127.0.0.0/8\"]): new 100, old 0";
            assert!(words.contains(holds), "{words}");
            assert_eq!(news(&backends(&balancer)), 60);
        });
        ping(&mut open.stream, b"still there");
        assert_eq!(open.leave(), few[0]);
        let shown = balancer.words(&["config", "show"]);
        let weights = "[(name: \"old\", weight: 0), (name: \"new\", weight: 100)]";
        assert!(shown.contains(weights), "{shown}");
        let event = "127.0.0.1:0: routes[1].pools[new].weight 5 to 50, \
                     routes[1].pools[old].weight 95 to 50, changed over the admin socket";
        balancer.until_logged(event);
        eventually("the change is audited", || {
            balancer
                .log()
                .count("\"action\":\"set_route\",\"author\":\"socket\"")
                == 2
        });
        // The file's own weights end those of commands.
        balancer.edit(|text| text.replace("weight: 5)", "weight: 0)"));
        let output = balancer.words(&["reload", "--json"]);
        assert!(
            output.contains("no longer has the weights new 100"),
            "{output}"
        );
        balancer.finish();
    });
}

#[test]
fn routes_are_read_edited_and_put_back_by_commands() {
    watched(|| {
        let fleet = Fleet::of(2);
        let balancer = start(&fleet, CANARY);
        weigh(&balancer, &["old=1000", "new=0"]);
        assert_eq!(news(&backends(&balancer)), 0);
        let file = balancer.dir().join("routes.ron");
        let routes = balancer.words(&["routes", EDGE]);
        let version = routes.lines().next().and_then(|line| line.rsplit_once(' '));
        let version = version.unwrap().1.to_owned();
        let edited = routes.replacen('[', "[(client: [\"127.0.0.7\"], pool: \"new\"),", 1);
        fs::write(&file, edited).unwrap();
        let from = file.to_str().unwrap();
        let set = [
            "set",
            "routes",
            EDGE,
            "--from",
            from,
            "--if-version",
            &version,
        ];
        let words = balancer.words(&set);
        assert!(words.ends_with("127.0.0.1:0 has 2 routes\n"), "{words}");
        let (code, words) = balancer.refusal(&set);
        assert_eq!(code, Some(1));
        assert!(words.contains("have changed: read them again"), "{words}");
        let all = backends(&balancer);
        assert_eq!((news(&all), all[5]), (1, 1));
        // It has another number now.
        let second = ["set", "route", EDGE, "2", "new=1000", "old=0"];
        balancer.words(&second);
        assert_eq!(news(&backends(&balancer)), 60);
        for (route, pool, why) in [
            ("1", "new=1", "route 1: pools: it has none with weights"),
            (
                "2",
                "new1=1",
                "it has no pool called `new1`, did you mean `new`?",
            ),
            (
                "3",
                "new=1",
                "listener `127.0.0.1:0` has no route 3: its routes are 1 and 2",
            ),
        ] {
            let (code, words) = balancer.refusal(&["set", "route", EDGE, route, pool]);
            assert_eq!(code, Some(1));
            assert!(words.contains(why), "{words}");
        }
        // A file without the pool that they lead to ends them.
        balancer.edit(|text| text.replace("\"new\"", "\"newer\""));
        let output = balancer.words(&["reload", "--json"]);
        let why = "no longer has the routes of a command: the file has changed its routes";
        assert!(output.contains(why), "{output}");
        balancer.finish();
    });
}
