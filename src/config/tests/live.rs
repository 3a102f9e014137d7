//! Checks, ejection, queues, discovery, scaling and the admin API in the file.

use std::net::IpAddr;

use super::*;

/// The only pool of the smallest file, with these settings.
fn pool(settings: &str) -> Pool {
    let text = SMALLEST.replacen("backends", &format!("{settings}, backends"), 1);
    let (mut config, _) = read(&text).unwrap_or_else(|error| panic!("{error}"));
    config.pools.remove(0).into_owned()
}

fn check(written: &str) -> Check {
    pool(&format!("check: {written}")).check.unwrap()
}

fn whole(settings: &str) -> Config {
    let text = SMALLEST.replacen('(', &format!("({settings}, "), 1);
    let (config, _) = read(&text).unwrap_or_else(|error| panic!("{error}"));
    config
}

fn http() -> Probe {
    Probe::Http(HttpProbe::default())
}

/// The defaults in the example's comment on the setting: the groups in parentheses.
fn documented(setting: &str, from: &str) -> Vec<String> {
    let (_, rest) = EXAMPLE.split_once(from).unwrap();
    let (comment, _) = rest
        .split_once(&format!("\n            {setting}: "))
        .unwrap();
    let lines = comment
        .lines()
        .map(|line| line.trim_start().trim_start_matches("//"));
    let comment: String = lines.flat_map(|line| [line, "\n"]).collect();
    let groups = comment.split("\n   (").skip(1);
    groups.map(|text| format!("({}", group_of(text))).collect()
}

/// What of this text belongs to the group that has begun before it.
fn group_of(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    &text[..=end.unwrap()]
}

#[test]
fn the_example_lists_every_check_with_its_defaults() {
    let documented = documented("check", "// How backends are probed;");
    let [http_group, send_expect, times] = &documented[..] else {
        panic!("{documented:?}");
    };
    let default = Check::default();
    assert_eq!(check(http_group), check("\"http\""));
    assert_eq!(
        check(send_expect).probe,
        Probe::SendExpect {
            send: Vec::new(),
            expect: Expect::Bytes(b"220 ".to_vec()),
        }
    );
    assert_eq!(check(times), default);
    assert_eq!(check("\"tcp\""), default);
}

#[test]
fn the_example_lists_the_defaults_of_scaling() {
    let documented = documented("scaling", "// How it grows by its reserve");
    let written = format!("scaling: {}, reserve: [\"unix:/r\"]", documented[0]);
    let pool = pool(&written);
    assert_eq!(pool.scaling, Some(Scaling::default()));
    let reserve: Vec<_> = pool.backends.iter().map(|one| one.reserve).collect();
    assert_eq!(reserve, [false, true]);
}

#[test]
fn the_example_lists_the_sources_of_discovery() {
    let documented = documented("discover", "// Where more backends are found");
    let found: Vec<_> = documented
        .iter()
        .map(|written| pool(&format!("discover: {written}")).discovery.unwrap())
        .collect();
    let dns = Discovery::Dns {
        name: "web.example".to_owned(),
        port: 80,
    };
    let srv = Discovery::Srv("_web._tcp.example".to_owned());
    let etcd = Discovery::Etcd(Etcd {
        endpoints: vec!["https://etcd-1:2379".to_owned()],
        prefix: "/mahoraga/pools/web/".to_owned(),
        ca: Some("ca.pem".into()),
        certificate: Some("me.pem".into()),
        key: Some("me.key".into()),
        user: Some("balancer".to_owned()),
        password_file: Some("etcd.password".into()),
    });
    let file = Discovery::File("web.backends".into());
    let consul = Discovery::Consul(Consul {
        service: "web".to_owned(),
        endpoints: vec!["https://consul-1:8501".to_owned()],
        health: ConsulHealth::Passing,
        tags: vec!["v2".to_owned()],
        filter: Some("Service.Meta.zone == a".to_owned()),
        datacenter: Some("dc1".to_owned()),
        namespace: Some("team".to_owned()),
        partition: Some("east".to_owned()),
        token_file: Some("consul.token".into()),
        ca: Some("ca.pem".into()),
        certificate: Some("me.pem".into()),
        key: Some("me.key".into()),
    });
    let kubernetes = Discovery::Kubernetes(Kubernetes {
        service: "web".to_owned(),
        namespace: "shop".to_owned(),
        port: Some(ServicePort::Name("http".to_owned())),
        address_type: Some(AddressType::IPv4),
        endpoints: vec!["https://k8s:6443".to_owned()],
        token_file: Some("k8s.token".into()),
        ca: Some("ca.pem".into()),
        ..Kubernetes::default()
    });
    assert_eq!(found, [dns, srv, file, etcd, consul, kubernetes]);
}

