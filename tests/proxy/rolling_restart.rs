//! Backends that restart one after the other, while the balancer's view of them is out of date.

use std::io::Read;
use std::thread;
use std::time::Duration;

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers::{self, Backend};
use crate::watchdog::{eventually, watched};

const CHECKS: [&str; 2] = ["", "check: (type: \"tcp\", interval: \"200ms\"),"];

/// The backend of each of this many clients, one after the other. Every one is served.
fn visits(balancer: &Balancer, clients: usize) -> Vec<usize> {
    let visit = |_| {
        let mut number = [0];
        let served = balancer.connect().read_exact(&mut number);
        assert!(served.is_ok(), "a client is lost: {served:?}");
        usize::from(number[0])
    };
    (0..clients).map(visit).collect()
}

fn start(fleet: &Fleet, fields: &str) -> Balancer {
    let pool = format!("{fields} backends: [{}]", fleet.ron(&[]));
    Launch::with_pool(&pool).workers(2).start()
}

fn is_ejected(balancer: &Balancer, name: &str) -> bool {
    balancer.backend(name)["ejected_s"].is_number()
}

#[test]
fn no_client_is_lost_in_a_rolling_restart() {
    watched(|| {
        for count in [2, 3, 10] {
            for check in CHECKS {
                let fleet = Fleet::of(count);
                let balancer = start(&fleet, check);
                for number in 0..count {
                    fleet.stop(number);
                    let served = visits(&balancer, 12 * count);
                    assert!(!served.contains(&number));
                    if !check.is_empty() {
                        // The next one stops before a probe has found this one again.
                        balancer.until(&fleet.addresses()[number], "health", "down");
                    }
                    fleet.start(number);
                }
                balancer.finish();
            }
        }
    });
}

/// From the first client on, when the balancer does not know which backends refuse; and later, when
/// some of them are ejected and others are not.
#[test]
fn no_client_is_lost_while_one_backend_answers() {
    watched(|| {
        for strategy in ["round_robin", "least_time", "hash"] {
            for count in [2, 3, 10] {
                let fleet = Fleet::of(count);
                let balancer = start(&fleet, &format!("strategy: \"{strategy}\","));
                for alone in [count - 1, 0] {
                    let others = || (0..count).filter(|number| *number != alone);
                    others().for_each(|number| fleet.stop(number));
                    let served = visits(&balancer, 40);
                    assert!(served.iter().all(|number| *number == alone));
                    others().for_each(|number| fleet.start(number));
                }
                balancer.finish();
            }
        }
    });
}

/// The first backend refuses until it is ejected, and then takes connections again.
fn eject_first(fleet: &Fleet, balancer: &Balancer) -> String {
    let name = fleet.addresses().swap_remove(0);
    fleet.stop(0);
    eventually("it is ejected", || {
        visits(balancer, 2);
        is_ejected(balancer, &name)
    });
    fleet.start(0);
    name
}

#[test]
fn a_probe_that_connects_ends_an_ejection_for_refused_connects() {
    watched(|| {
        let fleet = Fleet::of(2);
        let check = "check: (type: \"tcp\", interval: \"200ms\", fall: 100),";
        let balancer = start(&fleet, check);
        let events = balancer.follow();
        let name = eject_first(&fleet, &balancer);
        assert_eq!(events.next("backend_readmitted")["backend"], *name);
        assert!(!is_ejected(&balancer, &name));
        assert!(visits(&balancer, 10).contains(&0));
        drop(events);
        balancer.finish();
    });
}

#[test]
fn a_session_that_an_ejected_backend_serves_ends_its_ejection() {
    watched(|| {
        let fleet = Fleet::of(2);
        let balancer = start(&fleet, "");
        let events = balancer.follow();
        let name = eject_first(&fleet, &balancer);
        fleet.stop(1);
        assert_eq!(visits(&balancer, 3), [0; 3]);
        assert_eq!(events.next("backend_readmitted")["backend"], *name);
        drop(events);
        balancer.finish();
    });
}

/// The backend can always be connected to.
#[test]
fn a_probe_that_connects_does_not_end_an_ejection_for_resets() {
    watched(|| {
        let (hole, sound) = (Backend::tcp("127.0.0.1:0", peers::reset), peers::greeting());
        let balancer = Launch::with_pool(&format!(
            "check: (type: \"tcp\", interval: \"100ms\"), backends: [\"{}\", \"{}\"]",
            hole.address, sound.address
        ));
        let balancer = balancer.start();
        eventually("it is ejected", || {
            // The backend may reset at any moment.
            let _ = peers::try_connect(balancer.address())
                .and_then(|mut client| client.read(&mut [0; 4]));
            is_ejected(&balancer, &hole.address)
        });
        thread::sleep(MANY_PROBES);
        assert!(is_ejected(&balancer, &hole.address));
        balancer.finish();
    });
}

/// The time of many probes, and of two cycles of the control thread.
const MANY_PROBES: Duration = Duration::from_millis(2_500);
