//! Each kind of change, and its errors.

use std::num::NonZeroU32;

use super::*;
use crate::config::table::Settings;
use crate::config::{AccessEdits, AccessList, AdminState, BanAfter, Persist, SourceLimits, parse};
use crate::prefix::Prefix;

mod numbers;
mod routes;

const TEXT: &str = r#"(
    listeners: [(name: "front", bind: "127.0.0.1:8080", pool: "web")],
    pools: [
        (name: "web", backends: ["127.0.0.1:9001", (address: "127.0.0.1:9002", name: "b")]),
        (name: "tiers", strategy: (name: "two_tier", first: "weight"), backends: [
            (address: "unix:/x", group: "x"), (address: "unix:/y", group: "y", weight: 2)]),
        (name: "elastic", scaling: (high: 10), backends: ["unix:/m"], reserve: ["unix:/r"]),
        (name: "sticky", strategy: (name: "sticky_round_robin", ttl: "1h"), backends: ["unix:/s"]),
    ],
)"#;

fn config() -> Config {
    parse(String::new(), TEXT.into()).unwrap().0
}

fn backend(address: &str) -> Backend {
    Backend::at(address.parse().unwrap())
}

fn add(pool: &str, backend: Backend) -> Change {
    Change::AddBackend {
        pool: pool.to_owned(),
        backend: Box::new(backend),
    }
}

fn remove(pool: &str, backend: &str) -> Change {
    Change::RemoveBackend {
        pool: pool.to_owned(),
        backend: backend.to_owned(),
    }
}

fn weigh(pool: &str, backend: &str, weight: u16) -> Change {
    Change::SetBackend {
        pool: pool.to_owned(),
        backend: backend.to_owned(),
        patch: Patch::all(&[("weight", &weight.to_string())]),
    }
}

fn balance(pool: &str, strategy: &str) -> Change {
    Change::SetPool {
        pool: pool.to_owned(),
        patch: Patch::all(&[("strategy", strategy)]),
    }
}

/// The configuration after the change differs from the one before in this edit alone.
#[track_caller]
fn becomes(change: &Change, edit: impl FnOnce(&mut Config)) {
    let mut want = config();
    edit(&mut want);
    assert_eq!(change.apply(&config()), Ok(want));
}

#[track_caller]
fn refused(change: &Change, want: &str) {
    let error = change.apply(&config()).unwrap_err();
    assert_eq!(error.to_string(), want);
}

#[test]
fn a_backend_joins_before_the_reserve() {
    let new = Backend {
        weight: 3,
        ..backend("[::1]:1")
    };
    becomes(&add("web", new.clone()), |config| {
        config.pools[0].backends.push(new.clone());
    });
    becomes(&add("elastic", new.clone()), |config| {
        config.pools[2].backends.insert(1, new.clone());
    });
    let spare = Backend {
        reserve: true,
        ..new
    };
    becomes(&add("elastic", spare.clone()), |config| {
        config.pools[2].backends.push(spare.clone());
    });
    refused(
        &add("web", spare),
        "pool `web`: reserve: without `scaling` it is never brought in",
    );
}

#[test]
fn a_backend_joins_once() {
    let twice = Backend {
        name: "b".to_owned(),
        ..backend("unix:/n")
    };
    refused(
        &add("web", twice),
        "pool `web` has a backend called `b` already",
    );
    refused(
        &add("web", backend("127.0.0.1:9002")),
        "pool `web`: two backends of the pool, `b` and `127.0.0.1:9002`, \
         are at the address `127.0.0.1:9002`: leave one out",
    );
}

#[test]
fn a_backend_leaves_while_another_is_there() {
    becomes(&remove("web", "b"), |config| {
        config.pools[0].backends.pop();
    });
    refused(
        &remove("elastic", "unix:/m"),
        "pool `elastic`: this is its last backend: add another one first, or drain this one",
    );
    refused(
        &remove("elastic", "unix:/r"),
        "pool `elastic`: scaling: there is no `reserve` of backends to grow by",
    );
}

