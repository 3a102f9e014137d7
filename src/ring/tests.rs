//! The ring on the kernel that runs the tests, with and without the features of newer kernels.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, IntoRawFd};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::kernel::{Done, UNBOUNDED};
use crate::sys::Doorbell;
use crate::token::Side;

/// Kernels before 6.17, 6.15 and 6.6 lack these; normally the probe decides, here the test does.
const OLD: Features = Features {
    bounded_recv: false,
    plain_queue: false,
    no_iowait: false,
    port_range: false,
    prompt_close: false,
};

const SMALL: Size = Size {
    submissions: 4,
    buffers: 4,
    pipes: 1,
};

fn ring(features: Features) -> Ring {
    with_outlet(features).0
}

/// A ring, and the channel that hands sockets over to it.
fn with_outlet(features: Features) -> (Ring, OwnedFd) {
    with_outlet_of(SMALL, features)
}

fn with_outlet_of(size: Size, features: Features) -> (Ring, OwnedFd) {
    let wakes = Wakes {
        worker: 0,
        workers: [Arc::new(sys::eventfd(true).unwrap())].into(),
        control: Arc::new(Doorbell::new().unwrap()),
        log_writer: Arc::new(Doorbell::new().unwrap()),
    };
    let (outlet, inlet) = sys::descriptor_channel().unwrap();
    let ring = Ring::new(features, size, wakes, Arc::new(inlet)).unwrap();
    (ring, outlet)
}

fn pair() -> (TcpStream, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, Socket::from_raw(far.into_raw_fd()))
}

/// The fewest tasks of the machine that were seen in I/O wait during a fifth of a second.
fn tasks_in_iowait() -> u64 {
    let look = || {
        std::thread::park_timeout(Duration::from_millis(5));
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        let mut lines = stat.lines();
        let blocked = lines.find_map(|line| line.strip_prefix("procs_blocked "));
        blocked.unwrap().parse().unwrap()
    };
    (0..40).map(|_| look()).min().unwrap()
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
    ring.recv(recv, &far, UNBOUNDED);
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
        ring.recv(
            Token::new(Purpose::Recv(Side::Client), 1, slot),
            far,
            UNBOUNDED,
        );
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
                    ring.recv(done.token, &ends[done.token.slot() as usize].1, UNBOUNDED);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    ends.into_iter()
        .for_each(|(_, far)| ring.close(far, Manner::Reset));
}

/// Other programs come and go meanwhile, so one attempt without the wait is enough: a wait that
/// counts would show in each.
#[test]
fn an_idle_ring_does_not_count_as_io_wait() {
    let features = probe().unwrap();
    let shows = || {
        let before = tasks_in_iowait();
        let idle = std::thread::spawn(move || {
            ring(features).wait(Some(Duration::from_millis(600)), &mut Vec::new());
        });
        let during = tasks_in_iowait();
        idle.join().unwrap();
        during > before
    };
    assert!(!features.no_iowait || (0..10).any(|_| !shows()));
}

#[test]
fn listening_sockets_are_adopted_by_their_ids() {
    let (mut ring, outlet) = with_outlet(OLD);
    let listeners: Vec<_> = (0..4)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let hand_over = |ids: &[u64]| {
        let all: Vec<_> = ids
            .iter()
            .zip(&listeners)
            .map(|(&id, l)| (id, l.as_fd()))
            .collect();
        sys::send_descriptors(&outlet, &all).unwrap();
    };
    assert_eq!(ring.adopt(1), None);
    // Two publications at once, and 4, which was lost.
    hand_over(&[1, 2]);
    hand_over(&[3, 5]);
    let first = ring.adopt(1).unwrap();
    assert_eq!(ring.adopt(3).map(|socket| socket.raw() > 2), Some(true));
    assert_eq!(ring.adopt(4), None);
    let last = ring.adopt(5).unwrap();
    assert_eq!(ring.adopt(6), None);
    // The second is closed, as no worker asked for it: only the test's own copies are left.
    let _near = TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
    let accepted = ring.accept_now(&first).unwrap();
    for socket in [accepted, first, last] {
        ring.close(socket, Manner::Graceful);
    }
}

