//! The state machine as scripts: the events of a session, and its operations.

mod connecting;
mod deadline;
mod end;
mod ends_together;
mod faults;
mod made;
mod paced;
mod peeking;
mod preamble;
mod queued;
mod script;
mod stalled;
mod tls;
mod unanswered;
mod waiting;

use super::buffer_queue::BUFFERS_HIGH;
use super::connecting::RETRY_AFTER;
use super::deadline::{END_LOOK, LINGER};
use super::stalled::STALL;
use super::watching::WATCH_AFTER;
use super::*;
use crate::fault::Fault;
use crate::kernel::{BUFFER_BYTES, Buffer, Errno, Pumped, SinkState, SourceState};
use crate::time::MS;

use Side::{Backend, Client};
use script::{LIMITS, Script};

#[test]
fn a_request_and_its_answer() {
    let mut script = Script::connected();
    let request = script.receives(Client, 100);
    script.asks(&[Op::Send(Backend, request, false)]);
    script.sent(Backend, 100);
    script.asks(&[Op::Release(request.id)]);
    let answer = script.receives(Backend, 5_000);
    script.asks(&[Op::Send(Client, answer, false)]);
    script.sent(Client, 5_000);
    script.asks(&[Op::Release(answer.id)]);
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.asks(&[Op::Shutdown(Backend)]);
    script.on_event(Event::RecvEnded(Backend, Ok(())));
    // The close sends the second end.
    script.ends(CloseReason::ClientClosed, Manner::Graceful);
    assert_eq!(script.summary().delivered, [100, 5_000]);
}

#[test]
fn a_server_may_speak_first() {
    let mut script = Script::connected();
    script.now += 3;
    let banner = script.receives(Backend, 20);
    script.asks(&[Op::Send(Client, banner, false)]);
    assert_eq!(script.summary().first_byte, Some(3));
}

#[test]
fn the_end_follows_the_last_byte() {
    for (from, to) in [(Client, Backend), (Backend, Client)] {
        let mut script = Script::connected();
        let first = script.receives(from, 10);
        script.receives(from, 20);
        script.asks(&[Op::Send(to, first, false)]);
        script.on_event(Event::RecvEnded(from, Ok(())));
        script.asks(&[]);
        script.sent(to, 4);
        script.asks(&[Op::PollSink(to, false)]);
        script.on_event(Event::SinkReady(to, true));
        let rest = Buffer {
            start: 4,
            len: 6,
            ..first
        };
        script.asks(&[Op::Send(to, rest, false)]);
        script.sent(to, 6);
        assert!(matches!(
            script.ops[1],
            Op::Send(_, Buffer { len: 20, .. }, true)
        ));
        script.ops.clear();
        script.sent(to, 20);
        script.asks(&[Op::Release(2), Op::Shutdown(to)]);
        // The other direction stays open.
        let other = script.receives(to, 7);
        script.asks(&[Op::Send(from, other, false)]);
        script.on_event(Event::RecvEnded(to, Ok(())));
        script.asks(&[]);
        script.sent(from, 7);
        let finish = [Op::Release(other.id), Op::Finish];
        script.asks(&finish);
        let reason = CloseReason::closed_by(from);
        assert_eq!(script.session.reason(), Some(reason));
    }
}

