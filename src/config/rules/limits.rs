//! The rules of limits of new connections.

use super::Finding;
use crate::address::Address;
use crate::config::{Config, Listener};

/// The rules that limits break.
pub(super) fn find(config: &Config, found: &mut Vec<Finding>) {
    for (i, listener) in config.listeners.iter().enumerate() {
        let at = format!("listeners[{i}]");
        if let (Address::Unix(_), true) = (&listener.bind, listener.bandwidth.limits_sources()) {
            let sentence = "source: clients of a Unix socket have no address: leave it out";
            let source = format!("{at}.bandwidth.source");
            found.push(Finding::start(source, sentence).needing(format!("{at}.bind")));
        }
        if let Some(sentence) = fault(listener) {
            let limits = format!("{at}.source_limits");
            found.push(Finding::start(limits, sentence).needing(format!("{at}.bind")));
        }
        if let (Some(_), Address::Unix(_)) = (listener.ban, &listener.bind) {
            let sentence = "ban: clients of a Unix socket have no address: leave it out";
            let ban = Finding::start(format!("{at}.ban"), sentence);
            found.push(ban.needing(format!("{at}.bind")));
        }
    }
}

/// The rule that the source limits of a listener break, if any.
fn fault(listener: &Listener) -> Option<&'static str> {
    let limits = listener.source_limits.as_ref()?;
    if let Address::Unix(_) = listener.bind {
        return Some("source_limits: clients of a Unix socket have no address: leave it out");
    }
    let limits_nothing = limits.connections.is_none() && limits.rate.is_none();
    // It says what a source is.
    let is_paced = listener.bandwidth.limits_sources();
    (limits_nothing && !is_paced).then_some("source_limits: expected `connections`, `rate` or both")
}
