//! Each rule, tried by every way that a configuration comes in: they give one sentence. Two changes
//! have sentences of their own: a backend with a name that is there (the API answers 409), and the
//! removal of the last backend. The count of backends has a test of its own.

use clap::Parser;

use super::*;
use crate::cli::{Cli, Task, proxy_config};

/// A configuration that a change is made to.
const BASE: &str = r#"(
    listeners: [(bind: "unix:/l", pool: "web")],
    pools: [
        (name: "web", backends: ["unix:/a", "unix:/b"]),
        (name: "tiers", strategy: (name: "two_tier", first: "weight"), backends: [
            (address: "unix:/x", group: "x"), (address: "unix:/y", group: "y")]),
        (name: "named", sni_member: "b-{n}.k", backends: [(address: "unix:/c", member: 1)]),
        (name: "elastic", scaling: (high: 10), backends: ["unix:/m"], reserve: ["unix:/r"]),
    ],
)"#;

/// A broken rule, by the ways that can break it.
#[derive(Default)]
struct Case {
    sentence: &'static str,
    /// Settings of the whole file in place of those of the pool.
    file: &'static str,
    /// Settings of the only pool.
    pool: &'static str,
    flags: &'static str,
    change: Option<Change>,
}

fn set(pool: &str, strategy: &str) -> Option<Change> {
    let patch = Patch::of("strategy", strategy).unwrap();
    let pool = pool.to_owned();
    Some(Change::SetPool { pool, patch })
}

fn add(pool: &str, backend: Backend) -> Option<Change> {
    let (pool, backend) = (pool.to_owned(), Box::new(backend));
    Some(Change::AddBackend { pool, backend })
}

fn remove(pool: &str, backend: &str) -> Option<Change> {
    let (pool, backend) = (pool.to_owned(), backend.to_owned());
    Some(Change::RemoveBackend { pool, backend })
}

fn cases() -> Vec<Case> {
    let mut cases = of_lists();
    cases.extend(of_servers());
    cases.extend(of_metrics());
    cases.extend(of_access_lists());
    cases.extend(of_proxies());
    cases.extend(of_backends());
    cases.extend(of_pools());
    cases.extend(of_groups());
    cases
}

fn of_proxies() -> Vec<Case> {
    vec![
        Case {
            sentence: "\"unix\" is for listeners of a Unix socket: write the addresses of the \
                       proxies",
            file: r#"listeners: [(bind: "[::1]:1", pool: "p", accept_proxy: ["::1", "unix"])],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            flags: "--from [::1]:1 --to unix:/a --accept-proxy unix",
            ..Case::default()
        },
        Case {
            sentence: "peers of a Unix socket have no address: write \"unix\"",
            file: r#"listeners: [(bind: "unix:/l", pool: "p", accept_proxy: ["10.0.0.0/8"])],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            flags: "--from unix:/l --to unix:/a --accept-proxy 10.0.0.0/8",
            ..Case::default()
        },
        Case {
            sentence: "listed twice: `::1`: leave one out",
            file: r#"listeners: [(bind: "[::1]:1", pool: "p", accept_proxy: ["::1", "::1"])],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            flags: "--from [::1]:1 --to unix:/a --accept-proxy ::1 --accept-proxy ::1",
            ..Case::default()
        },
    ]
}

