//! Listening sockets: groups, backlogs, and those that are handed in.

use super::*;

#[test]
fn of_many_starts_at_the_same_moment_one_listens() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = free.local_addr().unwrap();
    drop(free);
    for _ in 0..100 {
        let starts: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(move || listen_port(to, 2, Binding::default()).ok()))
            .collect();
        let all: Vec<_> = starts.into_iter().map(|one| one.join().unwrap()).collect();
        // Of two that are bound before either listens the kernel may refuse both.
        assert!(all.iter().flatten().count() <= 1);
    }
    let alone = listen_port(to, 2, Binding::default()).unwrap();
    assert!(listen_port(to, 2, Binding::default()).is_err());
    let joining = Binding {
        may_join: true,
        ..Binding::default()
    };
    assert_eq!(listen_port(to, 2, joining).unwrap().sockets.len(), 2);
    drop(alone);
}

#[test]
fn an_address_of_another_machine_can_be_bound_only_if_that_is_allowed() {
    for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let to = address.parse().unwrap();
        let refused = listen_all(&to, 1, false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(listen_all(&to, 2, true).unwrap().sockets.len(), 2);
    }
}

/// All sockets of an address get clients, whichever was there first.
#[test]
fn clients_are_spread_over_the_sockets_of_an_address() {
    for address in ["127.0.0.1:0", "[::]:0"] {
        let bound = listen_all(&address.parse().unwrap(), 3, false).unwrap();
        let Address::Tcp(at) = bound.address else {
            unreachable!("it is one of TCP");
        };
        let clients: Vec<_> = (0..200)
            .map(|_| TcpStream::connect(("127.0.0.1", at.port())).unwrap())
            .collect();
        let count = |socket: &OwnedFd| {
            let socket = Socket::from_raw(socket.as_raw_fd());
            std::iter::from_fn(|| accept(&socket)).count()
        };
        let counts: Vec<_> = bound.sockets.iter().map(count).collect();
        assert_eq!(counts.iter().sum::<usize>(), clients.len());
        assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
    }
}

/// Clients that do not wait for their connection.
fn clients(to: SocketAddr, count: usize) -> Vec<socket2::Socket> {
    let connect = |_| {
        let kind = Type::STREAM.nonblocking();
        let client = socket2::Socket::new(Domain::IPV4, kind, None).unwrap();
        let _ = client.connect(&to.into());
        client
    };
    (0..count).map(connect).collect()
}

#[test]
fn a_short_backlog_drops_clients_and_counts_them() {
    let bound = listen_all(&"127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
    let Address::Tcp(to) = bound.address else {
        unreachable!("it is one of TCP");
    };
    let listener = Socket::from_raw(bound.of_worker(0).as_raw_fd());
    set_backlog(&listener, 4);
    let _clients = clients(to, 20);
    assert!(dropped_clients(&listener) > 0);
    // The kernel lets one more in.
    assert!(std::iter::from_fn(|| accept(&listener)).count() <= 5);
}

#[test]
fn a_socket_that_was_handed_in_keeps_its_backlog() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let bound = inherit(listener.into(), &to.to_string().parse().unwrap()).unwrap();
    let listener = Socket::from_raw(bound.of_worker(0).as_raw_fd());
    set_backlog(&listener, 4);
    let _clients = clients(to, 20);
    assert_eq!(dropped_clients(&listener), 0);
}

#[test]
fn an_inherited_socket_is_one_that_listens_there() {
    let to: Address = "127.0.0.1:80".parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap();
    let bound = inherit(listener.into(), &to).unwrap();
    assert_eq!(bound.address, Address::Tcp(there));
    // All workers share it, and none waits in it.
    assert_eq!(
        bound.of_worker(0).as_raw_fd(),
        bound.of_worker(7).as_raw_fd()
    );
    assert!(accept(&Socket::from_raw(bound.of_worker(0).as_raw_fd())).is_none());
    let deaf = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let another = TcpListener::bind("127.0.0.1:0").unwrap();
    let path: Address = "unix:/nowhere".parse().unwrap();
    for refused in [inherit(deaf.into(), &to), inherit(another.into(), &path)] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
