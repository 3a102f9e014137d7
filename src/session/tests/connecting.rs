//! A client's bytes while its backend is being connected, and when they are acknowledged.

use super::*;
use crate::time::MS;

#[test]
fn what_a_client_sends_while_connecting_waits_for_the_backend() {
    let mut script = Script::begin();
    script.now += 2;
    let request = script.receives(Client, 100);
    let more = script.receives(Client, 50);
    script.asks(&[]);
    // The attempt's deadline is still in force.
    assert_eq!(script.deadline_in(), LIMITS.connect - 2);
    script.on_event(Event::Connected(Opening::Bare));
    // Its first packet acknowledges.
    script.asks(&[Op::Send(Backend, request, false), Op::Recv(Backend)]);
    script.sent(Backend, 100);
    script.asks(&[Op::Release(request.id), Op::Send(Backend, more, false)]);
    assert_eq!(script.summary().delivered, [100, 0]);
}

#[test]
fn an_end_while_connecting_is_relayed_after_the_bytes() {
    let mut script = Script::begin();
    let request = script.receives_last(Client, 100);
    script.asks(&[]);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Send(Backend, request, true), Op::Recv(Backend)]);
    script.sent(Backend, 100);
    script.asks(&[Op::Release(request.id), Op::Shutdown(Backend)]);
}

#[test]
fn an_end_without_bytes_while_connecting_is_relayed() {
    let mut script = Script::begin();
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.asks(&[]);
    script.on_event(Event::Connected(Opening::Bare));
    let relays = [Op::Acknowledge, Op::Shutdown(Backend), Op::Recv(Backend)];
    script.asks(&relays);
    assert!(script.deadline_in() <= LIMITS.half_closed);
}

#[test]
fn a_client_that_resets_while_connecting_ends_it_at_once() {
    for bytes in [0, 10] {
        let mut script = Script::begin();
        if bytes > 0 {
            script.receives(Client, bytes);
        }
        script.on_event(Event::RecvEnded(Client, Err(Errno::CONNRESET)));
        script.asks(&[Op::Cancel(Purpose::Connect)]);
        script.on_event(Event::ConnectFailed(Errno::CANCELED));
        if bytes > 0 {
            assert_eq!(script.ops.pop_front(), Some(Op::Release(1)));
        }
        script.ends(CloseReason::ClientReset, Manner::Reset);
        assert_eq!(script.summary().attempts, 1);
    }
}

#[test]
fn a_client_that_resets_while_descriptors_lack_ends_it() {
    let mut script = Script::begin();
    script.on_event(Event::Lacking(Fault::Resources));
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CONNRESET)));
    script.asks(&[]);
    script.on_event(Event::Retry);
    script.ends(CloseReason::ClientReset, Manner::Reset);
}

#[test]
fn a_client_fills_so_many_buffers_while_connecting() {
    let mut script = Script::begin();
    let first = script.receives(Client, 1);
    for _ in 2..BUFFERS_HIGH {
        script.receives(Client, 1);
        script.asks(&[]);
    }
    script.receives(Client, 1);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.asks(&[]);
    // A failed attempt does not change this.
    script.on_event(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Send(Backend, first, false), Op::Recv(Backend)]);
    // Receiving goes on when all buffers but one are sent.
    for sent in 1..BUFFERS_HIGH {
        script.sent(Backend, 1);
        let resumes = script.ops.contains(&Op::Recv(Client));
        assert_eq!(resumes, sent == BUFFERS_HIGH - 1);
    }
}

#[test]
fn full_buffers_while_connecting_make_a_stream() {
    let mut script = Script::begin();
    let [first, second, third] = [(); 3].map(|()| script.receives(Client, BUFFER_BYTES));
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Send(Backend, first, false), Op::Recv(Backend)]);
    script.sent(Backend, BUFFER_BYTES);
    script.asks(&[Op::Release(first.id), Op::Send(Backend, second, false)]);
    script.sent(Backend, BUFFER_BYTES);
    script.asks(&[Op::Release(second.id), Op::Send(Backend, third, false)]);
    script.sent(Backend, BUFFER_BYTES);
    script.asks(&[Op::Release(third.id), Op::Pump(Client)]);
}

#[test]
fn a_retry_has_what_the_client_sent_before_it() {
    let mut script = Script::begin();
    let request = script.receives_last(Client, 100);
    script.on_event(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    script.on_event(Event::Paused);
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    script.on_event(Event::Retry);
    script.asks(&[Op::Connect]);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Send(Backend, request, true), Op::Recv(Backend)]);
}

