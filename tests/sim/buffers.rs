//! Receive buffers, and the socket or operation that holds each.

use mahoraga::kernel::{BUFFER_BYTES, Buffer, BufferId, Kernel};

use crate::kernel::FakeKernel;
use crate::stream;

/// A receive buffer and the connection that filled it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: Option<i32>,
}

impl FakeKernel {
    /// Puts bytes that have arrived into a free buffer.
    pub(crate) fn fill_buffer(&mut self, fd: i32, len: u64) -> Buffer {
        let id = self.free.pop().expect("looked at before");
        let bytes = self.take_bytes(fd, len);
        self.conn(fd).buffers += 1;
        let buffer = &mut self.buffers[usize::from(id)];
        buffer.from = Some(fd);
        buffer.bytes = bytes;
        self.note_early_answer(fd);
        self.wake_peer(fd);
        let len = u32::try_from(len).expect("a buffer's length");
        Buffer { id, start: 0, len }
    }

    /// Takes bytes that have arrived.
    pub(crate) fn take_bytes(&mut self, fd: i32, len: u64) -> Vec<u8> {
        let now = self.now;
        let conn = self.conn(fd);
        let (stream, at) = (conn.inbound.stream, conn.inbound.taken);
        conn.inbound.taken += len;
        conn.moved_at = now;
        conn.unread_since = now;
        // Bytes that join others behind a full sink are no progress for those.
        if conn.buffers == 0 {
            conn.vain = Default::default();
        }
        self.note_taken(fd, len);
        let mut bytes = vec![0; usize::try_from(len).expect("a length")];
        stream::fill(stream, at, &mut bytes);
        bytes
    }

    /// The bytes of a buffer and what has arrived behind them.
    pub(crate) fn look_ahead(&mut self, buffer: Option<Buffer>, fd: i32) -> &[u8] {
        let mut bytes = buffer.map_or_else(Vec::new, |buffer| self.bytes(buffer).to_vec());
        let held = bytes.len();
        let conn = self.conn(fd);
        let unread = usize::try_from(conn.unread()).expect("a length");
        bytes.resize((held + unread).min(BUFFER_BYTES as usize), 0);
        let inbound = &conn.inbound;
        stream::fill(inbound.stream, inbound.taken, &mut bytes[held..]);
        if bytes.len() > held {
            self.trace.see("first bytes looked at where they wait");
        }
        self.scratch = bytes;
        &self.scratch
    }

    pub(crate) fn append_bytes(&mut self, to: Buffer, from: Buffer) {
        let bytes = self.bytes(from).to_vec();
        let owner = self.buffers[usize::from(from.id)].from;
        let held = &mut self.buffers[usize::from(to.id)];
        assert_eq!(held.from, owner, "{from:?} is appended to another's");
        let end = (to.start + to.len) as usize;
        assert_eq!(held.bytes.len(), end, "{to:?} is cut wrongly");
        held.bytes.extend(bytes);
        assert!(held.bytes.len() <= BUFFER_BYTES as usize);
        self.trace.see("first bytes in several pieces");
    }

    pub(crate) fn take_back(&mut self, id: BufferId) {
        let sending = self
            .ops
            .values()
            .find(|op| !op.reported && op.kind.sends(id));
        assert!(
            sending.is_none(),
            "buffer {id} is given back under {sending:?}"
        );
        let held = &mut self.buffers[usize::from(id)];
        let from = held.from.take();
        let from = from.unwrap_or_else(|| panic!("buffer {id} is given back twice"));
        // Any later use of it would be detected.
        held.bytes.fill(0xee);
        self.free.push(id);
        self.conn(from).buffers -= 1;
    }
}
