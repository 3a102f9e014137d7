//! Bytes that we make, such as a PROXY header: they go to the backend before the client's.

use super::*;

/// A backend connected, and made bytes go first.
fn connected_with_made(script: &mut Script) -> Buffer {
    let made = script.buffer(MADE);
    script.on_event(Event::Connected(Opening::Header(made)));
    made
}

#[test]
fn made_bytes_go_out_at_once_and_complete_the_handshake() {
    let mut script = Script::begin();
    let made = connected_with_made(&mut script);
    script.asks(&[Op::Send(Backend, made, false), Op::Recv(Backend)]);
    script.sent(Backend, MADE);
    script.asks(&[Op::Release(made.id)]);
    assert_eq!(script.summary().delivered, [0, 0]);
    let request = script.receives(Client, 10);
    script.asks(&[Op::Send(Backend, request, false)]);
    script.sent(Backend, 10);
    assert_eq!(script.summary().delivered, [10, 0]);
}

#[test]
fn the_first_bytes_of_a_client_leave_in_one_send_with_them() {
    let mut script = Script::begin();
    let first = script.receives(Client, BUFFER_BYTES - MADE);
    let second = script.receives(Client, 5);
    script.asks(&[]);
    let made = connected_with_made(&mut script);
    let both = Buffer {
        len: BUFFER_BYTES,
        ..made
    };
    script.asks(&[
        Op::Append(made, first),
        Op::Release(first.id),
        Op::Send(Backend, both, false),
        Op::Recv(Backend),
    ]);
    // A short send ends within the made bytes, and the next one behind them.
    script.sent(Backend, MADE - 1);
    script.asks(&[Op::PollSink(Backend, false)]);
    assert_eq!(script.summary().delivered, [0, 0]);
    script.on_event(Event::SinkReady(Backend, true));
    let rest = Buffer {
        start: MADE - 1,
        len: BUFFER_BYTES - MADE + 1,
        ..made
    };
    script.asks(&[Op::Send(Backend, rest, false)]);
    script.sent(Backend, rest.len);
    script.asks(&[Op::Release(made.id), Op::Send(Backend, second, false)]);
    assert_eq!(script.summary().delivered[0], u64::from(first.len));
}

#[test]
fn a_buffer_that_does_not_fit_behind_them_follows_in_the_same_segments() {
    let mut script = Script::begin();
    let first = script.receives_last(Client, BUFFER_BYTES - MADE + 1);
    script.asks(&[]);
    let made = connected_with_made(&mut script);
    script.asks(&[Op::Send(Backend, made, true), Op::Recv(Backend)]);
    script.sent(Backend, MADE);
    // The end follows too.
    script.asks(&[Op::Release(made.id), Op::Send(Backend, first, true)]);
    script.sent(Backend, first.len);
    script.asks(&[Op::Release(first.id), Op::Shutdown(Backend)]);
    assert_eq!(script.summary().delivered[0], u64::from(first.len));
}

#[test]
fn the_end_of_a_client_that_sent_nothing_follows_them() {
    let mut script = Script::begin();
    script.on_event(Event::RecvEnded(Client, Ok(())));
    let made = connected_with_made(&mut script);
    script.asks(&[Op::Send(Backend, made, true), Op::Recv(Backend)]);
    script.sent(Backend, MADE);
    script.asks(&[Op::Release(made.id), Op::Shutdown(Backend)]);
}

#[test]
fn a_backend_that_refuses_them_hangs_up_by_its_own_act() {
    for (bytes, expected) in [(0, Unanswered::Failed), (10, Unanswered::Unclear)] {
        let mut script = Script::begin();
        if bytes > 0 {
            script.receives(Client, bytes);
        }
        connected_with_made(&mut script);
        script.on_event(Event::RecvEnded(Backend, Err(Errno::CONNRESET)));
        script.on_event(Event::Sent(Backend, Err(Errno::CONNRESET)));
        script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
        assert_eq!(script.summary().fault, Some(expected));
        assert_eq!(script.session.reason(), Some(CloseReason::BackendReset));
    }
}

#[test]
fn they_are_no_request_of_the_client() {
    let mut script = Script::begin();
    let made = connected_with_made(&mut script);
    let greeting = script.receives(Backend, 20);
    assert_eq!(script.session.summary(script.now).first_byte, Some(0));
    script.ops.clear();
    script.sent(Backend, MADE);
    assert_eq!(script.ops, [Op::Release(made.id)]);
    script.sent(Client, greeting.len);
    assert!(!script.summary().awaits_answer);
}

#[test]
fn they_are_given_back_when_the_session_ended_meanwhile() {
    let mut script = Script::begin();
    script.on_event(Event::RecvEnded(Client, Err(Errno::CONNRESET)));
    script.asks(&[Op::Cancel(Purpose::Connect)]);
    let made = connected_with_made(&mut script);
    assert_eq!(script.ops.pop_front(), Some(Op::Release(made.id)));
    script.ends(CloseReason::ClientReset, Manner::Reset);
}

#[test]
fn nothing_overtakes_them() {
    let mut script = Script::begin();
    // Without a buffer the client's bytes stay at its socket.
    script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    script.asks(&[Op::PollSource(Client, true)]);
    let made = connected_with_made(&mut script);
    script.asks(&[
        Op::Cancel(Purpose::PollSource(Client)),
        Op::Send(Backend, made, false),
        Op::Recv(Backend),
    ]);
    script.on_event(Event::SourceReady(Client, Arrival::Bytes));
    script.asks(&[Op::Recv(Client)]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    assert!(!script.ops.contains(&Op::PassOn(Client)));
    script.ops.clear();
    script.sent(Backend, MADE);
    assert_eq!(script.ops.pop_front(), Some(Op::Release(made.id)));
}

/// The length of a header of version 2 for IPv4.
const MADE: u32 = 28;
