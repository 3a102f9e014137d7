//! Routes: which client each takes, and when that is known.

use super::*;
use crate::address::Address;
use crate::config::Config;
use crate::peek;
use crate::peek::EndedTls;
use crate::peek::proxy_protocol::CheckedTlvs;
use crate::pool::Pool;
use crate::tls::ClientIdentity;

/// A hello for `shop.example.com`, which offers `h2` and `http/1.1`.
const HELLO: &[u8] = include_bytes!("../../tests/captures/curl.bin");
const REQUEST: &[u8] = b"GET /api/x?y HTTP/1.1\r\nX: 1\r\nHost: A.Example:80\r\n\r\n";

fn routes(text: &str) -> Routes {
    let text = format!(
        "(listeners: [(bind: \"127.0.0.1:80\", pool: \"p\", accept_proxy: [\"::1\"], \
                       routes: [{text}])], \
         pools: [(name: \"p\", backends: [\"127.0.0.1:1\"]), \
                 (name: \"q\", backends: [\"127.0.0.1:2\"])])"
    );
    let (config, _) = config::parse("f".to_owned(), text.into()).unwrap();
    compile(&config, None)
}

fn compile(config: &Config, before: Option<&Routes>) -> Routes {
    let listener = &config.listeners[0];
    assert!(matches!(listener.bind, Address::Tcp(_)));
    Routes::new(
        &listener.routes,
        |pool| Routed {
            plan: Arc::new(Plan::new(Arc::new(Pool::new(&config.pools[pool])))),
            limits: LIMITS,
        },
        before,
    )
}

const LIMITS: SessionLimits = SessionLimits {
    connect: 1,
    idle: 1,
    half_closed: 1,
    session: 1,
    attempts: 1,
    peek: None,
    server_first: 1,
    ends_half_sent: false,
    ends_together: false,
    watches_work: false,
    overhears: false,
    handshake: None,
};

/// When so many bytes have come, the route that is decided then: its place, or that of the pool.
fn decided(routes: &Routes, client: &str, first: &[u8]) -> Option<(usize, usize)> {
    let client = Some(client.parse().unwrap());
    (0..=first.len()).find_map(|length| {
        let first = FirstBytes::new(&first[..length], false);
        Some((length, routes.decide(client, &first)?.index()))
    })
}

/// The route that is decided when no more bytes come.
fn at_last(routes: &Routes, client: &str, first: &[u8]) -> usize {
    let client = Some(client.parse().unwrap());
    let route = routes.decide(client, &FirstBytes::new(first, true));
    route.unwrap().index()
}

#[test]
fn the_first_route_that_a_client_fits_takes_it() {
    let routes = routes(
        "(sni: [\"a.example\", \"*.b.example\"], pool: \"q\"), (sni: [\"shop.example.com\"], \
         pool: \"p\"), (sni: [\"*.example.com\"], pool: \"refuse\"), (alpn: [\"h2\"], pool: \"q\")",
    );
    let whole = HELLO.len();
    assert_eq!(decided(&routes, "192.0.2.1", HELLO), Some((whole, 2)));
    assert_eq!(routes.to(RouteNumber::of(1)).unwrap().plan.pool().name, "p");
    assert!(routes.refuses(RouteNumber::of(2)) && routes.to(RouteNumber::of(2)).is_none());
    // Plain HTTP is in no route of TLS, which its first byte tells.
    assert_eq!(decided(&routes, "192.0.2.1", REQUEST), Some((1, 0)));
    assert_eq!(at_last(&routes, "192.0.2.1", &HELLO[..9]), 0);
}

#[test]
fn names_match_exactly_or_below_a_name() {
    let names = Names::new(&["a.example", "*.b.example"].map(|name| name.parse().unwrap()));
    for (name, is_one) in [
        ("a.example", true),
        ("b.a.example", false),
        ("b.example", false),
        ("a.b.example", true),
        ("x.a.b.example", true),
        ("ab.example", false),
        ("example", false),
    ] {
        assert_eq!(names.have(name.as_bytes()), is_one, "{name}");
    }
}

#[test]
fn names_match_regular_expressions() {
    let regex = r#"(sni: ["a.example", "~SHOP\\.(example|test)\\.com"], pool: "q")"#;
    assert_eq!(decided(&routes(regex), "192.0.2.1", HELLO).unwrap().1, 1);
    let part = r#"(sni: ["~shop", r"~example\.com"], pool: "q")"#;
    assert_eq!(decided(&routes(part), "192.0.2.1", HELLO).unwrap().1, 0);
    let host = r#"(http_host: ["~[a-c]\\.example"], pool: "q")"#;
    assert_eq!(decided(&routes(host), "192.0.2.1", REQUEST).unwrap().1, 1);
}

