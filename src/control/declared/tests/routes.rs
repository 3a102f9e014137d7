//! Changes of routes after any reloads.

use super::*;
use crate::config::{NewWeights, RouteList, RouteRef};

/// A file with these routes, and its pools in this order.
fn routed(routes: &str, pools: [&str; 3]) -> Config {
    let pools: String = pools
        .map(|name| format!("(name: \"{name}\", backends: [\"127.0.0.1:1\"]), "))
        .concat();
    let text = format!(
        "(listeners: [(name: \"l\", bind: \"127.0.0.1:80\", pool: \"a\", routes: [{routes}])],
          pools: [{pools}])"
    );
    parse("f".to_owned(), text.into()).unwrap().0
}

const ABC: [&str; 3] = ["a", "b", "c"];
const CANARY: &str = "(sni: [\"x\"], pools: [(name: \"b\", weight: 95), (name: \"c\", weight: 5)])";

fn weigh(route: usize, weights: &[(&str, u16)]) -> Change {
    let weights = weights.iter();
    let weights: Vec<_> = weights
        .map(|(name, weight)| format!("{{\"name\": \"{name}\", \"weight\": {weight}}}"))
        .collect();
    let body = format!("{{\"pools\": [{}]}}", weights.join(","));
    let new = Patch::<NewWeights>::read(body.as_bytes()).unwrap();
    Change::WeighRoute {
        listener: "l".to_owned(),
        route: RouteRef::Number(route),
        weights: new.values().checked().unwrap().0,
        version: None,
    }
}

fn replace(routes: &str) -> Change {
    Change::SetRoutes {
        listener: "l".to_owned(),
        routes: RouteList::parse(String::new(), format!("[{routes}]")).unwrap(),
        version: None,
    }
}

/// Weights of the route that has pool `c`.
fn weights_of(declared: &Declared) -> Vec<(String, u16)> {
    let config = declared.config();
    let mut routes = config.listeners[0].routes.iter();
    let route = routes.find(|route| !route.pools.is_empty()).unwrap();
    let name = |pool: usize| config.pools[pool].name.clone();
    let shares = route.pools.iter();
    shares
        .map(|share| (name(share.name), share.weight))
        .collect()
}

#[test]
fn a_weight_holds_while_the_file_changes_other_routes_and_pools() {
    let declared = Declared::new(routed(CANARY, ABC));
    let declared = changed(&declared, &weigh(1, &[("b", 50), ("c", 50)]));
    assert_eq!(weights_of(&declared), are(&[("b", 50), ("c", 50)]));
    let holding = "1 change by command still holds: listener l: route (sni: [\"x\"]): b 50, c 50";
    assert_eq!(declared.holding().unwrap(), holding);
    // Another route before it, and pools at other places.
    let moved = format!("(sni: [\"y\"], pool: \"refuse\"), {CANARY}");
    let (declared, ended) = declared.reload(routed(&moved, ["c", "a", "b"]), false);
    assert_eq!(ended, []);
    assert_eq!(weights_of(&declared), are(&[("b", 50), ("c", 50)]));
    // Its number is another one now; the order is the same one.
    let declared = changed(&declared, &weigh(2, &[("b", 0)]));
    assert_eq!(declared.orders.len(), 1);
    assert_eq!(weights_of(&declared), are(&[("b", 0), ("c", 50)]));
    // The file changes one of the two weights.
    let other = moved.replace("weight: 5)", "weight: 7)");
    let (declared, ended) = declared.reload(routed(&other, ABC), false);
    let why = "listener l no longer has the weights b 0, c 50 in route (sni: [\"x\"]): the file \
               has changed its routes or their weights";
    assert_eq!(sentences(&ended), [why]);
    // Weights end together: with `b` still at 0 the canary would have all clients.
    assert_eq!(weights_of(&declared), are(&[("b", 95), ("c", 7)]));
    // Taken back.
    let declared = changed(&declared, &weigh(2, &[("b", 0)]));
    let declared = changed(&declared, &weigh(2, &[("b", 95)]));
    assert_eq!(declared.orders, []);
    // A file that has all of them makes them its own.
    let all = other.replace("weight: 95", "weight: 9");
    let set = changed(&declared, &weigh(2, &[("b", 9)]));
    let (mut agreed, ended) = set.reload(routed(&all, ABC), false);
    assert_eq!((ended.len(), agreed.orders.len()), (0, 0));
    assert!(agreed.take_agreed().unwrap().ends_with(": b 9"));
    // Its pool is gone, so the file has another route.
    let declared = changed(&declared, &weigh(2, &[("c", 1)]));
    let (declared, ended) = declared.reload(routed("(sni: [\"x\"], pool: \"b\")", ABC), false);
    assert_eq!((ended.len(), declared.orders.len()), (1, 0));
}

