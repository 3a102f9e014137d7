//! Pipes and what splices through them.

use std::collections::BTreeMap;

use mahoraga::kernel::{BUFFER_BYTES, Buffer, Errno, Pipe, Pumped, SinkState, SourceState};
use mahoraga::time::MS;

use crate::kernel::FakeKernel;
use crate::vain::Try;

/// Leased pipes with their bytes, by the number of the reading end.
#[derive(Debug)]
pub(crate) struct Pipes {
    leased: BTreeMap<i32, Vec<u8>>,
    /// Pipes that hold bytes: since when, and how many bytes went to the sink since then.
    full: BTreeMap<i32, (u64, u64)>,
    /// A pipe whose sink has just broken under bytes.
    lost: Option<i32>,
    idle: Vec<i32>,
    next: i32,
    max: u32,
}

impl Pipes {
    pub(crate) fn new(max: u32) -> Self {
        Self {
            leased: BTreeMap::new(),
            full: BTreeMap::new(),
            lost: None,
            idle: Vec::new(),
            next: 1_000_000,
            max,
        }
    }

    pub(crate) fn lease(&mut self) -> Option<Pipe> {
        if self.leased() == self.max {
            return None;
        }
        let read = self.idle.pop().unwrap_or(self.next);
        self.next = self.next.max(read + 2);
        self.leased.insert(read, Vec::new());
        Some(Pipe {
            read,
            write: read + 1,
            held: 0,
            pull: 1 << 20,
        })
    }

    pub(crate) fn give_back(&mut self, pipe: &Pipe) {
        let bytes = self.leased.remove(&pipe.read);
        let bytes = bytes.unwrap_or_else(|| panic!("{pipe:?} is returned twice"));
        assert_eq!(
            bytes.len(),
            pipe.held as usize,
            "{pipe:?} does not know itself"
        );
        self.full.remove(&pipe.read);
        self.lost.take_if(|lost| *lost == pipe.read);
        if bytes.is_empty() {
            self.idle.push(pipe.read);
        }
    }

    /// Records that this many bytes of a pipe went to its sink.
    fn note(&mut self, pipe: &Pipe, pushed: u32, now: u64) {
        if pipe.held == 0 {
            self.full.remove(&pipe.read);
            return;
        }
        let (since, moved) = self.full.entry(pipe.read).or_insert((now, 0));
        *moved += u64::from(pushed);
        if *moved >= PULL_BYTES_MIN {
            (*since, *moved) = (now, 0);
        }
    }

    /// A pipe whose bytes go nowhere is returned at once.
    pub(crate) fn assert_none_is_lost(&self) {
        assert!(self.lost.is_none(), "a pipe is kept after its sink broke");
    }

    /// A session whose sink takes next to nothing may not keep a pipe.
    pub(crate) fn assert_lent_to_streams(&self, now: u64) {
        let kept = self.full.values().map(|(since, _)| now - since).max();
        let kept = kept.unwrap_or(0);
        assert!(kept < KEPT_MAX, "a pipe is kept for {kept} ns");
    }

    pub(crate) fn leased(&self) -> u32 {
        u32::try_from(self.leased.len()).expect("few pipes")
    }
}

impl FakeKernel {
    /// As the ring's pump: empties the pipe, fills it once, empties it again.
    pub(crate) fn pump_through(
        &mut self,
        from: i32,
        pipe: &mut Pipe,
        to: i32,
        most: u32,
    ) -> Pumped {
        if !self.conn(from).spliced {
            self.trace.see("promotion to splice");
            self.conn(from).spliced = true;
        }
        let mut pumped = Pumped {
            pulled: 0,
            pushed: 0,
            source: SourceState::Ready,
            sink: SinkState::Ready,
        };
        let mut bytes = self.pipes.leased.remove(&pipe.read).expect("a leased pipe");
        assert_eq!(
            bytes.len(),
            pipe.held as usize,
            "{pipe:?} does not know itself"
        );
        self.drain(&mut bytes, to, &mut pumped);
        if pumped.sink == SinkState::Ready && most > 0 {
            let room = self.conn(to).outbound_room();
            self.pull(from, (room, most), &mut bytes, &mut pumped);
            self.drain(&mut bytes, to, &mut pumped);
            if u64::from(pumped.pulled) >= room && pumped.sink == SinkState::Ready {
                pumped.sink = SinkState::Full;
            }
        }
        pipe.held = u32::try_from(bytes.len()).expect("a pipe's length");
        self.pipes.note(pipe, pumped.pushed, self.now);
        if pipe.held > 0 && matches!(pumped.sink, SinkState::Broken(_)) {
            self.pipes.lost = Some(pipe.read);
        }
        self.pipes.leased.insert(pipe.read, bytes);
        let pulled = u64::from(pumped.pulled);
        self.trace
            .fact("pump", from, pulled << 32 | u64::from(pumped.pushed));
        if pumped.pulled > 0 {
            self.note_early_answer(from);
            self.wake_peer(from);
        }
        self.on_tried(from, Try::Pump, pumped);
        pumped
    }

