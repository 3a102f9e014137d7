//! What each fuzz target does with its bytes: it compares the code with a simple model of it, and
//! panics where they differ. libFuzzer calls these by `fuzz_targets/`, and `cargo test` by
//! `tests/fuzz.rs`, with fewer and simpler inputs.

#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "tests/fuzz.rs includes this file, and is no library"
)]

mod bans;
mod configuration;
mod first_bytes;
mod hellos;
mod input;
mod kept_bans;
mod prefixes;
mod proxy_headers;
mod records;
mod requests;
mod sources;

pub use bans::bans;
pub use configuration::configuration;
pub use first_bytes::first_bytes;
pub use hellos::hellos;
pub use kept_bans::kept_bans;
pub use prefixes::{prefix_lists, prefix_tables};
pub use proxy_headers::proxy_headers;
pub use records::records;
pub use requests::requests;
pub use sources::sources;
