//! Bans before accept: the kernel drops banned clients that keep knocking.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::balancer::{Balancer, Launch};
use crate::machines::{self, HERE, THERE};
use crate::peers::{Backend, connect, expect_broken, ping};
use crate::watchdog::{eventually, watched};

/// A client of this machine: there are millions.
fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x7F0A_0000 + number).into()
}

/// A connection, or `None` where nobody answers.
fn knock(from: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    let patience = Duration::from_millis(300);
    socket.connect_timeout(&to.into(), patience).ok()?;
    Some(socket.into())
}

fn serve(from: IpAddr, to: SocketAddr) -> TcpStream {
    let mut stream = knock(from, to).expect("it is not banned");
    ping(&mut stream, b"hello");
    stream
}

fn networks(balancer: &Balancer) -> u64 {
    let status = balancer.ask(&["status"]);
    status["syn_filter"]["networks"].as_u64().unwrap()
}

fn hits(balancer: &Balancer) -> u64 {
    balancer.ask(&["bans"])[0]["hits"].as_u64().unwrap()
}

fn config(backend: &Backend, listeners: &[&str]) -> String {
    let listeners = listeners
        .iter()
        .map(|bind| format!("(bind: \"{bind}\", pool: \"p\"),"));
    format!(
        "(workers: 2, listeners: [{}], pools: [(name: \"p\", backends: [\"{}\"])])",
        listeners.collect::<String>(),
        backend.address
    )
}

/// Bans a network, whose clients then knock until the kernel drops them.
fn until_dropped(balancer: &Balancer, to: SocketAddr) {
    balancer.words(&["ban", "127.10.0.0/24"]);
    eventually("the network is dropped before accept", || {
        // A reset comes after the connect.
        let answered = (0..50).filter(|n| knock(client(*n), to).is_some()).count();
        answered == 0 || networks(balancer) == 1
    });
    assert_eq!(networks(balancer), 1);
}

/// The balancer uses the best means that the test's rights allow: with CAP_BPF it counts hits.
#[test]
fn banned_clients_that_keep_knocking_cost_no_accept_until_the_ban_is_lifted() {
    watched(|| {
        let backend = Backend::echo();
        let text = config(&backend, &["127.0.0.1:0"]);
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        let to = balancer.address();
        let mut other = serve(client(300), to);
        until_dropped(&balancer, to);
        let (accepted, hits_before) = (balancer.number("accepted"), hits(&balancer));
        for number in 0..8 {
            assert!(knock(client(number), to).is_none());
        }
        assert_eq!(balancer.number("accepted"), accepted);
        // Others come in, and are not in the way of the filter later.
        let mut through_it = serve(client(301), to);
        let status = balancer.ask(&["status"])["syn_filter"].clone();
        match status["means"].as_str().unwrap() {
            "ebpf" => eventually("dropped segments are hits", || {
                hits(&balancer) >= hits_before + 8
            }),
            "classic" => assert!(status["dropped"].is_null() && status["why"].is_string()),
            other => panic!("{other}: {status}"),
        }
        // A new ban closes sessions; the filter alone ends none.
        balancer.words(&["unban", "127.10.0.0/24"]);
        assert_eq!(networks(&balancer), 0);
        drop(serve(client(1), to));
        for stream in [&mut other, &mut through_it] {
            ping(stream, b"still here");
        }
        drop((other, through_it));
        balancer.finish();
    });
}

