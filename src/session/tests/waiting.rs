//! Waits that end in vain.

use super::*;
use crate::time::MS;

/// A session with one buffer from this side, for which its sink has no room.
fn stuck(from: Side) -> (Script, Buffer) {
    let to = from.other();
    let mut script = Script::connected();
    let buffer = script.receives(from, 10);
    script.asks(&[Op::Send(to, buffer, false)]);
    script.on_event(Event::Sent(to, Err(AGAIN)));
    script.asks(&[Op::PollSink(to, false)]);
    (script, buffer)
}

#[test]
fn a_poll_that_ends_without_room_is_followed_by_one_that_goes_on() {
    for to in Side::BOTH {
        let (mut script, buffer) = stuck(to.other());
        script.on_event(Event::SinkReady(to, false));
        script.asks(&[Op::PollSink(to, true)]);
        script.told_more(Event::SinkReady(to, false));
        script.asks(&[]);
        assert_eq!(script.in_vain, 2);
        script.told_more(Event::SinkReady(to, true));
        script.asks(&[Op::Cancel(Purpose::PollSink(to))]);
        script.on_event(Event::SinkReady(to, true));
        script.asks(&[Op::Send(to, buffer, false)]);
        // The next wait begins with the pause of the last one.
        script.sent(to, 4);
        script.asks(&[Op::PollSink(to, true)]);
        assert_eq!(script.in_vain, 2);
    }
}

#[test]
fn a_spliced_stream_waits_like_a_copied_one() {
    let mut script = Script::promoted(Client);
    script.pumped(Client, [CHUNK, 0], SourceState::Ready, SinkState::Full);
    script.asks(&[Op::PollSink(Backend, false)]);
    script.on_event(Event::SinkReady(Backend, false));
    script.asks(&[Op::PollSink(Backend, true)]);
    script.told_more(Event::SinkReady(Backend, true));
    script.asks(&[Op::Cancel(Purpose::PollSink(Backend))]);
    script.on_event(Event::SinkReady(Backend, true));
    script.asks(&[Op::Pump(Client)]);
    script.pumped(Client, [0, CHUNK], SourceState::Empty, SinkState::Ready);
    script.asks(&[Op::PollSource(Client, false)]);
}

fn pause_of(op: Op) -> Option<u64> {
    let Op::Visit(Purpose::Starvation(Client), after) = op else {
        return None;
    };
    Some(after)
}

/// The pauses of a stream that polls as ready and is not, while `again` makes the session wait.
fn pauses(script: &mut Script, ready: Event, mut again: impl FnMut(&mut Script)) -> Vec<u64> {
    let mut pauses = Vec::new();
    for _ in 0..60 {
        script.on_event(ready);
        again(script);
        pauses.extend(script.ops.drain(..).find_map(pause_of));
        script.on_event(Event::Starvation(Client));
        again(script);
        let polls = script.ops.drain(..);
        let polls = polls.filter(|op| matches!(op, Op::PollSink(..) | Op::PollSource(..)));
        assert_eq!(polls.count(), 1, "a pause is followed by a poll");
    }
    pauses
}

#[test]
fn waits_in_vain_grow_until_something_moves() {
    let unsent = |script: &mut Script| script.on_event(Event::Sent(Backend, Err(AGAIN)));
    let full =
        |script: &mut Script| script.pumped(Client, [0, 0], SourceState::Ready, SinkState::Full);
    let room = Event::SinkReady(Backend, true);

    let (mut copied, _) = stuck(Client);
    let mut spliced = Script::promoted(Client);
    spliced.pumped(Client, [CHUNK, 0], SourceState::Ready, SinkState::Full);
    spliced.ops.clear();

    for pauses in [
        pauses(&mut copied, room, unsent),
        pauses(&mut spliced, room, full),
    ] {
        assert_eq!(pauses.len(), 60);
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!(pauses[0] < MS && pauses[59] == 50 * MS, "{pauses:?}");
    }

    // Progress makes the next wait a poll again.
    spliced.on_event(room);
    spliced.pumped(Client, [0, 5], SourceState::Ready, SinkState::Full);
    spliced.asks(&[Op::Pump(Client), Op::PollSink(Backend, false)]);
}

#[test]
fn a_reset_is_noticed_during_a_pause() {
    let (mut script, _) = stuck(Client);
    (1..BUFFERS_HIGH).for_each(|_| {
        script.receives(Client, 10);
    });
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.on_event(Event::SinkReady(Backend, true));
    script.on_event(Event::Sent(Backend, Err(AGAIN)));
    assert!(script.ops.iter().any(|op| matches!(op, Op::Visit(..))));
    script.ops.clear();
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);
    script.on_event(Event::Watched(Client, PeerState::Broken));
    assert_eq!(script.deadline_in(), LINGER / 4);
}

