//! Admission: which clients may connect, and how many connections there may be.

#![forbid(unsafe_code)]

mod access;
mod limit;
mod prefixes;
mod ranges;
mod sample;

pub use access::{Access, AccessFilter, AccessFilters};
pub use limit::Limit;
pub use prefixes::{Clash, Prefixes};
pub use sample::Sample;
