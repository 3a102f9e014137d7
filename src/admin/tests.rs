//! The API over real sockets, with a fake control thread behind it.

mod answers;
mod callers;
mod mistakes;
mod page;
mod stalling;
mod watching;
pub(super) mod world;
