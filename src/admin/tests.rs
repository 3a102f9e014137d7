//! The API over real sockets, before a control thread that is played.

mod answers;
mod callers;
mod mistakes;
mod stalling;
mod watching;
pub(super) mod world;
