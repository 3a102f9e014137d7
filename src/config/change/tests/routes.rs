//! Changes of routes: which are made, which are refused, and in which words.

use super::*;
use crate::config::{BodyError, RouteList};

const ROUTED: &str = r#"(
    listeners: [(name: "edge", bind: "127.0.0.1:80", pool: "web", routes: [
        (sni: ["a.example"], pools: [(name: "old", weight: 95), (name: "new", weight: 5)]),
        (sni: ["b.example"], pool: "new"),
    ])],
    pools: [(name: "web", backends: ["127.0.0.1:1"]), (name: "old", backends: ["127.0.0.1:2"]),
        (name: "new", backends: ["127.0.0.1:3"])],
)"#;

fn routed() -> Config {
    parse(String::new(), ROUTED.into()).unwrap().0
}

fn body(routes: &str) -> Result<RouteList, BodyError> {
    RouteList::read(format!("{{\"routes\": [{routes}]}}").as_bytes()).map(|(list, _)| list)
}

fn replace(routes: &str) -> Change {
    Change::SetRoutes {
        listener: "edge".to_owned(),
        routes: body(routes).unwrap(),
        version: None,
    }
}

fn weigh(route: usize, pools: &[(&str, u16)]) -> Change {
    let pools = pools.iter();
    let pools =
        pools.map(|(name, weight)| format!("{{\"name\": \"{name}\", \"weight\": {weight}}}"));
    let body = format!("{{\"pools\": [{}]}}", pools.collect::<Vec<_>>().join(","));
    let new = Patch::<NewWeights>::read(body.as_bytes()).unwrap();
    Change::WeighRoute {
        listener: "edge".to_owned(),
        route: RouteRef::Number(route),
        weights: new.values().checked().unwrap().0,
        version: None,
    }
}

/// The routes after a change, as a file has them.
fn after(change: &Change) -> Vec<String> {
    let config = change.apply(&routed()).unwrap();
    RouteList::of(&config, &config.listeners[0])
        .words()
        .collect()
}

fn error(change: &Change) -> String {
    change.apply(&routed()).unwrap_err().to_string()
}

#[test]
fn routes_are_replaced_by_names_of_pools() {
    let two = r#"{"protocol": ["ssh"], "pool": "refuse"}, {"sni": ["*.example"], "key": "sni",
        "pools": [{"name": "new", "weight": 3}, {"name": "web"}]}"#;
    let want = [
        r#"(protocol: ["ssh"], pool: "refuse")"#,
        r#"(sni: ["*.example"], pools: [(name: "new", weight: 3), (name: "web")], key: "sni")"#,
    ];
    assert_eq!(after(&replace(two)), want);
    let config = replace(two).apply(&routed()).unwrap();
    assert_eq!(config.listeners[0].pools().collect::<Vec<_>>(), [0, 2, 0]);
    assert_eq!(after(&replace("")), <[&str; 0]>::default());
    // What is asked for may be sent back, and read as a file.
    let list = RouteList::of(&config, &config.listeners[0]);
    let sent = serde_json::json!({ "version": list.version(), "routes": list.json() });
    let read = RouteList::read(sent.to_string().as_bytes());
    assert_eq!(read, Ok((list.clone(), Some(list.version()))));
    assert_eq!(RouteList::parse("r.ron".to_owned(), list.ron()), Ok(list));
}

