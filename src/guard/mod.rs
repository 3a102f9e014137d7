//! Admission: how many connections there may be.

#![forbid(unsafe_code)]

mod limit;

pub use limit::Limit;
