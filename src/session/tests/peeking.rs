//! The client's first bytes select its backend.

use super::script::{LIMITS, Script};
use super::*;
use crate::time::MS;

const PEEK: u64 = 3_000 * MS;

fn peeking() -> Script {
    Script::begin_with(SessionLimits {
        peek: Some(PEEK),
        ..LIMITS
    })
}

fn grown(first: Buffer, by: u32) -> Option<Buffer> {
    Some(Buffer {
        len: first.len + by,
        ..first
    })
}

#[test]
fn the_first_bytes_decide_and_are_sent_on() {
    let mut script = peeking();
    assert_eq!(script.deadline_in(), PEEK);
    let hello = script.receives(Client, 500);
    script.asks(&[Op::Peek(Some(hello), false)]);
    script.now += 7 * MS;
    script.on_event(Event::Peeked(Look::Enough));
    script.asks(&[Op::Connect]);
    assert_eq!(script.deadline_in(), LIMITS.connect);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Send(Backend, hello, false), Op::Recv(Backend)]);
}

#[test]
fn pieces_are_kept_together_in_one_buffer() {
    let mut script = peeking();
    let first = script.receives(Client, 1);
    script.asks(&[Op::Peek(Some(first), false)]);
    script.on_event(Event::Peeked(Look::HalfSent));
    for bytes in 1..200 {
        let piece = script.receives(Client, 1);
        let whole = grown(first, bytes - 1).unwrap();
        script.asks(&[
            Op::Append(whole, piece),
            Op::Release(piece.id),
            Op::Peek(grown(first, bytes), false),
        ]);
        script.on_event(Event::Peeked(Look::HalfSent));
    }
    script.asks(&[]);
    script.on_event(Event::Peeked(Look::Enough));
    script.on_event(Event::Connected(Opening::Bare));
    let whole = grown(first, 199).unwrap();
    script.asks(&[
        Op::Connect,
        Op::Send(Backend, whole, false),
        Op::Recv(Backend),
    ]);
}

#[test]
fn byte_by_byte_is_looked_at_so_often_and_no_more() {
    let mut script = peeking();
    let last = (1..BUFFER_BYTES).find(|look| {
        script.receives(Client, 1);
        let looks = |op: &Op| matches!(op, Op::Peek(_, _));
        assert!(script.ops.iter().any(looks), "{look}");
        let is_last = matches!(script.ops.back(), Some(Op::Peek(_, true)));
        script.ops.clear();
        script.on_event(Event::Peeked(Look::HalfSent));
        is_last
    });
    // As many KiB were read, and as many looks made, as the limit allows.
    assert_eq!(last, Some(3_584));
}

#[test]
fn the_first_buffer_is_filled_before_the_last_look() {
    for (first, second) in [(BUFFER_BYTES - 10, 11), (5, BUFFER_BYTES)] {
        let mut script = peeking();
        let first = script.receives(Client, first);
        script.on_event(Event::Peeked(Look::HalfSent));
        let second = script.receives(Client, second);
        let room = BUFFER_BYTES - first.len;
        let part = Buffer {
            len: room,
            ..second
        };
        let rest = Buffer {
            start: room,
            len: second.len - room,
            ..second
        };
        let whole = grown(first, room).unwrap();
        script.asks(&[
            Op::Peek(Some(first), false),
            Op::Append(first, part),
            Op::Peek(Some(whole), true),
            Op::Cancel(Purpose::Recv(Client)),
        ]);
        script.on_event(Event::Peeked(Look::Enough));
        script.on_event(Event::Connected(Opening::Bare));
        script.asks(&[
            Op::Connect,
            Op::Send(Backend, whole, false),
            Op::Recv(Backend),
        ]);
        script.sent(Backend, whole.len);
        script.asks(&[Op::Release(first.id), Op::Send(Backend, rest, false)]);
    }
}

