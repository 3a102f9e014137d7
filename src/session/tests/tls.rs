//! TLS at an end of a session.

use super::script::{LIMITS, Script};
use super::*;
use crate::session::deadline::END_LOOK;
use crate::time::MS;

const TLS: SessionLimits = SessionLimits {
    handshake: Some(2_000 * MS),
    ..LIMITS
};

fn sealed(buffer: Option<Buffer>, plain: u16, held: bool) -> Event {
    let (full, failed) = (false, false);
    let sealed = Sealed {
        buffer,
        plain,
        held,
        full,
        failed,
    };
    Event::Encrypted(Client, sealed)
}

/// What a look at records brings, last of all.
fn unsealed(script: &mut Script, what: Unsealed) {
    script.on_event(Event::Decrypted(Client, what, false));
}

/// The bytes sent to this side.
fn unsent(to: Side, bytes: u32) -> [Unsent; 2] {
    let mut unsent = [Unsent::default(); 2];
    unsent[to as usize].bytes = bytes;
    unsent
}

/// The handshake is done, and a backend is connected to.
fn open() -> Script {
    let mut script = Script::handshaking(TLS);
    let hello = script.receives(Client, 300);
    script.asks(&[Op::Decrypt(Client, Some(hello))]);
    // The reply is sent before there is a backend.
    let reply = Buffer { len: 900, ..hello };
    unsealed(&mut script, Unsealed::Reply(reply));
    script.asks(&[Op::Send(Client, reply, false)]);
    script.sent(Client, 900);
    script.asks(&[Op::Release(reply.id)]);
    let finished = script.receives(Client, 60);
    script.asks(&[Op::Decrypt(Client, Some(finished))]);
    script.on_event(Event::Decrypted(Client, Unsealed::Established, true));
    script.asks(&[Op::Connect, Op::Decrypt(Client, None)]);
    unsealed(&mut script, Unsealed::Nothing);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Acknowledge, Op::Recv(Backend)]);
    script
}

/// The client asks, in records that take more bytes than that.
fn asked(script: &mut Script) {
    let records = script.receives(Client, 122);
    script.asks(&[Op::Decrypt(Client, Some(records))]);
    let plain = Buffer {
        len: 100,
        ..records
    };
    unsealed(script, Unsealed::Plain(plain));
    script.asks(&[Op::Send(Backend, plain, false)]);
    script.sent(Backend, 100);
    script.asks(&[Op::Release(plain.id)]);
}

/// Bytes of the backend, as records that take 22 bytes more than that.
fn answer(script: &mut Script, bytes: u16) -> Buffer {
    let plain = script.receives(Backend, bytes.into());
    script.asks(&[Op::Encrypt(Client, Some(plain))]);
    let records = Buffer {
        len: u32::from(bytes) + 22,
        ..plain
    };
    script.on_event(sealed(Some(records), bytes, false));
    script.asks(&[Op::Send(Client, records, false)]);
    records
}

#[test]
fn bytes_of_the_peers_are_counted_and_not_those_of_records() {
    let mut script = open();
    asked(&mut script);
    let records = answer(&mut script, 50);
    // A record that went out in part is none for the client.
    script.sent(Client, 70);
    script.asks(&[Op::PollSink(Client, false)]);
    assert_eq!(script.summary().delivered, [100, 0]);
    script.on_event(Event::SinkReady(Client, true));
    let rest = Buffer {
        start: 70,
        len: 2,
        ..records
    };
    script.asks(&[Op::Send(Client, rest, false)]);
    script.sent(Client, 2);
    script.asks(&[Op::Release(records.id)]);
    assert_eq!(script.summary().delivered, [100, 50]);
}

#[test]
fn the_end_of_a_record_follows_when_nothing_else_does() {
    let mut script = open();
    let plain = script.receives(Backend, BUFFER_BYTES);
    script.asks(&[Op::Encrypt(Client, Some(plain))]);
    script.on_event(sealed(Some(plain), 0, true));
    script.asks(&[Op::Send(Client, plain, false)]);
    script.sent(Client, BUFFER_BYTES);
    script.asks(&[Op::Release(plain.id), Op::Encrypt(Client, None)]);
    // Without a buffer it is asked for again.
    script.on_event(sealed(None, 0, true));
    let wait = script.ops.pop_front();
    assert!(
        matches!(wait, Some(Op::Visit(Purpose::Starvation(Backend), _))),
        "{wait:?}"
    );
    script.on_event(Event::Starvation(Backend));
    script.asks(&[Op::Encrypt(Client, None)]);
    let rest = script.buffer(22);
    script.on_event(sealed(Some(rest), 16_384, false));
    script.asks(&[Op::Send(Client, rest, false)]);
    script.sent(Client, 22);
    script.asks(&[Op::Release(rest.id)]);
    assert_eq!(script.summary().delivered, [0, 16_384]);
}