#[test]
fn a_client_must_meet_every_condition() {
    let both = "(client: [\"10.0.0.0/8\"], alpn: [\"h3\", \"http/1.1\"], pool: \"q\")";
    let routes = routes(both);
    assert!(routes.need_bytes());
    assert_eq!(decided(&routes, "::ffff:10.1.2.3", HELLO).unwrap().1, 1);
    // The address rules it out: nothing is waited for.
    assert_eq!(decided(&routes, "192.0.2.1", HELLO), Some((0, 0)));
    let other = "(client: [\"10.0.0.0/8\"], alpn: [\"h3\"], pool: \"q\")";
    assert_eq!(
        decided(&self::routes(other), "10.0.0.1", HELLO).unwrap().1,
        0
    );
    let client = self::routes("(client: [\"10.0.0.0/8\"], pool: \"q\")");
    assert!(!client.need_bytes());
    assert_eq!(decided(&client, "10.0.0.1", b""), Some((0, 1)));
}

#[test]
fn requests_are_routed_by_host_and_path() {
    let host = "(http_host: [\"a.example\"], http_path: [\"/b\", \"/api/\"], pool: \"q\")";
    let end = REQUEST.len() - 2;
    assert_eq!(decided(&routes(host), "192.0.2.1", REQUEST), Some((end, 1)));
    let line = b"GET /api/x?y HTTP/1.1\r\n".len();
    let path = "(http_path: [\"/api\"], pool: \"q\"), (http_host: [\"a.example\"], pool: \"p\")";
    assert_eq!(
        decided(&routes(path), "192.0.2.1", REQUEST),
        Some((line, 1))
    );
    let other = "(http_host: [\"a.example\"], http_path: [\"/x\"], pool: \"q\")";
    assert_eq!(decided(&routes(other), "192.0.2.1", REQUEST).unwrap().1, 0);
}

#[test]
fn protocols_are_routed_by_their_first_bytes() {
    let routes = routes(
        "(protocol: [\"ssh\"], pool: \"q\"), (protocol: [\"http\", \"postgres\"], pool: \"p\"), \
         (protocol: [\"tls\"], sni: [\"*.com\"], pool: \"q\")",
    );
    assert_eq!(
        decided(&routes, "192.0.2.1", b"SSH-2.0-x\r\n"),
        Some((4, 1))
    );
    assert_eq!(decided(&routes, "192.0.2.1", REQUEST).unwrap().1, 2);
    assert_eq!(decided(&routes, "192.0.2.1", HELLO).unwrap().1, 3);
    // The server speaks first.
    assert_eq!(at_last(&routes, "192.0.2.1", b""), 0);
}

#[test]
fn other_protocols_and_silence_are_routed_too() {
    let routes = routes(
        "(protocol: [\"ssh\"], pool: \"q\"), (client: [\"10.0.0.0/8\"], protocol: \
         [\"server_first\"], pool: \"q\"), (protocol: [\"other\"], pool: \"refuse\")",
    );
    let [inside, outside] = ["10.0.0.1", "192.0.2.1"];
    assert_eq!(decided(&routes, inside, b"EHLO a\r\n").unwrap().1, 3);
    assert_eq!(decided(&routes, inside, REQUEST).unwrap().1, 0);
    // What was begun and not finished is another one.
    assert_eq!(at_last(&routes, inside, &REQUEST[..7]), 3);
    assert_eq!(at_last(&routes, inside, b""), 2);
    assert_eq!(at_last(&routes, outside, b""), 0);
    let silence = FirstBytes::new(&[], true);
    let silent = |client: &str| routes.decide_silent(client.parse().ok(), &silence);
    assert_eq!(silent(inside).map(RouteNumber::index), Some(2));
    assert_eq!(silent(outside), None);
    assert!(routes.take_silent());
    // A client of which nothing is known is not silent.
    let first = FirstBytes::none();
    let route = routes.decide(inside.parse().ok(), &first);
    assert_eq!(route, Some(RouteNumber::DEFAULT));
    // One byte tells that a client speaks, and no more is asked of it.
    let only = self::routes("(protocol: [\"server_first\"], pool: \"q\")");
    assert_eq!(decided(&only, outside, HELLO), Some((1, 0)));
}

