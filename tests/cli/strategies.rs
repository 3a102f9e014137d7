//! Golden texts of mistakes in strategies, persistence and groups.

use super::mistakes::refused;

#[test]
fn settings_that_make_no_sense() {
    refused(
        "strategy_settings",
        "(
    listeners: [(bind: \"unix:/l\", pool: \"a\")],
    pools: [
        (name: \"a\", backends: [\"unix:/a\"],
            strategy: (name: \"hash\", key: \"sourceip\", max_load: 1)),
        (name: \"b\", backends: [\"unix:/a\"],
            strategy: (name: \"hash\", key: 1, max_load: 1.255)),
        (name: \"c\", backends: [\"unix:/a\"],
            strategy: (name: \"hash\", max_load: \"1.25\")),
        (name: \"d\", backends: [\"unix:/a\"],
            strategy: (name: \"least_time\", decay: \"10ms\")),
        (name: \"e\", backends: [\"unix:/a\"],
            strategy: (name: \"predictive\", horizon: 10, season: \"1m\")),
        (name: \"f\", backends: [\"unix:/a\"],
            strategy: (name: \"two_tier\", first: \"prio\", subset: 0)),
        (name: \"g\", backends: [\"unix:/a\"],
            strategy: (name: \"two_tier\", then: \"least_tyme\")),
    ],
)",
        "config.ron:5:43: invalid `key` `sourceip`, did you mean `source_ip`?
  |             strategy: (name: \"hash\", key: \"sourceip\", max_load: 1)),
  |                                           ^^^^^^^^^^
config.ron:5:65: invalid `max_load` `1`: expected a number with at most two decimals, 1.01 to 10, \
or \"off\"
  |             strategy: (name: \"hash\", key: \"sourceip\", max_load: 1)),
  |                                                                 ^
config.ron:7:43: invalid `key` `1`: expected a key such as \"source_ip\", in double quotes
  |             strategy: (name: \"hash\", key: 1, max_load: 1.255)),
  |                                           ^
config.ron:7:56: invalid `max_load` `1.255`: expected a number with at most two decimals, 1.01 to \
10, or \"off\"
  |             strategy: (name: \"hash\", key: 1, max_load: 1.255)),
  |                                                        ^^^^^
config.ron:9:48: invalid `max_load` `\"1.25\"`: expected a number with at most two decimals, 1.01 \
to 10, or \"off\": write 1.25
  |             strategy: (name: \"hash\", max_load: \"1.25\")),
  |                                                ^^^^^^
config.ron:11:51: invalid `decay` `\"10ms\"`: expected a duration, 100ms to 1h
  |             strategy: (name: \"least_time\", decay: \"10ms\")),
  |                                                   ^^^^^^
config.ron:13:53: invalid `horizon` `10`: expected a duration, 1s to 10m, in whole seconds: write \
\"10s\" or \"10m\"
  |             strategy: (name: \"predictive\", horizon: 10, season: \"1m\")),
  |                                                     ^^
config.ron:13:65: invalid `season` `\"1m\"`: expected a duration, 10m to 30d, or \"off\"
  |             strategy: (name: \"predictive\", horizon: 10, season: \"1m\")),
  |                                                                 ^^^^
config.ron:15:49: invalid `first` `prio`: expected `hash`, `weight` or `priority`
  |             strategy: (name: \"two_tier\", first: \"prio\", subset: 0)),
  |                                                 ^^^^^^
config.ron:15:65: invalid `subset` `0`: expected a whole number, 1 to 16
  |             strategy: (name: \"two_tier\", first: \"prio\", subset: 0)),
  |                                                                 ^
config.ron:17:48: invalid `then` `least_tyme`, did you mean `least_time`?
  |             strategy: (name: \"two_tier\", then: \"least_tyme\")),
  |                                                ^^^^^^^^^^^^",
    );
}

#[test]
fn settings_that_would_not_be_kept() {
    refused(
        "not_kept",
        "(
    listeners: [(bind: \"unix:/l\", pool: \"a\")],
    pools: [
        (name: \"a\", backends: [\"unix:/a\"],
            strategy: (name: \"predictive\", horizon: \"500ms\")),
        (name: \"b\", backends: [\"unix:/a\"],
            strategy: (name: \"predictive\", horizon: \"1500ms\")),
        (name: \"c\", backends: [\"unix:/a\"],
            strategy: (name: \"two_tier\", subset: 17)),
    ],
)",
        "config.ron:5:53: invalid `horizon` `\"500ms\"`: expected a duration, 1s to 10m, in whole \
seconds
  |             strategy: (name: \"predictive\", horizon: \"500ms\")),
  |                                                     ^^^^^^^
config.ron:7:53: invalid `horizon` `\"1500ms\"`: expected a duration, 1s to 10m, in whole seconds
  |             strategy: (name: \"predictive\", horizon: \"1500ms\")),
  |                                                     ^^^^^^^^
config.ron:9:50: invalid `subset` `17`: expected a whole number, 1 to 16
  |             strategy: (name: \"two_tier\", subset: 17)),
  |                                                  ^^",
    );
}

#[test]
fn settings_of_other_strategies() {
    refused(
        "others_settings",
        "(
    listeners: [(bind: \"unix:/l\", pool: \"a\")],
    pools: [
        (name: \"a\", backends: [\"unix:/a\"],
            strategy: (name: \"random\", key: \"sni\", max_load: 1.5)),
        (name: \"b\", backends: [\"unix:/a\"],
            strategy: (name: \"hash\", groups: [], decay: \"1s\")),
        (name: \"c\", backends: [\"unix:/a\"],
            strategy: (name: \"two_tier\", decay: \"1s\", season: \"1d\")),
        (name: \"d\", backends: [(address: \"unix:/a\", group: \"a\")], strategy: (
            name: \"two_tier\", first: \"weight\", key: \"sni\",
            then: \"power_of_two\", decay: \"1s\")),
        (name: \"e\", backends: [\"unix:/a\"], strategy: (key: \"sni\")),
        (name: \"f\", backends: [\"unix:/a\"],
            strategy: (name: \"hahs\", max_load: 1.5)),
        (name: \"g\", backends: [\"unix:/a\"], strategy: 3),
    ],
)",
        "config.ron:5:45: key: the strategy `random` has no such setting: it belongs to \
`sticky_round_robin`, `hash` and `two_tier`
  |             strategy: (name: \"random\", key: \"sni\", max_load: 1.5)),
  |                                             ^^^^^
config.ron:5:62: max_load: the strategy `random` has no such setting: it belongs to `hash`
  |             strategy: (name: \"random\", key: \"sni\", max_load: 1.5)),
  |                                                              ^^^
config.ron:7:46: groups: the strategy `hash` has no such setting: it belongs to `two_tier`
  |             strategy: (name: \"hash\", groups: [], decay: \"1s\")),
  |                                              ^^
config.ron:7:57: decay: the strategy `hash` has no such setting: it belongs to `least_time` and \
`two_tier`
  |             strategy: (name: \"hash\", groups: [], decay: \"1s\")),
  |                                                         ^^^^
config.ron:9:49: decay: the second tier `least_connections` has no such setting: it belongs to \
`least_time`
  |             strategy: (name: \"two_tier\", decay: \"1s\", season: \"1d\")),
  |                                                 ^^^^
config.ron:9:63: season: the strategy `two_tier` has no such setting: it belongs to `predictive`
  |             strategy: (name: \"two_tier\", decay: \"1s\", season: \"1d\")),
  |                                                               ^^^^
config.ron:11:53: key: the first tier `weight` has no such setting: it belongs to `hash`
  |             name: \"two_tier\", first: \"weight\", key: \"sni\",
  |                                                     ^^^^^
config.ron:12:42: decay: the second tier `power_of_two` has no such setting: it belongs to \
`least_time`
  |             then: \"power_of_two\", decay: \"1s\")),
  |                                          ^^^^
config.ron:13:54: missing field `name`
  |         (name: \"e\", backends: [\"unix:/a\"], strategy: (key: \"sni\")),
  |                                                      ^
config.ron:15:30: invalid `name` `hahs`, did you mean `hash`?
  |             strategy: (name: \"hahs\", max_load: 1.5)),
  |                              ^^^^^^
config.ron:16:54: invalid `strategy` `3`: expected a name or a group such as (name: \"hash\", \
key: \"sni\")
  |         (name: \"g\", backends: [\"unix:/a\"], strategy: 3),
  |                                                      ^",
    );
}

#[test]
fn an_unknown_setting() {
    refused(
        "unknown_setting",
        "(pools: [(name: \"a\", strategy: (name: \"hash\", wheel: 3))])",
        "config.ron:1:47: unknown field `wheel`: expected `name`, `first`, `then`, `key`, \
`subset`, `max_load`, `decay`, `groups`, `horizon`, `season`, `ttl` or `clients_max`
  | (pools: [(name: \"a\", strategy: (name: \"hash\", wheel: 3))])
  |                                               ^^^^^",
    );
}

#[test]
fn keys() {
    refused(
        "keys",
        "(
    listeners: [(bind: \"unix:/l\", pool: \"a\")],
    pools: [
        (name: \"a\", backends: [\"unix:/a\"],
            strategy: (name: \"hash\", key: \"source_ip(24)\")),
        (name: \"b\", backends: [\"unix:/a\"],
            strategy: (name: \"hash\", key: \"http_cookie\")),
        (name: \"c\", backends: [\"unix:/a\"], persist: \"http_cookie(a b)\"),
        (name: \"d\", backends: [\"unix:/a\"], persist: (key: \"on\")),
        (name: \"e\", backends: [\"unix:/a\"], persist: \"http_cookie('S')\"),
    ],
)",
        "config.ron:5:43: key: invalid key `source_ip(24)`: expected source_ip or \
source_ip(24, 56), the prefix lengths of IPv4 and IPv6
  |             strategy: (name: \"hash\", key: \"source_ip(24)\")),
  |                                           ^^^^^^^^^^^^^^^
config.ron:7:43: key: invalid key `http_cookie`: expected http_cookie(NAME), a name of up to 128 \
letters, digits and !#$%&'*+-.^_`|~
  |             strategy: (name: \"hash\", key: \"http_cookie\")),
  |                                           ^^^^^^^^^^^^^
config.ron:8:53: persist: invalid key `http_cookie(a b)`: expected http_cookie(NAME), a name \
of up to 128 letters, digits and !#$%&'*+-.^_`|~
  |         (name: \"c\", backends: [\"unix:/a\"], persist: \"http_cookie(a b)\"),
  |                                                     ^^^^^^^^^^^^^^^^^^
config.ron:9:59: invalid `key` `on`: expected `source_ip`, `source_ip_port`, `sni`, \
`tls_session_id`, `http_path`, `http_host`, `http_cookie`, `rdp_cookie`, `mqtt_client_id`, \
`postgres_user`, `postgres_database`, `proxy_tlv`, `tls_client_cn` or `tls_client_fingerprint`
  |         (name: \"d\", backends: [\"unix:/a\"], persist: (key: \"on\")),
  |                                                           ^^^^
config.ron:10:53: persist: invalid key `http_cookie('S')`: expected http_cookie(NAME): the single \
quotes would be part of the name
  |         (name: \"e\", backends: [\"unix:/a\"], persist: \"http_cookie('S')\"),
  |                                                     ^^^^^^^^^^^^^^^^^^",
    );
}

#[test]
fn persistence() {
    refused(
        "persistence",
        "(
    listeners: [(bind: \"unix:/l\", pool: \"a\")],
    pools: [
        (name: \"a\", backends: [\"unix:/a\"], persist: \"source_ip_port\"),
        (name: \"b\", backends: [\"unix:/a\"],
            strategy: \"sticky_round_robin\", persist: \"source_ip\"),
        (name: \"c\", backends: [\"unix:/a\"],
            strategy: \"sticky_round_robin\", persist: \"off\"),
        (name: \"d\", backends: [\"unix:/a\"], persist: (ttl: \"10ms\", clients_max: 0)),
        (name: \"e\", backends: [\"unix:/a\"], strategy: (
            name: \"sticky_round_robin\", key: \"source_ip_port\",
            ttl: 30, clients_max: \"all\")),
        (name: \"f\", backends: [\"unix:/a\"], persist: true),
        (name: \"g\", backends: [\"unix:/a\"], persist: (\"http_cookie(S)\", \"30m\")),
        (name: \"h\", backends: [\"unix:/a\"], persist: (key: 1)),
    ],
)",
        "config.ron:4:53: persist: `source_ip_port` is another with each connection: no client \
would be known again
  |         (name: \"a\", backends: [\"unix:/a\"], persist: \"source_ip_port\"),
  |                                                     ^^^^^^^^^^^^^^^^
config.ron:6:54: persist: `sticky_round_robin` persists already: use `round_robin` with persist
  |             strategy: \"sticky_round_robin\", persist: \"source_ip\"),
  |                                                      ^^^^^^^^^^^
config.ron:8:54: persist: `sticky_round_robin` persists already: use `round_robin` with persist
  |             strategy: \"sticky_round_robin\", persist: \"off\"),
  |                                                      ^^^^^
config.ron:9:59: invalid `ttl` `\"10ms\"`: expected a duration, 1s to 30d
  |         (name: \"d\", backends: [\"unix:/a\"], persist: (ttl: \"10ms\", clients_max: 0)),
  |                                                           ^^^^^^
config.ron:9:80: invalid `clients_max` `0`: expected a whole number, 1 to 16777216
  |         (name: \"d\", backends: [\"unix:/a\"], persist: (ttl: \"10ms\", clients_max: 0)),
  |                                                                                ^
config.ron:11:46: key: `source_ip_port` is another with each connection: no client would be known \
again
  |             name: \"sticky_round_robin\", key: \"source_ip_port\",
  |                                              ^^^^^^^^^^^^^^^^
config.ron:12:18: invalid `ttl` `30`: expected a duration, 1s to 30d: write \"30s\", \"30m\" \
or \"30h\"
  |             ttl: 30, clients_max: \"all\")),
  |                  ^^
config.ron:12:35: invalid `clients_max` `\"all\"`: expected a whole number, 1 to 16777216
  |             ttl: 30, clients_max: \"all\")),
  |                                   ^^^^^
config.ron:13:53: invalid `persist` `true`: expected \"off\", a key or a group such as (key: \
\"sni\", ttl: \"1h\")
  |         (name: \"f\", backends: [\"unix:/a\"], persist: true),
  |                                                     ^^^^
config.ron:14:53: invalid `persist` `(\"http_cookie(S)\", \"30m\")`: expected \"off\", a key or a \
group such as \
(key: \"sni\", ttl: \"1h\")
  |         (name: \"g\", backends: [\"unix:/a\"], persist: (\"http_cookie(S)\", \"30m\")),
  |                                                     ^^^^^^^^^^^^^^^^^^^^^^^^^
config.ron:15:59: invalid `key` `1`: expected a key such as \"source_ip\", in double quotes
  |         (name: \"h\", backends: [\"unix:/a\"], persist: (key: 1)),
  |                                                           ^",
    );
}

#[test]
fn backends() {
    refused(
        "backends",
        "(
    listeners: [(bind: \"unix:/l\", pool: \"a\")],
    pools: [(name: \"a\", backends: [
        (address: \"unix:/a\", max_connections: 0),
        (address: \"unix:/b\", max_connections: \"none\"),
        (address: \"unix:/c\", backup: \"yes\"),
        (address: \"unix:/d\", backup: 1),
        (address: \"unix:/e\", group: \"\"),
    ])],
)",
        "config.ron:4:47: invalid `max_connections` `0`: expected a whole number, 1 to 16777216, \
or \"off\"
  |         (address: \"unix:/a\", max_connections: 0),
  |                                               ^
config.ron:5:47: invalid `max_connections` `\"none\"`: expected a whole number, 1 to 16777216, or \
\"off\"
  |         (address: \"unix:/b\", max_connections: \"none\"),
  |                                               ^^^^^^
config.ron:6:38: invalid `backup` `\"yes\"`: expected true or false: write true
  |         (address: \"unix:/c\", backup: \"yes\"),
  |                                      ^^^^^
config.ron:7:38: invalid `backup` `1`: expected true or false
  |         (address: \"unix:/d\", backup: 1),
  |                                      ^
config.ron:8:37: invalid `group` `\"\"`: expected 1 to 64 characters, and no control character
  |         (address: \"unix:/e\", group: \"\"),
  |                                     ^^",
    );
}

#[test]
fn groups() {
    refused(
        "groups",
        "(
    listeners: [(bind: \"unix:/l\", pool: \"a\")],
    pools: [
        (name: \"a\", strategy: (
            name: \"two_tier\", groups: [\"green\", (name: \"blue\", weight: 0)]),
            backends: [(address: \"unix:/a\", group: \"gren\"), \"unix:/b\"]),
        (name: \"b\", strategy: (name: \"two_tier\", groups: [\"a\", \"a\", \"b\", (weight: 3)]),
            backends: [(address: \"unix:/a\", group: \"c\")]),
        (name: \"c\", strategy: (
            name: \"two_tier\", groups: [\"a\", (name: \"b\")], subset: 2),
            backends: [(address: \"unix:/a\", group: \"a\")]),
        (name: \"d\", strategy: (name: \"two_tier\", first: \"priority\"), backends: \
[\"unix:/a\"]),
        (name: \"e\", strategy: (name: \"two_tier\", groups: []), backends: [\"unix:/a\"]),
    ],
)",
        "config.ron:5:72: invalid `weight` `0`: expected a whole number, 1 to 65536
  |             name: \"two_tier\", groups: [\"green\", (name: \"blue\", weight: 0)]),
  |                                                                        ^
config.ron:6:52: group: there is no group called `gren`, did you mean `green`?
  |             backends: [(address: \"unix:/a\", group: \"gren\"), \"unix:/b\"]),
  |                                                    ^^^^^^
config.ron:6:61: missing field `group`: other backends of the pool have one
  |             backends: [(address: \"unix:/a\", group: \"gren\"), \"unix:/b\"]),
  |                                                             ^^^^^^^^^
config.ron:7:64: two groups of the pool are called `a`: leave one out, or give it another `name`; \
the first is at 7:59
  |         (name: \"b\", strategy: (name: \"two_tier\", groups: [\"a\", \"a\", \"b\", (weight: \
3)]),
  |                                                                ^^^
config.ron:7:74: missing field `name`
  |         (name: \"b\", strategy: (name: \"two_tier\", groups: [\"a\", \"a\", \"b\", (weight: \
3)]),
  |                                                                          ^
config.ron:10:52: groups: no backend is in the group `b`
  |             name: \"two_tier\", groups: [\"a\", (name: \"b\")], subset: 2),
  |                                                    ^^^
config.ron:10:67: subset: the key picks one of the groups: leave `subset` out
  |             name: \"two_tier\", groups: [\"a\", (name: \"b\")], subset: 2),
  |                                                                   ^
config.ron:12:57: first: `priority` picks a group: say with each backend which it is in, such as \
group: \"a\"
  |         (name: \"d\", strategy: (name: \"two_tier\", first: \"priority\"), backends: \
[\"unix:/a\"]),
  |                                                         ^^^^^^^^^^
config.ron:13:58: groups: expected at least one
  |         (name: \"e\", strategy: (name: \"two_tier\", groups: []), backends: [\"unix:/a\"]),
  |                                                          ^",
    );
}