#[test]
fn a_connect_that_fails_is_tried_elsewhere() {
    let mut script = Script::begin();
    script.now += 10;
    script.on_event(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    assert_eq!(script.deadline_in(), LIMITS.connect);
    script.on_event(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    script.on_event(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    assert!(script.session.is_out_of_attempts(&LIMITS));
    // No untried backend is left.
    script.on_event(Event::Spent);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::ConnectFailed, Manner::Reset);
    assert_eq!(script.summary().attempts, 3);
}

#[test]
fn refusals_are_followed_by_another_attempt_sixteen_times_at_most() {
    let mut script = Script::begin();
    for _ in 1..16 {
        script.on_event(Event::ConnectFailed(Errno::CONNREFUSED));
        script.asks(&[Op::Abandon(Fault::Backend), Op::Connect]);
    }
    script.on_event(Event::ConnectFailed(Errno::CONNREFUSED));
    script.asks(&[
        Op::Abandon(Fault::Backend),
        Op::Cancel(Purpose::Recv(Client)),
    ]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::ConnectFailed, Manner::Reset);
    assert_eq!(script.summary().attempts, 16);
}

/// Each costs the client the whole connect timeout.
#[test]
fn attempts_that_time_out_are_no_more_than_the_limit() {
    let mut script = Script::begin();
    for _ in 1..LIMITS.attempts {
        script.on_event(Event::ConnectFailed(Errno::TIMEDOUT));
        script.asks(&[Op::Abandon(Fault::Unanswered), Op::Connect]);
    }
    script.on_event(Event::ConnectFailed(Errno::TIMEDOUT));
    script.asks(&[
        Op::Abandon(Fault::Unanswered),
        Op::Cancel(Purpose::Recv(Client)),
    ]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::ConnectTimeout, Manner::Reset);
}

#[test]
fn an_unanswered_connect_is_cancelled_at_its_deadline() {
    let mut script = Script::begin_with(SessionLimits {
        attempts: 1,
        ..LIMITS
    });
    script.passes(LIMITS.connect - 1);
    script.asks(&[]);
    script.passes(1);
    script.asks(&[Op::Cancel(Purpose::Connect)]);
    assert_eq!(script.session.deadline(script.now, &LIMITS), NEVER);
    script.on_event(Event::ConnectFailed(Errno::CANCELED));
    script.asks(&[
        Op::Abandon(Fault::Unanswered),
        Op::Cancel(Purpose::Recv(Client)),
    ]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::ConnectTimeout, Manner::Reset);
}

#[test]
fn a_connect_that_outruns_its_cancel_counts() {
    let mut script = Script::begin();
    script.passes(LIMITS.connect);
    script.asks(&[Op::Cancel(Purpose::Connect)]);
    script.on_event(Event::Connected(Opening::Bare));
    script.asks(&[Op::Acknowledge, Op::Recv(Backend)]);
    assert_eq!(script.deadline_in(), LIMITS.idle / 4);
}

#[test]
fn an_empty_pool_ends_a_session() {
    let mut script = Script::begin();
    script.on_event(Event::Unselected);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ends(CloseReason::NoBackend, Manner::Reset);
    assert_eq!(script.summary().attempts, 0);
}

#[test]
fn without_descriptors_it_waits_and_tries_until_the_deadline() {
    let mut script = Script::begin();
    script.on_event(Event::Lacking(Fault::Resources));
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    script.passes(RETRY_AFTER);
    script.on_event(Event::Retry);
    script.asks(&[Op::Connect]);
    script.on_event(Event::Lacking(Fault::Resources));
    script.asks(&[Op::Visit(Purpose::Retry, RETRY_AFTER)]);
    // Waiting is no attempt, nor does it move the deadline.
    assert_eq!(script.summary().attempts, 0);
    script.passes(LIMITS.connect - RETRY_AFTER);
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.asks(&[]);
    script.on_event(Event::Retry);
    script.ends(CloseReason::NoResources, Manner::Reset);
}

#[test]
fn a_slow_sink_stops_the_receive_and_lets_it_go_on() {
    let mut script = Script::connected();
    let first = script.receives(Client, 1);
    script.asks(&[Op::Send(Backend, first, false)]);
    let more: Vec<Buffer> = (1..BUFFERS_HIGH)
        .map(|_| script.receives(Client, 1))
        .collect();
    script.asks(&[Op::Cancel(Purpose::Recv(Client))]);
    // The operation under way still completes, and needs no second cancel.
    let late = script.receives(Client, 1);
    script.asks(&[]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.asks(&[]);
    script.sent(Backend, 1);
    script.asks(&[Op::Release(first.id), Op::Send(Backend, more[0], false)]);
    script.sent(Backend, 1);
    script.asks(&[Op::Release(more[0].id), Op::Send(Backend, more[1], false)]);
    script.sent(Backend, 1);
    script.asks(&[Op::Release(more[1].id), Op::Send(Backend, more[2], false)]);
    script.sent(Backend, 1);
    let resumes = [
        Op::Release(more[2].id),
        Op::Send(Backend, late, false),
        Op::Recv(Client),
    ];
    script.asks(&resumes);
}

#[test]
fn three_full_buffers_make_a_stream() {
    let mut script = Script::promoted(Client);
    script.pumped(Client, [CHUNK, CHUNK], SourceState::Ready, SinkState::Ready);
    assert!(matches!(script.ops[0], Op::Visit(Purpose::Pace(Client), _)));
    script.ops.clear();
    script.on_event(Event::Pace(Client));
    script.asks(&[Op::Pump(Client)]);
    script.pumped(Client, [0, 0], SourceState::Empty, SinkState::Ready);
    script.asks(&[Op::PollSource(Client, false)]);
    script.on_event(Event::SourceReady(Client, Arrival::Bytes));
    script.asks(&[Op::Pump(Client)]);
    script.pumped(Client, [CHUNK, 0], SourceState::Ready, SinkState::Full);
    script.asks(&[Op::PollSink(Backend, false)]);
    script.on_event(Event::SinkReady(Backend, true));
    script.asks(&[Op::Pump(Client)]);
    script.pumped(Client, [0, CHUNK], SourceState::Stopped, SinkState::Ready);
    script.asks(&[Op::Recv(Client)]);
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.asks(&[Op::Shutdown(Backend)]);
    let copied = 3 * u64::from(BUFFER_BYTES);
    let spliced = 2 * u64::from(CHUNK);
    assert_eq!(script.summary().delivered, [copied + spliced, 0]);
}

#[test]
fn a_stream_that_thins_out_is_copied_again() {
    // A change that did not pay makes the next one need twice as many full buffers.
    for (stretch, row) in [(2 * CHUNK - 27, 3), (2 * CHUNK - 28, 6), (0, 6)] {
        let mut script = Script::promoted(Backend);
        let steps = [stretch, 9, 9].into_iter().filter(|bytes| *bytes > 0);
        for bytes in steps {
            script.pumped(Backend, [bytes; 2], SourceState::Ready, SinkState::Ready);
            assert!(matches!(
                script.ops.pop_front(),
                Some(Op::Visit(Purpose::Pace(Backend), _))
            ));
            script.on_event(Event::Pace(Backend));
            script.asks(&[Op::Pump(Backend)]);
        }
        script.pumped(Backend, [9, 9], SourceState::Ready, SinkState::Ready);
        script.asks(&[Op::Recv(Backend)]);
        for count in 1..=row {
            let buffer = script.receives(Backend, BUFFER_BYTES);
            let stops = script.ops.contains(&Op::Cancel(Purpose::Recv(Backend)));
            assert_eq!(stops, count == row, "{stretch}");
            script.sent(Client, BUFFER_BYTES);
            assert!(script.ops.contains(&Op::Release(buffer.id)));
            script.ops.clear();
        }
    }
}

#[test]
fn a_stream_that_splice_stops_at_goes_on_behind_urgent_data() {
    let mut script = Script::promoted(Backend);
    script.pumped(Backend, [0, 0], SourceState::Stopped, SinkState::Ready);
    script.asks(&[Op::Recv(Backend)]);
    let behind = script.receives(Backend, 10);
    script.asks(&[Op::Send(Client, behind, false)]);
}

#[test]
fn without_a_pipe_it_goes_on_copying() {
    let mut script = Script::promoted(Client);
    script.on_event(Event::Pipeless(Client));
    script.asks(&[Op::Recv(Client)]);
}

#[test]
fn a_stream_whose_ends_break_is_reset() {
    let mut script = Script::promoted(Client);
    script.pumped(
        Client,
        [0, 0],
        SourceState::Broken(Errno::CONNRESET),
        SinkState::Ready,
    );
    script.asks(&[Op::Cancel(Purpose::Recv(Backend))]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CANCELED)));
    script.ends(CloseReason::ClientReset, Manner::Reset);

    let mut script = Script::promoted(Client);
    script.pumped(
        Client,
        [CHUNK, 0],
        SourceState::Ready,
        SinkState::Broken(PIPE),
    );
    script.asks(&[]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CONNRESET)));
    script.ends(CloseReason::BackendReset, Manner::Reset);
}

