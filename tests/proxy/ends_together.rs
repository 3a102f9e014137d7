//! `half_close: "end"`: the end of one direction ends the session, and destroys nothing.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::balancer::{Balancer, Launch};
use crate::bytes::Bytes;
use crate::peers::{self, expect_end};
use crate::watchdog::heavy;

fn launch(to: &str) -> Balancer {
    let config = format!(
        "(workers: 1, listeners: [(bind: \"127.0.0.1:0\", pool: \"p\", half_close: \"end\")],\n\
         pools: [(name: \"p\", backends: [\"{to}\"])])"
    );
    Launch::with_config(&config, 1).start()
}

/// Each role ends first once.
fn both_ways(test: fn(TcpStream, TcpStream)) {
    heavy(move || {
        let (backend, to) = peers::listen();
        let balancer = launch(&to);
        let (client, accepted) = peers::session(&balancer, &backend);
        test(client, accepted);
        let (client, accepted) = peers::session(&balancer, &backend);
        test(accepted, client);
        balancer.assert_rest();
        let reasons = ["closed.client_closed", "closed.backend_closed"];
        assert_eq!(reasons.map(|reason| balancer.number(reason)), [1, 1]);
        balancer.finish();
    });
}

#[test]
fn the_end_of_one_direction_ends_both() {
    both_ways(|mut near, mut far| {
        Bytes::new(1).send(&mut near, 1_000);
        Bytes::new(2).send(&mut far, 70_000);
        near.shutdown(Shutdown::Write).unwrap();
        let mut received = Bytes::new(1);
        received.expect_to_end(&mut far);
        assert_eq!(received.count, 1_000);
        // Bytes of the other direction that had arrived are delivered, though that direction has
        // not ended.
        let mut answer = Bytes::new(2);
        answer.expect_to_end(&mut near);
        assert_eq!(answer.count, 70_000);
    });
}

/// Its last bytes wait in the sink's send buffer when the session ends. The sink's own bytes are
/// unread, so closing at once would send a reset and destroy them.
#[test]
fn a_slow_reader_gets_all_of_the_direction_that_ended() {
    both_ways(|mut near, mut far| {
        let mut back = far.try_clone().unwrap();
        let streams = thread::spawn(move || {
            let chunk = [7; 16_384];
            while back.write_all(&chunk).is_ok() {}
        });
        let sender = thread::spawn(move || {
            Bytes::new(3).send(&mut near, 8 << 20);
            near.shutdown(Shutdown::Write).unwrap();
            // The peer never reads, and the other direction is full.
            thread::sleep(Duration::from_millis(700));
            near
        });
        thread::sleep(Duration::from_millis(300));
        let mut received = Bytes::new(3);
        received.expect_to_end(&mut far);
        assert_eq!(received.count, 8 << 20);
        let mut near = sender.join().unwrap();
        // The peer receives a prefix of what was sent to it, and an orderly end.
        while std::io::Read::read(&mut near, &mut [0; 65_536]).unwrap() > 0 {}
        expect_end(&mut near);
        drop(far);
        streams.join().unwrap();
    });
}
