//! Golden texts of mistakes in what live pools are told.

use super::mistakes::refused;

#[test]
fn administration() {
    refused(
        "administration",
        "(
    reload_on_change: \"yes\",
    resolvers: [\"127.0.0.1\", \"dns.example\", 53],
    admin: (
        socket: \"\",
        http: (bind: \"0.0.0.0:9900\"),
        audit_log: \"a/\",
    ),
    listeners: [(bind: \"127.0.0.1:1\", pool: \"web\")],
    pools: [(name: \"web\", backends: [\"127.0.0.1:2\"])],
)
",
        "config.ron:2:23: reload_on_change: `\"yes\"` is not true or false
  |     reload_on_change: \"yes\",
  |                       ^^^^^
config.ron:3:30: resolvers: `dns.example` is not the IP address of a resolver, such as \
127.0.0.1:53
  |     resolvers: [\"127.0.0.1\", \"dns.example\", 53],
  |                              ^^^^^^^^^^^^^
config.ron:3:45: resolvers: `53` is not a string in double quotes
  |     resolvers: [\"127.0.0.1\", \"dns.example\", 53],
  |                                             ^^
config.ron:5:17: socket: `unix:`: a path of 1 to 107 bytes, without NUL, is wanted
  |         socket: \"\",
  |                 ^^
config.ron:6:15: http: a token is wanted: give the file of `read_token`, of `write_token` or of \
both
  |         http: (bind: \"0.0.0.0:9900\"),
  |               ^
config.ron:6:22: bind: `0.0.0.0:9900` is not a loopback address: write 127.0.0.1:9900 or \
[::1]:9900
  |         http: (bind: \"0.0.0.0:9900\"),
  |                      ^^^^^^^^^^^^^^
config.ron:7:20: audit_log: `a/` is no path of a file
  |         audit_log: \"a/\",
  |                    ^^^^",
    );
    refused(
        "administration",
        "(
    admin: (socket: \"off\", audit_log: \"-\"),
    listeners: [(bind: \"127.0.0.1:1\", pool: \"web\")],
    pools: [(name: \"web\", backends: [\"127.0.0.1:2\"])],
)
",
        "config.ron:2:12: admin: it is served nowhere: write admin: \"off\", or give `http`
  |     admin: (socket: \"off\", audit_log: \"-\"),
  |            ^",
    );
    refused(
        "administration",
        "(
    admin: true,
    listeners: [(bind: \"127.0.0.1:1\", pool: \"web\")],
    pools: [(name: \"web\", backends: [\"127.0.0.1:2\"])],
)
",
        "config.ron:2:12: admin: `true` is not a path: write \"PATH\", \"off\" or (socket: \
\"PATH\", http: (...))
  |     admin: true,
  |            ^^^^",
    );
    refused(
        "administration",
        "(
    admin: (http: (bind: \"unix:/a\", read_token: 7)),
    listeners: [(bind: \"127.0.0.1:1\", pool: \"web\")],
    pools: [(name: \"web\", backends: [\"127.0.0.1:2\"])],
)
",
        "config.ron:2:26: bind: `unix:/a` is not a loopback address: write 127.0.0.1:9900 or \
[::1]:9900
  |     admin: (http: (bind: \"unix:/a\", read_token: 7)),
  |                          ^^^^^^^^^
config.ron:2:49: read_token: `7` is not a string in double quotes
  |     admin: (http: (bind: \"unix:/a\", read_token: 7)),
  |                                                 ^",
    );
}

#[test]
fn checks() {
    refused(
        "checks",
        "(
    listeners: [(bind: \"127.0.0.1:1\", pool: \"0\")],
    pools: [
        (name: \"0\", backends: [\"unix:/a\"], check: \"command\"),
        (name: \"1\", backends: [\"unix:/a\"], check: \"htp\"),
        (name: \"2\", backends: [\"unix:/a\"], check: (path: \"/\")),
        (name: \"3\", backends: [\"unix:/a\"], check: (type: \"tcp\", path: \"/\", expect: \
\"x\")),
        (name: \"4\", backends: [\"unix:/a\"], check: (type: \"send_expect\", send: 7)),
        (name: \"5\", backends: [\"unix:/a\"], check: (type: \"send_expect\", expect_regex: \
\"a(\")),
        (name: \"6\", backends: [\"unix:/a\"], check: (
            type: \"send_expect\",
            expect: \"\",
            expect_regex: \"\\\\w{1000}{1000}\",
        )),
        (name: \"7\", backends: [\"unix:/a\"], check: (
            type: \"http\", method: \"GET IT\", path: \"healthz\", host: \"a b\", status: \
\"399-200\",
            tls: (sni: \"127.0.0.1\", alpn: [\"h2\", \"\"], verify: \"/\"),
            interval: \"2s\", interval_down: \"500ms\", timeout: \"1s\", rise: 0, fall: 101,
            port: 0, proxy_header: \"v3\", initial: \"away\",
        )),
        (name: \"8\", backends: [\"unix:/a\"], check: (type: \"http\", status: 99, interval: \
\"10ms\")),
        (name: \"9\", backends: [\"unix:/a\"], check: (type: \"tls\", tls: false)),
        (name: \"10\", backends: [\"unix:/a\"], check: (type: \"off\", rise: 2)),
        (name: \"11\", backends: [\"unix:/a\"], check: true),
    ],
)
",
        "config.ron:4:51: check: `command` would start a process, and none is started after the \
start: use `tcp`, `send_expect`, `http` or `tls`
  |         (name: \"0\", backends: [\"unix:/a\"], check: \"command\"),
  |                                                   ^^^^^^^^^
config.ron:5:51: check: no check is called `htp`, did you mean `http`?
  |         (name: \"1\", backends: [\"unix:/a\"], check: \"htp\"),
  |                                                   ^^^^^
config.ron:6:51: the field `type` is missing here
  |         (name: \"2\", backends: [\"unix:/a\"], check: (path: \"/\")),
  |                                                   ^
config.ron:7:71: path: the check `tcp` has no such setting: it belongs to `http`
  |         (name: \"3\", backends: [\"unix:/a\"], check: (type: \"tcp\", path: \"/\", expect: \
\"x\")),
  |                                                                       ^^^
config.ron:7:84: expect: the check `tcp` has no such setting: it belongs to `send_expect`
  | …     (name: \"3\", backends: [\"unix:/a\"], check: (type: \"tcp\", path: \"/\", expect: \
\"x\")),
  |                                                                                  ^^^
config.ron:8:51: the field `expect` or `expect_regex` is missing here
  |         (name: \"4\", backends: [\"unix:/a\"], check: (type: \"send_expect\", send: 7)),
  |                                                   ^
config.ron:8:79: send: `7` is not a string in double quotes
  |         (name: \"4\", backends: [\"unix:/a\"], check: (type: \"send_expect\", send: 7)),
  |                                                                               ^
config.ron:9:87: expect_regex: `a(` is no regular expression: unclosed group
  | …  (name: \"5\", backends: [\"unix:/a\"], check: (type: \"send_expect\", expect_regex: \
\"a(\")),
  |                                                                                  ^^^^
config.ron:12:21: expect: `\"\"` is not 1 to 16384 bytes
  |             expect: \"\",
  |                     ^^
config.ron:13:27: expect_regex: `expect` says already what is expected: leave one out
  |             expect_regex: \"\\\\w{1000}{1000}\",
  |                           ^^^^^^^^^^^^^^^^^
config.ron:13:27: expect_regex: `\\w{1000}{1000}` is no regular expression: it takes more than \
1 MiB once compiled
  |             expect_regex: \"\\\\w{1000}{1000}\",
  |                           ^^^^^^^^^^^^^^^^^
config.ron:16:35: method: `GET IT` is not a method such as GET
  |             type: \"http\", method: \"GET IT\", path: \"healthz\", host: \"a b\", status: \
\"399-200\",
  |                                   ^^^^^^^^
config.ron:16:51: path: `healthz` is not a path such as /healthz, without spaces
  |             type: \"http\", method: \"GET IT\", path: \"healthz\", host: \"a b\", status: \
\"399-200\",
  |                                                   ^^^^^^^^^
config.ron:16:68: host: `a b` is not a host such as example.org or example.org:8080
  |             type: \"http\", method: \"GET IT\", path: \"healthz\", host: \"a b\", status: \
\"399-200\",
  |                                                                    ^^^^^
config.ron:16:83: status: `399-200` is not a range: the greater code stands behind the `-`
  | …          type: \"http\", method: \"GET IT\", path: \"healthz\", host: \"a b\", status: \
\"399-200\",
  |                                                                                  ^^^^^^^^^
config.ron:17:24: sni: `127.0.0.1` is not the name of a host, such as example.org
  |             tls: (sni: \"127.0.0.1\", alpn: [\"h2\", \"\"], verify: \"/\"),
  |                        ^^^^^^^^^^^
config.ron:17:50: alpn: `` is not a protocol such as h2, of 1 to 255 bytes
  |             tls: (sni: \"127.0.0.1\", alpn: [\"h2\", \"\"], verify: \"/\"),
  |                                                  ^^
config.ron:17:63: verify: `/` is no path of a file
  |             tls: (sni: \"127.0.0.1\", alpn: [\"h2\", \"\"], verify: \"/\"),
  |                                                               ^^^
config.ron:18:62: timeout: `1s` is longer than the time to the next probe, 500ms
  |             interval: \"2s\", interval_down: \"500ms\", timeout: \"1s\", rise: 0, fall: 101,
  |                                                              ^^^^
config.ron:18:74: rise: `0` is out of range: 1 to 100 is wanted
  |             interval: \"2s\", interval_down: \"500ms\", timeout: \"1s\", rise: 0, fall: 101,
  |                                                                          ^
config.ron:18:83: fall: `101` is out of range: 1 to 100 is wanted
  | …          interval: \"2s\", interval_down: \"500ms\", timeout: \"1s\", rise: 0, fall: 101,
  |                                                                                  ^^^
config.ron:19:19: port: `0` is out of range: 1 to 65535 is wanted
  |             port: 0, proxy_header: \"v3\", initial: \"away\",
  |                   ^
config.ron:19:36: proxy_header: no PROXY header is called `v3`, did you mean `v1`?
  |             port: 0, proxy_header: \"v3\", initial: \"away\",
  |                                    ^^^^
config.ron:19:51: initial: no initial state is called `away`: `up`, `down` or `probe` is wanted
  |             port: 0, proxy_header: \"v3\", initial: \"away\",
  |                                                   ^^^^^^
config.ron:21:74: status: `99` is not a status code or a range such as \"200-399\"
  |         (name: \"8\", backends: [\"unix:/a\"], check: (type: \"http\", status: 99, \
interval: \"10ms\")),
  |                                                                          ^^
config.ron:21:88: interval: `10ms` is out of range: 100ms to 1h is wanted
  | … (name: \"8\", backends: [\"unix:/a\"], check: (type: \"http\", status: 99, interval: \
\"10ms\")),
  |                                                                                  ^^^^^^
config.ron:22:70: tls: a check of type `tls` can't be without
  |         (name: \"9\", backends: [\"unix:/a\"], check: (type: \"tls\", tls: false)),
  |                                                                      ^^^^^
config.ron:23:59: type: nothing else stands with `off`: write check: \"off\"
  |         (name: \"10\", backends: [\"unix:/a\"], check: (type: \"off\", rise: 2)),
  |                                                           ^^^^^
config.ron:24:52: check: `true` is not a check: write \"TYPE\" or (type: \"TYPE\", ...) with \
settings
  |         (name: \"11\", backends: [\"unix:/a\"], check: true),
  |                                                    ^^^^",
    );
}

#[test]
fn availability() {
    refused(
        "availability",
        "(
    listeners: [(bind: \"127.0.0.1:1\", pool: \"0\")],
    pools: [
        (name: \"0\", backends: [\"unix:/a\"], max_connections: 0, queue: \"on\", panic_below: \
101),
        (name: \"1\", backends: [\"unix:/a\"], queue: (max: -1, timeout: \"1ms\"), all_down: \
\"close\"),
        (name: \"2\", backends: [\"unix:/a\"], ejection: \"on\", slow_start: 30, on_down: \
\"clsoe\"),
        (name: \"3\", backends: [\"unix:/a\"], ejection: (
            failures: 0, base: \"60s\", max: \"30s\", share: 200, latency: 1.0)),
        (name: \"4\", backends: [\"unix:/a\"], ejection: (latency: \"5\"), on_down: \
(close_over: 5)),
        (name: \"5\", backends: [(address: \"unix:/a\", state: \"drian\")], on_down: 5),
    ],
)
",
        "config.ron:4:61: max_connections: `0` is out of range: 1 to 16777216 is wanted
  |         (name: \"0\", backends: [\"unix:/a\"], max_connections: 0, queue: \"on\", \
panic_below: 101),
  |                                                             ^
config.ron:4:71: queue: `\"on\"` is not a whole number or \"off\"
  |         (name: \"0\", backends: [\"unix:/a\"], max_connections: 0, queue: \"on\", \
panic_below: 101),
  |                                                                       ^^^^
config.ron:4:90: panic_below: `101` is out of range: 0 to 100 is wanted
  | …name: \"0\", backends: [\"unix:/a\"], max_connections: 0, queue: \"on\", panic_below: 101),
  |                                                                                  ^^^
config.ron:5:57: max: `-1` is out of range: 0 to 16777216 is wanted
  |         (name: \"1\", backends: [\"unix:/a\"], queue: (max: -1, timeout: \"1ms\"), \
all_down: \"close\"),
  |                                                         ^^
config.ron:5:70: timeout: `1ms` is out of range: 20ms to 1h is wanted
  |         (name: \"1\", backends: [\"unix:/a\"], queue: (max: -1, timeout: \"1ms\"), \
all_down: \"close\"),
  |                                                                      ^^^^^
config.ron:5:88: all_down: no answer is called `close`, did you mean `closed`?
  | … (name: \"1\", backends: [\"unix:/a\"], queue: (max: -1, timeout: \"1ms\"), all_down: \
\"close\"),
  |                                                                                  ^^^^^^^
config.ron:6:54: ejection: `\"on\"` is not \"off\" or a group such as (failures: 5)
  |         (name: \"2\", backends: [\"unix:/a\"], ejection: \"on\", slow_start: 30, on_down: \
\"clsoe\"),
  |                                                      ^^^^
config.ron:6:72: slow_start: `30` is not a duration: write \"30ms\", \"30s\", \"30m\" or \"30h\"
  |         (name: \"2\", backends: [\"unix:/a\"], ejection: \"on\", slow_start: 30, on_down: \
\"clsoe\"),
  |                                                                        ^^
config.ron:6:85: on_down: `\"clsoe\"` is not \"keep\", \"close\" or (close_over: \"30s\")
  | …    (name: \"2\", backends: [\"unix:/a\"], ejection: \"on\", slow_start: 30, on_down: \
\"clsoe\"),
  |                                                                                  ^^^^^^^
config.ron:8:23: failures: `0` is out of range: 1 to 1000 is wanted
  |             failures: 0, base: \"60s\", max: \"30s\", share: 200, latency: 1.0)),
  |                       ^
config.ron:8:44: max: `30s` is less than the first ejection, 1m
  |             failures: 0, base: \"60s\", max: \"30s\", share: 200, latency: 1.0)),
  |                                            ^^^^^
config.ron:8:58: share: `200` is out of range: 0 to 100 is wanted
  |             failures: 0, base: \"60s\", max: \"30s\", share: 200, latency: 1.0)),
  |                                                          ^^^
config.ron:8:72: latency: `1.0` is out of range: 1.5 to 100, or \"off\", is wanted
  |             failures: 0, base: \"60s\", max: \"30s\", share: 200, latency: 1.0)),
  |                                                                        ^^^
config.ron:9:64: latency: `\"5\"` is not a number with at most two decimals, such as 5.0, or \
\"off\"
  |         (name: \"4\", backends: [\"unix:/a\"], ejection: (latency: \"5\"), on_down: \
(close_over: 5)),
  |                                                                ^^^
config.ron:9:92: close_over: `5` is not a duration: write \"5ms\", \"5s\", \"5m\" or \"5h\"
  | …me: \"4\", backends: [\"unix:/a\"], ejection: (latency: \"5\"), on_down: (close_over: 5)),
  |                                                                                  ^
config.ron:10:60: state: no state is called `drian`, did you mean `drain`?
  |         (name: \"5\", backends: [(address: \"unix:/a\", state: \"drian\")], on_down: 5),
  |                                                            ^^^^^^^
config.ron:10:80: on_down: `5` is not \"keep\", \"close\" or (close_over: \"30s\")
  |         (name: \"5\", backends: [(address: \"unix:/a\", state: \"drian\")], on_down: 5),
  |                                                                                ^",
    );
}

#[test]
fn discovery_and_scaling() {
    refused(
        "discovery_and_scaling",
        "(
    listeners: [(bind: \"127.0.0.1:1\", pool: \"0\")],
    pools: [
        (name: \"0\", discover: (dns: \"web.example\")),
        (name: \"1\", discover: (srv: \"_web._tcp.example\", port: 80)),
        (name: \"2\", discover: ()),
        (name: \"3\", discover: (dns: \"web.example:80\", port: 0, file: \"\")),
        (name: \"4\", backends: [\"unix:/a\"], reserve: [\"unix:/a\"]),
        (name: \"5\", backends: [\"unix:/a\"], scaling: (high: 10)),
        (name: \"6\", reserve: [\"unix:/r\"], scaling: (high: 10, low: 6, by: \"conections\")),
        (name: \"7\", backends: [\"unix:/a\"], reserve: [\"unix:/r\"], scaling: (
            high: 0, window: \"10ms\", cool_down: \"off\", min: 0, webhook: \
\"scale.example/up\")),
        (name: \"8\", backends: [\"unix:/a\"], reserve: [\"unix:/r\"], scaling: (
            webhook: \"http://user@scale.example\")),
    ],
)
",
        "config.ron:4:31: the field `port` is missing here
  |         (name: \"0\", discover: (dns: \"web.example\")),
  |                               ^
config.ron:5:64: port: only `dns` has such a setting: the others name their ports
  |         (name: \"1\", discover: (srv: \"_web._tcp.example\", port: 80)),
  |                                                                ^^
config.ron:6:31: discover: one of `dns`, `srv` and `file` is wanted
  |         (name: \"2\", discover: ()),
  |                               ^
config.ron:7:31: discover: one of `dns`, `srv` and `file` is wanted
  |         (name: \"3\", discover: (dns: \"web.example:80\", port: 0, file: \"\")),
  |                               ^
config.ron:7:37: dns: `web.example:80` is not a name such as web.example.org
  |         (name: \"3\", discover: (dns: \"web.example:80\", port: 0, file: \"\")),
  |                                     ^^^^^^^^^^^^^^^^
config.ron:7:61: port: `0` is out of range: 1 to 65535 is wanted
  |         (name: \"3\", discover: (dns: \"web.example:80\", port: 0, file: \"\")),
  |                                                             ^
config.ron:7:70: file: `` is no path of a file
  |         (name: \"3\", discover: (dns: \"web.example:80\", port: 0, file: \"\")),
  |                                                                      ^^
config.ron:8:53: reserve: without `scaling` it is never brought in
  |         (name: \"4\", backends: [\"unix:/a\"], reserve: [\"unix:/a\"]),
  |                                                     ^
config.ron:8:54: two backends of the pool are called `unix:/a`: the first is at 8:32
  |         (name: \"4\", backends: [\"unix:/a\"], reserve: [\"unix:/a\"]),
  |                                                      ^^^^^^^^^
config.ron:9:53: scaling: there is no `reserve` of backends to grow by
  |         (name: \"5\", backends: [\"unix:/a\"], scaling: (high: 10)),
  |                                                     ^
config.ron:10:9: backends: at least one is wanted
  |         (name: \"6\", reserve: [\"unix:/r\"], scaling: (high: 10, low: 6, by: \
\"conections\")),
  |         ^
config.ron:10:68: low: `6` is more than half of high, 10: the pool would grow and shrink in turn
  |         (name: \"6\", reserve: [\"unix:/r\"], scaling: (high: 10, low: 6, by: \
\"conections\")),
  |                                                                    ^
config.ron:10:75: by: no measure is called `conections`, did you mean `connections`?
  |         (name: \"6\", reserve: [\"unix:/r\"], scaling: (high: 10, low: 6, by: \
\"conections\")),
  |                                                                           ^^^^^^^^^^^^
config.ron:12:19: high: `0` is out of range: 1 to 16777216 is wanted
  |             high: 0, window: \"10ms\", cool_down: \"off\", min: 0, webhook: \
\"scale.example/up\")),
  |                   ^
config.ron:12:30: window: `10ms` is out of range: 1s to 1h is wanted
  |             high: 0, window: \"10ms\", cool_down: \"off\", min: 0, webhook: \
\"scale.example/up\")),
  |                              ^^^^^^
config.ron:12:49: cool_down: `off` is no duration: write a whole number with ms, s, m, h or d, \
such as 5s
  |             high: 0, window: \"10ms\", cool_down: \"off\", min: 0, webhook: \
\"scale.example/up\")),
  |                                                 ^^^^^
config.ron:12:61: min: `0` is out of range: 1 to 65536 is wanted
  |             high: 0, window: \"10ms\", cool_down: \"off\", min: 0, webhook: \
\"scale.example/up\")),
  |                                                             ^
config.ron:12:73: webhook: `scale.example/up` is not an address such as https://host/path
  |             high: 0, window: \"10ms\", cool_down: \"off\", min: 0, webhook: \
\"scale.example/up\")),
  |                                                                         ^^^^^^^^^^^^^^^^^^
config.ron:14:22: webhook: `http://user@scale.example` is not an address such as https://host/path
  |             webhook: \"http://user@scale.example\")),
  |                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^",
    );
}