#[test]
fn a_stream_is_never_spliced_or_passed_on() {
    let mut script = open();
    for _ in 0..5 {
        let records = script.receives(Client, BUFFER_BYTES);
        script.asks(&[Op::Decrypt(Client, Some(records))]);
        unsealed(&mut script, Unsealed::Plain(records));
        script.asks(&[Op::Send(Backend, records, false)]);
        script.sent(Backend, BUFFER_BYTES);
        script.asks(&[Op::Release(records.id)]);
    }
    script.on_event(Event::RecvEnded(Client, Err(Errno::NOBUFS)));
    let wait = script.ops.pop_front();
    assert!(
        matches!(wait, Some(Op::Visit(Purpose::Starvation(Client), _))),
        "{wait:?}"
    );
}

#[test]
fn an_end_that_was_told_is_relayed_and_told_to_the_client_before_its_own() {
    let mut script = open();
    asked(&mut script);
    let alert = script.receives(Client, 24);
    script.asks(&[Op::Decrypt(Client, Some(alert))]);
    unsealed(&mut script, Unsealed::Ended);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.asks(&[Op::Shutdown(Backend)]);
    let records = answer(&mut script, 50);
    script.sent(Client, 72);
    script.asks(&[Op::Release(records.id)]);
    script.on_event(Event::RecvEnded(Backend, Ok(())));
    script.asks(&[Op::Notify(Client)]);
    let notice = script.buffer(24);
    script.on_event(sealed(Some(notice), 0, false));
    script.asks(&[Op::Send(Client, notice, true)]);
    script.sent(Client, 24);
    script.asks(&[Op::Release(notice.id), Op::Finish]);
    assert_eq!(script.session.reason(), Some(CloseReason::ClientClosed));
    assert_eq!(script.session.manner(), Manner::Graceful);
}

#[test]
fn a_connection_that_ends_without_a_word_was_cut() {
    let mut script = open();
    asked(&mut script);
    script.on_event(Event::RecvEnded(Client, Ok(())));
    // A reset would destroy what is not acknowledged yet.
    script.asks(&[Op::Unsent]);
    script.on_event(Event::Unsent(unsent(Backend, 70)));
    script.asks(&[Op::KeepAlive]);
    script.passes(END_LOOK);
    script.asks(&[Op::Cancel(Purpose::Recv(Backend))]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CANCELED)));
    script.ends(CloseReason::TlsTruncated, Manner::Reset);

    // What came before is delivered first.
    let mut script = open();
    let records = script.receives(Client, 122);
    script.asks(&[Op::Decrypt(Client, Some(records))]);
    unsealed(&mut script, Unsealed::Plain(records));
    script.asks(&[Op::Send(Backend, records, false)]);
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.asks(&[]);
    script.sent(Backend, 122);
    script.asks(&[Op::Release(records.id), Op::Unsent]);
    script.on_event(Event::Unsent(unsent(Backend, 0)));
    script.asks(&[Op::Cancel(Purpose::Recv(Backend))]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CANCELED)));
    script.ends(CloseReason::TlsTruncated, Manner::Reset);
}

#[test]
fn what_came_before_a_cut_reaches_a_backend_that_is_connected_to_later() {
    let mut script = Script::handshaking(TLS);
    let finished = script.receives(Client, 60);
    script.asks(&[Op::Decrypt(Client, Some(finished))]);
    script.on_event(Event::Decrypted(Client, Unsealed::Established, true));
    script.asks(&[Op::Connect, Op::Decrypt(Client, None)]);
    unsealed(&mut script, Unsealed::Plain(finished));
    script.asks(&[]);
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.asks(&[]);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Send(Backend, finished, false), Op::Recv(Backend)]);
    script.sent(Backend, 60);
    script.asks(&[Op::Release(finished.id), Op::Unsent]);

    // With nothing to deliver, it ends at once.
    let mut script = Script::handshaking(TLS);
    let finished = script.receives(Client, 60);
    script.asks(&[Op::Decrypt(Client, Some(finished))]);
    script.on_event(Event::Decrypted(Client, Unsealed::Established, false));
    script.asks(&[Op::Connect]);
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.asks(&[Op::Cancel(Purpose::Connect)]);
}

#[test]
fn one_that_was_told_the_end_may_leave_without_a_word() {
    for goes_on in [false, true] {
        let mut script = open();
        asked(&mut script);
        script.on_event(Event::RecvEnded(Backend, Ok(())));
        script.asks(&[Op::Notify(Client)]);
        let notice = Buffer {
            id: 900,
            start: 0,
            len: 24,
        };
        script.on_event(sealed(Some(notice), 0, false));
        script.asks(&[Op::Send(Client, notice, true)]);
        script.sent(Client, 24);
        script.asks(&[Op::Release(notice.id), Op::Shutdown(Client)]);
        if goes_on {
            let records = script.receives(Client, 122);
            script.asks(&[Op::Decrypt(Client, Some(records))]);
            unsealed(&mut script, Unsealed::Plain(records));
            script.asks(&[Op::Send(Backend, records, false)]);
            script.sent(Backend, 122);
            script.asks(&[Op::Release(records.id)]);
        }
        script.on_event(Event::RecvEnded(Client, Ok(())));
        let reason = match goes_on {
            false => CloseReason::BackendClosed,
            true => CloseReason::TlsTruncated,
        };
        script.asks(&[Op::Unsent]);
        script.on_event(Event::Unsent(Default::default()));
        // What may be less than was sent does not end like a whole.
        script.ends(reason, Manner::Reset);
    }
}

