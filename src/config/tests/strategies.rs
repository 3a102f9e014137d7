//! Strategies, persistence and groups in the file.

use std::num::NonZeroU16;

use super::*;
use crate::peek::Field;

/// A pool of three backends, of which the first two have further fields.
fn pool_of(settings: &str, [first, second]: [&str; 2]) -> Pool {
    let backends = format!(
        r#"(address: "unix:/a", {first}), (address: "unix:/b", {second}),
           (address: "unix:/c", group: "g", weight: 3)"#
    );
    let text = SMALLEST.replacen("\"127.0.0.1:9001\"", &backends, 1);
    only_pool(&text.replacen("backends", &format!("{settings} backends"), 1))
}

/// A pool without groups.
fn pool(settings: &str) -> Pool {
    only_pool(&SMALLEST.replacen("backends", &format!("{settings} backends"), 1))
}

fn only_pool(text: &str) -> Pool {
    let (mut config, _) = read(text).unwrap_or_else(|error| panic!("{error}"));
    config.pools.remove(0).into_owned()
}

fn strategy(written: &str) -> Strategy {
    pool(&format!("strategy: {written},")).strategy
}

fn cookie(name: &str) -> Key {
    Key::Peeked(Field::HttpCookie(name.to_owned()))
}

fn group(name: &str, weight: u32) -> Group {
    Group {
        name: name.to_owned(),
        weight,
    }
}

#[test]
fn a_bare_name_has_every_default() {
    for (name, default) in Strategy::all() {
        assert_eq!(name, default.name());
        for written in [format!("\"{name}\""), format!("(name: \"{name}\")")] {
            let pool = pool(&format!("strategy: {written},"));
            assert_eq!(pool.strategy, default);
            let persists = matches!(default, Strategy::StickyRoundRobin(_));
            let persist = Persist::default();
            assert_eq!(pool.persists(), persists.then_some(&persist));
        }
    }
    for (name, tier) in FirstTier::all() {
        assert_eq!(name, tier.name());
    }
    for (name, tier) in SecondTier::all() {
        assert_eq!(name, tier.name());
    }
}

#[test]
fn the_example_lists_every_strategy_with_its_defaults() {
    let (_, rest) = EXAMPLE.split_once("// How a backend is selected.").unwrap();
    let (comment, rest) = rest.split_once("strategy: \"round_robin\",").unwrap();
    let lines = comment
        .lines()
        .map(|line| line.trim_start().trim_start_matches("//"));
    let comment: String = lines.flat_map(|line| [line, "\n"]).collect();
    let bare = comment.split("\n   \"").skip(1);
    let bare = bare.map(|text| format!("\"{}\"", text.split_once('"').unwrap().0));
    let full = comment.split("\n   (").skip(1);
    let full: Vec<_> = full
        .map(|text| format!("({})", text.split_once(')').unwrap().0))
        .collect();
    let reported: Vec<_> = bare.chain(full).map(|written| strategy(&written)).collect();
    for (name, default) in Strategy::all() {
        assert!(reported.contains(&default), "{name}");
    }
    assert_eq!(reported.len(), Strategy::all().len());

    let (_, persist) = rest.split_once("//   (").unwrap();
    let (persist, _) = persist.split_once(')').unwrap();
    let persist = pool(&format!("persist: ({persist}),")).persist;
    assert_eq!(persist, Some(Persist::default()));
}

#[test]
fn strategies_have_settings() {
    assert_eq!(
        strategy("(name: \"hash\", key: \"http_path\", max_load: 1.25)"),
        Strategy::Hash(Hash {
            key: Key::Peeked(Field::HttpPath),
            max_load: Some(125),
        })
    );
    assert_eq!(
        strategy("Strategy(name: \"least_time\", decay: Some(\"100ms\"))"),
        Strategy::LeastTime(LeastTime {
            decay: Duration::from_millis(100),
        })
    );
    assert_eq!(
        strategy("(name: \"predictive\", horizon: \"1m\", season: \"7d\")"),
        Strategy::Predictive(Predictive {
            horizon: Duration::from_secs(60),
            season: Some(Duration::from_secs(7 * 86_400)),
        })
    );
    assert_eq!(
        strategy("(name: \"predictive\", season: \"off\")"),
        Strategy::Predictive(Predictive {
            season: None,
            ..Predictive::default()
        })
    );
}