#[test]
fn a_certificate_is_known_after_the_handshake_and_before_the_first_byte() {
    let text = "(listeners: [(bind: \"127.0.0.1:80\", pool: \"p\", tls: (certificates: \
                [(certificate: \"c\", key: \"k\")], clients: (ca: \"a\")), routes: [\
                (tls_client: [\"cn=robot\", \"dns=*.b.example\"], pool: \"q\"), \
                (pool: \"refuse\")])], pools: [(name: \"p\", backends: [\"127.0.0.1:1\"]), \
                (name: \"q\", backends: [\"127.0.0.1:2\"])])";
    let (config, _) = config::parse("f".to_owned(), text.into()).unwrap();
    let routes = compile(&config, None);
    let decide = |first: &FirstBytes<'_>| routes.decide(None, first).map(RouteNumber::index);
    assert_eq!(
        decide(&FirstBytes::new(&[], false)),
        None,
        "before the handshake"
    );
    assert!(routes.need_bytes());
    let by = |name: &str, alternative: &str| {
        let client = ClientIdentity {
            common_name: Some(name.into()),
            names: [alternative.into()].into(),
            ..ClientIdentity::default()
        };
        let around = EndedTls {
            hello: HELLO,
            protocol: None,
            client: Some(&client),
        };
        let first = FirstBytes::new(&[], false).inside(Some(around));
        let key = first.key(&peek::Field::TlsClientCn);
        assert_eq!(key, peek::Peeked::Found(crate::hash::of(name.as_bytes())));
        decide(&first)
    };
    assert_eq!(by("robot", "DNS:a.example"), Some(1));
    assert_eq!(by("x", "DNS:a.b.example"), Some(1));
    assert_eq!(by("x", "URI:a.b.example"), Some(2));
    let nameless = EndedTls {
        hello: HELLO,
        protocol: None,
        client: None,
    };
    let first = FirstBytes::new(&[], false).inside(Some(nameless));
    assert_eq!(decide(&first), Some(2));
    assert_eq!(
        first.key(&peek::Field::TlsClientFingerprint),
        peek::Peeked::Absent
    );
}

/// Whatever bytes follow, and whether more of them come or not.
#[test]
fn a_decision_stays() {
    let routes = routes(
        "(client: [\"192.0.2.0/24\"], sni: [\"*.example.com\"], pool: \"q\"), \
         (http_path: [\"/api\"], protocol: [\"http\"], pool: \"p\"), \
         (alpn: [\"h2\"], pool: \"refuse\"), (protocol: [\"ssh\", \"http\"], pool: \"q\")",
    );
    for client in ["192.0.2.1", "2001:db8::1"] {
        for first in [
            HELLO,
            REQUEST,
            b"SSH-2.0-x\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
        ] {
            let (length, route) = decided(&routes, client, first).unwrap();
            for length in length..=first.len() {
                let bytes = &first[..length];
                let again = routes.decide(
                    Some(client.parse().unwrap()),
                    &FirstBytes::new(bytes, false),
                );
                assert_eq!(again.map(RouteNumber::index), Some(route));
                assert_eq!(at_last(&routes, client, bytes), route);
            }
        }
    }
}

