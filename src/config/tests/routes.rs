//! Routes of a listener: how they are written, and which are refused.

use super::*;
use crate::config::table::Settings;
use crate::peek::Protocol;

/// A file whose only listener has these routes.
fn with(bind: &str, routes: &str) -> String {
    format!(
        "(listeners: [(bind: \"{bind}\", pool: \"web\", routes: [{routes}])],\n\
         pools: [(name: \"web\", backends: [\"127.0.0.1:1\"]), \
         (name: \"api\", backends: [\"127.0.0.1:2\"])])"
    )
}

fn routes(text: &str) -> Vec<Route> {
    let (config, _) = read(&with("127.0.0.1:80", text)).unwrap();
    config.listeners[0].routes.clone()
}

/// The sentences about routes that are refused, and the text that each is about.
fn mistakes(bind: &str, text: &str) -> Vec<String> {
    let Err(ConfigError::Mistakes(mistakes)) = read(&with(bind, text)) else {
        panic!("accepted: {text}");
    };
    mistakes.into_iter().map(|one| one.sentence).collect()
}

#[test]
fn a_route_has_conditions_and_a_pool() {
    let all = routes(
        "(sni: [\"A.example.\", \"*.B.example\"], alpn: [\"h2\"], protocol: [\"tls\"], \
         client: [\"10.0.0.0/8\", \"::1\"], pool: \"api\"), \
         (http_host: [\"a.example\"], http_path: [\"/x\"], pool: \"refuse\"), (pool: \"web\")",
    );
    let names: Vec<_> = all[0].sni.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a.example", "*.b.example"]);
    assert_eq!(all[0].protocol, [Protocol::Tls]);
    assert_eq!(
        [all[0].pool, all[1].pool, all[2].pool],
        [Some(1), None, Some(0)]
    );
    assert!(all[1].needs_bytes() && !all[1].takes_all() && all[2].takes_all());
    let (config, _) = read(&with("[::1]:80", "(client: [\"::1\"], pool: \"api\")")).unwrap();
    let listener = &config.listeners[0];
    assert_eq!(listener.pools().collect::<Vec<_>>(), [0, 1]);
    assert!(!listener.routes[0].needs_bytes());
    let warned = warnings(&config, HOST, None);
    assert!(
        warned
            .iter()
            .all(|one| !one.sentence.contains("no listener uses")),
        "{warned:?}"
    );
}

#[test]
fn a_route_that_no_client_reaches_is_refused() {
    for (routes, first, why) in [
        (
            "(pool: \"web\"), (sni: [\"a.b\"], pool: \"api\")",
            1,
            "has no condition and takes every client",
        ),
        (
            "(sni: [\"a.b\"], pool: \"web\"), (sni: [\"A.b\"], pool: \"api\")",
            1,
            "takes all of its clients",
        ),
        (
            "(sni: [\"*.b\", \"c\"], pool: \"web\"), (sni: [\"x.a.b\", \"c\"], pool: \"api\")",
            1,
            "takes all of its clients",
        ),
        (
            "(protocol: [\"tls\"], pool: \"web\"), (alpn: [\"h2\"], pool: \"api\")",
            1,
            "takes all of its clients",
        ),
        (
            "(client: [\"10.0.0.0/8\"], pool: \"web\"), \
          (client: [\"10.1.0.0/16\"], sni: [\"a.b\"], pool: \"api\")",
            1,
            "takes all of its clients",
        ),
        (
            "(client: [\"::/0\"], pool: \"web\"), (client: [\"2001:db8::1\"], pool: \"api\")",
            1,
            "takes all of its clients",
        ),
        (
            "(alpn: [\"h3\"], pool: \"api\"), (http_path: [\"/a\"], pool: \"web\"), \
          (http_path: [\"/a/b\", \"/ab\"], pool: \"api\")",
            2,
            "takes all of its clients",
        ),
        (
            "(sni: [\"*.b\"], pool: \"web\"), (sni: [\"*.a.b\", \"*.b\"], pool: \"api\")",
            1,
            "takes all of its clients",
        ),
        (
            "(sni: [\"~.*\"], pool: \"web\"), (sni: [\"~.*\"], pool: \"api\")",
            1,
            "takes all of its clients",
        ),
    ] {
        let sentence = format!(
            "no client reaches this route, as route {first} {why}: put this one before it, or \
             leave it out"
        );
        assert_eq!(mistakes("127.0.0.1:80", routes), [sentence], "{routes}");
    }
    // Each of these takes a client that the one before does not.
    for fine in [
        "(sni: [\"a.b\"], pool: \"web\"), (sni: [\"a.b\", \"c.b\"], pool: \"api\")",
        "(sni: [\"*.b\"], pool: \"web\"), (sni: [\"b\"], pool: \"api\")",
        "(sni: [\"*.b\"], pool: \"web\"), (sni: [\"ab\", \"*.b\"], pool: \"api\")",
        "(sni: [\"*.a.b\", \"a.b\"], pool: \"web\"), (sni: [\"*.b\"], pool: \"api\")",
        "(sni: [\"~.*\"], pool: \"web\"), (sni: [\"a.b\"], pool: \"api\")",
        "(sni: [\"*.b\"], pool: \"web\"), (sni: [\"~a.b\"], pool: \"api\")",
        "(sni: [\"a.b\"], pool: \"web\"), (http_host: [\"a.b\"], pool: \"api\")",
        "(client: [\"0.0.0.0/0\"], pool: \"web\"), (client: [\"::1\"], pool: \"api\")",
        "(sni: [\"a.b\"], alpn: [\"h2\"], pool: \"web\"), (sni: [\"a.b\"], pool: \"api\")",
        "(client: [\"10.0.0.0/8\"], pool: \"web\"), (client: [\"0.0.0.0/0\"], pool: \"api\")",
        "(http_path: [\"/a\"], pool: \"web\"), (protocol: [\"http\"], pool: \"api\")",
    ] {
        routes(fine);
    }
}

