//! The rules of pools whose clients select their backends by name.

use std::collections::HashMap;

use super::{Finding, members};
use crate::config::{Pool, QueueLimits, Strategy};

/// What a pool with `sni_member` can't have, by the path of the pool.
pub(super) fn find(path: &str, pool: &Pool, found: &mut Vec<Finding>) {
    if pool.sni_member.is_none() {
        return;
    }
    let named = format!("{path}.sni_member");
    let mut refuse = |setting: &str, why: &str| {
        let sentence = format!("{setting}: {why} with `sni_member`: leave it out");
        let finding = Finding::at(format!("{path}.{setting}"), sentence);
        found.push(finding.needing(&named));
    };
    if pool.strategy != Strategy::default() {
        refuse("strategy", "the client's name selects its backend");
    }
    if pool.persist.is_some() {
        refuse("persist", "the client's name selects its backend");
    }
    if pool.queue.max > 0 && pool.queue != QueueLimits::default() {
        refuse("queue", "a client whose backend is full is refused");
    }
    if pool.discovery.is_some() {
        refuse(
            "discover",
            "backends that are found have no numbers that stay",
        );
    }
    if pool.scaling.is_some() || pool.backends.iter().any(|one| one.reserve) {
        refuse("scaling", "no other backend takes a client");
    }
    if members(path, pool).count() < pool.backends.len() {
        // Numbers are those of all.
        return;
    }
    let mut first = HashMap::new();
    for ((at, backend), number) in members(path, pool).zip(pool.numbers()) {
        if backend.backup {
            let sentence = "backup: no other backend takes a client with `sni_member`: leave it \
                            out";
            found.push(Finding::at(format!("{at}.backup"), sentence).needing(&named));
        }
        let place = format!("{at}.member|{at}.address");
        if let Some(first) = first.get(&number) {
            let sentence = format!(
                "two backends of the pool have the number {number}: give each a `member` of its \
                 own"
            );
            found.push(Finding::at(place, sentence).clashing(first));
        } else {
            first.insert(number, place);
        }
    }
}
