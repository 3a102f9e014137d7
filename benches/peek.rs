//! The cost of one look into a client's first bytes. A session pays it once, and again for each
//! further piece that arrives.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mahoraga::config;
use mahoraga::peek::proxy_protocol::{self, Endpoints, HeaderWriter, Tlv, kind};
use mahoraga::peek::{BYTES_MAX, Field, FirstBytes, Peeked, Protocol, peek};
use mahoraga::route::Routes;

fn main() {
    divan::main();
}

/// A hello of curl.
#[divan::bench(min_time = MIN_SECONDS)]
fn hello(bencher: Bencher<'_, '_>) {
    find(bencher, &Field::Sni, CURL);
}

/// A hello with a key share of ML-KEM.
#[divan::bench(min_time = MIN_SECONDS)]
fn hello_ml_kem(bencher: Bencher<'_, '_>) {
    find(bencher, &Field::Sni, ML_KEM);
}

/// A hello as long, in several records.
#[divan::bench(min_time = MIN_SECONDS)]
fn hello_in_records(bencher: Bencher<'_, '_>) {
    find(bencher, &Field::Sni, RECORDS);
}

/// Its first segment only.
#[divan::bench(min_time = MIN_SECONDS)]
fn hello_incomplete(bencher: Bencher<'_, '_>) {
    let first = &ML_KEM[..1448];
    measure(bencher, &Field::Sni, first, |peeked| {
        peeked == Peeked::Incomplete
    });
}

/// The path of a browser's request: its first line.
#[divan::bench(min_time = MIN_SECONDS)]
fn http_path(bencher: Bencher<'_, '_>) {
    find(bencher, &Field::HttpPath, REQUEST);
}

/// Its host: the second line.
#[divan::bench(min_time = MIN_SECONDS)]
fn http_host(bencher: Bencher<'_, '_>) {
    find(bencher, &Field::HttpHost, REQUEST);
}

/// A cookie in its last line.
#[divan::bench(min_time = MIN_SECONDS)]
fn http_cookie(bencher: Bencher<'_, '_>) {
    find(bencher, &Field::HttpCookie("sid".into()), REQUEST);
}

/// The largest input that a client can send: one header of the maximum length.
#[divan::bench(min_time = MIN_SECONDS)]
fn http_longest(bencher: Bencher<'_, '_>) {
    let mut first = b"GET / HTTP/1.1\r\nA: ".to_vec();
    first.resize(BYTES_MAX, b'a');
    measure(bencher, &Field::HttpHost, &first, |peeked| {
        peeked == Peeked::Absent
    });
}

/// The largest number of lines that a client can send.
#[divan::bench(min_time = MIN_SECONDS)]
fn http_most_lines(bencher: Bencher<'_, '_>) {
    let mut first = b"GET / HTTP/1.1\n".to_vec();
    let lines = b"a:\n".iter().cycle();
    first.extend(lines.take(BYTES_MAX));
    measure(bencher, &Field::HttpHost, &first, |peeked| {
        peeked == Peeked::Absent
    });
}

/// The cookie of an RDP client.
#[divan::bench(min_time = MIN_SECONDS)]
fn rdp_cookie(bencher: Bencher<'_, '_>) {
    find(bencher, &Field::RdpCookie, RDP);
}

/// The client id of an MQTT client.
#[divan::bench(min_time = MIN_SECONDS)]
fn mqtt_client_id(bencher: Bencher<'_, '_>) {
    find(bencher, &Field::MqttClientId, MQTT);
}

/// The role that a PostgreSQL client starts a session as.
#[divan::bench(min_time = MIN_SECONDS)]
fn postgres_user(bencher: Bencher<'_, '_>) {
    find(bencher, &Field::PostgresUser, POSTGRES);
}

/// The protocol of an HTTP client: all others are tried before.
#[divan::bench(min_time = MIN_SECONDS)]
fn protocol(bencher: Bencher<'_, '_>) {
    bencher
        .counter(BytesCount::new(REQUEST.len()))
        .bench_local(|| Protocol::of(black_box(REQUEST)));
}

