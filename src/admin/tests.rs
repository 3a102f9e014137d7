//! The API over real sockets, with a fake control thread behind it.

mod answers;
mod callers;
mod metrics;
mod mistakes;
mod page;
mod stalling;
mod watching;
pub(super) mod world;