    /// Puts a pipe's first bytes into a buffer.
    pub(crate) fn empty_pipe(&mut self, from: i32, pipe: &mut Pipe) -> Option<Buffer> {
        let needed = pipe.held.div_ceil(BUFFER_BYTES) as usize;
        if self.free.len() < needed {
            self.trace.see("no buffers for a pipe given up");
            self.pipes.full.insert(pipe.read, (self.now, 0));
            return None;
        }
        let bytes = self
            .pipes
            .leased
            .get_mut(&pipe.read)
            .expect("a leased pipe");
        let len = pipe.held.min(BUFFER_BYTES);
        let taken = bytes.drain(..len as usize).collect();
        pipe.held -= len;
        self.pipes.note(pipe, 0, self.now);
        self.trace.see("a pipe given up");
        self.trace.fact("unpipe", from, u64::from(len));
        self.fill_free(from, taken)
    }

    /// As the ring does: without a send there is no receive.
    pub(crate) fn pass_between(&mut self, from: i32, to: i32, most: u32) -> Pumped {
        assert!(most > 0, "nothing is passed on");
        let mut moved = Pumped {
            pulled: 0,
            pushed: 0,
            source: SourceState::Ready,
            sink: SinkState::Ready,
        };
        let room = self.conn(to).outbound_room();
        let unread = self.conn(from).unread();
        if self.conn(to).refuses_bytes() && unread > 0 {
            let errno = self.conn(to).send_error();
            moved.sink = SinkState::Broken(errno);
        } else if unread == 0 {
            moved.source = match self.conn(from).recv_end() {
                None => SourceState::Empty,
                Some(Ok(())) => SourceState::Stopped,
                Some(Err(errno)) => SourceState::Broken(errno),
            };
        } else if room == 0 || self.takes_nothing(to) {
            self.trace.see("nothing passed on to a full sink");
            moved.sink = SinkState::Full;
        } else {
            let all = unread.min(u64::from(most.min(BUFFER_BYTES)));
            let bytes = all.min(room);
            let taken = self.take_bytes(from, bytes);
            self.deliver(to, &taken, false);
            self.note_early_answer(from);
            self.wake_peer(from);
            if bytes < all {
                moved.sink = SinkState::Full;
            }
            moved.pulled = u32::try_from(bytes).expect("a length");
            moved.pushed = moved.pulled;
            self.trace.see("bytes passed on without a buffer");
            self.trace.fact("pass on", from, bytes);
        }
        self.on_tried(from, Try::PassOn, moved);
        moved
    }

    fn pull(
        &mut self,
        from: i32,
        (room, most): (u64, u32),
        pipe: &mut Vec<u8>,
        pumped: &mut Pumped,
    ) {
        if room == 0 {
            self.trace.see("spliced sink full");
            return pumped.sink = SinkState::Full;
        }
        if self.random.permille(20) {
            self.trace.see("splice interrupted");
            return pumped.source = SourceState::Empty;
        }
        let unread = self.conn(from).unread();
        if unread > 0 && self.conn(from).inbound.fin && self.random.permille(200) {
            self.trace.see("splice stopped at urgent data");
            return pumped.source = SourceState::Stopped;
        }
        if unread == 0 {
            pumped.source = match self.conn(from).recv_end() {
                None => SourceState::Empty,
                Some(Ok(())) => SourceState::Stopped,
                Some(Err(errno)) => SourceState::Broken(errno),
            };
            match pumped.source {
                SourceState::Stopped => self.trace.see("spliced stream ended"),
                SourceState::Broken(_) => self.trace.see("spliced source broke"),
                SourceState::Ready | SourceState::Empty => {}
            }
            return;
        }
        let most = unread.min(room.max(PULL_BYTES_MIN)).min(most.into());
        let bytes = if self.random.permille(800) {
            most
        } else {
            self.random.between(1, most)
        };
        *pipe = self.take_bytes(from, bytes);
        pumped.pulled = u32::try_from(bytes).expect("a length");
    }

    fn drain(&mut self, pipe: &mut Vec<u8>, to: i32, pumped: &mut Pumped) {
        if pipe.is_empty() {
            return;
        }
        let conn = self.conn(to);
        if conn.refuses_bytes() {
            let errno: Errno = conn.send_error();
            self.trace.see("spliced sink broke");
            return pumped.sink = SinkState::Broken(errno);
        }
        let room = usize::try_from(self.conn(to).outbound_room()).expect("a length");
        let mut bytes = room.min(pipe.len());
        if self.takes_nothing(to) {
            bytes = 0;
        } else if self.random.permille(50) {
            let some = self.random.below(bytes as u64 + 1);
            bytes = usize::try_from(some).expect("a length");
        }
        if bytes > 0 {
            self.deliver(to, &pipe[..bytes], false);
        }
        pipe.drain(..bytes);
        pumped.pushed += u32::try_from(bytes).expect("a length");
        if !pipe.is_empty() {
            self.trace.see("spliced sink full");
            pumped.sink = SinkState::Full;
        }
    }
}

/// This much is taken even if the sink has little room.
const PULL_BYTES_MIN: u64 = 64 * 1024;
/// A check each second finds such a sink, after it was slow for a whole second.
const KEPT_MAX: u64 = 2_300 * MS;
