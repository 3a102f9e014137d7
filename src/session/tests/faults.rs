//! The fault of a failed connect: what it is counted against, the next attempt, and the reason of
//! the end.

use super::*;
use crate::time::MS;

const REFUSED: Errno = Errno::CONNREFUSED;
const NO_PORT: Errno = Errno(libc::EADDRNOTAVAIL);
/// Only one attempt is made, and it may take no longer than a pause.
const HASTY: SessionLimits = SessionLimits {
    connect: 50 * MS,
    ..LIMITS
};

/// The client's receive is cancelled, and ends.
fn joins(script: &mut Script, first: &[Op]) {
    let cancel = Op::Cancel(Purpose::Recv(Client));
    let asked: Vec<_> = first.iter().copied().chain([cancel]).collect();
    script.asks(&asked);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
}

/// The only backend refuses: `Paused` answers the connect that follows.
fn refuses_and_pauses(script: &mut Script) {
    script.on_event(Event::ConnectFailed(REFUSED));
    script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    script.on_event(Event::Paused);
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
}

#[test]
fn a_refused_connect_is_named_so_however_short_the_timeout() {
    let mut script = Script::begin_with(HASTY);
    for _ in 0..2 {
        refuses_and_pauses(&mut script);
        // The timeout equals the pause, and the worker comes late: no attempt is under way.
        script.now += RETRY_AFTER + 7 * MS;
        script.on_event(Event::Retry);
        script.asks(&[Op::Connect]);
        assert_eq!(script.deadline_in(), HASTY.connect);
        script.passes(0);
        script.asks(&[]);
    }
    script.on_event(Event::ConnectFailed(REFUSED));
    script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    script.on_event(Event::Spent);
    joins(&mut script, &[]);
    script.ends(CloseReason::ConnectFailed, Manner::Reset);
    assert_eq!(script.summary().attempts, 3);
}

#[test]
fn a_pause_before_the_only_backend_costs_no_attempt() {
    let mut script = Script::begin_with(SessionLimits {
        connect: 10 * MS,
        ..LIMITS
    });
    refuses_and_pauses(&mut script);
    script.passes(RETRY_AFTER - 1);
    script.asks(&[]);
    script.passes(1);
    script.on_event(Event::Retry);
    script.asks(&[Op::Connect]);
}

#[test]
fn an_error_that_outruns_the_cancel_of_an_overdue_connect_is_the_cause() {
    let mut script = Script::begin_with(SessionLimits {
        attempts: 1,
        ..LIMITS
    });
    script.passes(LIMITS.connect);
    script.asks(&[Op::Cancel(Purpose::Connect)]);
    script.on_event(Event::ConnectFailed(REFUSED));
    joins(&mut script, &[Op::Abandon(Fault::Backend)]);
    script.ends(CloseReason::ConnectFailed, Manner::Reset);
}

#[test]
fn a_lack_of_a_port_or_a_source_blames_no_backend_and_tries_another_at_once() {
    for (errno, fault) in [(NO_PORT, Fault::Ports), (Errno::NO_SOURCE, Fault::Source)] {
        let mut script = Script::begin();
        script.on_event(Event::ConnectFailed(errno));
        script.asks(&[Op::Abandon(fault), Op::Connect]);
        assert!(!fault.blames_backend());
        script.on_event(Event::Connected(Opening::Bare));
        assert_eq!(script.summary().attempts, 1);
    }
}

#[test]
fn a_lack_of_ports_that_lasts_is_named_and_is_no_attempt() {
    let mut script = Script::begin();
    script.on_event(Event::ConnectFailed(NO_PORT));
    script.asks(&[Op::Abandon(Fault::Ports), Op::Connect]);
    script.on_event(Event::Lacking(Fault::Ports));
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    // Waiting does not move the deadline.
    script.passes(RETRY_AFTER);
    script.on_event(Event::Retry);
    script.asks(&[Op::Connect]);
    script.on_event(Event::Lacking(Fault::Ports));
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    script.passes(LIMITS.connect - RETRY_AFTER);
    joins(&mut script, &[]);
    script.on_event(Event::Retry);
    script.ends(CloseReason::NoLocalPort, Manner::Reset);
    assert_eq!(script.summary().attempts, 0);
}

#[test]
fn a_source_address_that_stays_away_is_named() {
    let mut script = Script::begin();
    script.on_event(Event::ConnectFailed(Errno::NO_SOURCE));
    script.asks(&[Op::Abandon(Fault::Source), Op::Connect]);
    script.on_event(Event::Lacking(Fault::Source));
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    script.passes(LIMITS.connect);
    joins(&mut script, &[]);
    script.on_event(Event::Retry);
    script.ends(CloseReason::NoSourceAddress, Manner::Reset);
}