#[test]
fn loads_are_read_digit_by_digit() {
    for (written, want) in [
        ("1.01", 101),
        ("1.1", 110),
        ("1.10", 110),
        ("1.15", 115),
        ("2.300", 230),
        ("4.35", 435),
        ("2", 200),
        ("10", 1000),
        ("10.00", 1000),
        ("9.99", 999),
    ] {
        let strategy = strategy(&format!("(name: \"hash\", max_load: {written})"));
        let Strategy::Hash(hash) = strategy else {
            panic!("{strategy:?}");
        };
        assert_eq!(hash.max_load, Some(want), "{written}");
    }
    let off = strategy("(name: \"hash\", max_load: \"off\")");
    assert_eq!(off, Strategy::Hash(Hash::default()));
}

#[test]
fn persistence_has_short_forms() {
    let persist = |written: &str| pool(&format!("persist: {written},")).persist;
    let by = |key| {
        Some(Persist {
            key,
            ..Persist::default()
        })
    };
    assert_eq!(persist("\"off\""), None);
    assert_eq!(persist("(key: \"off\")"), None);
    assert_eq!(persist("\"source_ip\""), Some(Persist::default()));
    assert_eq!(
        persist("r#\"http_cookie(\"SESSION\")\"#"),
        by(cookie("SESSION"))
    );
    assert_eq!(
        persist("(key: \"source_ip(24, 56)\")"),
        by(Key::SourceIp { v4: 24, v6: 56 })
    );
    assert_eq!(
        persist("(ttl: \"1s\", clients_max: 16777216)"),
        Some(Persist {
            key: Key::default(),
            ttl: Duration::from_secs(1),
            clients_max: 1 << 24,
        })
    );
    let sticky = pool(
        "strategy: (name: \"sticky_round_robin\", key: \"http_cookie(a)\", ttl: \"30d\", \
         clients_max: 1),",
    );
    let want = Persist {
        key: cookie("a"),
        ttl: Duration::from_secs(30 * 86_400),
        clients_max: 1,
    };
    assert_eq!(sticky.persists(), Some(&want));
    assert_eq!(sticky.strategy, Strategy::StickyRoundRobin(want));
}

#[test]
fn tiers_have_settings() {
    assert_eq!(
        strategy(
            "(name: \"two_tier\", first: \"hash\", key: \"sni\", subset: 16, \
             then: \"least_time\", decay: \"1h\")"
        ),
        Strategy::TwoTier(TwoTier {
            first: FirstTier::Hash {
                key: Key::Peeked(Field::Sni),
                subset: NonZeroU16::new(16).unwrap(),
            },
            then: SecondTier::LeastTime(LeastTime {
                decay: Duration::from_secs(3600),
            }),
            groups: Vec::new(),
        })
    );
}

#[test]
fn groups_come_from_the_file_or_from_the_backends() {
    let groups = |settings: &str, backends| {
        let strategy = format!("strategy: (name: \"two_tier\", {settings}),");
        let pool = pool_of(&strategy, backends);
        assert_eq!(pool.backends[2].group.as_deref(), Some("g"));
        pool.groups()
    };
    let apart = ["group: \"h\", weight: 2", "group: \"g\""];
    assert_eq!(groups("", apart), [group("h", 2), group("g", 4)]);
    let written = "groups: [\"g\", Group(name: \"h\", weight: 9)]";
    assert_eq!(groups(written, apart), [group("g", 4), group("h", 9)]);
    // Backups count for no weight, and no group has weight 0.
    let waiting = ["group: \"h\", backup: true", "group: \"g\", weight: 0"];
    assert_eq!(groups("", waiting), [group("h", 1), group("g", 3)]);
    let first = groups("first: \"priority\"", apart);
    assert_eq!(first, [group("h", 2), group("g", 4)]);
}

#[test]
fn only_backups_may_have_weight() {
    let backends = "(address: \"unix:/a\", weight: 0), (address: \"unix:/b\", backup: true)";
    let pool = only_pool(&SMALLEST.replacen("\"127.0.0.1:9001\"", backends, 1));
    assert!(pool.backends[1].backup && !pool.backends[0].backup);
}

/// The warnings for a pool with these settings.
fn warned_of(settings: &str, backends: &str) -> Vec<String> {
    let to = format!("[(name: \"web\", {settings}, backends: [{backends}])]");
    warned("[(name: \"web\", backends: [\"127.0.0.1:9001\"])]", &to)
}