/// The protocol of an SSH client.
#[divan::bench(min_time = MIN_SECONDS)]
fn protocol_ssh(bencher: Bencher<'_, '_>) {
    bencher
        .counter(BytesCount::new(SSH.len()))
        .bench_local(|| Protocol::of(black_box(SSH)));
}

/// The last of 256 routes, by the name at the end of the longest hello.
#[divan::bench(min_time = MIN_SECONDS)]
fn routes_256_longest_hello(bencher: Bencher<'_, '_>) {
    route(bencher, 256, &long_hello("n255.example.com"));
}

/// The same for a hello of curl: what the routes cost alone.
#[divan::bench(min_time = MIN_SECONDS)]
fn routes_256(bencher: Bencher<'_, '_>) {
    route(bencher, 256, CURL);
}

/// One route: what a look costs alone.
#[divan::bench(min_time = MIN_SECONDS)]
fn routes_1(bencher: Bencher<'_, '_>) {
    route(bencher, 1, CURL);
}

/// What a route by SNI and ALPN, and two keys, ask of one look.
#[divan::bench(min_time = MIN_SECONDS)]
fn hello_of_chromium_for_all(bencher: Bencher<'_, '_>) {
    bencher
        .counter(BytesCount::new(CHROMIUM.len()))
        .bench_local(|| {
            let first = FirstBytes::new(black_box(CHROMIUM), false);
            let is_named = first.server_name().is_ok();
            let keys = [Field::Sni, Field::TlsSessionId].map(|field| first.key(&field));
            let mut has_h2 = false;
            let offers = first.each_offer(|name| has_h2 |= name == b"h2");
            (is_named, offers, has_h2, keys)
        });
}

/// A line of the PROXY protocol.
#[divan::bench(min_time = MIN_SECONDS)]
fn proxy_v1(bencher: Bencher<'_, '_>) {
    read_header(bencher, include_bytes!("../tests/captures/haproxy_v1.bin"));
}

/// A header with addresses alone.
#[divan::bench(min_time = MIN_SECONDS)]
fn proxy_v2(bencher: Bencher<'_, '_>) {
    read_header(
        bencher,
        include_bytes!("../tests/captures/haproxy_v2_ipv6.bin"),
    );
}

/// A header with a unique id and a checksum.
#[divan::bench(min_time = MIN_SECONDS)]
fn proxy_v2_with_checksum(bencher: Bencher<'_, '_>) {
    read_header(bencher, include_bytes!("../tests/captures/haproxy_v2.bin"));
}

/// A header with ALPN, authority and the client's certificate.
#[divan::bench(min_time = MIN_SECONDS)]
fn proxy_v2_with_ssl(bencher: Bencher<'_, '_>) {
    read_header(
        bencher,
        include_bytes!("../tests/captures/haproxy_v2_ssl.bin"),
    );
}

/// The largest number of parts that a peer can send.
#[divan::bench(min_time = MIN_SECONDS)]
fn proxy_v2_most_parts(bencher: Bencher<'_, '_>) {
    let mut memory = vec![0; proxy_protocol::LENGTH_MAX];
    let mut writer = HeaderWriter::new(&mut memory, &Endpoints::Unknown).expect("room");
    let part = Tlv {
        kind: 0xe0,
        value: b"",
    };
    while writer.tlv(part).is_ok() {}
    let length = writer.finish();
    read_header(bencher, &memory[..length]);
}

/// A header with addresses, a unique id and a checksum.
#[divan::bench(min_time = MIN_SECONDS)]
fn write_proxy_v2(bencher: Bencher<'_, '_>) {
    let endpoints = Endpoints::Tcp {
        source: ([192, 0, 2, 1], 56_324).into(),
        destination: ([198, 51, 100, 7], 443).into(),
    };
    let id = Tlv {
        kind: kind::UNIQUE_ID,
        value: b"09377c9a-f855-4c4d-8af0-bbf29752a555",
    };
    let mut memory = [0; 256];
    bencher.bench_local(|| {
        let mut writer = HeaderWriter::new(&mut memory, black_box(&endpoints))?;
        writer.tlv(id)?;
        writer.finish_with_checksum()
    });
}