#[test]
fn an_early_answer_is_relayed_after_the_sink_broke() {
    let mut script = Script::connected();
    let upload = script.receives(Client, 10);
    let unsent = script.receives(Client, 10);
    script.asks(&[Op::Send(Backend, upload, false)]);
    script.now += LIMITS.half_closed;
    script.on_event(Event::Sent(Backend, Err(PIPE)));
    let stops = [
        Op::Release(upload.id),
        Op::Release(unsent.id),
        Op::Cancel(Purpose::Recv(Client)),
    ];
    script.asks(&stops);
    let late = script.receives(Client, 10);
    script.asks(&[Op::Release(late.id)]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.asks(&[]);
    // However long the stall before, the answer has time to come; the client is watched meanwhile.
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);
    assert_eq!(script.deadline_in(), LINGER / 4);
    let answer = script.receives(Backend, 30);
    script.asks(&[Op::Send(Client, answer, false)]);
    // The kernel has reported the reset already: the second report looks like an end.
    script.on_event(Event::RecvEnded(Backend, Ok(())));
    script.sent(Client, 30);
    script.asks(&[Op::Release(answer.id), Op::Cancel(Purpose::Watch(Client))]);
    script.on_event(Event::Watched(Client, PeerState::Unclear));
    script.ends(CloseReason::BackendReset, Manner::Reset);
}

