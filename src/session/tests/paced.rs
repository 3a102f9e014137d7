//! Limits of bandwidth: rests, and what goes on meanwhile.

use std::num::NonZeroU64;

use super::*;
use crate::guard::ByteRate;

/// The bytes of clients are limited from now on.
fn limited(script: Script, per_second: u64) -> Script {
    let rate = NonZeroU64::new(per_second).map(ByteRate::new);
    script.rates.set([rate, None]);
    script
}

/// The visits of a direction that rests, to the operation that follows.
#[track_caller]
fn rest_until(script: &mut Script, then: Op) {
    let mut visits = 0;
    while let Some(&Op::Visit(Purpose::Pace(Client), rest)) = script.ops.front() {
        assert!(script.ops.len() == 1 && rest > 0 && rest <= 50 * MS);
        script.ops.clear();
        script.now += rest;
        script.on_event(Event::Pace(Client));
        visits += 1;
    }
    assert!(visits > 0, "it does not rest");
    script.asks(&[then]);
}

/// The last step of a receive that has taken all that it may.
fn receives_all(script: &mut Script, bytes: u32) -> Buffer {
    let buffer = script.buffer(bytes);
    script.on_event(Event::Received(Client, buffer, false));
    buffer
}

#[test]
fn a_direction_rests_when_its_bytes_are_used_up_and_delivers_what_it_has() {
    let mut script = limited(Script::connected(), 100_000);
    let buffer = receives_all(&mut script, BUFFER_BYTES);
    assert_eq!(
        script.ops.pop_front(),
        Some(Op::Send(Backend, buffer, false))
    );
    let visit = script.ops.pop_front();
    assert!(matches!(visit, Some(Op::Visit(Purpose::Pace(Client), _))));
    // The sink takes it in two steps.
    script.sent(Backend, 6_000);
    script.asks(&[Op::PollSink(Backend, false)]);
    script.on_event(Event::SinkReady(Backend, true));
    script.ops.clear();
    script.sent(Backend, BUFFER_BYTES - 6_000);
    script.asks(&[Op::Release(buffer.id)]);
    // The other direction goes on meanwhile.
    let answer = script.receives(Backend, 100);
    script.asks(&[Op::Send(Client, answer, false)]);
    script.ops.extend(visit);
    rest_until(&mut script, Op::Recv(Client));
}

#[test]
fn a_stream_that_rests_empties_its_pipe_and_stays_one() {
    let mut script = limited(Script::promoted(Client), 10_000_000);
    let (ready, source) = (SinkState::Ready, SourceState::Ready);
    script.pumped(Client, [2_000_000, 2_000_000], source, ready);
    rest_until(&mut script, Op::Pump(Client));
    for _ in 0..4 {
        // Its quantum, with a sink that takes a part of it.
        script.pumped(Client, [100_000, 40_000], source, SinkState::Full);
        script.asks(&[Op::PollSink(Backend, false)]);
        script.on_event(Event::SinkReady(Backend, true));
        script.asks(&[Op::Pump(Client)]);
        // Nothing may be taken yet: only the pipe is emptied.
        script.pumped(Client, [0, 60_000], source, ready);
        rest_until(&mut script, Op::Pump(Client));
        script.pumped(Client, [100_000, 100_000], source, ready);
        rest_until(&mut script, Op::Pump(Client));
        script.pumped(Client, [0, 0], SourceState::Empty, ready);
        script.asks(&[Op::PollSource(Client, false)]);
        script.on_event(Event::SourceReady(Client, Arrival::Bytes));
        script.asks(&[Op::Pump(Client)]);
    }
}

#[test]
fn a_session_that_rests_is_not_idle() {
    let limits = SessionLimits {
        idle: 20 * MS,
        ..LIMITS
    };
    for per_second in [0, 20_000] {
        let mut script = limited(Script::connected_with(limits), per_second);
        let buffer = receives_all(&mut script, 10_000);
        script.sent(Backend, 10_000);
        script.ops.retain(|op| matches!(op, Op::Visit(..)));
        assert_eq!(script.ops.is_empty(), per_second == 0, "{buffer:?}");
        script.ops.clear();
        for _ in 0..8 {
            script.passes(5 * MS);
        }
        let reason = (per_second == 0).then_some(CloseReason::IdleTimeout);
        assert_eq!(script.session.reason(), reason);
    }
}

