//! A client that waits in the queue of a full pool.

use super::*;
use crate::time::MS;

const WAIT: u64 = 700 * MS;

/// The client waits.
fn queued() -> Script {
    let mut script = Script::begin();
    let until = script.now + WAIT;
    script.on_event(Event::Queued(until));
    script.asks(&[]);
    assert!(script.session.is_queued());
    assert_eq!(script.deadline_in(), WAIT);
    script
}

#[test]
fn a_called_client_begins_an_attempt_as_if_it_had_not_waited() {
    let mut script = queued();
    script.passes(400 * MS);
    script.on_event(Event::Called);
    script.asks(&[Op::Connect]);
    assert_eq!(script.deadline_in(), LIMITS.connect);
    script.passes(30 * MS);
    script.on_event(Event::Connected(Opening::Bare));
    let summary = script.summary();
    assert_eq!((summary.attempts, summary.queued), (1, Some(400 * MS)));
    assert_eq!(summary.connect, Some(430 * MS));
}

#[test]
fn a_called_client_without_a_place_waits_on() {
    let mut script = queued();
    for _ in 0..3 {
        script.passes(100 * MS);
        script.on_event(Event::Called);
        script.asks(&[Op::Connect]);
        script.on_event(Event::Requeued);
        script.asks(&[]);
    }
    assert_eq!(script.deadline_in(), WAIT - 300 * MS);
    assert_eq!(script.session.queued(), 300 * MS);
    assert_eq!(script.summary().attempts, 0);
}

#[test]
fn a_wait_stops_the_clock_of_connecting_and_does_not_set_it_back() {
    let mut script = Script::begin();
    script.on_event(Event::Lacking(Fault::Resources));
    script.passes(RETRY_AFTER);
    script.on_event(Event::Retry);
    script.on_event(Event::Queued(script.now + WAIT));
    script.passes(WAIT / 2);
    script.on_event(Event::Called);
    assert_eq!(script.deadline_in(), LIMITS.connect - RETRY_AFTER);
}

#[test]
fn a_client_that_is_not_called_in_time_is_reset() {
    let mut script = queued();
    let request = script.receives(Client, 100);
    script.passes(WAIT - 1);
    script.asks(&[]);
    script.passes(1);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    assert_eq!(script.ops.pop_front(), Some(Op::Release(request.id)));
    script.ends(CloseReason::QueueTimeout, Manner::Reset);
    let summary = script.summary();
    assert_eq!((summary.attempts, summary.queued), (0, Some(WAIT)));
}

#[test]
fn a_client_that_is_refused_at_its_turn_is_reset() {
    let mut script = queued();
    script.on_event(Event::Refused);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::QueueTimeout, Manner::Reset);
}

#[test]
fn without_room_to_wait_it_is_reset_at_once() {
    let mut script = Script::begin();
    script.on_event(Event::Full);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::PoolFull, Manner::Reset);
    assert_eq!(script.summary().queued, None);
    assert_eq!(script.summary().attempts, 0);
}

#[test]
fn a_client_that_resets_in_the_queue_ends_it() {
    let mut script = queued();
    script.on_event(Event::RecvEnded(Client, Err(Errno::CONNRESET)));
    script.ends(CloseReason::ClientReset, Manner::Reset);
    assert!(!script.session.is_queued());
}

#[test]
fn what_a_client_sends_in_the_queue_is_for_its_backend() {
    let mut script = queued();
    let request = script.receives_last(Client, 100);
    script.asks(&[]);
    script.on_event(Event::Called);
    script.asks(&[Op::Connect]);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Send(Backend, request, true), Op::Recv(Backend)]);
}

/// The client has sent more than is received before there is a backend: a watch reports its reset.
#[test]
fn a_client_that_is_not_received_from_is_watched_in_the_queue() {
    let filled = || {
        let mut script = queued();
        (0..BUFFERS_HIGH).for_each(|_| {
            script.receives(Client, 1);
        });
        script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
        script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
        assert_eq!(script.deadline_in(), WATCH_AFTER);
        script.passes(WATCH_AFTER);
        script.asks(&[Op::Watch(Client)]);
        assert_eq!(script.deadline_in(), WAIT - WATCH_AFTER);
        script
    };
    let mut script = filled();
    script.on_event(Event::Watched(Client, PeerState::Broken));
    let released = (1..=BUFFERS_HIGH).map(|_| script.ops.pop_front());
    assert!(released.eq((1..=BUFFERS_HIGH).map(|id| Some(Op::Release(id)))));
    script.ends(CloseReason::ClientReset, Manner::Reset);
    // The watch goes on while the backend is being connected.
    let mut script = filled();
    script.on_event(Event::Called);
    script.asks(&[Op::Connect]);
    script.on_event(Event::Watched(Client, PeerState::Broken));
    script.asks(&[Op::Cancel(Purpose::Connect)]);
    assert_eq!(script.session.reason(), Some(CloseReason::ClientReset));
}

/// A Unix socket shows that its peer has closed it.
#[test]
fn a_client_that_is_gone_leaves_the_queue() {
    let gone = |mut script: Script| {
        script.on_event(Event::RecvEnded(Client, Ok(())));
        assert_eq!(script.deadline_in(), WATCH_AFTER);
        script.passes(WATCH_AFTER);
        script.asks(&[Op::Watch(Client)]);
        script.on_event(Event::Watched(Client, PeerState::HungUp));
        script
    };
    let mut script = gone(queued());
    script.ends(CloseReason::ClientReset, Manner::Reset);
    // Whatever it has sent: it reads no answer.
    let mut script = queued();
    let request = script.receives(Client, 100);
    let mut script = gone(script);
    assert_eq!(script.ops.pop_front(), Some(Op::Release(request.id)));
    script.ends(CloseReason::ClientReset, Manner::Reset);
}

#[test]
fn a_second_wait_counts_with_the_first() {
    let mut script = queued();
    script.passes(100 * MS);
    script.on_event(Event::Called);
    script.on_event(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[Op::Connect, Op::Abandon(Fault::Backend), Op::Connect]);
    script.on_event(Event::Queued(script.now + WAIT));
    script.passes(50 * MS);
    script.on_event(Event::Called);
    script.asks(&[Op::Connect]);
    assert_eq!(script.session.queued(), 150 * MS);
    assert_eq!(script.summary().attempts, 2);
}
