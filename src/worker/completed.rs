//! What completions of the kernel's operations are as events of a session.

use crate::kernel::{Done, Errno};
use crate::session::{Arrival, Event, PeerState};
use crate::token::Side;

/// The event of a receive's completion; with `ends` the end of the stream is the next completion.
pub(super) fn received(from: Side, outcome: Result<Done, Errno>, ends: bool) -> Event {
    match outcome {
        Ok(Done::Received(buffer)) => Event::Received(from, buffer, ends),
        Ok(_) => Event::RecvEnded(from, Ok(())),
        Err(errno) => Event::RecvEnded(from, Err(errno)),
    }
}

pub(super) fn sent(to: Side, outcome: Result<Done, Errno>) -> Event {
    match outcome {
        Ok(Done::Count(bytes)) => Event::Sent(to, Ok(bytes)),
        Ok(_) => Event::Sent(to, Ok(0)),
        Err(errno) => Event::Sent(to, Err(errno)),
    }
}

pub(super) fn sink_ready(to: Side, outcome: Result<Done, Errno>) -> Event {
    match outcome {
        Ok(Done::Count(events)) => Event::SinkReady(to, events & ROOM != 0),
        _ => Event::SinkReady(to, true),
    }
}

pub(super) fn source_ready(from: Side, outcome: Result<Done, Errno>) -> Event {
    let arrival = match outcome {
        Ok(Done::Count(events)) if events & FAULT != 0 => Arrival::Fault,
        Ok(Done::Count(events)) if events & END != 0 => Arrival::End,
        _ => Arrival::Bytes,
    };
    Event::SourceReady(from, arrival)
}

pub(super) fn watched(side: Side, outcome: Result<Done, Errno>) -> Event {
    match outcome {
        Ok(Done::Count(events)) if events & FAULT != 0 => Event::Watched(side, PeerState::Broken),
        Ok(Done::Count(events)) if events & HANG_UP != 0 => Event::Watched(side, PeerState::HungUp),
        _ => Event::Watched(side, PeerState::Unclear),
    }
}

/// The bit of a poll's answer for a broken connection (poll(2)).
pub(super) const FAULT: u32 = libc::POLLERR as u32;
const HANG_UP: u32 = libc::POLLHUP as u32;
/// The bit of the end of what the peer sends.
pub(super) const END: u32 = libc::POLLRDHUP as u32;
/// Bits of a poll's answer that a send has something to say about.
const ROOM: u32 = (libc::POLLOUT | libc::POLLERR | libc::POLLHUP) as u32;