fn of_access_lists() -> Vec<Case> {
    vec![
        Case {
            sentence: "freebind: a Unix socket is bound to a path: leave it out",
            file: r#"listeners: [(bind: "unix:/l", pool: "p", freebind: true)],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            ..Case::default()
        },
        Case {
            sentence: "source: clients of a Unix socket have no address: leave it out",
            file: r#"listeners: [(bind: "unix:/l", pool: "p",
                    bandwidth: (source: (up: "1MB/s")))],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            ..Case::default()
        },
        Case {
            sentence: "access_list: clients of a Unix socket have no address: leave it out",
            file: r#"access_lists: [(name: "a", others: "deny")],
                listeners: [(bind: "unix:/l", pool: "p", access_list: "a")],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            ..Case::default()
        },
        Case {
            sentence: "expected `for` up to `up_to`, which is 1h",
            file: r#"listeners: [(bind: "127.0.0.1:1", pool: "p", source_limits: (rate: 1),
                    ban: (for: "61m"))],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            flags: "--from 127.0.0.1:1 --to unix:/a --source-rate 1 --ban-after 3/1s --ban-for 61m",
            ..Case::default()
        },
        Case {
            sentence: "access_list: there is no access list called `ofice`, did you mean `office`?",
            file: r#"access_lists: [(name: "office", others: "deny")],
                listeners: [(bind: "127.0.0.1:1", pool: "p", access_list: "ofice")],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            ..Case::default()
        },
        Case {
            sentence: "two access lists are called `a`: leave one out, or give it another `name`",
            file: r#"access_lists: [(name: "a", others: "deny"), (name: "a", others: "deny")],
                listeners: [(bind: "unix:/l", pool: "p")],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            ..Case::default()
        },
        Case {
            sentence: "listed twice: `10.0.0.0/8`: leave one out",
            file: r#"access_lists: [(name: "a", allow: ["10.0.0.0/8"], deny: ["10.0.0.0/8"],
                    others: "deny")],
                listeners: [(bind: "unix:/l", pool: "p")],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            flags: "--from 127.0.0.1:1 --to unix:/a --allow 10.0.0.0/8 --deny 10.0.0.0/8",
            ..Case::default()
        },
        without_others("has a file", r#"file: "a.txt""#),
        without_others(
            "has a file",
            r#"allow: ["10.0.0.0/8"], file: "a.txt", others: "auto""#,
        ),
        without_others("has no prefix", "allow: []"),
        without_others("has no prefix", "dry_run: true"),
        without_others(
            "allows and denies",
            r#"allow: ["10.0.0.0/8"], deny: ["::/0"]"#,
        ),
    ]
}

