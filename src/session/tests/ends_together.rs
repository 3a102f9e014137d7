//! `half_close: "end"`: the end of one direction ends the session, and no byte that arrived is
//! lost.

use super::*;
use crate::time::MS;

const ENDS: SessionLimits = SessionLimits {
    ends_together: true,
    ..LIMITS
};

fn each_side(test: fn(Side, Side)) {
    test(Client, Backend);
    test(Backend, Client);
}

/// The bytes sent to this side.
fn unsent(to: Side, bytes: u32) -> [Unsent; 2] {
    let mut unsent = [Unsent::default(); 2];
    unsent[to as usize].bytes = bytes;
    unsent
}

#[test]
fn both_directions_end_when_the_end_of_one_is_acknowledged() {
    each_side(|from, to| {
        let mut script = Script::connected_with(ENDS);
        let last = script.receives_last(from, 10);
        script.asks(&[Op::Send(to, last, true)]);
        script.sent(to, 10);
        script.asks(&[Op::Release(last.id), Op::Shutdown(to)]);
        // A slow reader: any time is allowed while it reads some now and then.
        for left in (1..100).rev() {
            script.unsent = unsent(to, left);
            script.passes(LIMITS.half_closed / 2);
            script.ops.retain(|op| !matches!(op, Op::Watch(_)));
            script.asks(&[]);
        }
        script.unsent = unsent(to, 0);
        script.passes(LIMITS.half_closed / 2);
        script
            .ops
            .retain(|op| !matches!(op, Op::Cancel(Purpose::Watch(_))));
        script.asks(&[Op::Cancel(Purpose::Recv(to))]);
        script.on_event(Event::RecvEnded(to, Err(Errno::CANCELED)));
        assert_eq!(script.session.reason(), Some(CloseReason::closed_by(from)));
        assert_eq!(script.session.manner(), Manner::Graceful);
    });
}

#[test]
fn what_has_arrived_of_the_other_direction_is_delivered() {
    each_side(|from, to| {
        let mut script = Script::connected_with(ENDS);
        script.on_event(Event::RecvEnded(from, Ok(())));
        let first = script.receives(to, 30);
        script.asks(&[Op::Shutdown(to), Op::Send(from, first, false)]);
        script.passes(END_LOOK);
        script.asks(&[Op::Cancel(Purpose::Recv(to))]);
        // Under way when its receive was cancelled.
        let late = script.receives(to, 5);
        script.sent(from, 30);
        script.asks(&[Op::Release(first.id), Op::Send(from, late, true)]);
        script.sent(from, 5);
        script.asks(&[Op::Release(late.id)]);
        script.on_event(Event::RecvEnded(to, Err(Errno::CANCELED)));
        script.ends(CloseReason::closed_by(from), Manner::Graceful);
    });
}

#[test]
fn a_spliced_direction_ends_with_the_other() {
    each_side(|from, to| {
        let mut script = Script::promoted_with(ENDS, to);
        script.pumped(to, [CHUNK, CHUNK - 9], SourceState::Ready, SinkState::Full);
        script.on_event(Event::RecvEnded(from, Ok(())));
        script.ops.clear();
        script.passes(END_LOOK);
        script.asks(&[Op::Unpipe(to)]);
        let left = script.buffer(9);
        script.on_event(Event::Unpiped(to, Some(left)));
        script.asks(&[Op::Recv(to)]);
        script.on_event(Event::SinkReady(from, true));
        script.asks(&[Op::Send(from, left, false)]);
        script.passes(2 * END_LOOK);
        script.asks(&[Op::Cancel(Purpose::Recv(to))]);
        script.sent(from, 9);
        script.asks(&[Op::Release(left.id)]);
        script.on_event(Event::RecvEnded(to, Err(Errno::CANCELED)));
        script.ends(CloseReason::closed_by(from), Manner::Graceful);
    });
}

#[test]
fn an_idle_spliced_direction_ends_with_the_other() {
    each_side(|from, to| {
        let mut script = Script::promoted_with(ENDS, to);
        script.pumped(to, [0, 0], SourceState::Empty, SinkState::Ready);
        script.on_event(Event::RecvEnded(from, Ok(())));
        script.ops.clear();
        script.passes(END_LOOK);
        assert_eq!(script.session.reason(), Some(CloseReason::closed_by(from)));
        assert_eq!(script.ops[0], Op::Cancel(Purpose::PollSource(to)));
    });
}