#[test]
fn a_full_buffer_is_enough() {
    let mut script = peeking();
    let first = script.receives(Client, BUFFER_BYTES);
    script.asks(&[Op::Peek(Some(first), true)]);
}

#[test]
fn a_silent_client_is_served_when_its_time_is_over() {
    let mut script = peeking();
    script.passes(PEEK - 1);
    script.asks(&[]);
    script.passes(1);
    script.asks(&[Op::Peek(None, true)]);
    script.on_event(Event::Peeked(Look::Enough));
    script.asks(&[Op::Connect]);
}

#[test]
fn the_deadline_is_of_the_whole_wait() {
    let mut script = peeking();
    let first = script.receives(Client, 1);
    script.on_event(Event::Peeked(Look::HalfSent));
    script.passes(PEEK - 1);
    script.receives(Client, 1);
    script.on_event(Event::Peeked(Look::HalfSent));
    script.ops.clear();
    script.passes(1);
    script.asks(&[Op::Peek(grown(first, 1), true)]);
}

fn strict() -> Script {
    Script::begin_with(SessionLimits {
        peek: Some(PEEK),
        ends_half_sent: true,
        ..LIMITS
    })
}

#[test]
fn a_client_that_stops_in_its_first_bytes_is_closed_at_the_deadline() {
    let mut script = strict();
    let first = script.receives(Client, 1);
    for _ in 0..4 {
        script.on_event(Event::Peeked(Look::HalfSent));
        // Each byte comes in time, and none gives more time.
        script.passes(PEEK / 4);
        script.ops.clear();
        if script.session.reason().is_none() {
            script.receives(Client, 1);
        }
    }
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.asks(&[Op::Release(first.id), Op::Finish]);
    let reason = script.session.reason();
    assert_eq!(reason, Some(CloseReason::FirstBytesTimeout));
    assert_eq!(script.session.manner(), Manner::Reset);
}

#[test]
fn a_client_that_has_sent_nothing_is_served_at_the_deadline_all_the_same() {
    let mut script = strict();
    script.passes(PEEK);
    script.asks(&[Op::Peek(None, true)]);
    script.on_event(Event::Peeked(Look::Enough));
    script.asks(&[Op::Connect]);
}

/// What waits at the socket, as no buffer is left for it, is the beginning of something too.
#[test]
fn first_bytes_that_found_no_buffer_end_at_the_deadline_too() {
    for (look, closes) in [(Look::HalfSent, true), (Look::Nothing, false)] {
        let mut script = strict();
        script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
        script.told_more(Event::SourceReady(Client, Arrival::Bytes));
        script.on_event(Event::Peeked(look));
        script.ops.clear();
        script.passes(PEEK);
        assert_eq!(script.session.reason().is_some(), closes, "{look:?}");
        if closes {
            script.asks(&[Op::Cancel(Purpose::PollSource(Client))]);
            script.on_event(Event::SourceReady(Client, Arrival::Bytes));
            script.ends(CloseReason::FirstBytesTimeout, Manner::Reset);
        } else {
            script.asks(&[Op::PeekAhead(None, true)]);
        }
    }
}

#[test]
fn the_end_of_the_stream_is_enough() {
    let mut script = peeking();
    let first = script.receives_last(Client, 9);
    script.asks(&[Op::Peek(Some(first), false), Op::Peek(Some(first), true)]);
    script.on_event(Event::Peeked(Look::Enough));
    // The peek that is under way completes too.
    script.on_event(Event::Peeked(Look::Enough));
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[
        Op::Connect,
        Op::Send(Backend, first, true),
        Op::Recv(Backend),
    ]);
}

