//! Mahoraga: a thread-per-core TCP load balancer on Linux io_uring.
//!
//! The rooms, in reading order; data flows one way through them:
//!
//! - [`address`]: where something listens; [`origin`]: where connections begin;
//! - [`hash`]: what keys are hashed with; [`lru`]: tables of a fixed size; [`time`]: times in
//!   nanoseconds;
//! - [`config`]: `config.ron` to a validated [`config::Config`];
//! - [`snapshot`]: what workers route by, published whole;
//! - [`pool`]: backends and what all workers count about them; [`guard`]: how many there may be;
//! - [`peek`]: what a client's first bytes say; [`select`]: choosing a backend;
//! - [`session`]: one client and one backend connection, as a pure state machine;
//! - [`worker`]: a thread's loop over its sessions;
//! - [`kernel`] and [`token`]: what a worker asks of the kernel;
//! - [`fault`]: whose fault an error is; [`metric`]: what a figure is;
//! - [`ring`]: the same on io_uring; [`sys`]: other system calls;
//! - [`fleet_shares`]: what balancers may take of limits over all of them;
//! - [`history`]: what figures were, in memory and in a file;
//! - [`simulate`]: what strategies would do, without a network;
//! - [`writer`]: files that are written to without waiting; [`operational_log`]: one of them;
//! - [`control`]: starting, signals, health, reload, logs; [`admin`]: its API; [`cli`]: the command
//!   line.

pub mod address;
pub mod admin;
pub mod buckets;
pub mod by_name;
pub mod cli;
pub mod config;
pub mod control;
pub mod fault;
pub mod fleet_shares;
pub mod guard;
pub mod hash;
pub mod history;
pub mod kernel;
pub mod lru;
pub mod metric;
pub mod operational_log;
pub mod origin;
pub mod peek;
pub mod pool;
pub mod prefix;
pub mod ring;
pub mod route;
pub mod select;
pub mod session;
pub mod shared;
pub mod simulate;
pub mod sizing;
pub mod snapshot;
pub mod sys;
pub mod time;
pub mod tls;
pub mod token;
mod wording;
pub mod worker;
pub mod writer;
