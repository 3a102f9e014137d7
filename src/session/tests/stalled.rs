//! A pipe whose sink takes next to nothing is given up, and no byte is lost or reordered.

use super::*;

/// In the pipe: two buffers and a half.
const LEFT: u32 = 2 * BUFFER_BYTES + 8_000;

fn full() -> Script {
    let mut script = Script::promoted(Client);
    script.pumped(
        Client,
        [CHUNK, CHUNK - LEFT],
        SourceState::Ready,
        SinkState::Full,
    );
    script.asks(&[Op::PollSink(Backend, false)]);
    script.passes(WATCH_AFTER);
    script.asks(&[Op::Watch(Client)]);
    script
}

#[test]
fn what_is_in_a_stalled_pipe_goes_on_in_buffers() {
    let mut script = full();
    script.passes(STALL - 1);
    script.asks(&[]);
    script.passes(1);
    let mut buffers = Vec::new();
    for len in [BUFFER_BYTES, BUFFER_BYTES, LEFT - 2 * BUFFER_BYTES] {
        script.asks(&[Op::Unpipe(Client)]);
        buffers.push(script.buffer(len));
        script.on_event(Event::Unpiped(Client, buffers.last().copied()));
    }
    // The receive has ended, and the wait for room goes on.
    script.asks(&[]);
    script.on_event(Event::SinkReady(Backend, true));
    let mut receives = false;
    for buffer in buffers {
        let sends = script.ops.contains(&Op::Send(Backend, buffer, false));
        assert!(sends, "{:?}", script.ops);
        script.ops.clear();
        script.sent(Backend, buffer.len);
        assert!(script.ops.contains(&Op::Release(buffer.id)));
        receives |= script.ops.contains(&Op::Recv(Client));
    }
    assert!(receives);
}

#[test]
fn a_stream_that_moves_keeps_its_pipe() {
    let mut script = full();
    for _ in 0..5 {
        script.on_event(Event::SinkReady(Backend, true));
        script.pumped(Client, [CHUNK, CHUNK], SourceState::Ready, SinkState::Full);
        script.asks(&[Op::Pump(Client), Op::PollSink(Backend, false)]);
        script.passes(STALL);
        script.asks(&[]);
    }
    script.passes(STALL);
    script.asks(&[Op::Unpipe(Client)]);
}

#[test]
fn a_pipe_that_cannot_be_read_is_kept_and_asked_again() {
    let mut script = full();
    for _ in 0..3 {
        script.passes(STALL);
        script.asks(&[Op::Unpipe(Client)]);
        script.on_event(Event::Unpiped(Client, None));
        script.asks(&[]);
    }
    script.on_event(Event::SinkReady(Backend, true));
    script.asks(&[Op::Pump(Client)]);
}

#[test]
fn a_sink_that_drips_keeps_no_pipe() {
    let mut script = full();
    for step in [2, 3] {
        script.on_event(Event::SinkReady(Backend, true));
        script.pumped(Client, [0, 1_000], SourceState::Ready, SinkState::Full);
        script.ops.clear();
        script.passes(STALL / step);
        assert!(!script.ops.contains(&Op::Unpipe(Client)));
    }
    script.passes(STALL);
    assert!(script.ops.contains(&Op::Unpipe(Client)));
}