/// Looks become rarer, and the deadline is kept all the same.
#[test]
fn an_end_that_is_never_acknowledged_is_cut_in_time() {
    each_side(|from, to| {
        for half_closed in [LIMITS.half_closed, NEVER] {
            let mut script = Script::connected_with(SessionLimits {
                half_closed,
                ..ENDS
            });
            script.on_event(Event::RecvEnded(from, Ok(())));
            script.unsent = unsent(to, 10);
            let began = script.now;
            while script.session.reason().is_none() && script.now < began + 1_000_000 * MS {
                let step = script.deadline_in();
                assert!(step > 0 && step < NEVER / 2, "no look is due");
                script.passes(step);
            }
            let waited = script.now - began;
            if half_closed == NEVER {
                assert_eq!(script.session.reason(), None);
            } else {
                let reason = Some(CloseReason::HalfClosedTimeout);
                assert_eq!(script.session.reason(), reason);
                // The first look counts what was sent as movement.
                assert_eq!(waited, END_LOOK + half_closed + 30_000 * MS);
            }
        }
    });
}

/// A Unix client that has closed: what it sent is still delivered.
#[test]
fn a_peer_that_is_gone_ends_both_directions() {
    each_side(|gone, to| {
        let mut script = Script::connected();
        let last = script.receives_last(gone, 10);
        script.asks(&[Op::Send(to, last, true)]);
        script.sent(to, 10);
        script.asks(&[Op::Release(last.id), Op::Shutdown(to)]);
        script.passes(WATCH_AFTER);
        script.asks(&[Op::Watch(gone)]);
        script.told_more(Event::Watched(gone, PeerState::HungUp));
        script.asks(&[Op::Unsent]);
        script.on_event(Event::Unsent(unsent(to, 10)));
        script.asks(&[]);
        script.unsent = unsent(to, 10);
        script.passes(END_LOOK);
        script.asks(&[]);
        script.unsent = unsent(to, 0);
        script.passes(LIMITS.half_closed / 2);
        script.asks(&[Op::Cancel(Purpose::Recv(to))]);
        script.on_event(Event::RecvEnded(to, Err(Errno::CANCELED)));
        script.asks(&[Op::Cancel(Purpose::Watch(gone))]);
        script.on_event(Event::Watched(gone, PeerState::Unclear));
        script.ends(CloseReason::closed_by(gone), Manner::Graceful);
    });
}

/// Bytes that were given to a Unix socket are with its peer, whether that reads them or not.
#[test]
fn a_peer_that_is_gone_does_not_wait_for_a_reader_that_has_all_its_bytes() {
    each_side(|gone, to| {
        let mut script = Script::connected();
        let last = script.receives_last(gone, 10);
        script.sent(to, 10);
        script.ops.clear();
        script.passes(WATCH_AFTER);
        script.asks(&[Op::Watch(gone)]);
        script.told_more(Event::Watched(gone, PeerState::HungUp));
        script.asks(&[Op::Unsent]);
        let mut unread = unsent(to, 10);
        unread[to as usize].at_peer = true;
        script.on_event(Event::Unsent(unread));
        script.asks(&[Op::Cancel(Purpose::Recv(to))]);
        script.on_event(Event::RecvEnded(to, Err(Errno::CANCELED)));
        let reason = Some(CloseReason::closed_by(gone));
        assert_eq!(script.session.reason(), reason, "{last:?}");
    });
}

/// Its end was relayed already, so that a hang-up tells nothing of the peer.
#[test]
fn a_peer_whose_stream_ends_last_is_not_gone() {
    each_side(|one, other| {
        let mut script = Script::connected();
        script.on_event(Event::RecvEnded(other, Ok(())));
        script.asks(&[Op::Shutdown(one)]);
        let filled = (0..BUFFERS_HIGH).map(|_| script.receives(one, 1));
        let filled: Vec<_> = filled.collect();
        script.ops.clear();
        script.on_event(Event::RecvEnded(one, Err(Errno::CANCELED)));
        script.passes(WATCH_AFTER);
        script.ops.clear();
        script.told_more(Event::Watched(one, PeerState::HungUp));
        script.passes(LIMITS.half_closed / 4);
        script.asks(&[]);
        assert_eq!(script.session.reason(), None, "{filled:?}");
    });
}