#[test]
fn what_is_called_otherwise_is_not_found() {
    refused(
        &remove("wbe", "b"),
        "there is no pool called `wbe`, did you mean `web`?",
    );
    refused(
        &remove("web", "x"),
        "there is no backend called `x`, did you mean `b`?",
    );
    refused(
        &remove("web", "second"),
        "there is no backend called `second`: expected `127.0.0.1:9001` or `b`",
    );
    let change = Change::SetListener {
        listener: "frnt".to_owned(),
        patch: Patch::all(&[("max_connections", "off")]),
    };
    refused(
        &change,
        "there is no listener called `frnt`, did you mean `front`?",
    );
}

#[test]
fn a_backend_changes_only_the_given_fields() {
    becomes(&weigh("web", "b", 7), |config| {
        config.pools[0].backends[1].weight = 7;
    });
    let limit = NonZeroU32::new(5);
    let change = Change::SetBackend {
        pool: "web".to_owned(),
        backend: "b".to_owned(),
        patch: Patch::all(&[("max_connections", "5"), ("state", "drain")]),
    };
    becomes(&change, |config| {
        config.pools[0].backends[1].max_connections = limit;
        config.pools[0].backends[1].state = AdminState::Drain;
    });
    refused(
        &weigh("elastic", "unix:/m", 0),
        "pool `elastic`: backends: every weight is 0, so that none is ever selected",
    );
}

/// The groups of the second pool, each with its weight.
fn groups(config: &Config) -> Vec<(String, u32)> {
    let groups = config.pools[1].groups().into_iter();
    groups.map(|group| (group.name, group.weight)).collect()
}

fn weights(groups: &[(&str, u32)]) -> Vec<(String, u32)> {
    let groups = groups.iter();
    groups
        .map(|(name, weight)| ((*name).to_owned(), *weight))
        .collect()
}

#[test]
fn groups_follow_their_backends() {
    let weighed = weigh("tiers", "unix:/y", 5).apply(&config()).unwrap();
    assert_eq!(groups(&weighed), weights(&[("x", 1), ("y", 5)]));
    let removed = remove("tiers", "unix:/x").apply(&config()).unwrap();
    assert_eq!(groups(&removed), weights(&[("y", 2)]));
    let new = Backend {
        group: Some("z".to_owned()),
        ..backend("unix:/z")
    };
    let added = add("tiers", new).apply(&config()).unwrap();
    assert_eq!(groups(&added), weights(&[("x", 1), ("y", 2), ("z", 1)]));
    refused(
        &add("tiers", backend("unix:/z")),
        "pool `tiers`: missing field `group`: other backends of the pool have one",
    );
}

#[test]
fn of_many_changes_those_are_refused_that_have_no_room() {
    let changes = [
        weigh("elastic", "unix:/m", 0),
        weigh("web", "b", 7),
        remove("web", "nobody"),
        remove("tiers", "unix:/x"),
        remove("elastic", "unix:/r"),
    ];
    let (made, refused) = Change::apply_all(&changes, &config());
    let refused: Vec<_> = refused.iter().map(|(place, _)| *place).collect();
    assert_eq!(refused, [0, 2, 4]);
    let one_by_one = [1, 3].into_iter().fold(config(), |config, place: usize| {
        changes[place].apply(&config).unwrap()
    });
    assert_eq!(made, one_by_one);
}

/// One after the other and all at once, with names and addresses that are free again.
#[test]
fn many_changes_of_a_pool_are_made_as_each_alone() {
    let other = |name: &str, address: &str| Backend {
        name: name.to_owned(),
        ..backend(address)
    };
    let changes = [
        weigh("web", "b", 7),
        remove("web", "b"),
        weigh("web", "b", 8),
        add("web", other("b", "unix:/other")),
        add("web", other("b", "unix:/another")),
        weigh("web", "b", 9),
        balance("web", "random"),
        remove("web", "b"),
        add("web", other("c", "unix:/other")),
        add("tiers", other("w", "unix:/w")),
        add("nowhere", backend("unix:/w")),
    ];
    let (together, refused) = Change::apply_all(&changes, &config());
    let mut one_by_one = config();
    let mut errors = Vec::new();
    for (place, change) in changes.iter().enumerate() {
        match change.apply(&one_by_one) {
            Ok(next) => one_by_one = next,
            Err(_) => errors.push(place),
        }
    }
    let refused: Vec<_> = refused.iter().map(|(place, _)| *place).collect();
    assert_eq!((together, refused), (one_by_one, errors));
}

