//! When certificates, revocation lists and OCSP answers expire, in words for their operators.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::admin::model::{CertificateStatus, RevocationListStatus, StapleStatus};

/// What is shown of the files of an owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Its own certificates.
    pub(super) certificates: Vec<CertificateStatus>,
    pub(super) revocation_lists: Vec<RevocationListStatus>,
    pub(super) staples: Vec<StapleStatus>,
}

/// Something that expires.
#[derive(Clone, Copy, Debug)]
struct Expiring<'a> {
    thing: Thing<'a>,
    file: &'a str,
    /// In seconds since 1970.
    expires: i64,
}

#[derive(Clone, Copy, Debug)]
enum Thing<'a> {
    Certificate,
    Staple,
    RevocationList { issuer: &'a str },
}

impl Shown {
    fn expiring(&self) -> impl Iterator<Item = Expiring<'_>> {
        let certificates = self.certificates.iter().map(|its| Expiring {
            thing: Thing::Certificate,
            file: &its.file,
            expires: its.expires,
        });
        let lists = self.revocation_lists.iter().map(|its| Expiring {
            thing: Thing::RevocationList {
                issuer: &its.issuer,
            },
            file: &its.file,
            expires: its.expires,
        });
        let staples = self.staples.iter().map(|its| Expiring {
            thing: Thing::Staple,
            file: &its.file,
            expires: its.expires,
        });
        certificates.chain(lists).chain(staples)
    }

    /// What has expired, a sentence each.
    pub(super) fn expired(&self, now: SystemTime) -> impl Iterator<Item = String> {
        let expired = self.expiring().filter(move |one| one.left(now) == 0);
        expired.map(|one| one.has_expired())
    }
}

impl Expiring<'_> {
    fn left(&self, now: SystemTime) -> u64 {
        left(self.expires, now)
    }

    /// Days before it expires that an event says so.
    fn warn_days(&self) -> &'static [u64] {
        match self.thing {
            Thing::Certificate => &WARN_DAYS,
            Thing::RevocationList { .. } | Thing::Staple => &LIST_WARN_DAYS,
        }
    }

    fn what(&self) -> String {
        let file = self.file;
        match self.thing {
            Thing::Certificate => format!("the certificate in {file}"),
            Thing::Staple => format!("the OCSP answer in {file}"),
            Thing::RevocationList { issuer } => {
                format!("the revocation list of `{issuer}` in {file}")
            }
        }
    }

    fn has_expired(&self) -> String {
        let what = self.what();
        match self.thing {
            Thing::Certificate => format!("{what} has expired"),
            Thing::Staple => format!("{what} has expired: none is sent until a new one"),
            Thing::RevocationList { .. } => {
                format!(
                    "{what} has expired: certificates of this issuer are refused until a new one"
                )
            }
        }
    }
}

/// What an owner was warned about: each is told once for each of its days, however often its file
/// or the configuration is read again.
#[derive(Debug, Default)]
pub(super) struct Warned(HashMap<(String, i64), u64>);

impl Warned {
    /// What is to be told now, in one sentence.
    pub(super) fn news(&mut self, shown: &Shown, now: SystemTime) -> Option<String> {
        let mut before = std::mem::take(&mut self.0);
        let mut news = Vec::new();
        for one in shown.expiring() {
            let left = one.left(now);
            let days = left.div_ceil(DAY);
            let due = one.warn_days().iter().find(|warn| days <= **warn);
            let Some(&due) = due else {
                continue;
            };
            let key = (one.what(), one.expires);
            if self.0.contains_key(&key) {
                continue;
            }
            let told = before.remove(&key);
            if told.is_none_or(|told| due < told) {
                news.push(match left {
                    0 => one.has_expired(),
                    _ => format!("{} expires in {days} d", key.0),
                });
            }
            self.0.insert(key, due);
        }
        let more = news.len().saturating_sub(NAMED_MAX);
        news.truncate(NAMED_MAX);
        if more > 0 {
            news.push(format!("{more} more expire or have expired"));
        }
        (!news.is_empty()).then(|| news.join("; "))
    }
}

/// Whether what expires then has expired.
pub(super) fn is_over(expires: i64, now: SystemTime) -> bool {
    left(expires, now) == 0
}

/// Seconds until something expires; 0: it has. The last second of a certificate counts (RFC 5280,
/// section 4.1.2.5).
fn left(expires: i64, now: SystemTime) -> u64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let end = u64::try_from(expires).unwrap_or(0);
    end.saturating_add(1).saturating_sub(now)
}

/// Days before it expires that an event says so: of a certificate.
const WARN_DAYS: [u64; 4] = [0, 1, 7, 30];
/// Of a revocation list and an OCSP answer: many are for a week, and new ones come well before.
const LIST_WARN_DAYS: [u64; 2] = [0, 1];
/// In seconds.
const DAY: u64 = Duration::from_secs(24 * 60 * 60).as_secs();
/// Certificates that an event names; beyond them only their number is told.
const NAMED_MAX: usize = 8;

#[cfg(test)]
mod tests;