#[test]
fn a_closed_session_waits_for_the_visit() {
    let mut script = limited(Script::connected(), 20_000);
    receives_all(&mut script, 10_000);
    script.sent(Backend, 10_000);
    script.ops.clear();
    script.cx(|session, cx| session.close(CloseReason::Killed, cx));
    script.asks(&[Op::Cancel(Purpose::Recv(Backend))]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CANCELED)));
    script.asks(&[]);
    script.on_event(Event::Pace(Client));
    script.ends(CloseReason::Killed, Manner::Reset);
}

/// A session whose direction from this side rests, and its visit.
fn resting(from: Side, per_second: u64) -> Script {
    let mut script = Script::connected();
    let rate = NonZeroU64::new(per_second).map(ByteRate::new);
    let mut rates = [None; 2];
    rates[from as usize] = rate;
    script.rates.set(rates);
    takes_all(&mut script, from);
    script
}

/// The last step of a receive takes all that it may, which is delivered: the direction rests.
fn takes_all(script: &mut Script, from: Side) {
    // Full buffers would make it a stream.
    let bytes = BUFFER_BYTES - 1;
    let buffer = script.buffer(bytes);
    script.on_event(Event::Received(from, buffer, false));
    script.sent(from.other(), bytes);
    let visits = |op: &Op| matches!(op, Op::Visit(Purpose::Pace(side), _) if *side == from);
    assert!(script.ops.iter().any(visits));
    script.ops.clear();
}

fn broken(script: &mut Script, side: Side) {
    script.told_more(Event::Watched(side, PeerState::Broken));
}

#[test]
fn a_client_that_resets_during_a_rest_ends_its_session_at_once() {
    let mut script = resting(Client, 1_000);
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);
    broken(&mut script, Client);
    let [recv, watch] = [Purpose::Recv(Backend), Purpose::Watch(Client)];
    script.asks(&[Op::Cancel(recv), Op::Cancel(watch)]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CANCELED)));
    script.on_event(Event::Watched(Client, PeerState::Unclear));
    script.on_event(Event::Pace(Client));
    script.ends(CloseReason::ClientReset, Manner::Reset);
}

#[test]
fn a_reset_between_two_rests_ends_the_session_at_the_next_one() {
    let mut script = resting(Client, 100_000);
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);
    script.now += SECOND;
    script.on_event(Event::Pace(Client));
    script.asks(&[Op::Recv(Client)]);
    // A receive shows it, behind the bytes that came before.
    broken(&mut script, Client);
    script.asks(&[]);
    takes_all(&mut script, Client);
    script.passes(WATCH_AFTER);
    assert_eq!(script.session.reason(), Some(CloseReason::ClientReset));
}

#[test]
fn what_a_backend_sent_before_its_reset_goes_on_unless_its_limit_stalls_it() {
    for stalls in [true, false] {
        let mut script = resting(Backend, if stalls { 1_000 } else { 100_000 });
        script.passes(WATCH_AFTER);
        script.asks(&[Op::Watch(Backend)]);
        broken(&mut script, Backend);
        script.asks(&[]);
        if stalls {
            (0..3).for_each(|_| script.passes(LINGER / 4));
            assert_eq!(script.session.reason(), None);
            script.passes(LINGER / 4);
        } else {
            script.now += SECOND;
            script.on_event(Event::Pace(Backend));
            script.asks(&[Op::Recv(Backend)]);
            takes_all(&mut script, Backend);
            script.now += SECOND;
            script.on_event(Event::Pace(Backend));
            script.asks(&[Op::Recv(Backend)]);
            script.on_event(Event::RecvEnded(Backend, Err(Errno::CONNRESET)));
        }
        assert_eq!(script.session.reason(), Some(CloseReason::BackendReset));
    }
}

/// A side is watched for as long as its session lasts, and only one that has rested.
#[test]
fn a_direction_that_rests_is_watched_once() {
    let mut script = resting(Client, 100_000);
    let mut watches = 0;
    for _ in 0..20 {
        script.passes(WATCH_AFTER);
        watches += script
            .ops
            .drain(..)
            .filter(|op| *op == Op::Watch(Client))
            .count();
        script.now += SECOND;
        script.on_event(Event::Pace(Client));
        script.asks(&[Op::Recv(Client)]);
        takes_all(&mut script, Client);
    }
    assert_eq!(watches, 1);
}
