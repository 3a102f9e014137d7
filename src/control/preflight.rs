//! What a start opens before anything listens, looked at without making or changing anything: what
//! `mahoraga check` finds wrong here, `mahoraga run` refuses in the same words.

use std::io;
use std::path::Path;

use crate::address::Address;
use crate::admin::Tokens;
use crate::config::{AccessLog, Config, LogSink};
use crate::sys;

use super::{StartError, listening};

/// Why a start with this configuration would fail on this machine, as far as that can be seen
/// without listening anywhere.
#[must_use]
pub fn preflight(config: &Config) -> Vec<StartError> {
    let mut found = Vec::new();
    if let Some(AccessLog {
        to: LogSink::File(path),
        ..
    }) = &config.access_log
        && let Err(error) = sys::can_append_to(path)
    {
        let path = path.display().to_string();
        found.push(StartError::AccessLog { path, error });
    }
    if let Some(admin) = &config.admin {
        let mut seen = |path: &Path, outcome: io::Result<()>| {
            let at = path.display().to_string();
            found.extend(outcome.err().map(|error| StartError::Admin { at, error }));
        };
        if let Some(path) = admin.socket.as_ref().filter(|_| admin.required) {
            seen(path, sys::can_listen_at(path));
        }
        if let Some(path) = &admin.audit_log {
            seen(path, sys::can_append_to(path));
        }
        let tokens = admin.http.as_ref().map(Tokens::read);
        found.extend(tokens.and_then(Result::err).map(StartError::Token));
    }
    found.extend(listening::probe_origins(config, None).err());
    for listener in &config.listeners {
        if let Address::Unix(path) = &listener.bind
            && let Err(error) = sys::can_listen_at(path)
        {
            found.push(StartError::Bind {
                listener: listener.name.clone(),
                bind: listener.bind.clone(),
                error,
            });
        }
    }
    found
}
