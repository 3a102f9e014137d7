//! What a client says while its backend is still being connected, and when that is acknowledged.

use super::*;

#[test]
fn what_a_client_sends_while_connecting_waits_for_the_backend() {
    let mut script = Script::begin();
    script.now += 2;
    let request = script.receives(Client, 100);
    let more = script.receives(Client, 50);
    script.asks(&[]);
    // The deadline is the attempt's still.
    assert_eq!(script.deadline_in(), LIMITS.connect - 2);
    script.told(Event::Connected);
    // Its first packet acknowledges.
    script.asks(&[Op::Send(Client, request, false), Op::Recv(Backend)]);
    script.sent(Client, 100);
    script.asks(&[Op::Release(request.id), Op::Send(Client, more, false)]);
    assert_eq!(script.session.summary().delivered, [100, 0]);
}

#[test]
fn an_end_while_connecting_is_relayed_after_the_bytes() {
    let mut script = Script::begin();
    let request = script.receives_last(Client, 100);
    script.asks(&[]);
    script.told(Event::Connected);
    script.asks(&[Op::Send(Client, request, true), Op::Recv(Backend)]);
    script.sent(Client, 100);
    script.asks(&[Op::Release(request.id), Op::Shutdown(Backend)]);
}

#[test]
fn an_end_without_bytes_while_connecting_is_relayed() {
    let mut script = Script::begin();
    script.told(Event::RecvEnded(Client, Ok(())));
    script.asks(&[]);
    script.told(Event::Connected);
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
        script.told(Event::RecvEnded(Client, Err(Errno::CONNRESET)));
        script.asks(&[Op::Cancel(Purpose::Connect)]);
        script.told(Event::ConnectFailed(Errno::CANCELED));
        if bytes > 0 {
            assert_eq!(script.ops.pop_front(), Some(Op::Release(1)));
        }
        script.ends(CloseReason::ClientReset, Manner::Reset);
        assert_eq!(script.session.summary().attempts, 1);
    }
}

#[test]
fn a_client_that_resets_while_descriptors_lack_ends_it() {
    let mut script = Script::begin();
    script.told(Event::Lacking(Fault::Resources));
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    script.told(Event::RecvEnded(Client, Err(Errno::CONNRESET)));
    script.asks(&[]);
    script.told(Event::Retry);
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
    script.told(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.asks(&[]);
    // A failed attempt changes nothing about it.
    script.told(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    script.told(Event::Connected);
    script.asks(&[Op::Send(Client, first, false), Op::Recv(Backend)]);
    // It goes on when all but one are sent.
    for sent in 1..BUFFERS_HIGH {
        script.sent(Client, 1);
        let resumes = script.ops.contains(&Op::Recv(Client));
        assert_eq!(resumes, sent == BUFFERS_HIGH - 1);
    }
}

#[test]
fn full_buffers_while_connecting_make_a_stream() {
    let mut script = Script::begin();
    let [first, second, third] = [(); 3].map(|()| script.receives(Client, BUFFER_BYTES));
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.told(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.told(Event::Connected);
    script.asks(&[Op::Send(Client, first, false), Op::Recv(Backend)]);
    script.sent(Client, BUFFER_BYTES);
    script.asks(&[Op::Release(first.id), Op::Send(Client, second, false)]);
    script.sent(Client, BUFFER_BYTES);
    script.asks(&[Op::Release(second.id), Op::Send(Client, third, false)]);
    script.sent(Client, BUFFER_BYTES);
    script.asks(&[Op::Release(third.id), Op::Pump(Client)]);
}

#[test]
fn a_retry_has_what_the_client_sent_before_it() {
    let mut script = Script::begin();
    let request = script.receives_last(Client, 100);
    script.told(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    script.told(Event::Paused);
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    script.told(Event::Retry);
    script.asks(&[Op::Connect]);
    script.told(Event::Connected);
    script.asks(&[Op::Send(Client, request, true), Op::Recv(Backend)]);
}

#[test]
fn a_client_without_a_buffer_and_a_backend_without_a_socket_are_visited_apart() {
    let mut script = Script::begin();
    script.told(Event::Lacking(Fault::Resources));
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    script.told(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    assert!(matches!(
        script.ops.pop_front(),
        Some(Op::Visit(Purpose::Starvation(Client), _))
    ));
    script.told(Event::Starvation(Client));
    script.asks(&[Op::Recv(Client)]);
    script.told(Event::Retry);
    script.asks(&[Op::Connect]);
}

#[test]
fn bytes_are_given_back_when_no_backend_is_reached() {
    let mut script = Script::begin_with(SessionLimits {
        attempts: 1,
        ..LIMITS
    });
    let request = script.receives_last(Client, 100);
    script.told(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[
        Op::Abandon(Fault::Backend),
        Op::Release(request.id),
        Op::Finish,
    ]);
    assert_eq!(script.session.reason(), Some(CloseReason::ConnectFailed));
    assert_eq!(script.session.summary().delivered, [0, 0]);
}

#[test]
fn a_backends_first_bytes_are_acknowledged_once() {
    let mut script = Script::begin();
    script.receives(Client, 100);
    script.told(Event::Connected);
    script.sent(Client, 100);
    script.ops.clear();
    let answer = script.receives(Backend, 10);
    script.asks(&[Op::Acknowledge, Op::Send(Backend, answer, false)]);
    script.receives(Backend, 10);
    script.asks(&[]);
}

#[test]
fn an_answer_whose_end_follows_needs_no_acknowledgement() {
    let mut script = Script::begin();
    script.receives(Client, 100);
    script.told(Event::Connected);
    script.sent(Client, 100);
    script.ops.clear();
    let answer = script.receives_last(Backend, 10);
    script.asks(&[Op::Send(Backend, answer, true)]);
}

#[test]
fn a_list_shows_how_far_a_session_has_come() {
    let mut script = Script::begin();
    let state = |script: &Script| script.session.view().state;
    assert_eq!(state(&script), SessionState::Connecting);
    script.told(Event::Queued(script.now + MS));
    assert_eq!(state(&script), SessionState::Queued);
    script.told(Event::Called);
    // Nobody waits for a place here, but for a descriptor.
    script.told(Event::Lacking(Fault::Resources));
    assert_eq!(state(&script), SessionState::Connecting);
    script.told(Event::Retry);
    script.now += 3 * MS;
    script.told(Event::Connected);
    script.receives(Client, 100);
    script.sent(Client, 100);
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
