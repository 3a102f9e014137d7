//! What settings have cost clients since the start, in sentences that name the setting.

use std::sync::Arc;

use crate::wording::plural;
use crate::worker::Stats;

use super::roster::Roster;

/// A sentence for each setting that has cost some.
pub(super) fn sentences(stats: &[Arc<Stats>], roster: &Roster) -> Vec<String> {
    let sum = |number: fn(&Stats) -> u64| stats.iter().map(|its| number(its)).sum();
    let members = roster.pools.iter().flat_map(|record| &record.members);
    of([
        sum(|its| its.idle_regrets.get()),
        sum(|its| its.full_regrets.get()),
        sum(|its| its.queue_regrets.get()),
        members.map(|member| member.ejection_regrets).sum(),
    ])
}

fn of([idle, full, late, ejections]: [u64; 4]) -> Vec<String> {
    let clients = |number| plural(number, "client");
    let all = [
        (
            idle,
            format!(
                "{} came back within a second after the idle timeout: a longer `timeouts.idle` \
                 would have kept the sessions",
                clients(idle)
            ),
        ),
        (
            full,
            format!(
                "{} refused as pool_full while a place came free within 100 ms: a larger \
                 `queue.max` would have let them wait",
                clients(full)
            ),
        ),
        (
            late,
            format!(
                "{} refused as queue_timeout while a place came free within 100 ms: a longer \
                 `queue.timeout` would have let them wait",
                clients(late)
            ),
        ),
        (
            ejections,
            format!(
                "{} of a backend while no probe of it failed: more `ejection.failures` would have \
                 kept it",
                plural(ejections, "ejection")
            ),
        ),
    ];
    let all = all.into_iter().filter(|(number, _)| *number > 0);
    all.map(|(_, sentence)| sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_cost_clients_is_named() {
        assert!(of([0; 4]).is_empty());
        let all = of([1, 2, 3, 4]);
        for (sentence, (begin, setting)) in all.iter().zip([
            ("1 client came", "`timeouts.idle`"),
            ("2 clients refused", "`queue.max`"),
            ("3 clients refused", "`queue.timeout`"),
            ("4 ejections of", "`ejection.failures`"),
        ]) {
            assert!(
                sentence.starts_with(begin) && sentence.contains(setting),
                "{sentence}"
            );
        }
        assert_eq!(of([0, 0, 5, 0]).len(), 1);
    }
}