#[test]
fn what_a_route_can_not_say_is_refused() {
    let name = "expected a host name such as \"a.example\", or \"*.example\" for all below a name";
    for (routes, sentence) in [
        (
            "(sni: [\"a.b\"], pool: \"apj\")",
            "pool: there is no pool called `apj`, did you mean `api`?".to_owned(),
        ),
        (
            "(sni: [\"a.b\"], pool: \"refused\")",
            "pool: there is no pool called `refused`, did you mean `refuse`?".to_owned(),
        ),
        (
            "(sni: [\"a.b\"], pool: \"reject\")",
            "pool: there is no pool called `reject`: expected `refuse`, `web` or `api`".to_owned(),
        ),
        (
            "(protocol: [\"https\"], pool: \"api\")",
            "invalid item of `protocol` `https`, did you mean `tls`?".to_owned(),
        ),
        (
            "(name: \"2\", sni: [\"a.b\"], pool: \"api\")",
            "name: expected another name: numbers are the places of routes, and `default` are \
             clients that no route takes"
                .to_owned(),
        ),
        (
            "(name: \"a\", sni: [\"a.b\"], pool: \"api\"), (name: \"a\", pool: \"api\")",
            "two routes of the listener are called `a`: rename one".to_owned(),
        ),
        (
            "(sni: [\"a.b\"])",
            "missing field `pool`, or `pools` for several with weights".to_owned(),
        ),
        (
            "(sni: [\"a b\"], pool: \"api\")",
            format!("sni: `a b`: {name}"),
        ),
        (
            "(sni: [\"*\"], pool: \"api\")",
            "sni: `*`: a `*` stands for all names below one, as in \"*.example\": write it first, \
             once, or a regular expression behind a `~`"
                .to_owned(),
        ),
        (
            "(http_host: [\"~a[\"], pool: \"api\")",
            "http_host: `~a[`: invalid regular expression: unclosed character class".to_owned(),
        ),
        (
            "(sni: [\"a.b\"], http_path: [\"/\"], pool: \"api\")",
            "http_path: no client has it and `sni`: one is in TLS, the other in plain HTTP: make \
             two routes, or end TLS here by `tls` at the listener"
                .to_owned(),
        ),
        (
            "(alpn: [\"h2\"], protocol: [\"ssh\"], pool: \"api\")",
            "alpn: no client has it and speaks only what `protocol` says: add \"tls\" there, or \
             leave `protocol` out"
                .to_owned(),
        ),
        (
            "(sni: [\"a.b\"], protocol: [\"postgres\"], pool: \"api\")",
            "protocol: the hello of PostgreSQL's clients is not looked at here: set \
             `postgres_tls: \"answer\"` at the listener, or add \"tls\""
                .to_owned(),
        ),
    ] {
        assert_eq!(mistakes("127.0.0.1:80", routes), [sentence], "{routes}");
    }
    let socket = mistakes("unix:/l", "(client: [\"::1\"], pool: \"api\")");
    let sentence = "client: clients of a Unix socket have no address: leave it out";
    assert_eq!(socket, [sentence]);
}

