//! Memory that sessions borrow while they need it: most need it for moments.

/// Memory that sessions borrow while they need it.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<Vec<u8>>);

impl Spare {
    /// Memory for `vec`, which has none.
    pub(super) fn lend(&mut self, vec: &mut Vec<u8>) {
        if vec.capacity() == 0 {
            *vec = self.0.pop().unwrap_or_default();
        }
    }

    /// Takes the memory of `vec` back where nothing is in it.
    pub(super) fn take_back(&mut self, vec: &mut Vec<u8>) {
        if !vec.is_empty() || vec.capacity() == 0 {
            return;
        }
        let memory = std::mem::take(vec);
        if self.0.len() < SPARE && memory.capacity() <= SPARE_BYTES {
            self.0.push(memory);
        }
    }
}

/// Pieces of memory that a worker keeps for sessions.
const SPARE: usize = 8;
/// The largest of them.
const SPARE_BYTES: usize = 64 * 1024;