#[test]
fn a_receive_that_passes_by_again_and_again_is_asked_ever_later() {
    let mut script = Script::connected();
    let mut pauses = Vec::new();
    for _ in 0..60 {
        script.on_event(Event::RecvEnded(Client, Err(AGAIN)));
        script.asks(&[Op::Recv(Client)]);
        script.on_event(Event::RecvEnded(Client, Err(AGAIN)));
        pauses.extend(script.ops.drain(..).find_map(pause_of));
        script.on_event(Event::Starvation(Client));
        script.asks(&[Op::Recv(Client)]);
    }
    assert!(pauses.len() == 60 && pauses.is_sorted() && pauses[59] == 50 * MS);
}

#[test]
fn a_stream_that_polls_as_readable_and_is_not_is_copied_again() {
    let mut script = Script::promoted(Client);
    let empty =
        |script: &mut Script| script.pumped(Client, [0, 0], SourceState::Empty, SinkState::Ready);
    empty(&mut script);
    script.asks(&[Op::PollSource(Client, false)]);
    script.on_event(Event::SourceReady(Client, Arrival::Bytes));
    script.asks(&[Op::Pump(Client)]);
    empty(&mut script);
    assert!(matches!(
        script.ops[1],
        Op::Visit(Purpose::Starvation(Client), _)
    ));
    script.ops.clear();
    script.on_event(Event::Starvation(Client));
    script.asks(&[Op::Pump(Client)]);
    empty(&mut script);
    script.asks(&[Op::Recv(Client)]);
}

#[test]
fn a_watch_that_the_kernel_ends_begins_again_after_a_pause() {
    let mut script = Script::connected();
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.asks(&[Op::Shutdown(Backend)]);
    for _ in 0..3 {
        script.passes(WATCH_AFTER);
        script.asks(&[Op::Watch(Client)]);
        script.told_more(Event::Watched(Client, PeerState::Unclear));
        script.on_event(Event::Watched(Client, PeerState::Unclear));
        script.asks(&[]);
    }
    assert_eq!(script.in_vain, 3);
}

/// The client's receive found no buffer.
fn starved() -> Script {
    let mut script = Script::connected();
    script.links.set_short(true);
    script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    script.asks(&[Op::PassOn(Client)]);
    script
}

fn passed_on(script: &mut Script, bytes: u32, source: SourceState, sink: SinkState) {
    let moved = Pumped {
        pulled: bytes,
        pushed: bytes,
        source,
        sink,
    };
    script.on_event(Event::PassedOn(Client, moved));
}

#[test]
fn without_a_buffer_a_direction_passes_on_what_its_sink_takes() {
    let mut script = starved();
    passed_on(&mut script, 100, SourceState::Ready, SinkState::Ready);
    script.asks(&[Op::Recv(Client)]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    script.asks(&[Op::PassOn(Client)]);
    passed_on(&mut script, 0, SourceState::Stopped, SinkState::Ready);
    script.asks(&[Op::Shutdown(Backend)]);
    assert_eq!(script.session.delivered(), [100, 0]);
    assert_eq!(script.in_vain, 0);
}

#[test]
fn an_idle_end_after_bytes_were_passed_on_is_in_order() {
    let mut script = starved();
    passed_on(&mut script, 100, SourceState::Ready, SinkState::Ready);
    script.asks(&[Op::Recv(Client)]);
    script.passes(LIMITS.idle);
    assert_eq!(script.session.manner(), Manner::Graceful);
}

#[test]
fn a_sink_that_is_full_is_passed_nothing_until_it_has_room() {
    let mut script = starved();
    passed_on(&mut script, 40, SourceState::Ready, SinkState::Full);
    script.asks(&[Op::PollSink(Backend, false)]);
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);
    script.on_event(Event::SinkReady(Backend, true));
    script.asks(&[Op::PassOn(Client)]);
    // Bytes may wait: such an idle session does not end as if they did not.
    passed_on(&mut script, 0, SourceState::Ready, SinkState::Full);
    script.passes(LIMITS.idle);
    assert_eq!(script.session.manner(), Manner::Reset);
}

#[test]
fn a_source_without_bytes_waits_for_them_and_for_no_buffer() {
    let mut script = starved();
    passed_on(&mut script, 0, SourceState::Empty, SinkState::Ready);
    script.asks(&[Op::PollSource(Client, false)]);
    script.on_event(Event::SourceReady(Client, Arrival::Bytes));
    script.asks(&[Op::Recv(Client)]);
}

#[test]
fn what_breaks_while_bytes_are_passed_on_is_named() {
    let reset = Errno::CONNRESET;
    let mut script = starved();
    passed_on(&mut script, 0, SourceState::Broken(reset), SinkState::Ready);
    assert_eq!(script.session.reason(), Some(CloseReason::ClientReset));
    let mut script = starved();
    passed_on(&mut script, 0, SourceState::Ready, SinkState::Broken(reset));
    assert_eq!(script.deadline_in(), LINGER / 4);
}

/// The wait is one for a buffer, which bytes that have theirs do not need.
#[test]
fn bytes_that_came_before_the_backend_are_sent_as_soon_as_it_is_connected() {
    let mut script = Script::begin();
    let buffer = script.receives(Client, 10);
    script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    script.asks(&[Op::PollSource(Client, true)]);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[
        Op::Cancel(Purpose::PollSource(Client)),
        Op::Send(Backend, buffer, false),
        Op::Recv(Backend),
    ]);
}