#[test]
fn where_tls_ends_a_client_has_a_hello_and_what_is_inside() {
    let ends_tls = "127.0.0.1:80\", tls: (certificates: [(certificate: \"/c\", key: \"/k\")]), \
                    name: \"l";
    for routes in [
        "(sni: [\"a.b\"], http_host: [\"c.d\"], pool: \"api\")",
        "(alpn: [\"http/1.1\"], http_path: [\"/\"], pool: \"api\")",
        "(sni: [\"a.b\"], protocol: [\"ssh\"], pool: \"api\")",
        "(sni: [\"a.b\"], protocol: [\"http\"], http_path: [\"/\"], pool: \"api\")",
        "(sni: [\"a.b\"], protocol: [\"postgres\"], pool: \"api\")",
    ] {
        let read = read(&with(ends_tls, routes));
        assert!(read.is_ok(), "{routes}: {read:?}");
        assert!(!mistakes("127.0.0.1:80", routes).is_empty(), "{routes}");
    }
    // A PostgreSQL client asks for TLS first, and what is inside routes it.
    let answers = ends_tls.replace("tls:", "postgres_tls: \"answer\", tls:");
    let read = read(&with(&answers, "(protocol: [\"postgres\"], pool: \"api\")"));
    assert!(read.is_ok(), "{read:?}");
}

#[test]
fn routes_beyond_their_limits_are_refused() {
    let many = "(sni: [\"a\"], pool: \"api\"),".repeat(257);
    let sentence = "routes: 257 routes with 257 values: expected at most 256 routes with 4096 \
                    values in all";
    assert_eq!(mistakes("127.0.0.1:80", &many), [sentence]);
    let many: String = (0..65).map(|n| format!("\"~a{n}\",")).collect();
    let many = mistakes("127.0.0.1:80", &format!("(sni: [{many}], pool: \"api\")"));
    let sentence = "routes: 65 regular expressions: expected at most 64 in all";
    assert_eq!(many, [sentence]);
    let tlvs: String = (0..65).map(|n| format!("\"authority=~a{n}\",")).collect();
    let tlvs = mistakes(
        "127.0.0.1:80",
        &format!("(proxy_tlv: [{tlvs}], pool: \"api\")"),
    );
    assert_eq!(tlvs, [sentence]);
    let text = with("127.0.0.1:80", "(pool: \"refuse\")").replace("\"api\"", "\"refuse\"");
    let Err(ConfigError::Mistakes(mistakes)) = read(&text) else {
        panic!("accepted: {text}");
    };
    let sentence = "a pool called `refuse` can't be told from the word in routes: rename it";
    assert_eq!(mistakes[0].sentence, sentence);
}

#[test]
fn a_list_of_a_route_has_a_value() {
    let one = "expected at least one value: leave it out where any will do";
    let names = Route::table().iter().map(|setting| setting.name);
    for list in names.filter(|name| !["name", "pool", "pools", "key"].contains(name)) {
        let routes = format!("({list}: [], pool: \"api\")");
        let found = mistakes("127.0.0.1:80", &routes);
        assert_eq!(found, [format!("{list}: {one}")]);
    }
}

#[test]
fn pools_share_a_route_by_weight() {
    let split = "pools: [(name: \"web\", weight: 95), (name: \"api\", weight: 5)]";
    let all = routes(&format!(
        "(sni: [\"a.b\"], {split}, key: \"sni\"), ({split})"
    ));
    let shares: Vec<_> = all[0].shares().map(|it| (it.name, it.weight)).collect();
    assert_eq!(shares, [(0, 95), (1, 5)]);
    assert!(all[0].needs_bytes() && !all[1].needs_bytes());
    assert!(all[1].shares_by_address());
    for (route, sentence) in [
        (
            format!("({split}, pool: \"web\")"),
            "pools: `pool` says where its clients go: leave one out",
        ),
        (
            format!("({})", split.replace("\"api\"", "\"web\"")),
            "pools: each pool stands there once: add up its weights",
        ),
        (
            "(pools: [(name: \"web\", weight: 0)])".to_owned(),
            "pools: expected at least one with a weight above 0",
        ),
        (
            "(pool: \"web\", key: \"sni\")".to_owned(),
            "key: it keeps clients with one of `pools`: leave it out",
        ),
        (
            format!("({})", split.replace("\"api\"", "\"apj\"")),
            "pool: there is no pool called `apj`, did you mean `api`?",
        ),
    ] {
        assert_eq!(mistakes("127.0.0.1:80", &route), [sentence], "{route}");
    }
    let sentence = "pools: clients of a Unix socket have no address, and would all go to one: name \
                    a `key`";
    assert_eq!(mistakes("unix:/l", &format!("({split})")), [sentence]);
}