#[test]
fn a_client_that_says_nothing_is_looked_at_once_for_its_silence() {
    let limits = SessionLimits {
        peek: Some(PEEK),
        server_first: 300 * MS,
        ..LIMITS
    };
    let mut script = Script::begin_with(limits);
    assert_eq!(script.deadline_in(), 300 * MS);
    script.passes(300 * MS);
    script.asks(&[Op::Peek(None, false)]);
    script.on_event(Event::Peeked(Look::Nothing));
    // No route takes it for that: its first bytes may come.
    assert_eq!(script.deadline_in(), PEEK - 300 * MS);
    script.passes(PEEK - 300 * MS);
    script.asks(&[Op::Peek(None, true)]);
    script.on_event(Event::Peeked(Look::Enough));
    script.asks(&[Op::Connect]);
    let mut script = Script::begin_with(limits);
    script.receives(Client, 1);
    script.on_event(Event::Peeked(Look::HalfSent));
    assert_eq!(script.deadline_in(), PEEK);
}

/// A look that was under way finds the same.
#[test]
fn a_refused_client_that_was_told_so_is_not_reset() {
    let mut script = peeking();
    let hello = script.receives_last(Client, 500);
    script.asks(&[Op::Peek(Some(hello), false), Op::Peek(Some(hello), true)]);
    script.on_event(Event::Peeked(Look::Told));
    script.on_event(Event::Peeked(Look::Refused));
    script.ops.clear();
    assert_eq!(script.session.reason(), Some(CloseReason::NoRoute));
    assert_eq!(script.session.manner(), Manner::Graceful);
    let mut script = peeking();
    script.receives(Client, 500);
    script.on_event(Event::Peeked(Look::Refused));
    assert_eq!(script.session.manner(), Manner::Reset);
}

#[test]
fn a_client_that_breaks_ends_it() {
    let mut script = peeking();
    script.on_event(Event::RecvEnded(Client, Err(Errno::CONNRESET)));
    script.ends(CloseReason::ClientReset, Manner::Reset);
}

#[test]
fn short_buffers_do_not_keep_the_rest_from_coming() {
    let mut script = peeking();
    script.links.set_short(true);
    script.receives(Client, 1);
    script.on_event(Event::Peeked(Look::HalfSent));
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ops.retain(|op| !matches!(op, Op::Peek(..)));
    script.asks(&[Op::Recv(Client)]);
}

/// A client whose first bytes found no buffer, with one that came before if `held`.
fn starved(held: bool) -> (Script, Option<Buffer>) {
    let mut script = peeking();
    let first = held.then(|| script.receives(Client, 1));
    if held {
        script.on_event(Event::Peeked(Look::HalfSent));
    }
    script.ops.clear();
    script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    script.asks(&[Op::PollSource(Client, true)]);
    (script, first)
}

const ARRIVAL: Event = Event::SourceReady(Client, Arrival::Bytes);

#[test]
fn without_a_buffer_first_bytes_are_looked_at_where_they_wait() {
    for held in [false, true] {
        let (mut script, first) = starved(held);
        for _ in 0..3 {
            script.told_more(ARRIVAL);
            script.asks(&[Op::PeekAhead(first, false)]);
            script.on_event(Event::Peeked(Look::HalfSent));
        }
        // Nothing is tried until more of them come.
        script.passes(PEEK - 1);
        script.asks(&[]);
        script.told_more(ARRIVAL);
        script.on_event(Event::Peeked(Look::Enough));
        script.asks(&[Op::PeekAhead(first, false), Op::Connect]);
        script.told_more(ARRIVAL);
        script.asks(&[]);
        // They are received, or passed on, once the backend is there.
        script.on_event(Event::Connected(Opening::Bare));
        let cancel = Op::Cancel(Purpose::PollSource(Client));
        let asked = match first {
            Some(first) => [cancel, Op::Send(Backend, first, false)],
            None => [Op::Acknowledge, cancel],
        };
        script.asks(&[&asked[..], &[Op::Recv(Backend)]].concat());
        script.told_more(ARRIVAL);
        script.asks(&[]);
        script.on_event(ARRIVAL);
        let goes_on = first.map_or(Op::PassOn(Client), |_| Op::Recv(Client));
        script.asks(&[goes_on]);
    }
}

