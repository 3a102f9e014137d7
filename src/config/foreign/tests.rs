//! Words and formats of other programs, and what is said of them.

use super::*;

#[test]
fn other_formats_are_recognised() {
    for (text, kind) in [
        ("{\"listeners\": []}", "JSON"),
        ("[{\"bind\": \":80\"}]", "JSON"),
        ("listeners:\n  - bind: 127.0.0.1:80\n", "YAML"),
        ("---\nlisteners: []\n", "YAML"),
        ("# mine\n\nlisteners:\n  - bind: 127.0.0.1:80\n", "YAML"),
        ("[[listeners]]\nbind = \"127.0.0.1:80\"\n", "TOML"),
        ("workers = 3\n", "TOML"),
        ("# mine\nbackends = [\n  \"a:1\",\n]\n", "TOML"),
        ("{\n  listeners: [\n    {\n    },\n  ],\n}\n", "JSON5"),
        ("<xml/>", "XML"),
        ("<?xml version=\"1.0\"?>\n<a>\n</a>\n", "XML"),
        (
            "global\n  maxconn 100\nfrontend web\n  bind :80\n",
            "a configuration of HAProxy",
        ),
        (
            "# mine\ndefaults\n  mode tcp\n",
            "a configuration of HAProxy",
        ),
        (
            "stream {\n  server { listen 80; }\n}\n",
            "a configuration of nginx",
        ),
        (
            "http { upstream a { server b; } }\n",
            "a configuration of nginx",
        ),
        (
            "worker_processes auto;\nevents {\n}\n",
            "a configuration of nginx",
        ),
        (
            "include modules/*.conf;\npid /run/nginx.pid;\nevents {\n}\n",
            "a configuration of nginx",
        ),
        (
            "{\n  admin off\n}\n:80 {\n  reverse_proxy 127.0.0.1:9001\n}\n",
            "a configuration of Caddy",
        ),
        (
            ":80 {\n  reverse_proxy 127.0.0.1:9001\n}\n",
            "a configuration of Caddy",
        ),
    ] {
        let (_, sentence) = recognised(text).unwrap_or_default();
        let want = format!("this looks like {kind},");
        assert!(sentence.starts_with(&want), "{text}: {sentence}");
    }
    for text in [
        "workers: 3",
        "listeners: [(bind: \"a:1\", pool: \"web\")],\npools: [],\n",
        "// mine\nlisteners: [\n(bind: \"a:1\")\n], // all\n",
        "tarpit: (slots",
    ] {
        let (_, sentence) = recognised(text).unwrap_or_default();
        assert_eq!(sentence, PARENTHESES, "{text}");
    }
    for text in ["(listeners: [])", "(", "\"a\"", ""] {
        assert_eq!(recognised(text), None, "{text}");
    }
    let config = crate::config::parse(String::new(), SMALLEST.into());
    assert!(config.is_ok());
    // RON accepts it, as a map.
    let json = crate::config::parse(String::new(), "{\"listeners\": []}".into());
    let error = json.unwrap_err().to_string();
    assert!(error.contains("this looks like JSON"), "{error}");
}

/// The first mistake with these settings of a listener and a pool.
fn wrong(listener: &str, pool: &str) -> String {
    let text = format!(
        "(listeners: [(bind: \"127.0.0.1:80\", pool: \"a\"{listener})], \
         pools: [(name: \"a\"{pool})])"
    );
    let error = crate::config::parse("f".to_owned(), text.into()).unwrap_err();
    let error = error.to_string();
    let (_, sentence) = error.lines().next().unwrap().split_once(": ").unwrap();
    sentence.to_owned()
}

fn listener(setting: &str) -> String {
    wrong(&format!(", {setting}"), ", backends: [\"b:1\"]")
}

fn pool(setting: &str) -> String {
    wrong("", &format!(", backends: [\"b:1\"], {setting}"))
}