#[test]
fn a_reset_ends_both_sides_by_reset() {
    let mut script = Script::connected();
    let buffer = script.receives(Client, 10);
    script.asks(&[Op::Send(Backend, buffer, false)]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CONNRESET)));
    let cancels = [
        Op::Cancel(Purpose::Recv(Client)),
        Op::Cancel(Purpose::Send(Backend)),
    ];
    script.asks(&cancels);
    // The end waits for both, and a send that completes before its cancel changes nothing.
    script.sent(Backend, 10);
    let late = script.receives(Client, 5);
    script.asks(&[]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    let finish = [Op::Release(buffer.id), Op::Release(late.id), Op::Finish];
    script.asks(&finish);
    assert_eq!(script.session.reason(), Some(CloseReason::BackendReset));
    assert_eq!(script.session.manner(), Manner::Reset);
}

#[test]
fn what_passes_by_is_asked_again() {
    let mut script = Script::connected();
    script.on_event(Event::RecvEnded(Client, Err(AGAIN)));
    script.asks(&[Op::Recv(Client)]);
    let buffer = script.receives(Client, 10);
    script.asks(&[Op::Send(Backend, buffer, false)]);
    script.on_event(Event::Sent(Backend, Err(AGAIN)));
    script.asks(&[Op::PollSink(Backend, false)]);
    script.on_event(Event::SinkReady(Backend, true));
    script.asks(&[Op::Send(Backend, buffer, false)]);
}

#[test]
fn a_side_that_is_not_read_is_watched_after_a_while() {
    let mut script = Script::connected();
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.asks(&[Op::Shutdown(Backend)]);
    script.passes(WATCH_AFTER - 1);
    script.asks(&[]);
    script.passes(1);
    script.asks(&[Op::Watch(Client)]);
    script.on_event(Event::Watched(Client, PeerState::Broken));
    script.asks(&[Op::Cancel(Purpose::Recv(Backend))]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CANCELED)));
    script.ends(CloseReason::ClientReset, Manner::Reset);
}

#[test]
fn a_side_that_is_not_read_for_long_is_watched() {
    // A change to splice that waits for its last send.
    let mut script = Script::connected();
    for _ in 0..3 {
        script.receives(Client, BUFFER_BYTES);
    }
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ops.clear();
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);

    // A receive that ended by itself while buffers wait.
    let mut script = Script::connected();
    script.receives(Client, 10);
    let buffer = script.buffer(10);
    script.on_event(Event::Received(Client, buffer, false));
    script.ops.clear();
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);
}