#[test]
fn a_listener_leads_to_pools_of_its_routes() {
    let routes = routes("(sni: [\"a.example\"], pool: \"refuse\"), (alpn: [\"h2\"], pool: \"q\")");
    let number = routes.to(RouteNumber::of(1)).unwrap().plan.pool().number;
    assert_eq!(
        routes.leading_to(number, |_| false),
        Some(RouteNumber::of(1))
    );
    assert_eq!(routes.leading_to(0, |_| true), None);
    let numbers: Vec<_> = routes.numbers().map(RouteNumber::index).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

/// The pools of 10,000 clients, each from an address of its own.
fn shared(weights: [u32; 2], key: &str) -> Vec<usize> {
    let [own, other] = weights;
    let text = format!(
        "(sni: [\"*.com\"], key: \"{key}\", pools: [(name: \"p\", weight: {own}), \
         (name: \"q\", weight: {other})])"
    );
    let routes = routes(&text);
    let clients = (0..10_000u32).map(|n| IpAddr::from(std::net::Ipv4Addr::from(n << 8)));
    let first = FirstBytes::new(HELLO, false);
    let decided = clients.map(|client| routes.decide(Some(client), &first).unwrap());
    decided.map(RouteNumber::index).collect()
}

#[test]
fn pools_share_clients_by_weight_and_keep_them() {
    let few = shared([95, 5], "source_ip");
    let count = |all: &[usize]| all.iter().filter(|pool| **pool == 2).count();
    assert!((400..600).contains(&count(&few)), "{}", count(&few));
    assert_eq!(few, shared([950, 50], "source_ip"));
    // What gains a share takes clients, and none moves otherwise.
    let more = shared([95, 15], "source_ip");
    assert!(count(&more) > 2 * count(&few));
    assert!(few.iter().zip(&more).all(|(few, more)| few <= more));
    assert_eq!(count(&shared([95, 0], "source_ip")), 0);
    // All ask for the same name.
    let by_name = shared([95, 5], "sni");
    assert!(by_name.iter().all(|pool| *pool == by_name[0]));
}

#[test]
fn each_pool_of_a_route_has_a_number() {
    let routes = routes(
        "(sni: [\"a.b\"], pools: [(name: \"p\"), (name: \"q\")]), (alpn: [\"h3\"], pool: \
         \"refuse\"), (alpn: [\"h2\"], pool: \"q\")",
    );
    let numbers: Vec<_> = routes.numbers().collect();
    let places: Vec<_> = numbers.iter().map(|it| routes.place(*it)).collect();
    assert_eq!(places, [None, Some(0), Some(0), Some(1), Some(2)]);
    let pools = numbers.iter().map(|it| routes.to(*it));
    let pools: Vec<_> = pools
        .map(|to| to.map(|to| to.plan.pool().name.clone()))
        .collect();
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(pools, [None, name("p"), name("q"), None, name("q")]);
    assert!(routes.refuses(numbers[3]) && !routes.refuses(numbers[2]));
    assert_eq!(decided(&routes, "192.0.2.1", HELLO).unwrap().1, 4);
}

#[test]
fn routes_that_stay_are_not_compiled_again() {
    let config = |routes: &str| {
        let text = format!(
            "(listeners: [(bind: \"127.0.0.1:80\", pool: \"p\", routes: [{routes}])], \
             pools: [(name: \"p\", backends: [\"127.0.0.1:1\"]), \
                     (name: \"q\", backends: [\"127.0.0.1:2\"])])"
        );
        config::parse("f".to_owned(), text.into()).unwrap().0
    };
    let own = "(sni: [\"a.example\"], pool: \"p\")";
    let pools: Vec<_> = config(own)
        .pools
        .iter()
        .map(|its| Arc::new(Pool::new(its)))
        .collect();
    let routed = |pool: usize| Routed {
        plan: Arc::new(Plan::new(Arc::clone(&pools[pool]))),
        limits: LIMITS,
    };
    let compile = |config: &Config, before: Option<&Routes>| {
        Routes::new(&config.listeners[0].routes, routed, before)
    };
    let first = compile(&config(own), None);
    let second = compile(&config(own), Some(&first));
    let is_kept = |one: &Routes, other: &Routes| {
        Arc::ptr_eq(&one.all[0].conditions, &other.all[0].conditions)
    };
    assert!(is_kept(&first, &second));
    let plans = [&first, &second].map(|its| its.to(RouteNumber::of(0)).unwrap().plan.clone());
    assert!(!Arc::ptr_eq(&plans[0], &plans[1]));
    let other = compile(&config(&own.replace("a.e", "b.e")), Some(&second));
    assert!(!is_kept(&second, &other));
    assert_eq!(second.version() + 1, other.version());
    // Nor those that get other weights or a name; the numbers mean the same.
    let shared = "(sni: [\"a.example\"], pools: [(name: \"p\", weight: 5), (name: \"q\")])";
    let shared = compile(&config(shared), Some(&first));
    let weighed = "(name: \"s\", sni: [\"a.example\"], pools: [(name: \"p\"), (name: \"q\")])";
    let next = compile(&config(weighed), Some(&shared));
    assert!(is_kept(&first, &shared) && is_kept(&shared, &next));
    assert_eq!(next.name(RouteNumber::of(1)), Some("s"));
    let versions = [&first, &second, &shared, &next].map(Routes::version);
    assert_eq!(versions, [1, 1, 2, 2]);
    let first_bytes = FirstBytes::new(&[], true);
    let share = next.share(RouteNumber::of(1), &first_bytes).unwrap();
    assert_eq!(share.weight, 1);
    let keyed = weighed.replace("])", "], key: \"sni\")");
    assert_eq!(compile(&config(&keyed), Some(&next)).version(), 3);
}

#[test]
fn a_count_stays_with_the_name_of_a_route_or_with_its_clients() {
    let config = |routes: &str| {
        let text = format!(
            "(listeners: [(bind: \"127.0.0.1:80\", pool: \"p\", routes: [{routes}])], \
             pools: [(name: \"p\", backends: [\"127.0.0.1:1\"])])"
        );
        config::parse("f".to_owned(), text.into()).unwrap().0
    };
    let own = "(name: \"a\", sni: [\"a.b\"], pool: \"refuse\"), (sni: [\"c.b\"], pool: \"refuse\")";
    let first = compile(&config(own), None);
    let counted = [0, 1, 1, 2, 2, 2].map(RouteNumber);
    counted.into_iter().for_each(|route| first.count(route));
    let counts = |its: &Routes| its.counts().map(|(.., count)| count).collect::<Vec<_>>();
    // Another one before them, and the first asks for others.
    let moved = own.replace("a.b", "d.b");
    let next = compile(
        &config(&format!("(alpn: [\"h3\"], pool: \"refuse\"), {moved}")),
        Some(&first),
    );
    assert_eq!((next.unrouted(), counts(&next)), (1, vec![0, 2, 3]));
    assert_eq!(next.name(RouteNumber::of(1)), Some("a"));
    // With another name it is another route, and with its first one the same as without.
    let renamed = own
        .replace("\"a\"", "\"z\"")
        .replace("(sni", "(name: \"c\", sni");
    let last = compile(&config(&renamed), Some(&first));
    assert_eq!(counts(&last), [0, 3]);
}

#[test]
fn a_route_says_by_what_it_takes_a_client() {
    let routes = routes(
        "(sni: [\"a.example\", \"*.example.com\"], alpn: [\"h3\", \"h2\"], \
          client: [\"10.0.0.0/8\", \"192.0.2.0/24\"], \
          pools: [(name: \"p\", weight: 95), (name: \"q\", weight: 5)], key: \"http_cookie(id)\")",
    );
    let first = FirstBytes::new(HELLO, true);
    let client = Some("::ffff:192.0.2.1".parse().unwrap());
    let route = routes.decide(client, &first).unwrap();
    let met = routes.met(route, client, &first);
    let met: Vec<_> = met
        .iter()
        .map(|its| (its.setting, its.values.join(" ")))
        .collect();
    let expected = [
        ("sni", "*.example.com"),
        ("alpn", "h2"),
        ("client", "192.0.2.0/24"),
    ];
    assert_eq!(
        met,
        expected.map(|(setting, values)| (setting, values.to_owned()))
    );
    let share = routes.share(route, &first).unwrap();
    assert!(share.missed == Some(true) && share.key == "http_cookie(id)");
    let to = &routes.to(route).unwrap().plan.pool().name;
    assert_eq!(share.percent, if to == "p" { 95.0 } else { 5.0 });
    // What is not known may be any of the values.
    let met = routes.met(route, None, &FirstBytes::none());
    assert_eq!(met[1].values, ["h3", "h2"]);
    assert!(routes.met(RouteNumber::DEFAULT, client, &first).is_empty());
    assert_eq!(routes.share(RouteNumber::DEFAULT, &first), None);
}

/// What the header of a proxy says is known before the first byte.
#[test]
fn tlvs_of_a_proxy_decide_without_first_bytes() {
    let routes = routes(
        "(proxy_tlv: [\"authority=*.b.example\", \"alpn=h2\", \"alpn=http/1.1\"], pool: \"q\"), \
         (proxy_tlv: [\"0xE0=a\\\\x00b\"], pool: \"refuse\"), \
         (proxy_tlv: [\"ssl_cn=bob\"], sni: [\"shop.example.com\"], pool: \"q\")",
    );
    let route = |tlvs: &[(u8, &[u8])], first: &[u8]| {
        let tlvs: Vec<u8> = tlvs
            .iter()
            .flat_map(|(kind, value)| tlv(*kind, value))
            .collect();
        let first = FirstBytes::new(first, false).behind(CheckedTlvs::of_checked(&tlvs));
        routes.decide(None, &first).map(RouteNumber::index)
    };
    let host: (u8, &[u8]) = (2, b"A.B.Example.");
    assert_eq!(route(&[host, (1, b"h2")], b""), Some(1));
    assert_eq!(route(&[(1, b"http/1.1"), host], b""), Some(1));
    assert_eq!(
        route(&[host], b""),
        Some(0),
        "it names no application protocol"
    );
    assert_eq!(route(&[(2, b"b.example"), (1, b"h2")], b""), Some(0));
    assert_eq!(route(&[(0xe0, b"a\0b")], b""), Some(2));
    assert_eq!(route(&[(0xe0, b"a\0bc"), (0xe1, b"a\0b")], b""), Some(0));
    assert_eq!(route(&[], b""), Some(0));
    // Only a client of this name is asked for its first bytes.
    let ssl = [&[7, 0, 0, 0, 0][..], &tlv(0x22, b"bob")].concat();
    assert_eq!(route(&[(0x20, &ssl)], b""), None);
    assert_eq!(route(&[(0x20, &ssl)], HELLO), Some(3));
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    [&[kind], &length.to_be_bytes()[..], value].concat()
}
