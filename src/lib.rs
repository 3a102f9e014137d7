//! Mahoraga: a thread-per-core TCP load balancer on Linux io_uring.
//!
//! The rooms, in reading order; data flows one way through them:
//!
//! - [`address`]: where something listens;
//! - [`config`]: `config.ron` to a validated [`config::Config`];
//! - [`cli`]: the command line.

pub mod address;
pub mod cli;
pub mod config;
