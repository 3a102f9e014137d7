//! What a listener asks about a client, in its fixed order: the ban table, the access list, the
//! limits of connections, the rates. What is cheapest and most final comes first: a banned client
//! takes no place, and a denied one uses up no rate.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{AccessFilter, Action, Ban, Bans, Gate, Held, Refusal, Rules, Sources, Trusted};

/// The rules of a listener about its clients, at one moment.
///
/// It is asked once the client is known. That is at accept where clients connect themselves, and
/// when the header is complete where proxies connect for them, which [`PeerStage`] is asked about
/// at accept.
///
/// [`PeerStage`]: super::PeerStage
#[derive(Clone, Copy, Debug)]
pub struct ClientStage<'a> {
    /// Networks whose clients are refused.
    pub bans: &'a Bans,
    /// What is done with banned clients.
    pub ban_action: Action,
    /// Networks that no ban concerns.
    pub trusted: &'a Trusted,
    /// Which clients may connect; `None`: all.
    pub access: Option<&'a AccessFilter>,
    /// The limits of new connections.
    pub rules: &'a Rules,
    /// What the listener counts.
    pub gate: &'a Gate,
    /// What is counted of sources.
    pub sources: &'a Sources,
}

/// Why a client is not let in, and what is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The first rule that refuses it.
    pub by: DeniedBy,
    /// What is done with its connection.
    pub action: Action,
}

/// What an admitted client has.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct ClientPass {
    /// Its place at its source, if that is counted.
    pub held: Option<Held>,
    /// The first rule that would have refused it if it were not in dry run.
    pub dry_run: Option<DeniedBy>,
}

/// A rule that refuses clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedBy {
    /// A ban.
    Ban,
    /// The access list.
    AccessList,
    /// A limit of new connections.
    Limit(Refusal),
}

/// What stands against a client, whatever others do.
#[derive(Clone, Debug)]
pub enum Barred<'a> {
    /// A ban.
    Ban(Arc<Ban>),
    /// The access list, which may be in a dry run.
    AccessList(&'a AccessFilter),
}

impl<'a> ClientStage<'a> {
    /// Whether a rule looks at addresses. To ask the kernel for one is a system call.
    #[inline]
    #[must_use]
    pub fn needs_address(&self) -> bool {
        self.access.is_some() || self.rules.source.is_some() || !self.bans.is_empty()
    }

    /// Admits a client at `now`, in ns of the workers' clock, or says which rule refuses it, which
    /// is counted. What one rule refuses takes nothing from any other. `client` is `None` if it
    /// came by a Unix socket: then it can't be banned, and counts for the listener only.
    ///
    /// # Errors
    /// The first rule that refuses it.
    #[inline]
    pub fn admit(&self, client: Option<IpAddr>, now: u64) -> Result<ClientPass, Denied> {
        if client.is_some_and(|ip| self.is_banned(ip, now)) {
            return Err(Denied {
                by: DeniedBy::Ban,
                action: self.ban_action,
            });
        }
        let mut dry_run = None;
        if let Some(list) = self.access.filter(|list| self.is_denied(list, client)) {
            if !list.dry_run {
                return Err(Denied {
                    by: DeniedBy::AccessList,
                    action: list.action,
                });
            }
            dry_run = Some(DeniedBy::AccessList);
        }
        if self.rules.is_empty() {
            let held = None;
            return Ok(ClientPass { held, dry_run });
        }
        let admitted = self.gate.admit(self.sources, self.rules, client, now);
        let pass = admitted.map_err(|limit| Denied {
            by: DeniedBy::Limit(limit),
            action: self.rules.action(limit),
        })?;
        // The first rule that would have refused it counts, as it does where it refuses.
        let dry_run = dry_run.or_else(|| pass.dry_run.map(DeniedBy::Limit));
        let held = pass.held;
        Ok(ClientPass { held, dry_run })
    }

    /// Admits a proxy's own connection at `now`, such as its health check. Who may name clients may
    /// be none of them: only the limits of all clients together hold for it.
    ///
    /// # Errors
    /// The rate that refuses it.
    pub fn admit_own(&self, now: u64) -> Result<ClientPass, Denied> {
        let rates = Rules {
            source: None,
            ..*self.rules
        };
        let stage = ClientStage {
            access: None,
            rules: &rates,
            ..*self
        };
        stage.admit(None, now)
    }

    /// Whether a client is banned at `now`, which is counted.
    #[inline]
    pub fn is_banned(&self, client: IpAddr, now: u64) -> bool {
        let is_banned = self.bans.refuses(client, self.trusted, now);
        if is_banned {
            self.bans.count_hit(client, now);
            self.gate.count_banned();
        }
        is_banned
    }

    /// What would refuse a client at `now` however few others there are, in the order of
    /// [`admit`](Self::admit). Nothing is counted; limits and rates are not looked at.
    #[must_use]
    pub fn barred(&self, client: Option<IpAddr>, now: u64) -> Option<Barred<'a>> {
        let banned = client.filter(|ip| self.bans.refuses(*ip, self.trusted, now));
        if let Some(ban) = banned.and_then(|ip| self.bans.find(ip, now)) {
            return Some(Barred::Ban(ban));
        }
        let denies = self.access.filter(|list| !lets_in(list, client));
        denies.map(Barred::AccessList)
    }

    /// Whether a list refuses a client, or would in a dry run, which is counted.
    fn is_denied(&self, list: &AccessFilter, client: Option<IpAddr>) -> bool {
        if lets_in(list, client) {
            return false;
        }
        list.refused.fetch_add(1, Ordering::Relaxed);
        match list.dry_run {
            true => self.gate.count_access_dry_run(),
            false => self.gate.count_access_denied(),
        }
        true
    }
}

/// Whether a list allows a client. One without an address is in no prefix, and in none of the
/// others either.
fn lets_in(list: &AccessFilter, client: Option<IpAddr>) -> bool {
    client.is_some_and(|ip| list.allows(ip))
}

#[cfg(test)]
mod tests;
