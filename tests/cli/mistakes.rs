//! Golden texts of every kind of mistake in `config.ron`.

use super::{SMALLEST, check, stderr, stdout};

/// The text is refused with exactly these lines.
#[track_caller]
pub(super) fn refused(test: &str, text: &str, want: &str) {
    let output = check(test, text.as_bytes(), &[]);
    assert_eq!(stderr(&output).trim_end_matches('\n'), want);
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""));
}

/// An editor or a script gets the findings of `check` with their places.
#[test]
fn findings_in_json() {
    let text = b"(\n\tlistners: [],\n)";
    let output = check("findings", text, &["--json"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(2), ""));
    let found: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    let want = serde_json::json!([{
        "file": "config.ron", "line": 2, "column": 2, "severity": "error",
        "message": "unknown field `listners`, did you mean `listeners`?",
    }]);
    assert_eq!(found, want);
    let output = check("findings", SMALLEST.as_bytes(), &["--json"]);
    let found: Vec<serde_json::Value> = serde_json::from_str(stdout(&output)).unwrap();
    assert!(
        found.iter().all(|one| one["severity"] == "warning"),
        "{found:?}"
    );
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

#[test]
fn an_unknown_field() {
    refused(
        "unknown_field",
        "(\n\tlistners: [],\n)",
        "config.ron:2:2: unknown field `listners`, did you mean `listeners`?
  | \tlistners: [],
  | \t^^^^^^^^",
    );
    refused(
        "unknown_field",
        "(pools: [(name: \"web\", backends: [(addres: \"127.0.0.1:1\")])])",
        "config.ron:1:36: unknown field `addres`, did you mean `address`?
  | (pools: [(name: \"web\", backends: [(addres: \"127.0.0.1:1\")])])
  |                                    ^^^^^^",
    );
    refused(
        "unknown_field",
        "(access_log: (file: \"x\"))",
        "config.ron:1:15: unknown field `file`: \
         expected `to`, `format`, `only`, `sample`, `proxy_checks`, `start`, `progress` or `fields`
  | (access_log: (file: \"x\"))
  |               ^^^^",
    );
}

/// All of them are reported, and terms of other balancers point at ours.
#[test]
fn several_unknown_fields() {
    refused(
        "unknown_fields",
        "(
    frontend: [(bind: \"127.0.0.1:1\", proxy_pass: \"web\", atempts: 2)],
    listeners: [(bind: \"127.0.0.1:1\", proxy_pass: \"web\", atempts: 2)],
    pools: [(name: \"web\", balance: \"leastconn\", maxconn: 5, servers: [])],
)",
        "config.ron:2:5: unknown field `frontend`: the list `listeners` has the addresses \
that clients connect to, each as `bind`
  |     frontend: [(bind: \"127.0.0.1:1\", proxy_pass: \"web\", atempts: 2)],
  |     ^^^^^^^^
config.ron:3:39: unknown field `proxy_pass`: the setting `pool` of a listener names where \
its clients go
  |     listeners: [(bind: \"127.0.0.1:1\", proxy_pass: \"web\", atempts: 2)],
  |                                       ^^^^^^^^^^
config.ron:3:58: unknown field `atempts`, did you mean `attempts`?
  |     listeners: [(bind: \"127.0.0.1:1\", proxy_pass: \"web\", atempts: 2)],
  |                                                          ^^^^^^^
config.ron:4:27: unknown field `balance`: the setting `strategy` of a pool says how a \
backend is selected
  |     pools: [(name: \"web\", balance: \"leastconn\", maxconn: 5, servers: [])],
  |                           ^^^^^^^
config.ron:4:49: unknown field `maxconn`: the setting is called `max_connections`
  |     pools: [(name: \"web\", balance: \"leastconn\", maxconn: 5, servers: [])],
  |                                                 ^^^^^^^
config.ron:4:61: unknown field `servers`: the list `backends` of a pool has the servers
  |     pools: [(name: \"web\", balance: \"leastconn\", maxconn: 5, servers: [])],
  |                                                             ^^^^^^^",
    );
}

#[test]
fn an_unknown_strategy() {
    refused(
        "unknown_strategy",
        &SMALLEST.replace("name: \"web\",", "name: \"web\", strategy: \"roundrobin\","),
        "config.ron:3:37: invalid `strategy` `roundrobin`, did you mean `round_robin`?
  |     pools: [(name: \"web\", strategy: \"roundrobin\", backends: [\"127.0.0.1:9001\"])],
  |                                     ^^^^^^^^^^^^",
    );
}

#[test]
fn a_pool_that_does_not_exist() {
    refused(
        "unknown_pool",
        &SMALLEST.replace("pool: \"web\"", "pool: \"wbe\""),
        "config.ron:2:48: pool: there is no pool called `wbe`, did you mean `web`?
  |     listeners: [(bind: \"127.0.0.1:8080\", pool: \"wbe\")],
  |                                                ^^^^^",
    );
}

#[test]
fn names_given_twice() {
    refused(
        "twice",
        "(
    listeners: [
        (name: \"a\", bind: \"127.0.0.1:1\", pool: \"web\"),
        (name: \"a\", bind: \"127.0.0.1:2\", pool: \"web\"),
        (name: \"c\", bind: \"127.0.0.1:1\", pool: \"web\"),
    ],
    pools: [
        (name: \"web\", backends: [\"127.0.0.1:3\", \"127.0.0.1:3\"]),
        (name: \"web\", backends: [\"127.0.0.1:4\"]),
    ],
)",
        "config.ron:4:16: two listeners are called `a`: leave one out, or give it another `name`; \
the first is at 3:16
  |         (name: \"a\", bind: \"127.0.0.1:2\", pool: \"web\"),
  |                ^^^
config.ron:5:27: two listeners share the address `127.0.0.1:1`: leave one out; the first is at 3:27
  |         (name: \"c\", bind: \"127.0.0.1:1\", pool: \"web\"),
  |                           ^^^^^^^^^^^^^
config.ron:8:49: the address `127.0.0.1:3` is listed twice in the pool: leave one out; \
the first is at 8:34
  |         (name: \"web\", backends: [\"127.0.0.1:3\", \"127.0.0.1:3\"]),
  |                                                 ^^^^^^^^^^^^^
config.ron:9:16: two pools are called `web`: leave one out, or give it another `name`; \
the first is at 8:16
  |         (name: \"web\", backends: [\"127.0.0.1:4\"]),
  |                ^^^^^",
    );
}

/// The balancer would count the connections of one as another's.
#[test]
fn an_address_given_twice() {
    refused(
        "address_twice",
        "(
    listeners: [(bind: \"127.0.0.1:1\", pool: \"web\")],
    pools: [(name: \"web\", backends: [\"db:3\", (name: \"b\", address: \"db:3\")])],
)",
        "config.ron:3:67: two backends of the pool, `db:3` and `b`, are at the address `db:3`: \
leave one out; the first is at 3:38
  |     pools: [(name: \"web\", backends: [\"db:3\", (name: \"b\", address: \"db:3\")])],
  |                                                                   ^^^^^^",
    );
}

#[test]
fn listeners_that_include_each_other() {
    refused(
        "overlap",
        "(
    listeners: [
        (bind: \"0.0.0.0:1\", pool: \"web\"),
        (bind: \"127.0.0.1:1\", pool: \"web\"),
        (bind: \"127.0.0.1:2\", pool: \"web\"),
        (bind: \"[::1]:1\", pool: \"web\"),
        (bind: \"[::]:2\", pool: \"web\"),
        (bind: \"[::]:3\", pool: \"web\"),
        (bind: \"0.0.0.0:3\", pool: \"web\"),
    ],
    pools: [(name: \"web\", backends: [\"unix:/a\"])],
)",
        "config.ron:4:16: two listeners share the address `127.0.0.1:1`, \
which `0.0.0.0:1` includes: leave one out; the first is at 3:16
  |         (bind: \"127.0.0.1:1\", pool: \"web\"),
  |                ^^^^^^^^^^^^^
config.ron:7:16: two listeners share the address `127.0.0.1:2`, \
which `[::]:2` includes: leave one out; the first is at 5:16
  |         (bind: \"[::]:2\", pool: \"web\"),
  |                ^^^^^^^^
config.ron:9:16: two listeners share the address `0.0.0.0:3`, \
which `[::]:3` includes: leave one out; the first is at 8:16
  |         (bind: \"0.0.0.0:3\", pool: \"web\"),
  |                ^^^^^^^^^^^",
    );
}

#[test]
fn weights() {
    refused(
        "weights",
        "(
    listeners: [(bind: \"127.0.0.1:1\", pool: \"none\")],
    pools: [
        (name: \"none\", backends: [(address: \"127.0.0.1:2\", weight: 0)]),
        (name: \"much\", backends: [(address: \"127.0.0.1:2\", weight: 257)]),
        (name: \"less\", backends: [(address: \"127.0.0.1:2\", weight: -1)]),
        (name: \"half\", backends: [(address: \"127.0.0.1:2\", weight: 0.5)]),
    ],
)",
        "config.ron:4:34: backends: every weight is 0, so that none is ever selected
  |         (name: \"none\", backends: [(address: \"127.0.0.1:2\", weight: 0)]),
  |                                  ^
config.ron:5:68: invalid `weight` `257`: expected a whole number, 0 to 256
  |         (name: \"much\", backends: [(address: \"127.0.0.1:2\", weight: 257)]),
  |                                                                    ^^^
config.ron:6:68: invalid `weight` `-1`: expected a whole number, 0 to 256
  |         (name: \"less\", backends: [(address: \"127.0.0.1:2\", weight: -1)]),
  |                                                                    ^^
config.ron:7:68: invalid `weight` `0.5`: expected a whole number, 0 to 256
  |         (name: \"half\", backends: [(address: \"127.0.0.1:2\", weight: 0.5)]),
  |                                                                    ^^^",
    );
}

#[test]
fn addresses() {
    refused(
        "addresses",
        "(
    listeners: [
        (name: \"é日\", bind: \"127.0.0.1\", pool: \"web\"),
        (bind: ::1, pool: \"web\"),
    ],
)",
        "config.ron:4:16: ::1 must be written in double quotes: \"::1\"
  |         (bind: ::1, pool: \"web\"),
  |                ^^^",
    );
    refused(
        "addresses",
        "(
    listeners: [
        (name: \"é日\", bind: \"127.0.0.1\", pool: \"web\"),
        (bind: 8080, pool: \"web\"),
    ],
    pools: [(name: \"web\", backends: [
        \"300.0.0.1:80\",
        \"127.0.0.1:0\",
        \"::1:80\",
        \"unix:\",
        \"[::1]80\",
    ])],
)",
        "config.ron:3:28: bind: `127.0.0.1` has no port: write host:port, [IPv6]:port or unix:/path
  |         (name: \"é日\", bind: \"127.0.0.1\", pool: \"web\"),
  |                             ^^^^^^^^^^^
config.ron:4:16: invalid `bind` `8080`: expected an address such as \"0.0.0.0:80\": host:port, \
[IPv6]:port or unix:/path, in double quotes
  |         (bind: 8080, pool: \"web\"),
  |                ^^^^
config.ron:7:9: address: invalid host `300.0.0.1`: expected an IP address or a host name
  |         \"300.0.0.1:80\",
  |         ^^^^^^^^^^^^^^
config.ron:8:9: address: invalid port `0` of `127.0.0.1:0`: expected 1 to 65535
  |         \"127.0.0.1:0\",
  |         ^^^^^^^^^^^^^
config.ron:9:9: address: `::1:80` looks like IPv6: write it as [address]:port
  |         \"::1:80\",
  |         ^^^^^^^^
config.ron:10:9: address: invalid path `unix:`: expected 1 to 107 bytes, without NUL
  |         \"unix:\",
  |         ^^^^^^^
config.ron:11:9: address: `[::1]80` lacks the `:` before the port: write [::1]:80
  |         \"[::1]80\",
  |         ^^^^^^^^^",
    );
}

#[test]
fn durations() {
    refused(
        "durations",
        &SMALLEST.replacen(
            "(\n",
            "(
    shutdown_grace: 30,
    defaults: (timeouts: (
        connect: \"0s\",
        idle: \"10\",
        half_closed: \"5 sec\",
        session: None,
        peek: \"2m\",
    )),
",
            1,
        ),
        "config.ron:2:21: invalid `shutdown_grace` `30`: expected a duration, 0s to 1d: \
write \"30ms\", \"30s\" or \"30m\"
  |     shutdown_grace: 30,
  |                     ^^
config.ron:4:18: invalid `connect` `\"0s\"`: expected a duration, 1ms to 1h
  |         connect: \"0s\",
  |                  ^^^^
config.ron:5:15: invalid `idle` `\"10\"`: expected a duration, 1ms to 30d, or \"off\": \
write \"10ms\", \"10s\", \"10m\" or \"10h\"
  |         idle: \"10\",
  |               ^^^^
config.ron:6:22: invalid `half_closed` `\"5 sec\"`: expected a duration, 1ms to 30d: \
write a whole number with ms, s, m, h or d, such as \"5s\"
  |         half_closed: \"5 sec\",
  |                      ^^^^^^^
config.ron:7:18: invalid `session` `None`: expected a duration, 1ms to 30d, or \"off\": \
write a whole number with ms, s, m, h or d, such as \"5s\"
  |         session: None,
  |                  ^^^^
config.ron:8:15: invalid `peek` `\"2m\"`: expected a duration, 1ms to 1m
  |         peek: \"2m\",
  |               ^^^^",
    );
    refused(
        "durations",
        "(shutdown_grace: 5s)",
        "config.ron:1:18: 5s must be written in double quotes: \"5s\"
  | (shutdown_grace: 5s)
  |                  ^^",
    );
}

#[test]
fn numbers_and_words_that_make_no_sense() {
    refused(
        "numbers",
        &SMALLEST.replacen(
            "(\n",
            "(
    workers: 0,
    max_connections: 99999999999999999999999,
    access_log: (to: \"\", format: \"jsn\"),
    histogram_log: off,
    defaults: (attempts: 17, timeouts: (idle: \"31d\")),
",
            1,
        ),
        "config.ron:2:14: invalid `workers` `0`: expected a whole number, 1 to 1024, or \"auto\"
  |     workers: 0,
  |              ^
config.ron:3:22: invalid `max_connections` `99999999999999999999999`: expected a whole number, 1 \
to 16777216, or \"auto\"
  |     max_connections: 99999999999999999999999,
  |                      ^^^^^^^^^^^^^^^^^^^^^^^
config.ron:4:22: invalid `to` `\"\"`: expected \"-\", \"off\", \"syslog\", \"journald\" \
or the path of a file
  |     access_log: (to: \"\", format: \"jsn\"),
  |                      ^^
config.ron:4:34: invalid `format` `jsn`, did you mean `json`?
  |     access_log: (to: \"\", format: \"jsn\"),
  |                                  ^^^^^
config.ron:5:20: histogram_log: off must be written in double quotes: \"off\"
  |     histogram_log: off,
  |                    ^^^
config.ron:6:26: invalid `attempts` `17`: expected a whole number, 1 to 16
  |     defaults: (attempts: 17, timeouts: (idle: \"31d\")),
  |                          ^^
config.ron:6:47: invalid `idle` `\"31d\"`: expected a duration, 1ms to 30d, or \"off\"
  |     defaults: (attempts: 17, timeouts: (idle: \"31d\")),
  |                                               ^^^^^",
    );
}

#[test]
fn missing_fields_are_reported() {
    refused(
        "missing",
        "(listeners: [], pools: [])",
        "config.ron:1:13: listeners: expected at least one
  | (listeners: [], pools: [])
  |             ^
config.ron:1:24: pools: expected at least one
  | (listeners: [], pools: [])
  |                        ^",
    );
    refused(
        "missing",
        "(\n  listeners: [(name: \"\")],\n  pools: [(backends: [])],\n)",
        "config.ron:2:15: missing field `bind`
  |   listeners: [(name: \"\")],
  |               ^
config.ron:2:15: missing field `pool`
  |   listeners: [(name: \"\")],
  |               ^
config.ron:2:22: invalid `name` `\"\"`: \
expected 1 to 64 characters, and no control character
  |   listeners: [(name: \"\")],
  |                      ^^
config.ron:3:11: missing field `name`
  |   pools: [(backends: [])],
  |           ^
config.ron:3:22: backends: expected at least one
  |   pools: [(backends: [])],
  |                      ^",
    );
}

const SEMICOLON: &str = "write `,` between fields, and between the items of a list, and not `;`";
/// A text, where it goes wrong, the error, and how much is marked.
const SYNTAX: [(&str, &str, &str, usize); 25] = [
    (
        "",
        "1:1",
        "the file is empty: the smallest one is \
         (listeners: [(bind: \"127.0.0.1:8080\", pool: \"web\")], \
         pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])])",
        1,
    ),
    ("(listeners: []; pools: [])", "1:15", SEMICOLON, 1),
    ("(workers: 3; memory: \"auto\")", "1:12", SEMICOLON, 1),
    (
        "(listeners: [(bind: \"unix:/a\";pool: \"web\")], pools: [])",
        "1:30",
        SEMICOLON,
        1,
    ),
    ("(reload_on_change: true;)", "1:24", SEMICOLON, 1),
    (
        "workers: 3",
        "1:1",
        "a configuration stands in `(` and `)`: write `(` before its first setting, and `)` behind \
         its last",
        7,
    ),
    (
        "(listeners: [(bind: 127.0.0.1:80, pool: \"a\")])",
        "1:21",
        "127.0.0.1:80 must be written in double quotes: \"127.0.0.1:80\"",
        12,
    ),
    (
        "\"a\"",
        "1:1",
        "expected fields in `(` and `)` here: the smallest file is \
         (listeners: [(bind: \"127.0.0.1:8080\", pool: \"web\")], \
         pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])])",
        3,
    ),
    (
        "(pools: [\"a\"])",
        "1:10",
        "expected fields in `(` and `)` here, such as (name: \"NAME\")",
        3,
    ),
    (
        "(pools: \"a\")",
        "1:9",
        "expected a list in `[` and `]` here",
        3,
    ),
    (
        "(pools: (\"a\", \"b\"))",
        "1:9",
        "expected a list in `[` and `]` here",
        10,
    ),
    (
        "(workers = 3)",
        "1:10",
        "write `:` between a field's name and its value, and not `=`",
        1,
    ),
    (
        "# mine\n(workers: 3)",
        "1:1",
        "a comment begins with `//`, and not with `#`",
        1,
    ),
    (
        "(histogram_log: 'a.log')",
        "1:17",
        "strings stand in double quotes: \"a.log\"",
        7,
    ),
    ("(\n workers: 3", "1:1", "this `(` is never closed", 1),
    (
        "(workers: 3\n pools: [])",
        "2:2",
        "a comma or `)` is missing before this",
        5,
    ),
    (
        "(pools: [() ()])",
        "1:13",
        "a comma or `]` is missing before this",
        1,
    ),
    ("(workers 3)", "1:10", "a `:` is missing before this", 1),
    ("(workers: )", "1:11", "expected a value here", 1),
    (
        "(\"workers\": 3)",
        "1:2",
        "the name of a field has no quotes: write workers",
        9,
    ),
    (
        "(pools: [], pools: [])",
        "1:13",
        "duplicate field `pools`: leave one out",
        5,
    ),
    (
        "(workers: 3))",
        "1:13",
        "nothing may follow the closing bracket",
        1,
    ),
    (
        "(histogram_log: \"a)",
        "1:17",
        "this string is never closed",
        3,
    ),
    ("/* (workers: 3)", "1:1", "this comment is never closed", 2),
    (
        "(workers: \"\\d\")",
        "1:11",
        "this escape is unknown: a backslash is written \\\\",
        4,
    ),
];

#[test]
fn syntax() {
    for (text, place, sentence, marked) in SYNTAX {
        let (line, column) = place.split_once(':').unwrap();
        let line: usize = line.parse().unwrap();
        let excerpt = text.lines().nth(line - 1).unwrap_or_default();
        let pad = " ".repeat(column.parse::<usize>().unwrap() - 1);
        let carets = "^".repeat(marked);
        let want = format!("config.ron:{place}: {sentence}\n  | {excerpt}\n  | {pad}{carets}");
        refused("syntax", text, &want);
    }
}
