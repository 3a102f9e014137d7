//! Receive buffers, and who holds which.

use mahoraga::kernel::{BUFFER_BYTES, Buffer, BufferId, Kernel};

use crate::kernel::FakeKernel;

/// A receive buffer and who it was filled from.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: Option<i32>,
}

impl FakeKernel {
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
        let sending = self.ops.values().find(|op| !op.told && op.kind.sends(id));
        assert!(
            sending.is_none(),
            "buffer {id} is given back under {sending:?}"
        );
        let held = &mut self.buffers[usize::from(id)];
        let from = held.from.take();
        let from = from.unwrap_or_else(|| panic!("buffer {id} is given back twice"));
        // Whoever used it after this would be found out.
        held.bytes.fill(0xee);
        self.free.push(id);
        self.conn(from).buffers -= 1;
    }
}
