//! Buffers that wait to be sent: a queue per [`super::Flow`], linked through one table
//! per worker, so that a session owns no memory for it.

use crate::kernel::{Buffer, BufferId};

/// The links of every buffer of a worker's arena, by buffer number.
#[derive(Debug)]
pub struct Links {
    table: Vec<Link>,
    /// The number of unsent buffers at which a direction receives again.
    low: u16,
    /// The number of unsent buffers at which a direction stops receiving.
    high: u16,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            table: Vec::new(),
            low: BUFFERS_LOW,
            high: BUFFERS_HIGH,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    buffer: Buffer,
    next: BufferId,
    /// Of records: so many bytes are delivered with the last byte of this buffer.
    plain: u16,
}

impl Links {
    /// Sets whether buffers are short: then a direction makes do with one.
    pub fn set_short(&mut self, short: bool) {
        (self.low, self.high) = if short {
            (0, 1)
        } else {
            (BUFFERS_LOW, BUFFERS_HIGH)
        };
    }

    pub(super) fn high(&self) -> u16 {
        self.high
    }

    pub(super) fn low(&self) -> u16 {
        self.low
    }
}

/// A queue of buffers, first received first sent.
///
/// Invariant: `head` and `tail` mean something only while `len` is above 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BufferQueue {
    head: BufferId,
    tail: BufferId,
    len: u16,
}

impl BufferQueue {
    pub(super) fn len(&self) -> u16 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, buffer: Buffer, links: &mut Links) {
        self.push_sealed(buffer, 0, links);
    }

    /// The same with records: `plain` bytes are delivered once they are sent.
    #[inline]
    pub(super) fn push_sealed(&mut self, buffer: Buffer, plain: u16, links: &mut Links) {
        let id = usize::from(buffer.id);
        if links.table.len() <= id {
            let unused = Link {
                buffer: Buffer {
                    id: 0,
                    start: 0,
                    len: 0,
                },
                next: 0,
                plain: 0,
            };
            links.table.resize((id + 1).next_power_of_two(), unused);
        }
        links.table[id] = Link {
            buffer,
            next: 0,
            plain,
        };
        if self.is_empty() {
            self.head = buffer.id;
        } else {
            links.table[usize::from(self.tail)].next = buffer.id;
        }
        self.tail = buffer.id;
        self.len += 1;
    }

    pub(super) fn front(&self, links: &Links) -> Option<Buffer> {
        (!self.is_empty()).then(|| links.table[usize::from(self.head)].buffer)
    }

    /// Bytes that are delivered with the last byte of the first buffer.
    pub(super) fn front_plain(&self, links: &Links) -> u16 {
        links.table[usize::from(self.head)].plain
    }

    /// Puts a buffer before all others.
    pub(super) fn push_front(&mut self, buffer: Buffer, links: &mut Links) {
        let behind = std::mem::take(self);
        self.push(buffer, links);
        if !behind.is_empty() {
            links.table[usize::from(buffer.id)].next = behind.head;
            self.tail = behind.tail;
            self.len += behind.len;
        }
    }

    /// Bytes of another buffer were copied behind those of the first.
    pub(super) fn grow_front(&self, bytes: u32, links: &mut Links) {
        links.table[usize::from(self.head)].buffer.len += bytes;
    }

    /// Takes `bytes` off the first buffer; answers with the buffer when it is used up.
    pub(super) fn consume(&mut self, bytes: u32, links: &mut Links) -> Option<BufferId> {
        let front = &mut links.table[usize::from(self.head)].buffer;
        assert!(
            self.len > 0 && bytes <= front.len,
            "more sent than there was to send"
        );
        front.start += bytes;
        front.len -= bytes;
        if front.len > 0 {
            return None;
        }
        self.pop(links)
    }

    /// Takes the first buffer out, with all that is in it.
    pub(super) fn take_front(&mut self, links: &Links) -> Option<Buffer> {
        let front = self.front(links);
        self.pop(links);
        front
    }

    pub(super) fn pop(&mut self, links: &Links) -> Option<BufferId> {
        if self.is_empty() {
            return None;
        }
        let id = self.head;
        self.head = links.table[usize::from(id)].next;
        self.len -= 1;
        Some(id)
    }
}

/// 64 KiB.
pub(super) const BUFFERS_HIGH: u16 = 4;
const BUFFERS_LOW: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(id: BufferId, len: u32) -> Buffer {
        Buffer { id, start: 0, len }
    }

    #[test]
    fn two_queues_share_the_links_in_their_own_order() {
        let mut links = Links::default();
        let (mut up, mut down) = (BufferQueue::default(), BufferQueue::default());
        for id in [9, 2, 7] {
            up.push(buffer(id, 1), &mut links);
            down.push(buffer(id + 100, 1), &mut links);
        }
        let drain = |queue: &mut BufferQueue, links: &Links| {
            std::iter::from_fn(|| queue.pop(links)).collect::<Vec<_>>()
        };
        up.push_front(buffer(4, 1), &mut links);
        assert_eq!(drain(&mut up, &links), [4, 9, 2, 7]);
        up.push_front(buffer(5, 1), &mut links);
        up.push(buffer(6, 1), &mut links);
        assert_eq!(drain(&mut up, &links), [5, 6]);
        assert_eq!(drain(&mut down, &links), [109, 102, 107]);
    }

    #[test]
    fn a_short_send_leaves_the_rest_in_front() {
        let mut links = Links::default();
        let mut queue = BufferQueue::default();
        queue.push(buffer(3, 10), &mut links);
        assert_eq!(queue.consume(4, &mut links), None);
        assert_eq!(
            queue.front(&links),
            Some(Buffer {
                id: 3,
                start: 4,
                len: 6
            })
        );
        assert_eq!(queue.consume(6, &mut links), Some(3));
        assert!(queue.front(&links).is_none());
    }
}