#[test]
fn the_example_shows_the_admin_api_in_full() {
    let (_, rest) = EXAMPLE.split_once("//   (socket: ").unwrap();
    let (group, _) = rest.split_once("\n    admin: ").unwrap();
    let group = group.replace("\n    //", "\n");
    let admin = Admin {
        required: true,
        http: Some(AdminHttp {
            bind: "127.0.0.1:9900".parse().unwrap(),
            read_token: Some("read.token".into()),
            write_token: Some("write.token".into()),
            origins: vec!["https://lb.example.com".to_owned()],
            ..AdminHttp::default()
        }),
        ..Admin::default()
    };
    assert_eq!(
        whole(&format!("admin: (socket: {group}")).admin,
        Some(admin)
    );
}

#[test]
fn checks_have_settings() {
    let own = BackendTls {
        sni: Some("a.example".to_owned()),
        alpn: vec!["h2".to_owned()],
        verify: Verify::System,
        ..BackendTls::default()
    };
    let written = r#"(type: "tls", tls: (sni: "a.example", alpn: ["h2"], verify: "system"))"#;
    let want = Check {
        tls: CheckTls::Own(own),
        ..Check::default()
    };
    assert_eq!(check(written), want);
    assert_eq!(check("\"http\"").probe, http());
    let written = r#"(type: "send_expect", send: b"\xff\0", expect_regex: "^a.b$", port: 7,
        proxy_header: "v2", initial: "probe", interval: "500ms", interval_down: "5s")"#;
    let want = Check {
        probe: Probe::SendExpect {
            send: vec![0xff, 0],
            expect: Expect::Regex("^a.b$".to_owned()),
        },
        port: Some(7),
        proxy_header: ProxyHeader::V2,
        initial: Initial::Probe,
        interval: Duration::from_millis(500),
        interval_down: Some(Duration::from_secs(5)),
        // As long as the time to the next probe.
        timeout: Duration::from_millis(500),
        ..Check::default()
    };
    assert_eq!(check(written), want);
    let statuses = |written: &str| match check(written).probe {
        Probe::Http(request) => request.status,
        probe @ (Probe::Tcp | Probe::SendExpect { .. }) => panic!("{probe:?}"),
    };
    assert_eq!(statuses(r#"(type: "http", status: 204)"#), 204..=204);
    assert_eq!(statuses(r#"(type: "http", status: "200-299")"#), 200..=299);
}

#[test]
fn a_check_of_the_same_port_speaks_tls_as_its_pool_does() {
    let of_pool = BackendTls {
        verify: Verify::File("ca.pem".into()),
        certificate: Some(CertificateFiles {
            certificate: "own.pem".into(),
            key: "own.key".into(),
        }),
        ..BackendTls::default()
    };
    let secured = r#"tls: (verify: "ca.pem", certificate: (certificate: "own.pem",
        key: "own.key"))"#;
    let pools = [
        ("tls: false", None),
        ("tls: true", Some(BackendTls::default())),
        (secured, Some(of_pool)),
    ];
    let unverified = BackendTls {
        verify: Verify::Off,
        ..BackendTls::default()
    };
    for (written, tls) in pools {
        let in_force = |check: &str| {
            let pool = pool(&format!("{written}, check: {check}"));
            pool.check_in_force().unwrap().tls
        };
        let pools_or = |or| tls.clone().map_or(or, ProbeTls::OfPool);
        for same in [r#""tcp""#, r#""http""#, r#"(type: "http", tls: "auto")"#] {
            assert_eq!(
                in_force(same),
                pools_or(ProbeTls::Plain),
                "{written}, {same}"
            );
        }
        for asked in [r#""tls""#, r#"(type: "http", tls: true, port: 7)"#] {
            let unverified = ProbeTls::Own(unverified.clone());
            assert_eq!(in_force(asked), pools_or(unverified), "{written}, {asked}");
        }
        for plain in [
            r#"(type: "http", tls: false)"#,
            r#"(type: "http", port: 7)"#,
        ] {
            assert_eq!(in_force(plain), ProbeTls::Plain, "{written}, {plain}");
        }
        let own = |verify: Option<&Verify>| {
            ProbeTls::Own(BackendTls {
                sni: Some("a.example".to_owned()),
                verify: verify.cloned().unwrap_or(Verify::Off),
                ..BackendTls::default()
            })
        };
        let named = r#"(type: "tls", tls: (sni: "a.example"))"#;
        let verify = tls.as_ref().map(|tls| &tls.verify);
        assert_eq!(in_force(named), own(verify), "{written}, {named}");
        let named = r#"(type: "tcp", port: 7, tls: (sni: "a.example", verify: "off"))"#;
        assert_eq!(in_force(named), own(None), "{written}, {named}");
    }
}

#[test]
fn certificates_that_only_probes_do_not_verify_are_warned_of() {
    let of_check = |check: &str| {
        let settings = format!("tls: (verify: \"ca.pem\"), check: {check}, backends");
        warned("backends", &settings)
    };
    let want = |place| {
        format!(
            "f:{place}: warning: probes of `web` verify no certificate, and connections to its \
             backends do: a backend that takes no client may be up"
        )
    };
    for verifies in [
        "\"tls\"",
        "(type: \"tls\", tls: (sni: \"a.b\"))",
        "(type: \"tcp\", port: 7)",
    ] {
        assert_eq!(of_check(verifies), [""; 0], "{verifies}");
    }
    for unverified in ["tls: (verify: \"off\")", "tls: false"] {
        let check = format!("(type: \"http\", {unverified})");
        assert_eq!(of_check(&check), [want("2:79")], "{check}");
    }
}

#[test]
fn revocation_lists_are_for_what_is_verified() {
    let fault = |settings: &str| {
        let text = SMALLEST.replacen("backends", &format!("{settings}, backends"), 1);
        read(&text).unwrap_err().to_string()
    };
    for unverified in [
        "tls: (verify: \"off\", crl: \"x\")",
        "tls: true, check: (type: \"tls\", tls: (verify: \"off\", crl: \"x\"))",
        "check: (type: \"tls\", tls: (crl: \"x\"))",
    ] {
        let fault = fault(unverified);
        let want = "invalid `crl`: expected none where nothing is verified";
        assert!(fault.contains(want), "{fault}");
    }
    let tls = "tls: (verify: \"ca.pem\", crl: \"x\")";
    for (of_check, crl) in [("sni: \"a\"", "x"), ("crl: \"y\"", "y")] {
        let check = format!("check: (type: \"tls\", tls: ({of_check}))");
        let in_force = pool(&format!("{tls}, {check}")).check_in_force();
        let ProbeTls::Own(tls) = in_force.unwrap().tls else {
            panic!("it has its own");
        };
        assert_eq!(tls.crl, Some(crl.into()));
    }
}

#[test]
fn what_is_expected_is_matched_byte_by_byte() {
    let matches =
        |pattern: &str, bytes: &[u8]| values::expect_regex(pattern).unwrap().is_match(bytes);
    assert!(matches(r"^\xff.$", b"\xff\xfe"));
    assert!(matches("(?i)PONG", b"\xffpong"));
    assert!(matches("é", "é".as_bytes()));
}

#[test]
fn availability_has_short_forms() {
    let plain = pool("check: \"off\"");
    assert_eq!(plain, Pool::of("web", plain.backends.clone()));
    assert_eq!(pool("queue: \"off\"").queue.max, 0);
    assert_eq!(pool("queue: 7").queue.max, 7);
    assert_eq!(
        pool("queue: (timeout: \"1s\")").queue,
        QueueLimits {
            timeout: Duration::from_secs(1),
            ..QueueLimits::default()
        }
    );
    assert_eq!(pool("ejection: \"off\"").ejection, None);
    assert_eq!(pool("ejection: ()").ejection, Some(Ejection::default()));
    assert_eq!(
        pool("ejection: (latency: 2)").ejection,
        Some(Ejection {
            latency: Some(200),
            ..Ejection::default()
        })
    );
    let hour = Duration::from_secs(3600);
    let long = pool("ejection: (base: \"1h\")").ejection.unwrap();
    assert_eq!((long.base, long.max), (hour, hour));
    assert_eq!(pool("on_down: \"keep\"").on_down, OnDown::Keep);
    assert_eq!(
        pool("on_down: \"close\"").on_down,
        OnDown::Close(Duration::ZERO)
    );
    assert_eq!(
        pool("on_down: (close_over: \"1h\")").on_down,
        OnDown::Close(hour)
    );
    assert_eq!(pool("slow_start: \"1h\"").slow_start, Some(hour));
    assert_eq!(pool("panic_below: 0").panic_below, Some(0));
    assert_eq!(pool("panic_below: \"auto\"").panic_below, None);
    assert_eq!(pool("all_down: \"closed\"").all_down, Some(AllDown::Closed));
    assert_eq!(pool("all_down: \"auto\"").all_down, None);
    assert_eq!(
        pool("max_connections: 9").max_connections,
        NonZeroU32::new(9)
    );
    let drained = r#"backends: [(address: "unix:/a", state: "drain")]"#;
    let text = SMALLEST.replacen("backends: [\"127.0.0.1:9001\"]", drained, 1);
    let (config, _) = read(&text).unwrap();
    assert_eq!(config.pools[0].backends[0].state, AdminState::Drain);
}

#[test]
fn a_pool_that_discovers_needs_no_backend() {
    let text = SMALLEST.replacen(
        "backends: [\"127.0.0.1:9001\"]",
        "discover: (srv: \"a.b\")",
        1,
    );
    let (config, _) = read(&text).unwrap();
    assert_eq!(config.pools[0].backends, []);
}

#[test]
fn low_follows_high() {
    let scaling = |written: &str| {
        let written = format!("reserve: [\"unix:/r\"], scaling: ({written})");
        pool(&written).scaling.unwrap()
    };
    assert_eq!(scaling("high: 10").low, 3);
    assert_eq!(scaling("high: 10, low: 5").low, 5);
    let hook = scaling("by: \"forecast\", webhook: \"https://a.example:8443/up?x=1\"");
    assert_eq!(hook.by, ScaleBy::Forecast);
    assert_eq!(
        hook.webhook.as_deref(),
        Some("https://a.example:8443/up?x=1")
    );
}

#[test]
fn webhooks_have_a_scheme_and_a_host() {
    for right in [
        "http://a",
        "https://[::1]:1/",
        "http://127.0.0.1/x",
        "http://a?b",
    ] {
        assert_eq!(values::webhook(right).as_deref(), Some(right));
    }
    for wrong in [
        "",
        "a",
        "ftp://a",
        "http://",
        "http:///a",
        "http://a:0",
        "http://a:x",
        "http://a:",
        "http://a b",
        "http://u@a",
        "http://[::1",
        "http://[::1]x",
        "http://[a]",
        "http://a#b",
        "http://a:+1",
    ] {
        assert_eq!(values::webhook(wrong), None, "{wrong}");
    }
}

#[test]
fn the_admin_api_has_short_forms() {
    let socket = |path: &str, required| Admin {
        socket: Some(path.into()),
        required,
        ..Admin::default()
    };
    assert_eq!(whole("admin: \"off\"").admin, None);
    assert_eq!(whole("admin: ()").admin, Some(Admin::default()));
    for written in [
        "\"/a\"",
        "\"unix:/a\"",
        "(socket: \"/a\")",
        "(socket: \"/a\", audit_log: \"-\")",
    ] {
        let admin = whole(&format!("admin: {written}")).admin;
        assert_eq!(admin, Some(socket("/a", true)), "{written}");
    }
    assert_eq!(
        whole("admin: \"mahoraga.sock\"").admin,
        Some(socket("mahoraga.sock", true))
    );
    let http = whole("admin: (socket: \"off\", http: (bind: \"[::1]:1\", read_token: \"t\"))");
    let admin = http.admin.unwrap();
    assert_eq!((admin.socket, admin.required), (None, false));
    assert_eq!(admin.http.unwrap().bind, "[::1]:1".parse().unwrap());
    let resolvers = whole("resolvers: [\"127.0.0.1\", \"[::1]:5353\"]").resolvers;
    let want = ["127.0.0.1:53", "[::1]:5353"].map(|text| text.parse().unwrap());
    assert_eq!(resolvers, want);
    assert!(whole("reload_on_change: true").reload_on_change);
}

#[test]
fn what_fails_badly_is_warned_of() {
    let of_pool = |settings: &str| warned("backends", &format!("{settings}, backends"));
    let many: String = (0..101).map(|i| format!("\"unix:/{i}\", ")).collect();
    let probed = |interval: &str| {
        let check = format!("check: (type: \"tcp\", interval: \"{interval}\"), backends: [{many}");
        warned("backends: [", &check)
    };
    assert_eq!(probed("102ms"), [""; 0]);
    let want = "f:2:58: warning: 102 backends, each probed every 101ms, are 1009 probes a second";
    assert_eq!(probed("101ms"), [want]);
    let closed = "check: \"tcp\", panic_below: 0, all_down: \"closed\"";
    assert_eq!(of_pool(closed), [""; 0], "a choice, and no mistake");
    let idle = "ejection: \"off\", slow_start: \"1s\", on_down: \"close\"";
    let want = [
        "f:2:56: warning: slow_start does nothing: without check and ejection no backend goes \
         down, and none returns",
        "f:2:71: warning: on_down does nothing: without check and ejection no backend goes down",
    ];
    assert_eq!(of_pool(idle), want);
    assert_eq!(of_pool(&format!("{idle}, check: \"tcp\"")), [""; 0]);
}

#[test]
fn connections_begin_where_the_pool_says() {
    let origins =
        pool("source: [\"10.0.0.5\", \"fd00::5\"], source_ports: \"20000-39999\"").origins;
    let want: [IpAddr; 2] = ["10.0.0.5", "fd00::5"].map(|text| text.parse().unwrap());
    assert_eq!(origins.addresses, want);
    assert_eq!(origins.ports.unwrap().to_string(), "20000-39999");
    assert!(
        pool("source: [], source_ports: \"auto\"")
            .origins
            .is_empty()
    );
    let origins = pool("source: \"client\"").origins;
    assert!(origins.at_client && origins.addresses.is_empty());
    let of_word = SMALLEST.replacen("backends", "source: \"clients\", backends", 1);
    let said = read(&of_word).unwrap_err().to_string();
    let want = "invalid `source` `\"clients\"`: expected \"client\", or a list: the IP address of \
                this machine, such as \"10.0.0.5\"";
    assert!(said.contains(want), "{said}");
    let alone = SMALLEST.replacen("backends", "source: \"10.0.0.5\", backends", 1);
    let said = read(&alone).unwrap_err().to_string();
    let want = "expected a list in `[` and `]` here: write [\"10.0.0.5\"]";
    assert!(said.contains(want), "{said}");
    let of_paths = "source: \"client\", backends: [\"unix:/run/x\"]";
    let want = "f:2:35: warning: source: no backend of the pool sees an address: all are Unix \
                sockets";
    assert_eq!(warned("backends: [\"127.0.0.1:9001\"]", of_paths), [want]);
    let warned = warned("backends", "source: [\"127.0.0.5\", \"fd00::5\"], backends");
    let want = "f:2:49: warning: source: no backend of the pool is at an IPv6 address";
    assert_eq!(warned, [want]);
    // Host names are not resolved here.
    let named = "source: [\"fd00::5\"], backends: [\"db-1:5432\"]";
    assert_eq!(
        super::warned("backends: [\"127.0.0.1:9001\"]", named),
        [""; 0]
    );
}

#[test]
fn a_start_reports_missing_files_itself() {
    let discover = "discover: (file: \"/nowhere/x\"), backends";
    assert_eq!(warned("backends", discover), [""; 0]);
    let admin = "(admin: (http: (bind: \"127.0.0.1:1\", read_token: \"/nowhere/x\")), ";
    assert_eq!(warned("(", admin), [""; 0]);
    let check = "check: (type: \"tls\", tls: (verify: \"/nowhere/x\")), backends";
    assert_eq!(warned("backends", check), [""; 0]);
    assert_eq!(warned("(", "(admin: \"/nowhere/x\", "), [""; 0]);
}

#[test]
fn a_warning_about_many_settings_is_one() {
    let listener = |port: u16| {
        format!("(bind: \"127.0.0.1:{port}\", pool: \"web\", timeouts: (idle: \"off\"))")
    };
    let want = "f:1:66: warning: without an idle timeout, a peer that vanishes holds its session";
    for (count, others) in [
        (1, ""),
        (2, "; the same at 1:127"),
        (6, "; the same at 1:127, 1:188, 1:249, 1:310 and 1 more"),
    ] {
        let listeners: Vec<_> = (1..=count).map(listener).collect();
        let text = format!(
            "(listeners: [{}], pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])])",
            listeners.join(", ")
        );
        let (config, source) = read(&text).unwrap();
        let warnings = warnings(&config, HOST, Some(&source));
        let said: Vec<_> = warnings.iter().map(Warning::to_string).collect();
        let first_lines: Vec<_> = said.iter().filter_map(|one| one.lines().next()).collect();
        assert_eq!(first_lines, [format!("{want}{others}")]);
    }
}

#[test]
fn backends_are_counted() {
    let many: String = (0..60_001u32)
        .map(|n| format!("\"10.{}.{}.{}:1\",", n >> 16, n >> 8 & 255, n & 255))
        .collect();
    let text = SMALLEST.replacen(
        "backends: [\"127.0.0.1:9001\"]",
        &format!("backends: [{many}]"),
        1,
    );
    let error = read(&text).unwrap_err().to_string();
    assert!(
        error.contains("expected at most 60000, not 60001"),
        "{:.300}",
        error
    );
}