#[test]
fn a_client_without_a_buffer_waits_for_its_backend_and_tries_nothing() {
    let mut script = Script::begin();
    script.on_event(Event::Lacking(Fault::Resources));
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    script.asks(&[Op::PollSource(Client, true)]);
    for _ in 0..3 {
        script.told_more(Event::SourceReady(Client, Arrival::Bytes));
        script.asks(&[]);
    }
    script.on_event(Event::Retry);
    script.asks(&[Op::Connect]);
}

#[test]
fn bytes_are_given_back_when_no_backend_is_reached() {
    let mut script = Script::begin_with(SessionLimits {
        attempts: 1,
        ..LIMITS
    });
    let request = script.receives_last(Client, 100);
    script.on_event(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[
        Op::Abandon(Fault::Backend),
        Op::Release(request.id),
        Op::Finish,
    ]);
    assert_eq!(script.session.reason(), Some(CloseReason::ConnectFailed));
    assert_eq!(script.summary().delivered, [0, 0]);
}

#[test]
fn a_backends_first_bytes_are_acknowledged_once() {
    let mut script = Script::begin();
    script.receives(Client, 100);
    script.on_event(Event::Connected(Opening::Bare));
    script.sent(Backend, 100);
    script.ops.clear();
    let answer = script.receives(Backend, 10);
    script.asks(&[Op::Acknowledge, Op::Send(Client, answer, false)]);
    script.receives(Backend, 10);
    script.asks(&[]);
}

#[test]
fn an_answer_whose_end_follows_needs_no_acknowledgement() {
    let mut script = Script::begin();
    script.receives(Client, 100);
    script.on_event(Event::Connected(Opening::Bare));
    script.sent(Backend, 100);
    script.ops.clear();
    let answer = script.receives_last(Backend, 10);
    script.asks(&[Op::Send(Client, answer, true)]);
}

#[test]
fn a_list_shows_how_far_a_session_has_come() {
    let mut script = Script::begin();
    let state = |script: &Script| script.session.view().state;
    assert_eq!(state(&script), SessionState::Connecting);
    script.on_event(Event::Queued(script.now + MS));
    assert_eq!(state(&script), SessionState::Queued);
    script.on_event(Event::Called);
    // The session waits for a descriptor, and not for a place.
    script.on_event(Event::Lacking(Fault::Resources));
    assert_eq!(state(&script), SessionState::Connecting);
    script.on_event(Event::Retry);
    script.now += 3 * MS;
    script.on_event(Event::Connected(Opening::Bare));
    script.receives(Client, 100);
    script.sent(Backend, 100);
    let view = script.session.view();
    assert_eq!(view.state, SessionState::Open);
    assert_eq!(view.delivered, [100, 0]);
    assert_eq!(view.active_at - view.opened_at, 3 * MS);
    script.cx(|session, cx| session.close(CloseReason::Killed, cx));
    assert_eq!(state(&script), SessionState::Closing);
    assert_eq!(script.session.manner(), Manner::Reset);
    let peeks = SessionLimits {
        peek: Some(MS),
        ..LIMITS
    };
    assert_eq!(state(&Script::begin_with(peeks)), SessionState::Peeking);
}

/// A Unix socket shows that its peer has closed it.
#[test]
fn a_client_that_is_gone_and_has_sent_nothing_ends_the_attempts() {
    let gone = |mut script: Script| {
        script.on_event(Event::RecvEnded(Client, Ok(())));
        assert_eq!(script.deadline_in(), WATCH_AFTER);
        script.passes(WATCH_AFTER);
        script.asks(&[Op::Watch(Client)]);
        assert_eq!(script.deadline_in(), LIMITS.connect - WATCH_AFTER);
        script.told_more(Event::Watched(Client, PeerState::HungUp));
        script
    };
    let mut script = gone(Script::begin());
    let cancels = [
        Op::Cancel(Purpose::Connect),
        Op::Cancel(Purpose::Watch(Client)),
    ];
    script.asks(&cancels);
    assert_eq!(script.session.reason(), Some(CloseReason::ClientReset));
    // What it has sent is for its backend, which is near.
    let mut script = Script::begin();
    let request = script.receives(Client, 100);
    let mut script = gone(script);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Send(Backend, request, true), Op::Recv(Backend)]);
}

/// It has sent more than is received before there is a backend.
#[test]
fn a_client_that_is_not_received_from_is_watched_while_connecting() {
    let mut script = Script::begin();
    (0..BUFFERS_HIGH).for_each(|_| {
        script.receives(Client, 1);
    });
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);
    script.on_event(Event::Watched(Client, PeerState::Broken));
    script.asks(&[Op::Cancel(Purpose::Connect)]);
    assert_eq!(script.session.reason(), Some(CloseReason::ClientReset));
}