/// A listener may lead back by any of its pools.
#[test]
fn a_loop_through_a_route_is_found() {
    let text = with("127.0.0.1:2", "(sni: [\"a\"], pool: \"api\")");
    let Err(ConfigError::Mistakes(mistakes)) = read(&text) else {
        panic!("accepted: {text}");
    };
    let sentence = &mistakes[0].sentence;
    assert!(
        sentence.contains("leads back to its own pool by the listener on"),
        "{sentence}"
    );
}

#[test]
fn proxies_are_networks_or_peers_of_a_unix_socket() {
    let listener = |bind: &str, rest: &str| {
        let text = format!(
            "(listeners: [(bind: \"{bind}\", pool: \"p\", {rest})],
            pools: [(name: \"p\", backends: [\"unix:/a\"])])"
        );
        read(&text)
            .map(|(config, _)| config)
            .map_err(|error| error.to_string())
    };
    let all = r#"accept_proxy: ["10.0.0.5", "2001:db8::/32"], unfinished_headers: 7"#;
    let config = listener("[::1]:1", all).unwrap();
    let its = &config.listeners[0];
    let shown: Vec<_> = its.accept_proxy.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.5", "2001:db8::/32"]);
    assert_eq!(its.unfinished_headers.get(), 7);
    assert_eq!(its.timeouts.proxy_header.as_secs(), 5);
    let trusts = |config: &Config| {
        let all = warnings(config, HOST, None).into_iter();
        all.filter(|one| {
            one.sentence
                .contains(" every machine that reaches the listener")
        })
        .count()
    };
    assert_eq!(trusts(&config), 0);
    let config = listener("[::1]:1", r#"accept_proxy: ["0.0.0.0/0", "::/0"]"#).unwrap();
    assert_eq!(trusts(&config), 2);
    for (halves, warns) in [
        (r#"["128.0.0.0/2", "0.0.0.0/1", "192.0.0.0/2"]"#, 1),
        (r#"["::/1", "8000::/1", "10.0.0.0/8"]"#, 1),
        (r#"["0.0.0.0/1", "128.0.0.0/2", "8000::/1"]"#, 0),
    ] {
        let config = listener("[::1]:1", &format!("accept_proxy: {halves}")).unwrap();
        assert_eq!(trusts(&config), warns, "{halves}");
    }
    // Named clients have addresses.
    let config = listener(
        "unix:/l",
        r#"accept_proxy: ["unix"], source_limits: (rate: 9)"#,
    );
    assert_eq!(
        config.unwrap().listeners[0].accept_proxy,
        [ProxySource::Unix]
    );
    let error = listener("[::1]:1", r#"accept_proxy: ["proxies"]"#).unwrap_err();
    let words = "expected an address or a prefix of proxies, such as \"10.0.0.0/8\", or \"unix\"";
    assert!(error.contains(words), "{error}");
}

#[test]
fn conditions_that_no_client_meets_are_warned_of() {
    let warned = |routes: &str, pool: &str| {
        let text = format!(
            "(listeners: [(bind: \"[::1]:1\", pool: \"p\", routes: [{routes}])],
            pools: [(name: \"p\", backends: [\"unix:/a\"]{pool})])"
        );
        let (config, source) = read(&text).unwrap();
        let all = warnings(&config, HOST, Some(&source)).into_iter();
        all.map(|one| (one.place.map_or(0, |place| place.line), one.sentence))
            .collect::<Vec<_>>()
    };
    for (condition, want) in [
        (
            "http_path: [\"/a/\", \"/api/*\"]",
            "http_path: a `*` in `/api/*` is that character",
        ),
        (
            "sni: [\"a.b\", \"10.0.0.1\"]",
            "sni: no client asks for `10.0.0.1`: TLS has names",
        ),
        (
            "sni: [\"[::1]\"]",
            "sni: no client asks for `[::1]`: TLS has names",
        ),
        (
            "alpn: [\"http2\"]",
            "alpn: no client offers `http2`, did you mean `h2`?",
        ),
        (
            "alpn: [\"HTTP/1.1\"]",
            "alpn: no client offers `HTTP/1.1`, did you mean `http/1.1`?",
        ),
    ] {
        let told = warned(&format!("({condition}, pool: \"p\")"), "");
        assert!(
            matches!(&told[..], [(1, said)] if said.starts_with(want)),
            "{told:?}"
        );
    }
    for condition in [
        "http_path: [\"/a/\"]",
        "sni: [\"a.b\", \"*.b\"]",
        "alpn: [\"h2\", \"http/1.1\", \"mine\"]",
        "http_host: [\"10.0.0.1\"]",
    ] {
        assert_eq!(warned(&format!("({condition}, pool: \"p\")"), ""), []);
    }
}

#[test]
fn headers_that_say_nothing_of_any_client_are_warned_of() {
    let warned = |listener: &str, pool: &str| {
        let text = format!(
            "(listeners: [(bind: \"[::1]:1\", pool: \"p\"{listener})],
            pools: [(name: \"p\", {pool})])"
        );
        let (config, source) = read(&text).unwrap();
        let all = warnings(&config, HOST, Some(&source)).into_iter();
        all.map(|one| one.sentence).collect::<Vec<_>>()
    };
    let ssl = "tlvs: \"ssl\" says nothing: no listener that leads to `p` has `tls`";
    let relay = "relay: there is nothing to pass on: no listener that leads to `p` has \
                 `accept_proxy`";
    let both = "send_proxy: (version: \"v2\", tlvs: [\"ssl\"], relay: true)";
    let pool = format!("backends: [\"[::1]:2\"], {both}");
    assert_eq!(warned("", &pool), [ssl, relay]);
    let own = format!("backends: [(address: \"[::1]:2\", {both})]");
    assert_eq!(warned("", &own), [ssl, relay]);
    assert_eq!(warned(", accept_proxy: [\"::1\"]", &pool), [ssl]);
    let tls = ", tls: (certificates: [(certificate: \"a\", key: \"b\")])";
    assert_eq!(warned(tls, &pool), [relay]);
}

#[test]
fn settings_that_need_a_route_warn_without_one() {
    let warned = |rest: &str| {
        let text = format!(
            "(listeners: [(bind: \"[::1]:1\", pool: \"p\", {rest}), \
             (bind: \"[::1]:2\", pool: \"p\")],
            pools: [(name: \"p\", backends: [\"unix:/a\"])])"
        );
        let (config, source) = read(&text).unwrap();
        let all = warnings(&config, HOST, Some(&source)).into_iter();
        all.map(|one| one.sentence).collect::<Vec<_>>()
    };
    let silent = "timeouts: (server_first: \"1s\")";
    assert_eq!(
        warned(silent),
        [
            "timeouts.server_first: 1s does nothing: no route of the listener has protocol: \
          [\"server_first\"]"
        ]
    );
    let route = "routes: [(protocol: [\"server_first\"], pool: \"p\")]";
    assert!(warned(&format!("{silent}, {route}")).is_empty());
    let answer = "postgres_tls: \"answer\"";
    let told = warned(&format!(
        "{answer}, routes: [(protocol: [\"postgres\"], pool: \"p\")]"
    ));
    assert!(told[0].starts_with("postgres_tls: no route and no pool of the listener asks"));
    assert!(
        warned(&format!(
            "{answer}, routes: [(sni: [\"a.b\"], pool: \"p\")]"
        ))
        .is_empty()
    );
}

#[test]
fn routes_warn_about_protocols_that_tls_never_agrees_on_and_that_are_not_read() {
    let warned = |alpn: &str, routes: &str| {
        let text = format!(
            "(listeners: [(bind: \"[::1]:1\", pool: \"p\", routes: [{routes}], \
             tls: (certificates: [(certificate: \"a\", key: \"b\")], alpn: [{alpn}]))],
            pools: [(name: \"p\", backends: [\"unix:/a\"])])"
        );
        let (config, source) = read(&text).unwrap();
        let all = warnings(&config, HOST, Some(&source)).into_iter();
        let all = all.filter(|one| one.sentence.starts_with("alpn: "));
        all.map(|one| one.sentence).collect::<Vec<_>>()
    };
    let by_path = "(http_path: [\"/a\"], pool: \"p\")";
    assert_eq!(
        warned("\"h2\", \"http/1.1\"", by_path),
        [
            "alpn: a client that agrees on \"h2\" speaks HTTP/2, whose requests are not read, so \
             that no route by `http_host` or `http_path` takes it: leave out \"h2\""
        ]
    );
    assert!(warned("\"http/1.1\"", by_path).is_empty());
    let by_alpn = "(alpn: [\"h2\", \"x\"], pool: \"p\")";
    assert!(warned("\"h2\", \"x\"", by_alpn).is_empty());
    assert_eq!(
        warned("\"h2\"", by_alpn),
        [
            "alpn: TLS ends here and never agrees on \"x\", which is not in `alpn` of the \
             listener's `tls`: add it there, or leave it out"
        ]
    );
    assert_eq!(warned("", by_alpn).len(), 1);
}