#[test]
fn a_first_that_is_never_full_is_warned_of() {
    let warned = |backends| warned_of("strategy: \"first\"", backends);
    let want = |name| {
        format!(
            "f:2:37: warning: all clients go to the backend `{name}`: \
             the first without max_connections is never full"
        )
    };
    assert_eq!(warned("\"unix:/a\", \"unix:/b\""), [want("unix:/a")]);
    let standby = "(address: \"unix:/a\", backup: true), (address: \"unix:/b\", weight: 0), \
                   \"unix:/c\", (address: \"unix:/d\", max_connections: 1)";
    assert_eq!(warned(standby), [want("unix:/c")]);
    for right in [
        "\"unix:/a\"",
        "\"unix:/a\", (address: \"unix:/b\", backup: true)",
        "(address: \"unix:/a\", max_connections: 1), \"unix:/b\"",
    ] {
        assert_eq!(warned(right), [""; 0], "{right}");
    }
}

#[test]
fn a_subset_of_all_is_warned_of() {
    let warned =
        |subset, backends| warned_of(&format!("strategy: (name: \"two_tier\"{subset})"), backends);
    let three = "\"unix:/a\", \"unix:/b\", (address: \"unix:/c\", backup: true)";
    let want = "f:2:64: warning: a subset of 3 is all 2 backends of the pool `web`: \
                the key picks nothing";
    assert_eq!(warned(", subset: 3", three), [want]);
    assert_eq!(warned(", subset: 1", three), [""; 0]);
    assert_eq!(warned("", "\"unix:/a\""), [""; 0]);
}

#[test]
fn a_group_without_two_tiers_is_warned_of() {
    let backends = "\"unix:/a\", (address: \"unix:/b\", group: \"g\"), \
                    (address: \"unix:/c\", group: \"g\")";
    let want = "f:2:97: warning: the group does nothing: the strategy is `random`, \
                and only `two_tier` picks groups";
    assert_eq!(warned_of("strategy: \"random\"", backends), [want]);
}

#[test]
fn keys_that_tell_no_clients_apart_are_warned_of() {
    let backends = "\"unix:/a\", \"unix:/b\"";
    let message = |place: &str, sentence: &str| format!("f:{place}: warning: {sentence}");
    let tls = "TLS 1.3 clients send a new session ID with each connection: \
               by `tls_session_id` they are new each time";
    for (settings, place) in [
        ("persist: \"tls_session_id\"", "2:36"),
        ("persist: (key: \"tls_session_id\")", "2:42"),
        (
            "strategy: (name: \"hash\", key: \"tls_session_id\")",
            "2:57",
        ),
        (
            "strategy: (name: \"sticky_round_robin\", key: \"tls_session_id\")",
            "2:71",
        ),
    ] {
        assert_eq!(warned_of(settings, backends), [message(place, tls)]);
    }
    let one = |key: &str| {
        format!(
            "the clients of `unix:/l` have no address: by `{key}` they are one client, and go to \
             one backend"
        )
    };
    let of_socket = |settings: &str| {
        let text = format!(
            "(listeners: [(bind: \"unix:/l\", pool: \"a\"), (bind: \"unix:/m\", pool: \"a\")],\n\
             pools: [(name: \"a\", {settings}, backends: [{backends}])])"
        );
        let (config, source) = read(&text).unwrap();
        let warnings = warnings(&config, HOST, Some(&source));
        let messages = warnings.iter().map(|warning| {
            let place = warning.place.as_ref().unwrap();
            format!(
                "f:{}:{}: warning: {}",
                place.line, place.column, warning.sentence
            )
        });
        messages.collect::<Vec<_>>()
    };
    for (settings, place, key) in [
        ("persist: \"source_ip\"", "2:30", "source_ip"),
        ("strategy: \"hash\"", "2:31", "source_ip"),
        (
            "strategy: (name: \"hash\", key: \"source_ip_port\")",
            "2:51",
            "source_ip_port",
        ),
        ("strategy: \"sticky_round_robin\"", "2:31", "source_ip"),
        (
            "strategy: (name: \"two_tier\", subset: 1)",
            "2:31",
            "source_ip",
        ),
    ] {
        assert_eq!(
            of_socket(settings),
            [message(place, &one(key))],
            "{settings}"
        );
    }
    assert_eq!(of_socket("persist: \"sni\""), [""; 0]);
}
