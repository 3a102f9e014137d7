//! Real listening sockets, with clients of 127.0.0.0/8 and of ::1.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::*;
use crate::guard;

/// A socket that listens at this address, also for IPv4 where it is `[::]`.
fn listen(at: &str) -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    listener.set_nonblocking(true).unwrap();
    let to = listener.local_addr().unwrap();
    (listener.into(), to)
}

/// Connects from an address, to the same one if it is `::1`; `None`: nobody answers.
fn connect(from: &str, port: u16) -> Option<TcpStream> {
    let from: IpAddr = from.parse().unwrap();
    let to: IpAddr = match from {
        IpAddr::V4(_) => [127, 0, 0, 1].into(),
        IpAddr::V6(_) => from,
    };
    let to = SocketAddr::new(to, port);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    match socket.connect_timeout(&to.into(), Duration::from_millis(400)) {
        Ok(()) => Some(socket.into()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            None
        }
    }
}

/// Clients that wait in the backlog, of which there will be so many: the kernel may still be busy
/// with the last segment of a handshake when the client knows that it is connected.
fn accept_all(listener: &OwnedFd, connected: usize) -> Vec<TcpStream> {
    let listener = TcpListener::from(listener.try_clone().unwrap());
    let socket = SockRef::from(&listener);
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    listener.set_nonblocking(false).unwrap();
    let mut all: Vec<_> = (0..connected).map(|_| listener.accept().unwrap()).collect();
    listener.set_nonblocking(true).unwrap();
    all.extend(std::iter::from_fn(|| listener.accept().ok()));
    let clients = all.into_iter().map(|(client, _)| {
        client.set_nonblocking(false).unwrap();
        client
    });
    clients.collect()
}

fn exchange(one: &mut TcpStream, other: &mut TcpStream) {
    let mut read = [0; 4];
    one.write_all(b"ping").unwrap();
    other.read_exact(&mut read).unwrap();
    other.write_all(&read).unwrap();
    one.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"ping");
}

/// The clients of a listener, before and after some of them are banned.
fn banned_clients_cost_no_accept(
    at: &str,
    [banned, free]: [&str; 2],
    ban: impl FnOnce(&OwnedFd),
    lift: impl FnOnce(&OwnedFd),
) {
    let (listener, to) = listen(at);
    let mut before = connect(banned, to.port()).expect("nobody is banned");
    let mut accepted = accept_all(&listener, 1).pop().unwrap();
    ban(&listener);
    for _ in 0..3 {
        assert!(connect(banned, to.port()).is_none());
    }
    let reached = connect(free, to.port());
    assert_eq!(reached.is_some(), free != banned);
    let connected = usize::from(free != banned);
    assert_eq!(accept_all(&listener, connected).len(), connected);
    // A session that began before goes on.
    exchange(&mut before, &mut accepted);
    lift(&listener);
    let mut after = connect(banned, to.port()).expect("the ban is over");
    let accepted = accept_all(&listener, 1);
    assert!(!accepted.is_empty());
    drop((before, accepted));
    after.write_all(b"x").unwrap();
}

const PLACES: [(&str, [&str; 2]); 3] = [
    ("127.0.0.1:0", ["127.7.7.7", "127.7.8.7"]),
    // Clients of IPv4 reach it as well.
    ("[::]:0", ["127.7.7.7", "127.7.8.7"]),
    ("[::1]:0", ["::1", "::1"]),
];

fn around(ip: &str) -> Prefix {
    let ip: IpAddr = ip.parse().unwrap();
    Prefix::new(ip, if ip.is_ipv4() { 24 } else { 64 }).unwrap()
}

#[test]
fn a_classic_filter_drops_first_segments_of_banned_clients() {
    for (at, clients) in PLACES {
        let program = guard::classic_syn_program(&[around(clients[0])]);
        let ban = |listener: &OwnedFd| attach_classic(listener, &program).unwrap();
        banned_clients_cost_no_accept(at, clients, ban, detach_filter);
    }
}

#[test]
fn some_hundreds_of_prefixes_fit_in_a_classic_filter() {
    let v4 = (0..200u8).map(|n| Prefix::new([10, n, 0, 0].into(), 16).unwrap());
    let v6 = (0..56u16).map(|n| Prefix::new([0x2001, 0xdb8, n, 0, 0, 0, 0, 0].into(), 64).unwrap());
    let (listener, _) = listen("127.0.0.1:0");
    attach_classic(
        &listener,
        &guard::classic_syn_program(&v4.chain(v6).collect::<Vec<_>>()),
    )
    .unwrap();
}

/// Without CAP_BPF nothing can be shown here: the balancer uses a classic filter then.
fn maps() -> Option<SynMaps> {
    match SynMaps::new(100, guard::extended_syn_program) {
        Ok(maps) => Some(maps),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            eprintln!("skipped, as the test has no CAP_BPF: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn maps_drop_and_count_first_segments_of_banned_clients() {
    let Some(maps) = maps() else { return };
    for (at, clients) in PLACES {
        let prefix = around(clients[0]);
        let ban = |listener: &OwnedFd| {
            // The filter is there before the ban.
            maps.attach(listener).unwrap();
            maps.insert(prefix).unwrap();
        };
        let lift = |_: &OwnedFd| {
            let dropped = maps.dropped(prefix).unwrap();
            assert!(dropped >= 3, "{dropped}");
            maps.remove(prefix).unwrap();
        };
        banned_clients_cost_no_accept(at, clients, ban, lift);
        assert!(maps.dropped(prefix).is_err() && maps.remove(prefix).is_err());
    }
}

#[test]
fn a_session_of_a_filtered_listener_outlives_a_ban_of_its_client() {
    let Some(maps) = maps() else { return };
    let (listener, to) = listen("127.0.0.1:0");
    maps.attach(&listener).unwrap();
    let mut client = connect("127.7.7.7", to.port()).unwrap();
    let mut accepted = accept_all(&listener, 1).pop().unwrap();
    let host: Prefix = "127.7.7.7".parse().unwrap();
    maps.insert(host).unwrap();
    exchange(&mut client, &mut accepted);
    assert!(connect("127.7.7.7", to.port()).is_none());
    exchange(&mut accepted, &mut client);
    // The longest prefix counts.
    assert!(maps.dropped(host).unwrap() >= 1);
    maps.insert("127.7.0.0/16".parse().unwrap()).unwrap();
    assert_eq!(maps.dropped("127.7.0.0/16".parse().unwrap()).unwrap(), 0);
    maps.remove(host).unwrap();
    assert!(connect("127.7.7.7", to.port()).is_none());
    assert!(maps.dropped("127.7.0.0/16".parse().unwrap()).unwrap() >= 1);
}
