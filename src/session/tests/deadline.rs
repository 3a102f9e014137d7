//! A session moves while its peers acknowledge; a session whose peer stopped is closed.

use super::*;
use crate::time::MS;

/// Bytes for the client, who reads them slowly.
const UNSENT: u32 = 4 << 20;

#[test]
fn a_session_lives_while_its_peer_acknowledges() {
    for end in [None, Some(Client), Some(Backend)] {
        let mut script = Script::connected();
        if let Some(side) = end {
            script.on_event(Event::RecvEnded(side, Ok(())));
        }
        script.unsent[1].bytes = UNSENT;
        for _ in 0..100 {
            script.unsent[1].bytes -= 1;
            script.passes(LIMITS.idle / 4);
            assert_eq!(script.session.reason(), None);
        }
    }
}

#[test]
fn a_peer_that_takes_nothing_is_cut_by_reset() {
    let mut script = Script::connected();
    script.unsent[1].bytes = UNSENT;
    // The first check counts bytes that were sent as movement.
    script.passes(LIMITS.idle / 4);
    let mut waited = 0;
    while script.session.reason().is_none() {
        let step = script.deadline_in();
        script.passes(step);
        waited += step;
    }
    assert_eq!(waited, LIMITS.idle + 30_000 * MS);
    assert_eq!(script.session.reason(), Some(CloseReason::IdleTimeout));
    assert_eq!(script.session.manner(), Manner::Reset);
}

/// 110 kB are acknowledged at once: at 4 kB/s that is every 27.5 s.
#[test]
fn a_short_deadline_waits_as_long_for_a_slow_reader() {
    for end in [None, Some(Client), Some(Backend)] {
        let mut script = Script::connected_with(SessionLimits {
            idle: 100 * MS,
            half_closed: 100 * MS,
            ..LIMITS
        });
        if let Some(side) = end {
            script.on_event(Event::RecvEnded(side, Ok(())));
        }
        script.unsent[1].bytes = UNSENT;
        for _ in 0..10 {
            for _ in 0..1_100 {
                script.passes(25 * MS);
                assert_eq!(script.session.reason(), None);
            }
            script.unsent[1].bytes -= 110_000;
        }
        script.passes(25 * MS);
        script.passes(30_099 * MS);
        assert_eq!(script.session.reason(), None);
        script.passes(MS);
        let reason = match end {
            None => CloseReason::IdleTimeout,
            Some(_) => CloseReason::HalfClosedTimeout,
        };
        assert_eq!(script.session.reason(), Some(reason));
    }
}

#[test]
fn acknowledgements_after_the_last_byte_count_too() {
    let mut script = Script::connected();
    script.unsent[1].bytes = UNSENT;
    script.passes(LIMITS.idle / 4);
    script.unsent[1].bytes = 0;
    script.passes(LIMITS.idle / 2);
    script.passes(LIMITS.idle - 1);
    assert_eq!(script.session.reason(), None);
    script.passes(1);
    assert_eq!(script.session.manner(), Manner::Graceful);
}

#[test]
fn what_a_broken_source_left_is_delivered_while_its_sink_acknowledges() {
    let mut script = Script::connected();
    script.receives(Backend, 10);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CONNRESET)));
    script.unsent[1].bytes = UNSENT;
    for _ in 0..100 {
        script.unsent[1].bytes -= 1;
        script.passes(LINGER / 2);
        assert_eq!(script.session.reason(), None);
    }
    script.passes(4 * LINGER);
    assert_eq!(script.session.reason(), Some(CloseReason::BackendReset));
}

/// A Unix client that has closed; its backend reads no more.
#[test]
fn a_peer_that_is_gone_leaves_its_bytes_as_much_time_as_a_half_closed_one() {
    let mut script = Script::connected();
    let last = script.receives_last(Client, 10);
    script.asks(&[Op::Send(Backend, last, true)]);
    script.on_event(Event::Sent(Backend, Err(AGAIN)));
    script.asks(&[Op::PollSink(Backend, false)]);
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);
    script.told_more(Event::Watched(Client, PeerState::HungUp));
    script.asks(&[]);
    script.passes(LIMITS.half_closed - WATCH_AFTER - 1);
    assert_eq!(script.session.reason(), None);
    script.passes(1);
    let reason = Some(CloseReason::HalfClosedTimeout);
    assert_eq!(script.session.reason(), reason);
}
