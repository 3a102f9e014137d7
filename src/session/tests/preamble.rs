//! What a client asks for before its first bytes, and what its backend answers.

use super::script::{LIMITS, Script};
use super::*;
use crate::time::MS;

fn peeking(ends_half_sent: bool) -> Script {
    Script::begin_with(SessionLimits {
        peek: Some(3_000 * MS),
        ends_half_sent,
        ..LIMITS
    })
}

/// A request in pieces, which is answered.
fn answered(ends_half_sent: bool, preamble: Preamble) -> Script {
    let mut script = peeking(ends_half_sent);
    let first = script.receives(Client, 3);
    script.on_event(Event::Peeked(Look::HalfSent));
    let rest = script.receives(Client, 5);
    let whole = Buffer { len: 8, ..first };
    script.asks(&[
        Op::Peek(Some(first), false),
        Op::Append(first, rest),
        Op::Release(rest.id),
        Op::Peek(Some(whole), false),
    ]);
    script.on_event(Event::Peeked(Look::Answered(preamble)));
    script.asks(&[Op::Release(first.id)]);
    assert_eq!(script.session.preamble(), preamble);
    script
}

#[test]
fn a_request_that_was_answered_is_not_sent_on() {
    let mut script = answered(true, Preamble::Gss);
    let request = script.receives(Client, 8);
    script.asks(&[Op::Peek(Some(request), false)]);
    script.on_event(Event::Peeked(Look::Answered(Preamble::Tls)));
    script.asks(&[Op::Release(request.id)]);
    let hello = script.receives(Client, 500);
    script.asks(&[Op::Peek(Some(hello), false)]);
    script.on_event(Event::Peeked(Look::Enough));
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[
        Op::Connect,
        Op::Send(Backend, hello, false),
        Op::Recv(Backend),
    ]);
    script.sent(Backend, 500);
    assert_eq!(script.summary().delivered, [500, 0]);
}

#[test]
fn a_client_that_goes_on_with_nothing_has_sent_a_part() {
    let mut script = answered(true, Preamble::Tls);
    script.passes(3_000 * MS);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::FirstBytesTimeout, Manner::Reset);
    for (ends, preamble) in [(false, Preamble::Tls), (true, Preamble::Gss)] {
        let mut script = answered(ends, preamble);
        script.passes(3_000 * MS);
        script.asks(&[Op::Peek(None, true)]);
        script.on_event(Event::Peeked(Look::Enough));
        script.asks(&[Op::Connect]);
    }
}

/// Without a buffer the request waits at the socket, and is taken from there.
#[test]
fn a_request_is_answered_where_it_waits() {
    let mut script = peeking(true);
    script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    script.asks(&[Op::PollSource(Client, true)]);
    for _ in 0..2 {
        script.told_more(Event::SourceReady(Client, Arrival::Bytes));
        script.asks(&[Op::PeekAhead(None, false)]);
        script.on_event(Event::Peeked(Look::Answered(Preamble::Tls)));
        script.asks(&[]);
    }
}

#[test]
fn a_refusal_of_the_backend_ends_it_and_the_client_may_hear_that() {
    for (told, manner) in [(true, Manner::Graceful), (false, Manner::Reset)] {
        let mut script = answered(true, Preamble::Tls);
        let hello = script.receives(Client, 500);
        script.on_event(Event::Peeked(Look::Enough));
        script.asks(&[Op::Peek(Some(hello), false), Op::Connect]);
        assert!(!script.session.is_attempt_over());
        script.on_event(Event::TlsRefused(told));
        script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
        assert!(script.session.is_attempt_over());
        script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
        script.asks(&[Op::Release(hello.id), Op::Finish]);
        assert_eq!(script.session.reason(), Some(CloseReason::TlsRefused));
        assert_eq!(script.session.manner(), manner);
        assert_eq!(script.summary().fault, None, "its backend is sound");
    }
}

/// The wait for the backend's answer is a part of the connect.
#[test]
fn an_attempt_whose_time_is_over_is_said_to_be() {
    let mut script = answered(true, Preamble::Tls);
    let hello = script.receives(Client, 500);
    script.on_event(Event::Peeked(Look::Enough));
    script.asks(&[Op::Peek(Some(hello), false), Op::Connect]);
    script.passes(LIMITS.connect);
    script.asks(&[Op::Cancel(Purpose::Connect)]);
    assert!(script.session.is_attempt_over());
    script.on_event(Event::ConnectFailed(Errno::CANCELED));
    script.asks(&[Op::Abandon(Fault::Unanswered), Op::Connect]);
    assert!(!script.session.is_attempt_over());
}

#[test]
fn the_first_bytes_of_a_backend_are_shown_before_they_are_sent() {
    let mut script = Script::connected_with(SessionLimits {
        overhears: true,
        ..LIMITS
    });
    let first = script.receives(Backend, 10_000);
    script.asks(&[Op::Overhear(first), Op::Send(Client, first, false)]);
    script.sent(Client, 10_000);
    let second = script.receives(Backend, 10_000);
    script.asks(&[
        Op::Release(first.id),
        Op::Overhear(second),
        Op::Send(Client, second, false),
    ]);
    script.sent(Client, 10_000);
    let third = script.receives(Backend, 10_000);
    script.asks(&[Op::Release(second.id), Op::Send(Client, third, false)]);
    let up = script.receives(Client, 10);
    script.asks(&[Op::Send(Backend, up, false)]);
}