fn backends(backends: &str) -> String {
    wrong("", &format!(", backends: {backends}"))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of words")]
fn words_of_other_programs_point_at_ours() {
    for (got, want) in [
        (
            listener("tls: (cert: \"a\")"),
            "unknown field `cert`: `tls` of a listener ends TLS: \
             (certificates: [(certificate: \"FILE\", key: \"FILE\")])",
        ),
        (
            pool("send_proxy: \"v2-ssl-cn\""),
            "invalid `send_proxy` `v2-ssl-cn`, did you mean `(version: \"v2\", \
             tlvs: [\"ssl\"])`?",
        ),
        (
            pool("send_proxy: \"v3\""),
            "invalid `send_proxy` `v3`: expected `v1` or `v2`",
        ),
        (
            pool("send_proxy: (version: \"v2\", tlvs: [\"cert-cn\"])"),
            "invalid item of `tlvs` `cert-cn`, did you mean `ssl`?",
        ),
        (
            listener("source: \"client\""),
            "unknown field `source`: the settings `source` and `source_ports` stand in a pool, \
             and in no listener",
        ),
        (
            listener("routes: [(not_client: [\"10.0.0.0/8\"], pool: \"a\")]"),
            "unknown field `not_client`: no condition is negated: a route before this one \
             takes those clients",
        ),
        (
            pool("send_proxy_v2: true"),
            "unknown field `send_proxy_v2`: the setting is called `send_proxy`",
        ),
        (
            pool("check: (type: \"http\", send_proxy: true)"),
            "unknown field `send_proxy`: the setting is called `proxy_header`",
        ),
        (
            pool("check: (type: \"http\", ssl: true)"),
            "unknown field `ssl`: the setting is called `tls`",
        ),
        (
            pool("check: (type: \"tls\", tls: (cert: \"a\"))"),
            "unknown field `cert`: `verify` says by which certificates a server is believed",
        ),
        (
            pool("observe: \"layer4\""),
            "unknown field `observe`: the setting `ejection` of a pool takes failing backends \
             out",
        ),
        (
            pool("limit_rate: \"1MB/s\""),
            "unknown field `limit_rate`: the group `bandwidth` of a listener, or of a \
             backend, limits bytes per second",
        ),
        (
            listener("acl: []"),
            "unknown field `acl`: an entry of `access_lists` has the prefixes: `access_list` \
             names it here",
        ),
        (
            listener("ban_after: 3"),
            "unknown field `ban_after`: the group `ban` has `after`, `within` and `for`",
        ),
        (
            listener("mode: \"tcp\""),
            "unknown field `mode`: every listener passes TCP on as it comes: leave this out",
        ),
        (
            listener("bandwidth: (down: \"1MB/s\")"),
            "unknown field `down`: a limit is that of each session, of a source or of all, as \
             in all: (down: \"10MB/s\")",
        ),
        (
            listener("access_list: [\"10.0.0.0/8\"]"),
            "invalid `access_list` `[\"10.0.0.0/8\"]`: expected the name of an entry of \
             `access_lists`, which has the prefixes, or \"off\", in double quotes",
        ),
        (
            listener("routes: [(host: [\"a.example\"], pool: \"web\")]"),
            "unknown field `host`: `sni` compares the name that a client asks for in TLS, \
             `http_host` that of plain HTTP",
        ),
        (
            listener("routes: [(sni: [\"a.example\"], pool: \"a\", to: \"b\")]"),
            "unknown field `to`: the setting `pool` names the pool that its clients go to",
        ),
        (
            listener("timeouts: \"5s\""),
            "expected fields in `(` and `)` here, such as (connect: \"5s\")",
        ),
        (
            pool("drain: true"),
            "unknown field `drain`: a backend has a `state`: \"ready\", \"drain\" or \
             \"maint\"",
        ),
        (
            backends("[(address: \"b:1\", port: 1)]"),
            "unknown field `port`: the port stands behind the address, as in address: \
             \"127.0.0.1:9001\"",
        ),
        (
            listener("timeouts: (client: \"5s\")"),
            "unknown field `client`: `idle` ends a session in which no byte moves, on either \
             side",
        ),
        (
            pool("algorithm: \"random\""),
            "unknown field `algorithm`: the setting `strategy` says how a backend is selected",
        ),
        (
            backends("[(address: \"b:1\", disabled: true)]"),
            "unknown field `disabled`: write state: \"maint\", or \"drain\" to keep its \
             sessions",
        ),
        (
            pool("check: (type: \"http\", url: \"/\")"),
            "unknown field `url`: write the `path`, and the host as `host`, of type: \"http\"",
        ),
        (
            backends("\"b:1, b:2\""),
            "expected a list in `[` and `]` here: write [\"b:1\", \"b:2\"]",
        ),
        (
            backends("[\"b:1,weight=2,backup\"]"),
            "address: expected an address without options: \
             write (address: \"b:1\", weight: 2, backup: true)",
        ),
        (
            backends("[\"b:0\"]"),
            "address: invalid port `0` of `b:0`: expected 1 to 65535",
        ),
        (
            backends("[\"b:x\"]"),
            "address: invalid port `x`: expected 1 to 65535",
        ),
    ] {
        assert_eq!(got, want);
    }
    for (global, want) in [
        ("log_level: \"debug\"", "as in MAHORAGA_LOG=debug\n"),
        ("source_limits: (rate: 5)", "stands in a listener\n"),
        ("ban: (after: 5)", "says when its clients are banned\n"),
    ] {
        let error = crate::config::parse("f".to_owned(), format!("({global})").into());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    let memory = crate::config::parse("f".to_owned(), "(memory: \"512MB\")".into());
    let memory = memory.unwrap_err().to_string();
    assert!(
        memory.contains("or \"auto\": write \"512MiB\"\n"),
        "{memory}"
    );
}

#[test]
fn values_of_other_programs_are_answered_by_ours() {
    for (got, want) in [
        (
            backends("[\"b:1 check\"]"),
            "address: expected an address without options: write \"b:1\", and options as \
             fields",
        ),
        (
            backends("[(address: \"b:1\", weight: \"2\")]"),
            "invalid `weight` `\"2\"`: expected a whole number, 0 to 256: write 2",
        ),
        (
            backends("[(address: \"b:1\", weight: \"999\")]"),
            "invalid `weight` `\"999\"`: expected a whole number, 0 to 256",
        ),
        (
            backends("[(address: \"b:1\", backup: \"yes\")]"),
            "invalid `backup` `\"yes\"`: expected true or false: write true",
        ),
        (
            pool("panic_below: \"50%\""),
            "invalid `panic_below` `\"50%\"`: expected a whole number, 0 to 100, or \"auto\": \
             write 50",
        ),
        (
            listener("max_connections: \"10k\""),
            "invalid `max_connections` `\"10k\"`: expected a whole number, 1 to 16777216, \
             or \"off\": write 10000",
        ),
        (
            pool("rise: 3"),
            "unknown field `rise`: the group `check` has `fall`, `rise` and `interval`",
        ),
    ] {
        assert_eq!(got, want);
    }
}

#[test]
fn a_word_has_one_meaning() {
    let mut words: Vec<_> = entries(WORDS)
        .chain(entries(UNSUPPORTED))
        .flat_map(|(theirs, _)| theirs.split(' '))
        .collect();
    let count = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), count);
}