#[test]
fn a_handshake_fails_late_or_for_a_reason() {
    let mut script = Script::handshaking(TLS);
    script.passes(2_000 * MS);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::TlsTimeout, Manner::Reset);

    for (told, manner) in [(true, Manner::Graceful), (false, Manner::Reset)] {
        let mut script = Script::handshaking(TLS);
        let records = script.receives(Client, 5);
        script.asks(&[Op::Decrypt(Client, Some(records))]);
        unsealed(&mut script, Unsealed::Failed(told));
        script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
        script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
        script.ends(CloseReason::TlsFailed, manner);
    }

    let mut script = Script::handshaking(TLS);
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.ends(CloseReason::TlsFailed, Manner::Reset);
}

#[test]
fn a_stream_that_can_t_be_encrypted_any_more_is_cut() {
    let mut script = open();
    let plain = script.receives(Backend, 50);
    script.asks(&[Op::Encrypt(Client, Some(plain))]);
    let sealed = Sealed {
        buffer: None,
        plain: 0,
        held: false,
        full: false,
        failed: true,
    };
    script.on_event(Event::Encrypted(Client, sealed));
    script.asks(&Side::BOTH.map(|side| Op::Cancel(Purpose::Recv(side))));
    for side in Side::BOTH {
        script.on_event(Event::RecvEnded(side, Err(Errno::CANCELED)));
    }
    script.ends(CloseReason::TlsFailed, Manner::Reset);
}

#[test]
fn a_session_that_closes_waits_for_the_steps_that_it_asked_for() {
    let mut script = open();
    let records = script.receives(Client, 122);
    script.cx(|session, cx| session.close(CloseReason::Killed, cx));
    script.asks(&[
        Op::Decrypt(Client, Some(records)),
        Op::Cancel(Purpose::Recv(Client)),
        Op::Cancel(Purpose::Recv(Backend)),
    ]);
    for side in Side::BOTH {
        script.on_event(Event::RecvEnded(side, Err(Errno::CANCELED)));
    }
    script.asks(&[]);
    unsealed(&mut script, Unsealed::Plain(records));
    script.asks(&[Op::Release(records.id), Op::Finish]);
}

/// Records that were made for the backend.
fn sealed_for_backend(buffer: Buffer, plain: u16) -> Event {
    let Event::Encrypted(_, made) = sealed(Some(buffer), plain, false) else {
        unreachable!("it is of records");
    };
    Event::Encrypted(Backend, made)
}

#[test]
fn what_waits_for_a_backend_with_tls_leaves_as_records() {
    let mut script = Script::begin();
    let first = script.receives(Client, 100);
    let next = script.receives_last(Client, 50);
    script.on_event(Event::Connected(Opening::Sealed));
    // The end of the client's stream is told behind its bytes.
    script.asks(&[
        Op::Encrypt(Backend, Some(first)),
        Op::Encrypt(Backend, Some(next)),
        Op::Decrypt(Backend, None),
        Op::Notify(Backend),
        Op::Recv(Backend),
    ]);
    let records = |its: Buffer| Buffer {
        len: its.len + 22,
        ..its
    };
    script.on_event(sealed_for_backend(records(first), 100));
    script.asks(&[Op::Send(Backend, records(first), true)]);
    script.on_event(sealed_for_backend(records(next), 50));
    script.on_event(Event::Decrypted(Backend, Unsealed::Nothing, false));
    let end = script.buffer(24);
    script.on_event(sealed_for_backend(end, 0));
    script.sent(Backend, 122);
    script.asks(&[
        Op::Release(first.id),
        Op::Send(Backend, records(next), false),
    ]);
    script.sent(Backend, 72);
    script.asks(&[Op::Release(next.id), Op::Send(Backend, end, true)]);
    script.sent(Backend, 24);
    script.asks(&[Op::Release(end.id), Op::Shutdown(Backend)]);
    assert_eq!(script.summary().delivered, [150, 0]);
}

#[test]
fn what_a_backend_says_behind_its_handshake_comes_through() {
    let mut script = Script::begin();
    script.on_event(Event::Connected(Opening::Sealed));
    script.asks(&[Op::Decrypt(Backend, None), Op::Recv(Backend)]);
    let greeting = script.buffer(20);
    script.on_event(Event::Decrypted(Backend, Unsealed::Plain(greeting), false));
    script.asks(&[Op::Send(Client, greeting, false)]);
    script.sent(Client, 20);
    script.asks(&[Op::Release(greeting.id)]);
    assert_eq!(script.summary().delivered, [0, 20]);
    // It ends without a word.
    script.on_event(Event::RecvEnded(Backend, Ok(())));
    script.asks(&[Op::Unsent]);
    script.on_event(Event::Unsent(Default::default()));
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::BackendTlsTruncated, Manner::Reset);
}
