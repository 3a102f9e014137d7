//! The ring against the kernel that runs the tests, with and without what newer kernels have.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::session::Side;

/// Kernels before 6.17 and 6.6 lack these; the probe decides, here the test does.
const OLD: Features = Features {
    bounded_recv: false,
    plain_queue: false,
};

const SMALL: Size = Size {
    submissions: 4,
    buffers: 4,
    pipes: 1,
};

fn ring(features: Features) -> Ring {
    let wake = Arc::new(sys::eventfd(true).unwrap());
    Ring::new(features, SMALL, wake).unwrap()
}

fn pair() -> (TcpStream, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, Socket::from_raw(far.into_raw_fd()))
}

/// Waits for the next batch, which must come.
fn batch(ring: &mut Ring) -> Vec<Completion> {
    let mut completions = Vec::new();
    for _ in 0..100 {
        ring.wait(Some(Duration::from_millis(100)), &mut completions);
        if !completions.is_empty() {
            return completions;
        }
    }
    panic!("nothing completes");
}

fn echoes(features: Features) {
    let mut ring = ring(features);
    let (mut near, far) = pair();
    let recv = Token::new(Purpose::Recv(Side::Client), 1, 0);
    let send = Token::new(Purpose::Send(Side::Client), 1, 0);
    ring.recv(recv, &far);
    near.write_all(b"hello").unwrap();
    let done = batch(&mut ring).remove(0);
    assert!(done.token == recv && done.more);
    let Ok(Done::Received(buffer)) = done.outcome else {
        panic!("{done:?}")
    };
    assert_eq!((buffer.len, ring.buffers_in_use()), (5, 1));
    ring.send(send, &far, buffer, false);
    let done = batch(&mut ring).remove(0);
    assert!(done.token == send && matches!(done.outcome, Ok(Done::Count(5))));
    ring.give_back(buffer.id);
    let mut answer = [0; 5];
    near.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    drop(near);
    assert!(batch(&mut ring).remove(0).is_end());
    ring.close(far, Manner::Graceful);
    assert_eq!(ring.buffers_in_use(), 0);
}

#[test]
fn echoes_with_what_this_kernel_has() {
    echoes(probe().unwrap());
}

#[test]
fn echoes_as_on_the_oldest_kernel() {
    echoes(OLD);
}

#[test]
fn more_sockets_than_buffers_get_theirs_in_turn() {
    let mut ring = ring(OLD);
    let mut ends: Vec<_> = (0..12).map(|_| pair()).collect();
    for (slot, (near, far)) in (0..).zip(&mut ends) {
        ring.recv(Token::new(Purpose::Recv(Side::Client), 1, slot), far);
        near.write_all(&[7; 100]).unwrap();
    }
    let mut served = 0;
    while served < ends.len() {
        for done in batch(&mut ring) {
            match done.outcome {
                Ok(Done::Received(buffer)) => {
                    served += 1;
                    ring.give_back(buffer.id);
                }
                Err(Errno::NOBUFS) => {
                    assert!(!done.more);
                    ring.recv(done.token, &ends[done.token.slot() as usize].1);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    ends.into_iter()
        .for_each(|(_, far)| ring.close(far, Manner::Reset));
}