/// Both ends of a connection: TCP, and a Unix socket.
fn pairs() -> [(socket2::Socket, Socket); 2] {
    let (near, far) = pair();
    let (unix_near, unix_far) = std::os::unix::net::UnixStream::pair().unwrap();
    [
        (near.into(), far),
        (unix_near.into(), Socket::from_raw(unix_far.into_raw_fd())),
    ]
}

/// Sends until there is no more room.
fn fill(ring: &mut Ring, token: Token, far: &Socket, buffer: Buffer) {
    loop {
        ring.send(token, far, buffer, false);
        let done = batch(ring).remove(0);
        assert!(done.token == token && !done.more);
        match done.outcome {
            Ok(Done::Count(sent)) => assert!(sent > 0),
            Err(errno) => return assert_eq!(errno, Errno(libc::EAGAIN)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn waiting_for_room_at_a_peer_that_has_ended_its_direction() {
    let rdhup = u32::from(libc::POLLRDHUP.cast_unsigned());
    for (mut near, far) in pairs() {
        let mut ring = ring(OLD);
        let recv = Token::new(Purpose::Recv(Side::Client), 1, 0);
        let send = Token::new(Purpose::Send(Side::Client), 1, 0);
        let poll = Token::new(Purpose::PollSink(Side::Client), 1, 0);
        ring.recv(recv, &far, UNBOUNDED);
        near.write_all(&[7; 8_000]).unwrap();
        let Ok(Done::Received(buffer)) = batch(&mut ring).remove(0).outcome else {
            panic!("no buffer");
        };
        near.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(batch(&mut ring).remove(0).is_end());
        fill(&mut ring, send, &far, buffer);

        // A poll that ends by itself ends at once.
        ring.poll(poll, &far, Interest::Write);
        let done = batch(&mut ring).remove(0);
        assert!(matches!(done.outcome, Ok(Done::Count(events)) if events == rdhup));
        assert!(!done.more);
        // A poll that goes on reports once, and then waits for room.
        ring.poll(poll, &far, Interest::Room);
        let done = batch(&mut ring).remove(0);
        assert!(matches!(done.outcome, Ok(Done::Count(events)) if events == rdhup));
        assert!(done.more);
        let mut nothing = Vec::new();
        ring.wait(Some(Duration::from_millis(50)), &mut nothing);
        assert!(nothing.is_empty(), "{nothing:?}");
        near.set_nonblocking(true).unwrap();
        while near.read(&mut [0; 65_536]).is_ok() {}
        let done = batch(&mut ring).remove(0);
        assert!(matches!(done.outcome, Ok(Done::Count(events)) if events & POLLOUT != 0));
        ring.cancel(poll);
        let last = batch(&mut ring).pop().unwrap();
        assert!(last.token == poll && !last.more);
        ring.give_back(buffer.id);
        ring.close(far, Manner::Reset);
    }
}

/// Before Linux 6.17 one receive may take all that the kernel has, which then gets more.
#[test]
fn however_many_the_kernel_takes_a_full_pipe_can_be_read_into_buffers() {
    let size = Size {
        buffers: 3 * 64,
        pipes: 2,
        ..SMALL
    };
    let mut ring = with_outlet_of(size, OLD).0;
    let pipe = ring.lease_pipe().unwrap();
    let mut taken = 0;
    for _ in 0..20 {
        ring.wait(Some(Duration::ZERO), &mut Vec::new());
        taken += ring.buffers.fill_all();
        ring.buffers.on_exhausted();
    }
    assert_eq!(taken, 2 * 64);
    assert!(ring.lease_pipe().is_none(), "it could not be given up");
    assert!(ring.take_buffer().is_none(), "a pipe may need it");
    for read in 0..64 {
        assert!(ring.buffers.take().is_some(), "after {read}");
    }
    ring.return_pipe(pipe);
}

/// A header that is made, and what was received, go out one after the other.
#[test]
fn bytes_that_are_made_are_sent_and_given_back_like_received_ones() {
    let mut ring = ring(OLD);
    let (mut near, far) = pair();
    let [recv, send] = [Purpose::Recv(Side::Client), Purpose::Send(Side::Client)]
        .map(|purpose| Token::new(purpose, 1, 0));
    ring.recv(recv, &far, UNBOUNDED);
    near.write_all(b" and a request").unwrap();
    let Ok(Done::Received(request)) = batch(&mut ring).remove(0).outcome else {
        panic!("no buffer");
    };
    let mut header = ring.take_buffer().unwrap();
    let text = b"a header";
    ring.bytes_mut(header)[..text.len()].copy_from_slice(text);
    header.len = 8;
    assert_eq!(ring.buffers_in_use(), 2);
    for (buffer, more) in [(header, true), (request, false)] {
        ring.send(send, &far, buffer, more);
        let done = batch(&mut ring).remove(0);
        assert!(matches!(done.outcome, Ok(Done::Count(sent)) if sent == buffer.len));
        ring.give_back(buffer.id);
    }
    let mut all = [0; 22];
    near.read_exact(&mut all).unwrap();
    assert_eq!(&all, b"a header and a request");
    ring.close(far, Manner::Reset);
    assert_eq!(ring.buffers_in_use(), 0);
}

#[test]
fn what_was_taken_is_not_received_into_and_nothing_is_taken_of_the_kernel() {
    let mut ring = ring(OLD);
    // The kernel gets half.
    ring.wait(Some(Duration::ZERO), &mut Vec::new());
    let taken: Vec<_> = std::iter::from_fn(|| ring.take_buffer()).collect();
    assert_eq!(taken.len(), 2);
    for &buffer in &taken {
        ring.bytes_mut(buffer).fill(1);
    }
    let (mut near, far) = pair();
    ring.recv(Token::new(Purpose::Recv(Side::Client), 1, 0), &far, 100);
    for _ in 0..8 {
        near.write_all(&[2; 100]).unwrap();
        let done = batch(&mut ring).remove(0);
        let Ok(Done::Received(buffer)) = done.outcome else {
            panic!("{done:?}");
        };
        assert!(taken.iter().all(|one| one.id != buffer.id));
        ring.give_back(buffer.id);
        ring.recv(done.token, &far, 100);
    }
    for buffer in taken {
        assert!(ring.bytes(buffer).iter().all(|byte| *byte == 1));
        ring.give_back(buffer.id);
    }
    assert!(ring.take_buffer().is_some());
    ring.close(far, Manner::Reset);
}

/// A killed process ends thread by thread. What its rings hold goes later, unless it is tracked.
#[test]
fn an_accept_ends_with_its_thread_while_the_ring_lives_on() {
    let features = probe().unwrap();
    if !features.prompt_close {
        return;
    }
    for many in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dies = move || {
            let mut ring = ring(features);
            let listener = Socket::from_raw(listener.into_raw_fd());
            // The queue has room for one entry more: both must come in one batch.
            for _ in 0..2 {
                ring.cancel(Token::new(Purpose::Connect, 1, 1));
            }
            let token = Token::new(Purpose::Accept, 0, 0);
            ring.accept(token, &listener, many);
            let _near = TcpStream::connect(address).unwrap();
            let done = batch(&mut ring);
            assert!(done.iter().any(|done| done.outcome.is_ok()), "{done:?}");
            if !many {
                ring.accept(token, &listener, many);
            }
            ring.submit();
            ring.close(listener, Manner::Graceful);
            ring.submit();
            std::mem::forget(ring);
        };
        std::thread::spawn(dies).join().unwrap();
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