#[test]
fn a_weight_of_a_named_route_holds_while_the_file_changes_what_that_asks_for() {
    let named = CANARY.replacen('(', "(name: \"shop\", ", 1);
    let declared = Declared::new(routed(&named, ABC));
    let declared = changed(&declared, &weigh(1, &[("c", 50)]));
    let other = named.replace("[\"x\"]", "[\"x\", \"y\"]");
    let (declared, ended) = declared.reload(routed(&other, ABC), false);
    assert_eq!(ended, []);
    assert_eq!(weights_of(&declared), are(&[("b", 95), ("c", 50)]));
    let (_, ended) = declared.reload(
        routed(&other.replace("weight: 5)", "weight: 6)"), ABC),
        false,
    );
    let why = "listener l no longer has the weights c 50 in route shop: the file has changed its \
               routes or their weights; run `mahoraga set route l shop c=50` to set them again";
    assert_eq!(sentences(&ended), [why]);
    // That command would be refused: the route has another name, or no such pool.
    let without = other.replace("(name: \"c\", weight: 5)", "(name: \"a\", weight: 5)");
    for gone in [other.replace("shop", "shops"), without] {
        let (_, ended) = declared.reload(routed(&gone, ABC), false);
        let why = why.split(';').next().unwrap();
        assert_eq!(sentences(&ended), [why], "{gone}");
    }
}

#[test]
fn other_routes_hold_until_the_file_changes_routes_or_drops_their_pool() {
    let first = Declared::new(routed(CANARY, ABC));
    let weighed = changed(&first, &weigh(1, &[("c", 9)]));
    // They have weights of their own, and those that follow are theirs.
    let declared = changed(&weighed, &replace(CANARY));
    assert_eq!(declared.orders, []);
    let routes = format!("(sni: [\"y\"], pool: \"c\"), {CANARY}");
    let declared = changed(&weighed, &replace(&routes));
    let declared = changed(&declared, &weigh(2, &[("c", 7)]));
    assert_eq!(
        declared.orders,
        [replace(&routes.replace("weight: 5", "weight: 7"))]
    );
    assert_eq!(
        declared.holding().unwrap(),
        "1 change by command still holds: listener l: 2 routes"
    );
    // Only the places of its pools change.
    let (moved, ended) = declared.reload(routed(CANARY, ["c", "b", "a"]), false);
    assert_eq!(ended, []);
    assert_eq!(weights_of(&moved), are(&[("b", 95), ("c", 7)]));
    let (changed_by_file, ended) = moved.reload(routed("", ["c", "b", "a"]), false);
    let why = "listener l no longer has the routes of a command: the file has changed its routes";
    assert_eq!(sentences(&ended), [why]);
    assert!(changed_by_file.config().listeners[0].routes.is_empty());
    let declared = changed(&changed_by_file, &replace("(sni: [\"y\"], pool: \"c\")"));
    let (declared, ended) = declared.reload(routed("", ["a", "b", "d"]), false);
    let why = "listener l no longer has the routes of a command: listener `l`: route 1: pool: \
               there is no pool called `c`";
    assert!(ended[0].sentence.starts_with(why), "{ended:?}");
    assert_eq!(declared.orders, []);
    // The file makes them its own.
    let declared = changed(&declared, &replace("(pool: \"d\")"));
    let (mut declared, ended) = declared.reload(routed("(pool: \"d\")", ["a", "b", "d"]), false);
    assert_eq!((ended.len(), declared.orders.len()), (0, 0));
    assert!(
        declared
            .take_agreed()
            .unwrap()
            .ends_with("listener l: 1 route")
    );
}

/// After any reloads and changes of routes, a fresh start with what `config show` prints is the
/// same, and every weight is that of the last command or of the last file.
#[test]
fn routes_after_any_reloads_and_changes_are_those_of_a_fresh_start() {
    let mut made = 0;
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let mut declared = Declared::new(routed(CANARY, ABC));
        for _ in 0..20 {
            let mut some = Vec::new();
            for name in ["x", "y", "z"] {
                if rng.bool() {
                    some.push(random_route(&mut rng, name));
                }
            }
            match rng.u8(..4) {
                0 => {
                    let mut pools = ABC;
                    rng.shuffle(&mut pools);
                    let file = routed(&some.join(", "), pools);
                    declared = declared.reload(file, false).0;
                }
                1 => {
                    let change = replace(&some.join(", "));
                    declared = changed(&declared, &change);
                    let list = routes_of(declared.config(), "l").unwrap();
                    let Change::SetRoutes { routes, .. } = change else {
                        panic!("another change");
                    };
                    assert_eq!(list, routes, "seed {seed}");
                }
                _ => {
                    let (number, weight) = (rng.usize(1..4), rng.u16(..=1_000));
                    let change = weigh(number, &[("c", weight)]);
                    // It may be a route without weights, or none.
                    if let Ok((next, _)) = declared.change(&change, Config::clone) {
                        declared = next;
                        made += 1;
                        let route = RouteRef::Number(number);
                        let now = RouteWeights::now(declared.config(), "l", &route);
                        assert!(now.iter().any(|one| one == ("c", weight)), "seed {seed}");
                    }
                }
            }
            let shown = declared.config().to_ron();
            let (fresh, _) = parse("shown".to_owned(), shown.into()).unwrap();
            assert_eq!(fresh, *declared.config(), "seed {seed}");
            assert!(declared.orders.len() <= 4, "{:?}", declared.orders);
        }
    }
    assert!(made > 60, "{made} weights");
}

fn random_route(rng: &mut Rng, name: &str) -> String {
    let weight = rng.u16(..=1_000);
    let to = match rng.u8(..4) {
        0 => "pool: \"refuse\"".to_owned(),
        1 => "pool: \"b\"".to_owned(),
        _ => format!("pools: [(name: \"b\"), (name: \"c\", weight: {weight})]"),
    };
    format!("(sni: [\"{name}\"], {to})")
}