#[test]
fn routes_that_break_a_rule_are_refused_with_their_number() {
    let all = r#"{"pool": "web"}, {"sni": ["a.example"], "pool": "new"}"#;
    assert_eq!(
        error(&replace(all)),
        "listener `edge`: route 2: no client reaches this route, as route 1 has no condition and \
         takes every client: put this one before it, or leave it out"
    );
    assert_eq!(
        error(&replace(r#"{"sni": ["a.example"], "pool": "new1"}"#)),
        "listener `edge`: route 1: pool: there is no pool called `new1`, did you mean `new`?"
    );
    let mut config = routed();
    config.listeners[0].routes.clear();
    config.pools[2].backends.push(backend("127.0.0.1:80"));
    let looped = replace(r#"{"client": ["10.0.0.0/8"], "pool": "new"}"#).apply(&config);
    let looped = looped.unwrap_err().to_string();
    assert!(
        looped.starts_with("listener `edge`: pool `new`: backend `127.0.0.1:80` leads back"),
        "{looped}"
    );
    let mut elsewhere = replace("");
    if let Change::SetRoutes { listener, .. } = &mut elsewhere {
        *listener = "edge1".to_owned();
    }
    assert_eq!(
        error(&elsewhere),
        "there is no listener called `edge1`, did you mean `edge`?"
    );
}

#[test]
fn a_body_of_routes_is_read_as_a_file_is() {
    let invalid = |routes: &str| match body(routes) {
        Err(BodyError::Invalid(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        invalid(r#"{"pool": "web"}, {"sni": [], "pool": "web"}"#),
        "route 2: sni: expected at least one value: leave it out where any will do"
    );
    let zero = r#"{"pools": [{"name": "web", "weight": 0}]}"#;
    assert_eq!(
        invalid(zero),
        "route 1: pools: expected at least one with a weight above 0"
    );
    let many = vec![r#"{"pool": "web"}"#; 257].join(",");
    assert!(invalid(&many).starts_with("routes: 257 routes with 0 values: expected at most 256"));
    let regexes = vec!["\"~a\""; 65].join(",");
    let regexes = invalid(&format!(r#"{{"sni": [{regexes}], "pool": "web"}}"#));
    assert_eq!(
        regexes,
        "routes: 65 regular expressions: expected at most 64 in all"
    );
    // So are those of a proxy's header.
    let tlvs = vec!["\"authority=~a\""; 60].join(",");
    let rest = ["\"~a\""; 5].join(",");
    let both = format!(r#"{{"proxy_tlv": [{tlvs}], "sni": [{rest}], "pool": "web"}}"#);
    assert_eq!(invalid(&both), regexes);
    for malformed in [
        r#"{"snii": ["a"], "pool": "web"}"#,
        r#"{"sni": "a", "pool": "web"}"#,
        "1",
    ] {
        let refused = body(malformed);
        assert!(
            matches!(refused, Err(BodyError::Malformed(_))),
            "{refused:?}"
        );
    }
    for malformed in ["{}", "[]", r#"{"routes": {}}"#, r#"{"routes": [], "x": 1}"#] {
        assert!(
            RouteList::read(malformed.as_bytes()).is_err(),
            "{malformed}"
        );
    }
    let text = "[\n    (snii: [\"a\"], pool: \"web\"),\n]".to_owned();
    let wrong = RouteList::parse("r.ron".to_owned(), text).unwrap_err();
    let want = "r.ron:2:6: route 1: unknown field `snii`, did you mean `sni`?";
    assert!(wrong.to_string().starts_with(want), "{wrong}");
    for beside in ["routes: [(pool: \"web\")],", "(routes: [])", "- sni: a"] {
        let wrong = RouteList::parse("r.ron".to_owned(), beside.to_owned()).unwrap_err();
        let want = "r.ron:1:1: expected only the list of routes in `[` and `]` here";
        assert!(wrong.to_string().starts_with(want), "{wrong}");
    }
}

#[test]
fn pools_of_a_route_get_other_weights() {
    let pools = |change: &Change| after(change)[0].clone();
    let want = |old, new| {
        format!("(sni: [\"a.example\"], pools: [(name: \"old\"{old}), (name: \"new\"{new})])")
    };
    assert_eq!(
        pools(&weigh(1, &[("new", 50)])),
        want(", weight: 95", ", weight: 50")
    );
    let all = weigh(1, &[("new", 1), ("old", 0)]);
    assert_eq!(pools(&all), want(", weight: 0", ""));
    assert_eq!(
        error(&weigh(1, &[("new", 0), ("old", 0)])),
        "listener `edge`: route 1: pools: expected at least one with a weight above 0"
    );
    assert_eq!(
        error(&weigh(1, &[("new1", 1)])),
        "listener `edge`: route 1: pools: it has no pool called `new1`, did you mean `new`?"
    );
    assert_eq!(
        error(&weigh(2, &[("new", 1)])),
        "listener `edge`: route 2: pools: it has none with weights: give it `pools` in place of \
         `pool` first"
    );
    for none in [0, 3] {
        let want = format!("listener `edge` has no route {none}: its routes are 1 and 2");
        assert_eq!(error(&weigh(none, &[("new", 1)])), want);
    }
    let mut named = routed();
    named.listeners[0].routes[0].name = Some("shop".to_owned());
    for (name, outcome) in [
        ("shop", None),
        (
            "shops",
            Some("listener `edge` has no route shops, did you mean `shop`?"),
        ),
    ] {
        let mut change = weigh(1, &[("new", 1)]);
        if let Change::WeighRoute { route, .. } = &mut change {
            *route = name.parse().unwrap();
        }
        let made = change.apply(&named).map_err(|error| error.to_string());
        assert_eq!(made.err().as_deref(), outcome);
    }
    assert!("".parse::<RouteRef>().is_err());
    let wrong = |pools: &str| {
        let body = format!("{{\"pools\": [{pools}]}}");
        match Patch::<NewWeights>::read(body.as_bytes()) {
            Ok(new) => new.values().checked().unwrap_err(),
            Err(error) => error.to_string(),
        }
    };
    let twice = r#"{"name": "a", "weight": 1}, {"name": "a", "weight": 1}"#;
    assert_eq!(wrong(twice), "pools: `a` is listed twice: leave one out");
    assert!(wrong("").starts_with("expected `pools` with at least one pool"));
    let heavy = wrong(r#"{"name": "a", "weight": 1001}"#);
    assert!(
        heavy.contains("invalid `weight` `1001`: expected a whole number, 0 to 1000"),
        "{heavy}"
    );
}

#[test]
fn a_number_of_a_route_is_digits_alone() {
    assert_eq!("7".parse(), Ok(RouteRef::Number(7)));
    for name in ["+7", "7a", "-1", "7 "] {
        assert_eq!(name.parse(), Ok(RouteRef::Named(name.to_owned())));
    }
    let long = "9".repeat(30);
    for wrong in ["", "a\n", &*long] {
        let error = wrong.parse::<RouteRef>().unwrap_err();
        assert!(error.starts_with("invalid route `"), "{error}");
    }
}

#[test]
fn a_change_for_other_routes_is_refused() {
    let config = routed();
    let now = RouteList::of(&config, &config.listeners[0]).version();
    for mut change in [replace(""), weigh(1, &[("new", 50)])] {
        for (given, is_stale) in [(&*now, false), ("0123", true)] {
            if let Change::SetRoutes { version, .. } | Change::WeighRoute { version, .. } =
                &mut change
            {
                *version = Some(given.to_owned());
            }
            let made = change.apply(&config);
            let stale = ChangeError::Stale {
                listener: "edge".to_owned(),
            };
            assert_eq!(made.err(), is_stale.then_some(stale));
        }
    }
    let changed = weigh(1, &[("new", 50)]).apply(&config).unwrap();
    let then = RouteList::of(&changed, &changed.listeners[0]).version();
    assert_ne!(now, then);
    let back = Change::WeighRoute {
        listener: "edge".to_owned(),
        route: RouteRef::Number(1),
        weights: RouteWeights::now(&config, "edge", &RouteRef::Number(1)),
        version: Some(then),
    };
    assert_eq!(back.apply(&changed), Ok(config));
}