#[test]
fn a_new_listener_drops_them_too_and_a_ban_that_ends_lets_them_in() {
    watched(|| {
        let backend = Backend::echo();
        let text = config(&backend, &["127.0.0.1:0"]);
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        until_dropped(&balancer, balancer.address());
        // It also gets clients of IPv4.
        let reload = |text: &str| {
            fs::write(balancer.dir().join("config.ron"), text).unwrap();
            assert!(balancer.words(&["reload"]).contains("is in force"));
        };
        reload(&config(&backend, &["127.0.0.1:0", "[::]:0"]));
        balancer.until_adopted();
        let bind = balancer.ask(&["listeners"])[1]["bind"].clone();
        let bind: SocketAddr = bind.as_str().unwrap().parse().unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], bind.port()));
        assert!(knock(client(1), to).is_none());
        drop(serve(client(300), to));
        balancer.words(&["ban", "127.10.0.0/24", "--for", "1s"]);
        eventually("the ban is over", || knock(client(1), to).is_some());
        drop(connect(balancer.address()));
        assert_eq!(networks(&balancer), 0);
        // As it was before: no descriptor may be left.
        reload(&text);
        balancer.finish();
    });
}

/// The kernel would drop the trusted one with the others.
#[test]
fn a_network_with_a_trusted_address_never_gets_into_the_filter() {
    watched(|| {
        let backend = Backend::echo();
        let text = config(&backend, &["127.0.0.1:0"]);
        let text = text.replacen("(", "(trusted: [\"127.10.0.9\"], ", 1);
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        let to = balancer.address();
        balancer.words(&["ban", "127.10.0.0/24"]);
        balancer.words(&["ban", "127.11.0.0/24"]);
        // Both knock as often, and one of them is dropped.
        let other = |number| client(0x1_0000 + number);
        eventually("the other network is dropped", || {
            let knocks = (0..20).take_while(|n| {
                let _ = knock(client(*n), to);
                knock(other(*n), to).is_some()
            });
            knocks.count() < 20 && networks(&balancer) > 0
        });
        assert_eq!(networks(&balancer), 1);
        // The reset may come before the client knows that it is connected.
        eventually("it is answered", || knock(client(1), to).is_some());
        drop(serve(client(9), to));
        balancer.finish();
    });
}

fn hits_of(balancer: &Balancer, client: &str) -> u64 {
    let bans = balancer.ask(&["bans", "--client", client]);
    bans[0]["hits"].as_u64().unwrap()
}

/// Segments of IPv6 that come over a device: more of the kernel has looked at them than at those of
/// loopback, and the route back is another one.
#[test]
fn banned_clients_behind_a_router_lose_their_syn_and_nothing_else() {
    watched(|| {
        let Some(remote) = machines::neighbours() else {
            return;
        };
        let backend = Backend::echo();
        let text = config(&backend, &["[::]:0"]);
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        let to = SocketAddr::new(HERE[1].parse().unwrap(), balancer.address().port());
        let knock = |from: &str| remote.run(|| knock(from.parse().unwrap(), to));
        let serve = |from: &str| {
            let mut stream = None;
            eventually("it is served", || {
                stream = knock(from);
                stream.is_some()
            });
            let mut stream = stream.unwrap();
            ping(&mut stream, b"hello");
            stream
        };
        let [banned, other] = THERE[1];
        let (early, mut stays) = (serve(banned), serve(other));
        balancer.words(&["ban", banned]);
        // Its session ends at once. It does not freeze.
        expect_broken(&early);
        eventually("it is dropped before accept", || {
            let knocks = (0..15).take_while(|_| knock(banned).is_some());
            knocks.count() < 15 && networks(&balancer) == 1
        });
        let (accepted, hits) = (balancer.number("accepted"), hits_of(&balancer, banned));
        assert!(knock(banned).is_none());
        assert_eq!(balancer.number("accepted"), accepted);
        if balancer.ask(&["status"])["syn_filter"]["means"] == "ebpf" {
            eventually("dropped segments are hits", || {
                hits_of(&balancer, banned) > hits
            });
        }
        // A session that begins while there is a filter keeps it. Its client is banned later.
        let mut through_it = serve(other);
        for stream in [&mut stays, &mut through_it] {
            ping(stream, b"still here");
        }
        balancer.words(&["ban", other]);
        expect_broken(&stays);
        expect_broken(&through_it);
        for client in [banned, other] {
            balancer.words(&["unban", client]);
            drop(serve(client));
        }
        assert_eq!(networks(&balancer), 0);
        balancer.finish();
    });
}
