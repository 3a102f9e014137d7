//! A backend that returns or joins gets its share little by little.

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::stage::{Guest, leave_all, tally};
use crate::watchdog::{eventually, time, watched};

fn pool(fields: &str, backends: &str) -> Launch {
    Launch::with_pool(&format!(
        "{fields}, check: (type: \"tcp\", interval: \"{}\"), backends: [{backends}]",
        time(100),
    ))
}

/// Long enough for some clients at each step.
fn slow_start() -> String {
    format!("slow_start: \"{}\"", time(12_000))
}

/// How far a backend's slow start has come, in percent.
fn rising(balancer: &Balancer, backend: &str) -> Option<u64> {
    balancer.backend(backend)["rising"].as_u64()
}

/// The first of the fleet goes away and returns.
fn restart_first(fleet: &Fleet, balancer: &Balancer) -> String {
    let name = fleet.addresses().swap_remove(0);
    fleet.stop(0);
    balancer.until(&name, "health", "down");
    fleet.start(0);
    balancer.until(&name, "health", "up");
    name
}

fn visits(balancer: &Balancer, clients: usize) -> Vec<usize> {
    let come = |_| Guest::welcome(balancer.connect()).leave();
    tally(2, (0..clients).map(come))
}

#[test]
fn the_share_of_a_returning_backend_grows() {
    watched(|| {
        let fleet = Fleet::of(2);
        let balancer = pool(&slow_start(), &fleet.ron(&[])).start();
        eventually("it is ready", || balancer.http_status("/readyz") == 200);
        // At the start of the process there is no slow start.
        for name in fleet.addresses() {
            assert_eq!(rising(&balancer, &name), None);
        }
        let name = restart_first(&fleet, &balancer);
        let (mut early, mut late) = (false, false);
        let mut before = rising(&balancer, &name).unwrap();
        loop {
            // The full share is half of these: percent and clients are the same number.
            let first = visits(&balancer, 200)[0] as u64;
            let after = rising(&balancer, &name).unwrap_or(100);
            // The share lies between those of the two moments, but for chance.
            let found = format!("{first} of 200 between {before}% and {after}%");
            assert!(
                first <= after + CHANCE && first + CHANCE >= before,
                "{found}"
            );
            early |= after + CHANCE < 100;
            late |= before > CHANCE;
            if before == 100 {
                break;
            }
            before = after;
        }
        assert!(early && late, "the growth was not seen");
        assert_eq!(visits(&balancer, 200), [100, 100]);
        balancer.finish();
    });
}

#[test]
fn the_places_of_a_returning_backend_grow() {
    watched(|| {
        let fleet = Fleet::of(2);
        let backends = fleet.ron(&["max_connections: 40", "max_connections: 1"]);
        let fields = format!("strategy: \"first\", queue: (max: 0), {}", slow_start());
        let balancer = pool(&fields, &backends).start();
        let name = restart_first(&fleet, &balancer);
        let guests = || -> Vec<_> {
            let come = |_| Guest::try_come(balancer.address());
            (0..41).filter_map(come).collect()
        };
        let early = guests();
        let percent = rising(&balancer, &name).unwrap();
        let held = tally(2, early.iter().map(|guest| guest.backend));
        assert!(held[0] >= 1, "one place is always left");
        assert!(held[0] as u64 <= (40 * percent).div_ceil(100), "{held:?}");
        leave_all(early);
        balancer.until(&name, "rising", serde_json::Value::Null);
        let late = guests();
        assert_eq!(tally(2, late.iter().map(|guest| guest.backend)), [40, 1]);
        leave_all(late);
        balancer.finish();
    });
}

#[test]
fn slow_start_follows_a_join_and_maint_but_not_drain() {
    watched(|| {
        let fleet = Fleet::of(2);
        let addresses = fleet.addresses();
        let one = format!("\"{}\"", addresses[0]);
        let balancer = pool("slow_start: \"10m\"", &one).start();
        balancer.words(&["add", "default", &addresses[1], "--name", "second"]);
        assert!(rising(&balancer, "second").is_some());
        let first = format!("default/{}", addresses[0]);
        balancer.words(&["drain", &first]);
        balancer.words(&["ready", &first]);
        assert_eq!(rising(&balancer, &addresses[0]), None);
        balancer.words(&["maint", &first]);
        balancer.words(&["ready", &first]);
        assert!(rising(&balancer, &addresses[0]).is_some());
        balancer.finish();
    });
}

/// The backend joins only after its probes have passed, however long they take.
#[test]
fn a_new_backend_gets_sessions_once_it_is_up() {
    watched(|| {
        let fleet = Fleet::of(2);
        let [first, late] = [0, 1].map(|index: usize| fleet.addresses().swap_remove(index));
        let pool = format!(
            "slow_start: \"3s\", \
             check: (type: \"tcp\", interval: \"2s\", rise: 3, initial: \"down\"), \
             backends: [\"{first}\"]"
        );
        let balancer = Launch::with_pool(&pool).start();
        balancer.words(&["add", "default", &late]);
        assert_eq!(balancer.backend(&late)["health"], "down");
        balancer.until(&late, "health", "up");
        assert!(rising(&balancer, &late).is_some_and(|percent| percent < 100));
        // A backend of the start has its share at once.
        balancer.until(&first, "health", "up");
        assert_eq!(rising(&balancer, &first), None);
        balancer.finish();
    });
}

/// More than four standard deviations of the shares of 200 clients.
const CHANCE: u64 = 30;
