//! Consul: the instances of a service, by blocking queries of its health endpoint
//! (`/v1/health/service/NAME`).
//!
//! An answer has all instances, and an index. The next query names the index, and Consul answers it
//! once something has changed, or a minute has passed. All of it runs on the thread of
//! [`super::remote`].

mod instance;
mod pause;
mod watch;

use super::remote;
use crate::config::Consul;

pub(super) use instance::Instance;
pub(super) use watch::ConsulWatch;

/// What is wrong with the files of a source, by the name of the setting, if anything. May take
/// long.
pub(super) fn mistake_in(source: &Consul) -> Option<(&'static str, String)> {
    let token = source.token_file.as_deref();
    let token = token.map(|path| ("token_file", path));
    remote::mistake_in(&source.server(), token)
}

#[cfg(test)]
mod tests;