/// An operator lists in the file what was added while it ran, under other names.
#[test]
fn a_few_invalid_changes_of_thousands_cost_little() {
    let all = |name: &str| {
        let at = |i: u16| format!("10.0.{}.{}:80", i / 200, i % 200);
        let named = |i| Backend {
            name: format!("{name}{i}"),
            ..backend(&at(i))
        };
        (0..2_000).map(named).collect::<Vec<_>>()
    };
    let mut config = config();
    config.pools[0].backends = all("file");
    let mut changes: Vec<_> = all("api").into_iter().map(|one| add("web", one)).collect();
    changes.truncate(500);
    changes.extend((0..1_000).map(|i| weigh("web", &format!("file{i}"), 7)));
    changes.push(add("web", backend("unix:/new")));
    changes.push(balance("web", r#"(name: "two_tier", first: "priority")"#));
    changes.push(add("web", backend("unix:/newer")));
    let (made, refused) = Change::apply_all(&changes, &config);
    let places: Vec<_> = refused.iter().map(|(place, _)| *place).collect();
    let expected: Vec<_> = (0..500).chain([1_501]).collect();
    assert_eq!(places, expected);
    assert_eq!(
        refused[3].1.to_string(),
        "pool `web`: two backends of the pool, `file3` and `api3`, are at the address \
         `10.0.0.3:80`: leave one out"
    );
    assert_eq!(made.pools[0].backends.len(), 2_002);
    assert_eq!(made.pools[0].backends[999].weight, 7);
}

/// Each change was checked when it was made: later changes do not check it again.
#[test]
fn changes_of_backends_are_made_again_together() {
    let changes = [weigh("web", "b", 7), weigh("tiers", "unix:/y", 5)];
    let mut together = config();
    Change::set_backends(changes.iter(), &mut together);
    let (one_by_one, refused) = Change::apply_all(&changes, &config());
    assert_eq!((together, refused), (one_by_one, Vec::new()));
    let mut same = config();
    Change::set_backends([weigh("elastic", "unix:/m", 0)].iter(), &mut same);
    assert_eq!(same, config());
}

#[test]
fn groups_that_are_listed_stay() {
    let named = r#"(name: "two_tier", first: "weight", groups: [(name: "y", weight: 9), "x"])"#;
    let fixed = balance("tiers", named).apply(&config()).unwrap();
    assert_eq!(groups(&fixed), weights(&[("y", 9), ("x", 1)]));
    let lonely = remove("tiers", "unix:/x").apply(&fixed).unwrap_err();
    assert_eq!(
        lonely.to_string(),
        "pool `tiers`: groups: no backend is in the group `x`"
    );
    let weighed = weigh("tiers", "unix:/y", 5).apply(&fixed).unwrap();
    assert_eq!(groups(&weighed), groups(&fixed));
}

#[test]
fn a_strategy_takes_the_place_of_another() {
    let hash = r#"(name: "hash", key: "sni", max_load: 1.5)"#;
    becomes(&balance("web", hash), |config| {
        config.pools[0].strategy = values::strategy_of(hash).unwrap();
    });
    // Its groups are those that the backends name.
    becomes(&balance("tiers", "two_tier"), |config| {
        config.pools[1].strategy = values::strategy("two_tier").unwrap();
    });
    refused(
        &balance("web", r#"(name: "two_tier", first: "priority")"#),
        "pool `web`: first: `priority` picks a group: say with each backend which it is in, \
         such as group: \"a\"",
    );
    refused(
        &balance("tiers", r#"(name: "two_tier", subset: 3)"#),
        "pool `tiers`: subset: the key picks one of the groups: leave `subset` out",
    );
    refused(
        &balance("web", r#"(name: "two_tier", groups: ["a"])"#),
        "pool `web`: groups: no backend is in the group `a`",
    );
}

#[test]
fn persistence_goes_with_the_strategy_that_it_is_part_of() {
    becomes(&balance("sticky", "random"), |config| {
        config.pools[3].strategy = Strategy::Random;
    });
    becomes(&balance("sticky", "sticky_round_robin"), |_| {});
    becomes(&balance("web", "sticky_round_robin"), |config| {
        config.pools[0].strategy = Strategy::StickyRoundRobin(Persist::default());
    });
    let persist = Persist {
        key: "sni".parse().unwrap(),
        ..Persist::default()
    };
    let mut by_name = config();
    by_name.pools[0].persist = Some(persist.clone());
    let sticky = balance("web", "sticky_round_robin").apply(&by_name);
    by_name.pools[0].persist = None;
    by_name.pools[0].strategy = Strategy::StickyRoundRobin(persist);
    assert_eq!(sticky, Ok(by_name));
}

#[test]
fn limits_and_queues_change() {
    let limit = NonZeroU32::new(100);
    let queue = crate::config::QueueLimits {
        max: 3,
        timeout: std::time::Duration::from_secs(1),
    };
    let change = Change::SetPool {
        pool: "web".to_owned(),
        patch: Patch::all(&[
            ("max_connections", "100"),
            ("queue_max", "3"),
            ("queue_timeout", "1s"),
        ]),
    };
    becomes(&change, |config| {
        config.pools[0].max_connections = limit;
        config.pools[0].queue = queue;
    });
    let change = Change::SetListener {
        listener: "front".to_owned(),
        patch: Patch::all(&[("max_connections", "100")]),
    };
    becomes(&change, |config| {
        config.listeners[0].max_connections = limit;
    });
    let change = Change::SetGlobal {
        patch: Patch::all(&[("max_connections", "100")]),
    };
    becomes(&change, |config| config.max_connections = limit);
}

#[test]
fn single_values_are_read_as_in_a_file() {
    let hash = values::strategy("hash").unwrap();
    for text in ["hash", " hash ", "\"hash\"", "(name: \"hash\")"] {
        assert_eq!(values::strategy_of(text), Ok(hash.clone()), "{text}");
    }
    let error = |text: &str| values::strategy_of(text).unwrap_err().to_string();
    assert_eq!(
        error("leastconn"),
        "invalid strategy `leastconn`, did you mean `least_connections`?"
    );
    assert_eq!(
        error("(name: \"hash\", ky: \"sni\")"),
        "unknown field `ky`, did you mean `key`?"
    );
    assert_eq!(
        error("(name: \"sticky_round_robin\", ttl: \"1h\")"),
        "only a file can say how clients of `sticky_round_robin` persist"
    );
    for text in ["", "(", "(name: \"hash\"))", "1", "\"", "é", "[]"] {
        assert!(!error(text).is_empty());
    }
    assert_eq!(values::admin_state("maint"), Ok(AdminState::Maint));
}

fn edit(list: &str, change: &AccessEdits) -> Change {
    Change::EditAccessList {
        list: list.to_owned(),
        edits: change.checked().unwrap(),
    }
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn prefixes_join_and_leave_an_access_list() {
    let text = TEXT.replacen(
        '(',
        r#"(access_lists: [(name: "office", allow: ["10.0.0.0/8"], deny: ["10.6.0.0/16"],
            others: "allow")],"#,
        1,
    );
    let before = parse(String::new(), text.into()).unwrap().0;
    let after = |allow: &[&str], deny: &[&str], remove: &[&str]| {
        let [allow, deny, remove] = [allow, deny, remove].map(prefixes);
        let change = AccessEdits {
            allow,
            deny,
            remove,
        };
        let after = edit("office", &change).apply(&before).unwrap();
        let list = &after.access_lists[0];
        let texts = |all: &[Prefix]| all.iter().map(Prefix::to_string).collect::<Vec<_>>();
        [texts(&list.allow).join(" "), texts(&list.deny).join(" ")]
    };
    assert_eq!(
        after(&["::1"], &["10.0.0.0/8"], &["10.6.0.0/16", "10.9.0.0/16"]),
        ["::1", "10.0.0.0/8"]
    );
    assert_eq!(
        after(&["10.0.0.0/8"], &["10.7.0.0/16"], &[]),
        ["10.0.0.0/8", "10.6.0.0/16 10.7.0.0/16"]
    );
    let many = (0..1_001u32).map(|n| Prefix::new(std::net::Ipv4Addr::from(n).into(), 32).unwrap());
    let many = AccessEdits {
        deny: many.collect(),
        ..AccessEdits::default()
    };
    let error = many.checked().unwrap_err();
    assert!(
        error.starts_with("1001 prefixes are too many for one change"),
        "{error}"
    );
    let twice = AccessEdits {
        deny: prefixes(&["::1"]),
        remove: prefixes(&["::1"]),
        ..AccessEdits::default()
    };
    assert_eq!(
        twice.checked().unwrap_err(),
        "`::1` is listed twice: expected it in one of `allow`, `deny` and `remove`"
    );
    let nothing = AccessEdits::default();
    let unknown = edit("ofice", &nothing).apply(&before).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "there is no access list called `ofice`, did you mean `office`?"
    );
}

#[test]
fn a_listener_takes_an_access_list_that_exists() {
    let change = |name: &str| Change::SetListener {
        listener: "front".to_owned(),
        patch: Patch::all(&[("access_list", name)]),
    };
    refused(
        &change("office"),
        "listener `front`: access_list: there is no access list called `office`",
    );
    becomes(&change("off"), |_| {});
    let mut with = config();
    let list = AccessList {
        name: "office".to_owned(),
        ..AccessList::base()
    };
    with.access_lists.push(list.into());
    let after = change("office").apply(&with).unwrap();
    assert_eq!(after.listeners[0].access_list.as_deref(), Some("office"));
}

#[test]
fn limits_of_a_listener_change_as_in_a_file() {
    let change = |setting: &str, text: &str| Change::SetListener {
        listener: "front".to_owned(),
        patch: Patch::all(&[(setting, text)]),
    };
    let ten = NonZeroU32::new(10);
    let limits = SourceLimits {
        connections: ten,
        dry_run: true,
        ..SourceLimits::default()
    };
    let change_sources = change("source_limits", "(connections: 10, dry_run: true)");
    becomes(&change_sources, |config| {
        config.listeners[0].source_limits = Some(limits);
    });
    let after = change_sources.apply(&config()).unwrap();
    let off = change("source_limits", "off").apply(&after).unwrap();
    assert_eq!(off.listeners[0].source_limits, None);
    becomes(&change("ban", "(after: 10)"), |config| {
        config.listeners[0].ban = Some(BanAfter::default());
    });
    let after = change("bandwidth", "(all: (down: \"5MB/s\"))").apply(&config());
    assert!(after.unwrap().limits_bandwidth());
    let global = Change::SetGlobal {
        patch: Patch::all(&[("rate_limit", "(rate: 10)")]),
    };
    let rate = global.apply(&config()).unwrap().rate_limit.unwrap().rate;
    assert_eq!(Some(rate), ten);
    refused(
        &change("source_limits", "(prefix_v4: 24)"),
        "listener `front`: source_limits: expected `connections`, `rate` or both",
    );
}

/// What a command sends is what the API reads.
#[test]
fn groups_go_over_the_wire_as_objects() {
    let text = "(session: (up: \"1MB/s\"), all: (down: \"5MiB/s\"))";
    let patch = Patch::<Listener>::all(&[
        ("source_limits", "(rate: 50, burst: 200)"),
        ("ban", "()"),
        ("bandwidth", text),
        ("rate_limit", "off"),
    ]);
    let body = serde_json::json!({
        "source_limits": { "rate": 50, "burst": 200 },
        "ban": { "after": 10, "within": "10s", "for": "1m" },
        "bandwidth": { "session": { "up": "1MB/s" }, "all": { "down": "5MiB/s" } },
        "rate_limit": "off",
    });
    assert_eq!(patch.json(), body);
    assert_eq!(Patch::read(body.to_string().as_bytes()), Ok(patch.clone()));
    let words = "rate_limit off, source_limits (rate: 50, burst: 200), \
                 ban (after: 10, within: \"10s\", for: \"1m\"), bandwidth ";
    assert_eq!(patch.to_string(), format!("{words}{text}"));
    let error = |setting: &str, text: &str| {
        let error = Patch::<Listener>::of(setting, text).unwrap_err();
        error.to_string()
    };
    let off = Patch::<Listener>::all(&[("bandwidth", "off")]);
    assert_eq!(off.to_string(), "bandwidth off");
    assert_eq!(off.json(), serde_json::json!({ "bandwidth": "off" }));
    assert_eq!(off, Patch::all(&[("bandwidth", "()")]));
    let unknown = error("source_limits", "(conections: 5)");
    assert!(unknown.contains("did you mean `connections`"), "{unknown}");
    let malformed = error("source_limits", "many");
    assert!(
        malformed.contains("off or a group such as '("),
        "{malformed}"
    );
    assert!(!error("source_limits", "(rate: 5").is_empty());
}
