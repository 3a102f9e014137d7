//! Completion entries to completions.

use io_uring::cqueue;

use crate::kernel::{Completion, Done, Errno, Socket};
use crate::sys;
use crate::token::{Purpose, Token};

use super::Ring;
use super::buffers::Buffers;

impl Ring {
    /// Takes what has completed.
    pub(super) fn reap(&mut self, completions: &mut Vec<Completion>) {
        let mut disarmed = false;
        for cqe in self.uring.completion() {
            self.usage.completions += 1;
            let token = Token::from_raw(cqe.user_data())
                .expect("the kernel answers with a token that it was given");
            let purpose = token.purpose();
            let more = cqueue::more(cqe.flags());
            if purpose == Purpose::Detached {
                continue;
            }
            if purpose == Purpose::Wake {
                disarmed |= !more;
                sys::clear_eventfd(self.wakes.own());
            }
            let outcome = decode(purpose, &cqe, &mut self.buffers);
            completions.push(Completion {
                token,
                outcome,
                more,
            });
        }
        if disarmed {
            self.await_wake();
        }
    }
}

/// The result that a completion entry holds.
fn decode(purpose: Purpose, cqe: &cqueue::Entry, buffers: &mut Buffers) -> Result<Done, Errno> {
    let Ok(count) = u32::try_from(cqe.result()) else {
        if let Some(id) = cqueue::buffer_select(cqe.flags()) {
            buffers.on_received(id, 0);
            buffers.give_back(id);
        }
        let errno = Errno(-cqe.result());
        if errno == Errno::NOBUFS && matches!(purpose, Purpose::Recv(_)) {
            buffers.on_exhausted();
        }
        return Err(errno);
    };
    match (purpose, cqueue::buffer_select(cqe.flags())) {
        (Purpose::Accept, _) => Ok(Done::Accepted(Socket::from_raw(cqe.result()))),
        (Purpose::Recv(_), Some(id)) if count > 0 => {
            Ok(Done::Received(buffers.on_received(id, count)))
        }
        (Purpose::Recv(_), Some(id)) => {
            buffers.on_received(id, 0);
            buffers.give_back(id);
            Ok(Done::Count(0))
        }
        _ => Ok(Done::Count(count)),
    }
}