#[test]
fn a_poll_for_first_bytes_that_the_kernel_ends_is_followed_by_a_pause() {
    let (mut script, _) = starved(false);
    script.on_event(ARRIVAL);
    script.on_event(Event::Peeked(Look::HalfSent));
    assert_eq!(script.ops.pop_front(), Some(Op::PeekAhead(None, false)));
    let pause = script.ops.pop_front();
    assert!(matches!(
        pause,
        Some(Op::Visit(Purpose::Starvation(Client), _))
    ));
    script.on_event(Event::Starvation(Client));
    script.asks(&[Op::Recv(Client)]);
}

#[test]
fn without_a_buffer_the_end_of_the_stream_and_a_break_are_noticed() {
    let (mut script, _) = starved(false);
    script.told_more(Event::SourceReady(Client, Arrival::End));
    script.on_event(Event::Peeked(Look::Enough));
    script.asks(&[Op::PeekAhead(None, true), Op::Connect]);
    script.told_more(Event::SourceReady(Client, Arrival::Fault));
    let poll = Purpose::PollSource(Client);
    script.asks(&[Op::Cancel(Purpose::Connect), Op::Cancel(poll)]);
    script.on_event(Event::SourceReady(Client, Arrival::Fault));
    script.on_event(Event::ConnectFailed(Errno::CANCELED));
    script.ends(CloseReason::ClientReset, Manner::Reset);
}

#[test]
fn the_backends_time_is_measured_from_when_it_was_asked() {
    let mut script = Script::begin();
    script.now += 4 * MS;
    script.on_event(Event::Connected(Opening::Bare));
    script.now += 1_000 * MS;
    script.receives(Client, 10);
    script.sent(Backend, 10);
    script.now += 30 * MS;
    assert!(script.summary().awaits_answer);
    script.ops.clear();
    script.receives(Backend, 10);
    assert!(matches!(script.ops.front(), Some(Op::Answered(Some(_)))));
    script.sent(Client, 10);
    assert_eq!(script.summary().answer, 34 * MS);
    assert!(!script.summary().awaits_answer);
}

#[test]
fn later_requests_and_streams_are_reported() {
    let mut script = Script::connected();
    script.receives(Backend, 10);
    script.sent(Client, 10);
    for _ in 0..2 {
        script.ops.clear();
        // Several pieces of one request.
        for _ in 0..2 {
            script.receives(Client, 10);
            script.sent(Backend, 10);
        }
        let asked = script.ops.iter().filter(|op| **op == Op::Asked);
        assert_eq!(asked.count(), 1);
        assert!(script.summary().awaits_answer);
        script.now += 5_000 * MS;
        script.ops.clear();
        script.receives(Backend, 10);
        script.sent(Client, 10);
        assert_eq!(script.ops.front(), Some(&Op::Replied));
        assert!(!script.summary().awaits_answer);
    }
    // One message after a silence is no stream.
    script.now += 5_000 * MS;
    script.receives(Backend, 10);
    script.sent(Client, 10);
    assert_eq!(script.summary().in_use, 0);
    script.ops.clear();
    for _ in 0..11 {
        script.now += 100 * MS;
        script.receives(Backend, 10);
        script.sent(Client, 10);
    }
    assert!(script.ops.contains(&Op::Used(1_000 * MS)));
    assert_eq!(script.summary().in_use, 100 * MS);
}

#[test]
fn work_is_reported_only_if_watched() {
    let mut script = Script::connected_with(SessionLimits {
        watches_work: false,
        ..LIMITS
    });
    for side in [Backend, Client, Backend, Backend] {
        script.receives(side, 10);
        script.sent(side.other(), 10);
    }
    assert!(!script.ops.contains(&Op::Asked) && !script.ops.contains(&Op::Replied));
    assert_eq!(script.summary().in_use, 0);
}