/// A list that leaves open what holds for all others.
fn without_others(why: &str, list: &str) -> Case {
    let sentence = format!(
        "the access list `a` {why}: write others: \"deny\" to let in only clients that it allows, \
         or others: \"allow\" to refuse only clients that it denies"
    );
    let file = format!(
        "access_lists: [(name: \"a\", {list})], listeners: [(bind: \"unix:/l\", pool: \"p\")],
        pools: [(name: \"p\", backends: [\"unix:/a\"])]"
    );
    Case {
        sentence: sentence.leak(),
        file: file.leak(),
        ..Case::default()
    }
}

fn of_metrics() -> Vec<Case> {
    vec![
        Case {
            sentence: "metrics: other machines can reach this address: give `allow`, the prefixes \
                       of those that may read, or the file of a `read_token`",
            file: r#"metrics: "[::]:1""#,
            ..Case::default()
        },
        Case {
            sentence: "listed twice: `10.0.0.0/8`: leave one out",
            file: r#"metrics: (bind: "0.0.0.0:1", allow: ["10.0.0.0/8", "::1", "10.0.0.0/8"])"#,
            ..Case::default()
        },
    ]
}

fn of_servers() -> Vec<Case> {
    vec![
        Case {
            sentence: "two servers of this balancer share the address `127.0.0.1:1`, which \
                       `0.0.0.0:1` includes: give one of them another",
            file: r#"listeners: [(bind: "0.0.0.0:1", pool: "p")],
                pools: [(name: "p", backends: ["unix:/a"])], metrics: "127.0.0.1:1""#,
            ..Case::default()
        },
        Case {
            sentence: "two servers of this balancer share the address `127.0.0.1:1`: give one of \
                       them another",
            file: r#"metrics: "127.0.0.1:1",
                admin: (http: (bind: "127.0.0.1:1", read_token: "t"))"#,
            ..Case::default()
        },
        Case {
            sentence: "two servers of this balancer share the address `127.0.0.1:1`, which \
                       `0.0.0.0:1` includes: give one of them another",
            file: r#"listeners: [(bind: "127.0.0.1:1", pool: "p")],
                pools: [(name: "p", backends: ["unix:/a"])],
                fleet: (peers: (listen: "0.0.0.0:1", certificate: "c", key: "k", ca: "a",
                    members: [(name: "b.test", address: "10.0.0.1:1")]))"#,
            ..Case::default()
        },
        Case {
            sentence: "two servers of this balancer share the address `unix:/l`: give one of \
                       them another",
            file: r#"listeners: [(bind: "unix:/l", pool: "p")],
                pools: [(name: "p", backends: ["unix:/a"])], admin: "/l""#,
            ..Case::default()
        },
    ]
}

fn of_lists() -> Vec<Case> {
    vec![
        Case {
            sentence: "listeners: expected at least one",
            file: r#"listeners: [], pools: [(name: "p", backends: ["unix:/a"])]"#,
            ..Case::default()
        },
        Case {
            sentence: "pools: expected at least one",
            file: r#"listeners: [(bind: "unix:/l", pool: "p")], pools: []"#,
            ..Case::default()
        },
        Case {
            sentence: "admin: it is served nowhere: write admin: \"off\", or give `http`",
            file: r#"admin: (socket: "off")"#,
            ..Case::default()
        },
        Case {
            sentence: "http: expected a token: give the file of `read_token`, of `write_token` \
                       or of both",
            file: r#"admin: (http: (bind: "127.0.0.1:1"))"#,
            ..Case::default()
        },
        Case {
            sentence: "two listeners share the address `unix:/l`: leave one out",
            file: r#"listeners: [(bind: "unix:/l", pool: "p"), (bind: "unix:/l", pool: "p")],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            flags: "--from unix:/l --from unix:/l --to unix:/a",
            ..Case::default()
        },
        Case {
            sentence: "two listeners share the address `127.0.0.1:1`, which `[::]:1` includes: \
                       leave one out",
            file: r#"listeners: [(bind: "[::]:1", pool: "p"), (bind: "127.0.0.1:1", pool: "p")],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            flags: "--from [::]:1 --from 127.0.0.1:1 --to unix:/a",
            ..Case::default()
        },
        Case {
            sentence: "two listeners are called `n`: leave one out, or give it another \
                       `name`",
            file: r#"listeners: [(name: "n", bind: "unix:/l", pool: "p"),
                    (name: "n", bind: "unix:/m", pool: "p")],
                pools: [(name: "p", backends: ["unix:/a"])]"#,
            ..Case::default()
        },
        Case {
            sentence: "backend `unix:/l` leads back to its own pool by the listener on `unix:/l`, \
                       so that a connection would go round without end: expected the address of \
                       a server",
            file: r#"listeners: [(bind: "unix:/l", pool: "p")],
                pools: [(name: "p", backends: ["unix:/l"])]"#,
            flags: "--from unix:/l --to unix:/l",
            ..Case::default()
        },
        Case {
            sentence: "two pools are called `p`: leave one out, or give it another \
                       `name`",
            file: r#"listeners: [(bind: "unix:/l", pool: "p")],
                pools: [(name: "p", backends: ["unix:/a"]), (name: "p", backends: ["unix:/a"])]"#,
            ..Case::default()
        },
    ]
}

fn of_backends() -> Vec<Case> {
    let named = |name: &str, address: &str| Backend {
        name: name.to_owned(),
        ..backend("", address)
    };
    vec![
        Case {
            sentence: "backends: expected at least one",
            pool: "backends: []",
            ..Case::default()
        },
        Case {
            sentence: "backends: every weight is 0, so that none is ever selected",
            pool: r#"backends: [(address: "unix:/a", weight: 0)]"#,
            flags: "--from unix:/l --to unix:/a,weight=0 --to unix:/b,weight=0",
            change: Some(Change::SetBackend {
                pool: "elastic".to_owned(),
                backend: "unix:/m".to_owned(),
                patch: Patch::all(&[("weight", "0")]),
            }),
            ..Case::default()
        },
        Case {
            sentence: "scaling: there is no `reserve` of backends to grow by",
            pool: r#"scaling: (high: 9), backends: ["unix:/a"]"#,
            change: remove("elastic", "unix:/r"),
            ..Case::default()
        },
        Case {
            sentence: "reserve: without `scaling` it is never brought in",
            pool: r#"backends: ["unix:/a"], reserve: ["unix:/b"]"#,
            change: add(
                "web",
                Backend {
                    reserve: true,
                    ..named("r", "unix:/r")
                },
            ),
            ..Case::default()
        },
        Case {
            sentence: "the address `unix:/a` is listed twice in the pool: leave one out",
            pool: r#"backends: ["unix:/a", "unix:/a"]"#,
            flags: "--from unix:/l --to unix:/a --to unix:/a",
            ..Case::default()
        },
        Case {
            sentence: "two backends of the pool, `unix:/a` and `b`, are at the address `unix:/a`: \
                       leave one out",
            pool: r#"backends: ["unix:/a", (address: "unix:/a", name: "b")]"#,
            change: add("web", named("b", "unix:/a")),
            ..Case::default()
        },
    ]
}

fn of_pools() -> Vec<Case> {
    vec![
        Case {
            sentence: "source: listed twice: `10.0.0.5`: leave one out",
            pool: r#"source: ["10.0.0.5", "10.0.0.5"], backends: ["unix:/a"]"#,
            ..Case::default()
        },
        Case {
            sentence: "invalid `max` `1s`: expected at least the first ejection, 2s",
            pool: r#"ejection: (base: "2s", max: "1s"), backends: ["unix:/a"]"#,
            ..Case::default()
        },
        Case {
            sentence: "invalid `timeout` `2s`: expected at most the shortest interval of probes, \
                       1s: lower `timeout`, or raise the interval",
            pool: r#"check: (type: "tcp", interval: "1s", timeout: "2s"), backends: ["unix:/a"]"#,
            flags: r#"--from unix:/l --to unix:/a --check (type:"tcp",interval:"1s",timeout:"2s")"#,
            ..Case::default()
        },
        of_members(
            "strategy",
            "the client's name selects its backend",
            "strategy: \"first\",",
        ),
        of_members(
            "persist",
            "the client's name selects its backend",
            "persist: \"source_ip\",",
        ),
        of_members(
            "queue",
            "a client whose backend is full is refused",
            "queue: 7,",
        ),
        of_members(
            "discover",
            "backends that are found have no numbers that stay",
            "discover: (file: \"f\"),",
        ),
        of_members(
            "scaling",
            "no other backend takes a client",
            "scaling: (high: 10), reserve: [\"unix:/b\"],",
        ),
        Case {
            sentence: "backup: no other backend takes a client with `sni_member`: leave it out",
            pool: r#"sni_member: "b-{n}.k",
                backends: ["unix:/a", (address: "unix:/b", backup: true)]"#,
            ..Case::default()
        },
        Case {
            sentence: "two backends of the pool have the number 1: give each a `member` of its own",
            pool: r#"sni_member: "b-{n}.k",
                backends: [(address: "unix:/a", member: 1), "unix:/b"]"#,
            change: add("named", backend("unix:/z", "unix:/z")),
            ..Case::default()
        },
        Case {
            sentence: "invalid `low` `6`: expected at most half of `high`, 5: the pool would grow \
                       and shrink in turn",
            pool: r#"scaling: (high: 10, low: 6), backends: ["unix:/a"], reserve: ["unix:/b"]"#,
            ..Case::default()
        },
    ]
}

/// A setting that a pool with `sni_member` can't have.
fn of_members(setting: &str, why: &str, written: &str) -> Case {
    let sentence = format!("{setting}: {why} with `sni_member`: leave it out");
    let pool = format!("sni_member: \"b-{{n}}.k\", {written} backends: [\"unix:/a\"]");
    Case {
        sentence: sentence.leak(),
        pool: pool.leak(),
        ..Case::default()
    }
}

fn of_groups() -> Vec<Case> {
    vec![
        Case {
            sentence: "subset: the key picks one of the groups: leave `subset` out",
            pool: r#"strategy: (name: "two_tier", subset: 3),
                backends: [(address: "unix:/a", group: "g")]"#,
            change: set("tiers", r#"(name: "two_tier", subset: 3)"#),
            ..Case::default()
        },
        Case {
            sentence: "first: `weight` picks a group: say with each backend which it is in, such \
                       as group: \"a\"",
            pool: r#"strategy: (name: "two_tier", first: "weight"), backends: ["unix:/a"]"#,
            change: set("web", r#"(name: "two_tier", first: "weight")"#),
            ..Case::default()
        },
        Case {
            sentence: "two groups of the pool are called `x`: leave one out, or give it another \
                       `name`",
            pool: r#"strategy: (name: "two_tier", groups: ["x", "x"]),
                backends: [(address: "unix:/a", group: "x")]"#,
            change: set("tiers", r#"(name: "two_tier", groups: ["x", "x", "y"])"#),
            ..Case::default()
        },
        Case {
            sentence: "missing field `group`: other backends of the pool have one",
            pool: r#"strategy: (name: "two_tier", first: "weight"),
                backends: [(address: "unix:/a", group: "x"), "unix:/b"]"#,
            change: add("tiers", backend("unix:/z", "unix:/z")),
            ..Case::default()
        },
        Case {
            sentence: "group: there is no group called `y`, did you mean `x`?",
            pool: r#"strategy: (name: "two_tier", groups: ["x"]),
                backends: [(address: "unix:/a", group: "x"), (address: "unix:/b", group: "y")]"#,
            change: set("tiers", r#"(name: "two_tier", groups: ["x"])"#),
            ..Case::default()
        },
        Case {
            sentence: "groups: no backend is in the group `z`",
            pool: r#"strategy: (name: "two_tier", groups: ["x", "z"]),
                backends: [(address: "unix:/a", group: "x")]"#,
            change: set("tiers", r#"(name: "two_tier", groups: ["x", "y", "z"])"#),
            ..Case::default()
        },
    ]
}

#[test]
fn a_broken_rule_has_one_sentence_for_every_source() {
    for case in cases() {
        let sentence = case.sentence;
        let text = if case.pool.is_empty() {
            let is_top = ["admin", "metrics"]
                .iter()
                .any(|its| case.file.starts_with(its));
            let rest = if is_top {
                SMALLEST.trim_start_matches('(')
            } else {
                ")"
            };
            format!("({}, {rest}", case.file)
        } else {
            let pool = format!("(name: \"p\", {})", case.pool);
            format!("(listeners: [(bind: \"unix:/l\", pool: \"p\")], pools: [{pool}])")
        };
        let Err(ConfigError::Mistakes(mistakes)) = read(&text) else {
            panic!("accepted: {text}");
        };
        let told = mistakes[0].sentence.split("; the first is at").next();
        assert_eq!((told, mistakes.len()), (Some(sentence), 1), "{text}");
        if !case.flags.is_empty() {
            let arguments = ["mahoraga", "proxy"].into_iter();
            let arguments = arguments.chain(case.flags.split_whitespace());
            let Task::Proxy(args) = Cli::try_parse_from(arguments).unwrap().command else {
                panic!("another subcommand than proxy");
            };
            let error = proxy_config(&args).unwrap_err().to_string();
            let (flag, told) = error.split_once(": ").unwrap();
            assert_eq!(told, sentence);
            assert!(case.flags.contains(flag), "{error}");
        }
        if let Some(change) = case.change {
            let (config, _) = read(BASE).unwrap();
            let error = change.apply(&config).unwrap_err().to_string();
            let (pool, told) = error.split_once(": ").unwrap();
            assert_eq!(told, sentence);
            assert!(pool.starts_with("pool `"), "{error}");
        }
    }
}