#[test]
fn silence_ends_a_session_in_order() {
    let mut script = Script::connected();
    script.passes(LIMITS.idle / 2);
    let buffer = script.receives(Client, 10);
    script.asks(&[Op::Send(Backend, buffer, false)]);
    script.sent(Backend, 10);
    script.asks(&[Op::Release(buffer.id)]);
    script.passes(LIMITS.idle - 1);
    script.asks(&[]);
    script.passes(1);
    let cancels = [
        Op::Cancel(Purpose::Recv(Client)),
        Op::Cancel(Purpose::Recv(Backend)),
    ];
    script.asks(&cancels);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CANCELED)));
    script.ends(CloseReason::IdleTimeout, Manner::Graceful);
}

#[test]
fn bytes_that_come_while_an_idle_session_closes_are_not_hidden() {
    let mut script = Script::connected();
    script.passes(LIMITS.idle);
    let late = script.receives(Backend, 10);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ops.clear();
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CANCELED)));
    script.asks(&[Op::Release(late.id), Op::Finish]);
    assert_eq!(script.session.reason(), Some(CloseReason::IdleTimeout));
    assert_eq!(script.session.manner(), Manner::Reset);
}

#[test]
fn silence_over_unsent_bytes_ends_by_reset() {
    let mut script = Script::connected();
    script.receives(Client, 10);
    script.passes(LIMITS.idle);
    assert_eq!(script.session.reason(), Some(CloseReason::IdleTimeout));
    assert_eq!(script.session.manner(), Manner::Reset);
}

#[test]
fn half_closed_sessions_have_less_time() {
    let mut script = Script::connected();
    script.passes(LIMITS.idle - 1);
    script.on_event(Event::RecvEnded(Backend, Ok(())));
    script.asks(&[Op::Shutdown(Client)]);
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Backend)]);
    script.passes(LIMITS.half_closed - WATCH_AFTER);
    assert_eq!(
        script.session.reason(),
        Some(CloseReason::HalfClosedTimeout)
    );
    assert_eq!(script.session.manner(), Manner::Reset);
}

#[test]
fn a_session_has_a_longest_time() {
    let mut script = Script::connected_with(SessionLimits {
        session: 25 * MS,
        idle: 10 * MS,
        ..LIMITS
    });
    for _ in 0..5 {
        script.passes(5 * MS);
        if script.session.reason().is_none() {
            let buffer = script.receives(Client, 1);
            script.sent(Backend, 1);
            script.asks(&[Op::Send(Backend, buffer, false), Op::Release(buffer.id)]);
        }
    }
    assert_eq!(script.session.reason(), Some(CloseReason::SessionTimeout));
}

#[test]
fn a_timer_that_comes_early_makes_the_peers_probed_once() {
    let mut script = Script::connected();
    for expected in [&[Op::KeepAlive][..], &[]] {
        script.now += 1;
        script.cx(|session, cx| session.on_deadline(cx));
        script.asks(expected);
    }
}

#[test]
fn a_close_while_connecting_joins_the_connect() {
    let mut script = Script::begin();
    script.cx(|session, cx| session.close(CloseReason::Shutdown, cx));
    let cancels = [
        Op::Cancel(Purpose::Connect),
        Op::Cancel(Purpose::Recv(Client)),
    ];
    script.asks(&cancels);
    // A second reason changes nothing.
    script.cx(|session, cx| session.close(CloseReason::IdleTimeout, cx));
    script.asks(&[]);
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.on_event(Event::Connected(Opening::Bare));
    script.ends(CloseReason::Shutdown, Manner::Reset);
}

#[test]
#[should_panic(expected = "completed without having been asked")]
fn a_completion_without_an_operation_is_a_bug() {
    Script::connected().on_event(Event::Sent(Backend, Ok(1)));
}

const CHUNK: u32 = 512 * 1024;
const PIPE: Errno = Errno(libc::EPIPE);
const AGAIN: Errno = Errno(libc::EAGAIN);
