//! In a steady state nothing is allocated and nothing freed, under any kind of traffic: but for TLS
//! that ends here, whose library takes one piece of memory for each record.

#[path = "instant/mod.rs"]
mod instant;
#[path = "tls/served.rs"]
mod served;

use std::hint::black_box;
use std::io::Write;

use instant::Balancer;
use instant::counting::{Count, Counting, count};

use mahoraga::peek::proxy_protocol::{self, Endpoints, HeaderWriter, Tlv, kind};
use mahoraga::peek::{Field, FirstBytes, Protocol};
use mahoraga::time::MS;
use mahoraga::tls::Terminate;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use served::Served;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn requests_and_answers_allocate_nothing() {
    let mut balancer = Balancer::keep_alive(CLIENTS, STEP);
    let exchanges = |balancer: &mut Balancer| (0..250).for_each(|_| balancer.exchange());
    exchanges(&mut balancer);
    let before = balancer.events();
    let counted = count(|| exchanges(&mut balancer));
    assert_eq!(balancer.events() - before, 10_000, "10 clients, 4 events");
    assert_eq!(counted, Count::NONE);
}

#[test]
fn whole_connections_allocate_nothing() {
    let mut balancer = Balancer::short(CLIENTS, STEP);
    let connections = |balancer: &mut Balancer| (0..125).for_each(|_| balancer.connection());
    connections(&mut balancer);
    let before = balancer.events();
    let counted = count(|| connections(&mut balancer));
    assert_eq!(balancer.events() - before, 10_000, "10 clients, 8 events");
    assert_eq!(counted, Count::NONE);
}

#[test]
fn first_bytes_are_read_without_an_allocation() {
    let fields = [
        Field::Sni,
        Field::HttpHost,
        Field::HttpCookie("sid".into()),
        Field::MqttClientId,
        Field::PostgresUser,
    ];
    for (first, protocol) in FIRST {
        let counted = count(|| {
            for length in 0..=first.len() {
                let read = FirstBytes::new(black_box(&first[..length]), false);
                for field in &fields {
                    let _ = black_box(read.key(field));
                }
                let mut offered = 0;
                let offers = read.each_offer(|name| offered += name.len());
                let _ = black_box((offers, offered, read.protocol()));
            }
            let read = FirstBytes::new(first, false);
            assert_eq!(read.protocol(), Ok(protocol));
        });
        assert_eq!(counted, Count::NONE, "{protocol:?}");
    }
}

#[test]
fn proxy_headers_are_read_and_written_without_an_allocation() {
    let received = include_bytes!("captures/haproxy_v2_ssl.bin");
    let mut memory = [0; 512];
    let counted = count(|| {
        let parsed = proxy_protocol::parse(black_box(received));
        let header = parsed.expect("a header").expect("all of it");
        let writer = HeaderWriter::new(&mut memory, &header.endpoints);
        let mut writer = writer.expect("room");
        let id = Tlv {
            kind: kind::UNIQUE_ID,
            value: b"0-17",
        };
        writer.tlv(id).expect("room");
        writer.relay(header.tlvs).expect("room");
        let length = writer.finish_with_checksum().expect("room");
        assert!(proxy_protocol::parse(&memory[..length]).is_ok_and(|its| its.is_some()));
        let ip = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
        let endpoints = Endpoints::Tcp {
            source: (ip, 1).into(),
            destination: (ip, 2).into(),
        };
        for endpoints in [header.endpoints, endpoints, Endpoints::Local] {
            proxy_protocol::write_v1(&mut memory, &endpoints).expect("room");
            let short = proxy_protocol::write_v1(&mut memory[..9], &endpoints);
            assert!(short.is_err());
        }
    });
    assert_eq!(counted, Count::NONE);
}

/// A kept connection of TLS: its requests are taken out of their records, and its answers leave in
/// some.
#[test]
fn a_record_takes_the_one_allocation_that_rustls_makes() {
    for version in [&TLS12, &TLS13] {
        let served = Served::new();
        let name = ServerName::try_from(served::NAME).expect("a name");
        let client = ClientConnection::new(served.client(version), name);
        let mut client = client.expect("a client");
        let mut records = served.server().begin();
        let (mut plain, mut reply) = (Vec::with_capacity(1 << 15), Vec::with_capacity(1 << 15));
        // Its last part goes when it is done for the client.
        let mut goes_on = true;
        while goes_on {
            goes_on = client.is_handshaking();
            let mut incoming = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut incoming).expect("memory takes it");
            }
            let taken = records.open(&mut incoming, &mut plain, &mut reply);
            assert_eq!(taken.used, incoming.len());
            let mut answer = &reply[..];
            while !answer.is_empty() {
                client.read_tls(&mut answer).expect("memory gives it");
                client.process_new_packets().expect("a handshake");
            }
            reply.clear();
        }
        let mut requests = Vec::new();
        for _ in 0..RECORDS {
            client.writer().write_all(&[7; 1_000]).expect("room");
            let mut record = Vec::new();
            client.write_tls(&mut record).expect("memory takes it");
            requests.push(record);
        }
        let mut sealed = Vec::with_capacity(1 << 15);
        let taken = count(|| {
            for request in &mut requests {
                plain.clear();
                let taken = records.open(request, &mut plain, &mut reply);
                assert_eq!((taken.used, plain.len()), (request.len(), 1_000));
            }
        });
        let made = count(|| {
            for _ in 0..RECORDS {
                sealed.clear();
                let made = records.seal(&plain, &mut [], &mut sealed);
                assert!(made.is_ok() && sealed.len() > 1_000);
            }
        });
        for (what, counted) in [("taken in", taken), ("made", made)] {
            // rustls copies each record to memory of its own, and has a queue of those.
            let own = RECORDS as u64..=RECORDS as u64 + 1;
            let counted = [counted.allocations, counted.deallocations];
            assert!(
                counted.iter().all(|count| own.contains(count)),
                "{what}: {counted:?}, {version:?}"
            );
        }
    }
}

const RECORDS: usize = 100;

const FIRST: [(&[u8], Protocol); 4] = [
    (include_bytes!("captures/chromium.bin"), Protocol::Tls),
    (
        b"GET / HTTP/1.1\r\nCookie: a=b\r\nHost: a.example\r\n\r\n",
        Protocol::Http,
    ),
    (include_bytes!("captures/psql.bin"), Protocol::Postgres),
    (b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02id", Protocol::Mqtt),
];

/// Shows that the counter counts: otherwise the tests above could not fail.
#[test]
fn what_is_allocated_is_counted() {
    let mut kept = Vec::with_capacity(1);
    let counted = count(|| {
        kept.extend(black_box([1, 2, 3]));
        drop(black_box(Box::new(4)));
    });
    assert_eq!(
        counted,
        Count {
            allocations: 2,
            deallocations: 2
        }
    );
}

const CLIENTS: u16 = 10;
/// A turn of 10 ms makes the timers of busy sessions come up several times: they count too.
const STEP: u64 = 10 * MS;