/// Decides among so many routes, of which the last takes `n255.example.com` and
/// `shop.example.com`.
fn route(bencher: Bencher<'_, '_>, count: usize, first: &[u8]) {
    let routes: String = (256 - count..256)
        .map(|n| {
            format!("(sni: [\"n{n}.example.com\", \"{n}.shop.example.com\"], pool: \"refuse\"),")
        })
        .collect();
    let routes = routes.replace("\"255.shop.", "\"shop.");
    let text = format!(
        "(listeners: [(bind: \"127.0.0.1:80\", pool: \"p\", routes: [{routes}])],
          pools: [(name: \"p\", backends: [\"127.0.0.1:1\"])])"
    );
    let (config, _) = config::parse("bench".to_owned(), text.into()).expect("valid");
    let to = |_| unreachable!("all of them refuse");
    let routes = Routes::new(&config.listeners[0].routes, to, None);
    let decide = |first| {
        let first = FirstBytes::new(first, false);
        routes.decide(None, &first)
    };
    let last = decide(first).expect("it is a whole hello");
    assert_eq!(routes.place(last), Some(count - 1));
    bencher
        .counter(BytesCount::new(first.len()))
        .bench_local(|| decide(black_box(first)));
}

/// A hello of [`BYTES_MAX`] bytes in one record, with its name behind a padding.
fn long_hello(name: &str) -> Vec<u8> {
    let vector = |bytes: &[u8]| [&length(bytes.len()), bytes].concat();
    let entry = [&[0], &*vector(name.as_bytes())].concat();
    let sni = [&[0, 0], &*vector(&vector(&entry))].concat();
    let start = [&[3; 34][..], &[0], &vector(b"\x13\x01"), &[1, 0]].concat();
    let others = 5 + 4 + start.len() + 2 + 4 + sni.len();
    let padding = [&[0, 21], &*vector(&vec![0; BYTES_MAX - others])].concat();
    let body = [start, vector(&[padding, sni].concat())].concat();
    let message = [&[1, 0], &length(body.len())[..], &body].concat();
    let hello = [&[22, 3, 1], &*vector(&message)].concat();
    assert_eq!(hello.len(), BYTES_MAX);
    hello
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("16 KiB at most").to_be_bytes()
}

fn read_header(bencher: Bencher<'_, '_>, first: &[u8]) {
    assert!(matches!(proxy_protocol::parse(first), Ok(Some(_))));
    bencher
        .counter(BytesCount::new(first.len()))
        .bench_local(|| proxy_protocol::parse(black_box(first)).map(|header| header.is_some()));
}

fn find(bencher: Bencher<'_, '_>, field: &Field, first: &[u8]) {
    measure(bencher, field, first, |peeked| {
        matches!(peeked, Peeked::Found(_))
    });
}

fn measure(bencher: Bencher<'_, '_>, field: &Field, first: &[u8], is_right: fn(Peeked) -> bool) {
    assert!(is_right(peek(field, first)));
    bencher
        .counter(BytesCount::new(first.len()))
        .bench_local(|| peek(black_box(field), black_box(first)));
}

const CURL: &[u8] = include_bytes!("../tests/captures/curl.bin");
const ML_KEM: &[u8] = include_bytes!("../tests/captures/rustls_ml_kem.bin");
const RECORDS: &[u8] = include_bytes!("../tests/captures/rustls_records.bin");
/// What a browser sends.
const REQUEST: &[u8] = b"GET /shop/cart?item=7 HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,\
    image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://shop.example.com/\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: lang=en; consent=necessary; seen=1763808000; sid=9f86d081884c7d659a2feaa0c55ad015\r\n\
    \r\n";
const CHROMIUM: &[u8] = include_bytes!("../tests/captures/chromium.bin");
const SSH: &[u8] = b"SSH-2.0-OpenSSH_9.9\r\n";
const POSTGRES: &[u8] = include_bytes!("../tests/captures/psql.bin");
const MQTT: &[u8] = b"\x10\x19\0\x04MQTT\x04\x82\0\x3c\0\x0aclient-001\0\x01a";
const RDP: &[u8] = b"\x03\x00\x00\x2c\x27\xe0\x00\x00\x00\x00\x00Cookie: mstshash=eltons\r\n\
    \x01\x00\x08\x00\x00\x00\x00\x00";
/// Long enough to average out other work of the machine.
const MIN_SECONDS: u64 = 1;
