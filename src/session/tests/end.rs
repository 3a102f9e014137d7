//! The last bytes of a stream are sent together with its end, if the end is certain.

use super::*;

#[test]
fn an_end_rides_with_the_last_bytes() {
    for (from, to) in [(Client, Backend), (Backend, Client)] {
        let mut script = Script::connected();
        let last = script.receives_last(from, 10);
        script.asks(&[Op::Send(to, last, true)]);
        script.sent(to, 4);
        script.asks(&[Op::PollSink(to, false)]);
        script.on_event(Event::SinkReady(to, true));
        let rest = Buffer {
            start: 4,
            len: 6,
            ..last
        };
        script.asks(&[Op::Send(to, rest, true)]);
        script.sent(to, 6);
        script.asks(&[Op::Release(last.id), Op::Shutdown(to)]);
    }
}

#[test]
fn the_second_end_rides_with_the_close() {
    let mut script = Script::connected();
    script.on_event(Event::RecvEnded(Client, Ok(())));
    script.asks(&[Op::Shutdown(Backend)]);
    let answer = script.receives_last(Backend, 10);
    script.asks(&[Op::Send(Client, answer, true)]);
    script.sent(Client, 10);
    script.asks(&[Op::Release(answer.id), Op::Finish]);
    assert_eq!(script.session.manner(), Manner::Graceful);
}

#[test]
fn only_the_last_buffer_waits_for_the_end() {
    let mut script = Script::connected();
    let first = script.receives(Client, 10);
    let second = script.receives(Client, 20);
    let last = script.receives_last(Client, 30);
    script.asks(&[Op::Send(Backend, first, false)]);
    script.sent(Backend, 10);
    script.asks(&[Op::Release(first.id), Op::Send(Backend, second, false)]);
    script.sent(Backend, 20);
    script.asks(&[Op::Release(second.id), Op::Send(Backend, last, true)]);
}

#[test]
fn what_a_broken_source_left_waits_for_no_end() {
    let mut script = Script::connected();
    let first = script.receives(Backend, 10);
    let last = script.receives(Backend, 20);
    script.asks(&[Op::Send(Client, first, false)]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CONNRESET)));
    script.ops.clear();
    script.sent(Client, 10);
    script.asks(&[Op::Release(first.id), Op::Send(Client, last, false)]);
    script.sent(Client, 20);
    script.asks(&[Op::Release(last.id), Op::Cancel(Purpose::Recv(Client))]);
    assert_eq!(script.session.reason(), Some(CloseReason::BackendReset));
}

#[test]
fn an_early_answer_waits_for_no_end() {
    let mut script = Script::connected();
    script.receives(Client, 10);
    script.on_event(Event::Sent(Backend, Err(PIPE)));
    script.ops.clear();
    // A reset that was reported already looks like an end.
    let answer = script.receives_last(Backend, 30);
    script.asks(&[Op::Send(Client, answer, false)]);
}

#[test]
fn what_a_broken_source_left_is_dropped_when_its_sink_stalls() {
    let mut script = Script::connected();
    let left = script.receives(Backend, 10);
    script.asks(&[Op::Send(Client, left, false)]);
    script.on_event(Event::RecvEnded(Backend, Err(Errno::CONNRESET)));
    script.asks(&[]);
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Backend)]);
    script.passes(LINGER - WATCH_AFTER);
    let cancels = [
        Op::Cancel(Purpose::Recv(Client)),
        Op::Cancel(Purpose::Send(Client)),
        Op::Cancel(Purpose::Watch(Backend)),
    ];
    script.asks(&cancels);
    assert_eq!(script.session.reason(), Some(CloseReason::BackendReset));
}

#[test]
fn an_answer_that_waits_for_its_end_gets_it_though_the_sink_broke() {
    let mut script = Script::connected();
    script.receives(Client, 10);
    let answer = script.receives_last(Backend, 30);
    script.ops.clear();
    // Its send is under way already when the upload is refused.
    script.on_event(Event::Sent(Backend, Err(PIPE)));
    script.on_event(Event::RecvEnded(Client, Err(Errno::CANCELED)));
    script.ops.clear();
    script.sent(Client, 30);
    let ends = [Op::Release(answer.id), Op::Shutdown(Client), Op::Finish];
    script.asks(&ends);
    assert_eq!(script.session.reason(), Some(CloseReason::BackendReset));
}