#[test]
fn a_connect_begun_late_for_want_of_a_port_has_its_own_time() {
    let mut script = Script::begin();
    script.on_event(Event::Lacking(Fault::Ports));
    script.now += LIMITS.connect - MS;
    script.ops.clear();
    script.on_event(Event::Retry);
    script.asks(&[Op::Connect]);
    script.passes(MS);
    script.asks(&[]);
    assert_eq!(script.deadline_in(), LIMITS.connect);
    script.passes(LIMITS.connect);
    script.asks(&[Op::Cancel(Purpose::Connect)]);
    // The backend had the whole time: now it is to blame.
    script.on_event(Event::ConnectFailed(Errno::CANCELED));
    script.asks(&[Op::Abandon(Fault::Unanswered), Op::Connect]);
}

#[test]
fn a_lack_gets_that_time_once() {
    let mut script = Script::begin();
    script.on_event(Event::Lacking(Fault::Ports));
    script.ops.clear();
    script.on_event(Event::Retry);
    script.passes(LIMITS.connect);
    script.asks(&[Op::Connect]);
    script.on_event(Event::ConnectFailed(NO_PORT));
    script.asks(&[Op::Abandon(Fault::Ports), Op::Connect]);
    script.passes(LIMITS.connect);
    let cancels = [Op::Cancel(Purpose::Connect)];
    joins(&mut script, &cancels);
    script.on_event(Event::ConnectFailed(Errno::CANCELED));
    script.ends(CloseReason::NoLocalPort, Manner::Reset);
}

#[test]
fn an_interrupted_connect_is_repeated_after_a_pause_and_is_no_attempt() {
    let mut script = Script::begin();
    script.on_event(Event::ConnectFailed(Errno(libc::EINTR)));
    script.asks(&[
        Op::Abandon(Fault::Busy),
        Op::Visit(Purpose::Retry, RETRY_AFTER),
    ]);
    script.on_event(Event::Retry);
    script.asks(&[Op::Connect]);
    script.on_event(Event::Connected(Opening::Bare));
    assert_eq!(script.summary().attempts, 1);
}

#[test]
fn a_forbidden_connect_counts_as_an_attempt_and_blames_no_backend() {
    let mut script = Script::begin();
    for _ in 0..3 {
        script.on_event(Event::ConnectFailed(Errno(libc::EACCES)));
        script.asks(&[Op::Abandon(Fault::Local), Op::Connect]);
    }
    script.on_event(Event::Spent);
    joins(&mut script, &[]);
    script.ends(CloseReason::ConnectFailed, Manner::Reset);
}

#[test]
fn a_lack_of_memory_breaks_no_stream() {
    for from in Side::BOTH {
        let to = from.other();
        let mut script = Script::connected();
        let bytes = script.receives(from, 100);
        script.ops.clear();
        // A socket polls as ready in spite of it.
        script.on_event(Event::Sent(to, Err(Errno(libc::ENOMEM))));
        script.asks(&[Op::PollSink(to, false)]);
        script.on_event(Event::SinkReady(to, true));
        script.asks(&[Op::Send(to, bytes, false)]);
        script.on_event(Event::Sent(to, Err(Errno(libc::ENOMEM))));
        assert!(matches!(script.ops.pop_back(), Some(Op::Visit(..))));
        script.ops.clear();
        script.on_event(Event::Starvation(from));
        script.asks(&[Op::Send(to, bytes, false)]);
        script.on_event(Event::RecvEnded(from, Err(Errno(libc::ENOMEM))));
        assert!(matches!(script.ops.pop_back(), Some(Op::Visit(..))));
        script.ops.clear();
        assert_eq!(script.session.reason(), None);
    }
}

#[test]
fn a_send_that_lacked_memory_does_not_make_an_idle_end_a_reset() {
    let mut script = Script::connected();
    let bytes = script.receives(Client, 100);
    script.on_event(Event::Sent(Backend, Err(Errno(libc::ENOMEM))));
    script.on_event(Event::SinkReady(Backend, true));
    script.sent(Backend, bytes.len);
    script.ops.clear();
    script.passes(LIMITS.idle);
    for side in Side::BOTH {
        script.on_event(Event::RecvEnded(side, Err(Errno::CANCELED)));
    }
    script.ops.retain(|op| matches!(op, Op::Finish));
    script.ends(CloseReason::IdleTimeout, Manner::Graceful);
}
