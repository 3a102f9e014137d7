//! When certificates expire, in words for their operators.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::admin::model::CertificateStatus;

/// The certificates of an owner that it was warned about: each is told once for each of
/// [`WARN_DAYS`], however often its file or the configuration is read again.
#[derive(Debug, Default)]
pub(super) struct Warned(HashMap<(String, i64), u64>);

impl Warned {
    /// What is to be told of these certificates now, in one sentence.
    pub(super) fn news(&mut self, shown: &[CertificateStatus], now: SystemTime) -> Option<String> {
        let mut before = std::mem::take(&mut self.0);
        let mut news = Vec::new();
        for one in shown {
            let left = left(one, now);
            let days = left.div_ceil(DAY);
            let Some(due) = WARN_DAYS.into_iter().find(|warn| days <= *warn) else {
                continue;
            };
            let key = (one.file.clone(), one.expires);
            if self.0.contains_key(&key) {
                continue;
            }
            let told = before.remove(&key);
            if told.is_none_or(|told| due < told) {
                news.push(match left {
                    0 => has_expired(&one.file),
                    _ => format!("the certificate in {} expires in {days} d", one.file),
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

/// The certificates that have expired, a sentence each.
pub(super) fn expired(
    shown: &[CertificateStatus],
    now: SystemTime,
) -> impl Iterator<Item = String> {
    let expired = shown.iter().filter(move |one| left(one, now) == 0);
    expired.map(|one| has_expired(&one.file))
}

fn has_expired(file: &str) -> String {
    format!("the certificate in {file} has expired")
}

/// Seconds until a certificate expires; 0: it has. Its last second counts (RFC 5280, section
/// 4.1.2.5).
fn left(certificate: &CertificateStatus, now: SystemTime) -> u64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let end = u64::try_from(certificate.expires).unwrap_or(0);
    end.saturating_add(1).saturating_sub(now)
}

/// Days before a certificate expires that an event says so.
const WARN_DAYS: [u64; 4] = [0, 1, 7, 30];
/// In seconds.
const DAY: u64 = Duration::from_secs(24 * 60 * 60).as_secs();
/// Certificates that an event names; beyond them only their number is told.
const NAMED_MAX: usize = 8;

#[cfg(test)]
mod tests;
