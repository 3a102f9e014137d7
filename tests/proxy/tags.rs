//! No byte of one session ever reaches another, however sessions end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::balancer::Launch;
use crate::peers::{self, Backend};
use crate::watchdog::heavy;

const TAG: usize = 16;
const SESSIONS: usize = 10_000;
const CLIENTS: usize = 16;

type Tag = [u8; TAG];

fn tag_of(session: usize) -> Tag {
    let number = (session as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [low, high] = [number, !number].map(u64::to_be_bytes);
    [low, high].concat().try_into().unwrap()
}

/// Every byte belongs to the tag with which the connection began.
#[track_caller]
fn check(tag: Tag, offset: usize, bytes: &[u8]) {
    let own = tag.iter().cycle().skip(offset % TAG);
    assert!(bytes.iter().eq(own.take(bytes.len())), "a foreign byte");
}

/// The size of a session's answer: mostly little, at times enough to be spliced.
fn amount(session: usize) -> usize {
    match session % 25 {
        0 => TAG * 20_000,
        1..5 => TAG * 1_500,
        _ => TAG,
    }
}

/// Reads a tag and an amount, and sends the tag again and again.
fn answer(mut stream: TcpStream) {
    let (mut tag, mut amount) = ([0; TAG], [0; 8]);
    // An abort may truncate any of it.
    if stream.read_exact(&mut tag).is_err() || stream.read_exact(&mut amount).is_err() {
        return;
    }
    let amount = usize::try_from(u64::from_be_bytes(amount)).unwrap();
    let answer = tag.repeat(amount / TAG);
    let mut uploads = stream.try_clone().unwrap();
    let upload = thread::spawn(move || read_own(&mut uploads, tag));
    // The client may be gone.
    let _ = stream.write_all(&answer);
    upload.join().unwrap();
}

/// Reads to the end or the break, and expects nothing but the tag.
fn read_own(stream: &mut TcpStream, tag: Tag) -> usize {
    let mut chunk = vec![0; 64 * 1024];
    let mut total = 0;
    while let Ok(read) = stream.read(&mut chunk) {
        check(tag, total, &chunk[..read]);
        total += read;
        if read == 0 {
            break;
        }
    }
    total
}

fn visit(session: usize, to: SocketAddr) {
    let (tag, amount) = (tag_of(session), amount(session));
    let mut stream = peers::connect(to);
    let question = [&tag[..], &(amount as u64).to_be_bytes()].concat();
    stream.write_all(&question).unwrap();
    // Sends half as much up, in the larger sessions while the answer comes.
    let sent = stream.write_all(&tag.repeat(amount / TAG / 2));
    if session % 10 < 3 {
        // Aborts in the middle of the answer, or of the question.
        let mut some = vec![0; (amount / 3).min(session % 7 * 4_096)];
        stream.read_exact(&mut some).unwrap();
        check(tag, 0, &some);
        return peers::reset(stream);
    }
    sent.unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_own(&mut stream, tag), amount, "a whole answer");
}

#[test]
fn ten_thousand_sessions_never_see_a_foreign_byte() {
    heavy(|| {
        let backends = [(); 2].map(|()| Backend::tcp("127.0.0.1:0", answer));
        let addresses = backends.each_ref().map(|backend| backend.address.clone());
        let balancer = Launch::to(&addresses).workers(2).start();
        let address = balancer.address();
        let next = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let next = Arc::clone(&next);
                thread::spawn(move || {
                    loop {
                        match next.fetch_add(1, Ordering::Relaxed) {
                            session if session < SESSIONS => visit(session, address),
                            _ => return,
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        assert!(balancer.pipes_made() > 0, "some were spliced");
        balancer.assert_rest();
        assert_eq!(balancer.number("accepted"), SESSIONS as u64);
        // To some an abort right at the end of the question is an orderly end.
        let reasons = ["closed.client_closed", "closed.backend_closed"];
        let counts = reasons.map(|reason| balancer.number(reason));
        assert!(counts.into_iter().sum::<u64>() >= SESSIONS as u64 * 7 / 10);
        balancer.finish();
    });
}
