//! What settings have cost clients since the start, in sentences that name the setting, and the
//! pool or the backend that it cost most.

use std::sync::Arc;

use crate::config::Config;
use crate::pool::Missed;
use crate::snapshot::Snapshot;
use crate::wording::plural;
use crate::worker::Stats;

use super::roster::Roster;

/// What one setting cost.
struct Cost {
    /// In all, with what has been removed since.
    all: u64,
    /// What it cost the most, and how much of it; `None`: that is not known, or has been removed.
    most: Option<(String, u64)>,
}

impl Cost {
    /// The largest of the counts, each with a name that is made only for that one.
    fn new<T>(all: u64, each: impl Iterator<Item = (T, u64)>, name: impl Fn(T) -> String) -> Self {
        let some = each.filter(|(_, count)| *count > 0);
        // Of those that have as many, the first.
        let most = some.reduce(|most, one| if one.1 > most.1 { one } else { most });
        Self {
            all,
            most: most.map(|(of, count)| (name(of), count)),
        }
    }
}

/// A sentence for each setting that has cost some.
pub(super) fn sentences(
    stats: &[Arc<Stats>],
    snapshot: &Snapshot,
    (config, roster): (&Config, &Roster),
) -> Vec<String> {
    let sum = |number: fn(&Stats) -> u64| stats.iter().map(|its| number(its)).sum();
    let queued = |all, why| {
        let pools = snapshot.pools.iter().map(|plan| plan.pool());
        let each = pools.map(|pool| (&pool.name, pool.queue.regrets(why)));
        Cost::new(all, each, |pool| format!("pool `{pool}`"))
    };
    let members = config.pools.iter().zip(&roster.pools);
    let members = members.flat_map(|(pool, record)| {
        let each = record.members.iter();
        each.map(|member| ((&pool.name, &member.name), member.ejection_regrets))
    });
    of(&[
        Cost {
            all: sum(|its| its.idle_regrets.get()),
            most: None,
        },
        queued(sum(|its| its.full_regrets.get()), Missed::Full),
        queued(sum(|its| its.queue_regrets.get()), Missed::Late),
        Cost::new(
            members.clone().map(|(_, count)| count).sum(),
            members,
            |(pool, backend)| format!("backend `{backend}` of pool `{pool}`"),
        ),
    ])
}

fn of(costs: &[Cost; 4]) -> Vec<String> {
    let each = costs.iter().zip(SETTINGS).filter(|(cost, _)| cost.all > 0);
    each.map(|(cost, setting)| sentence(cost, setting))
        .collect()
}

/// `WHOSE: N THINGS WHAT HAPPENED; M more of others`.
fn sentence(cost: &Cost, (thing, happened): (&str, &str)) -> String {
    match &cost.most {
        Some((whose, most)) => {
            let more = match cost.all.saturating_sub(*most) {
                0 => String::new(),
                more => format!("; {more} more of others"),
            };
            format!("{whose}: {} {happened}{more}", plural(*most, thing))
        }
        None => format!("{} {happened}", plural(cost.all, thing)),
    }
}

/// What each setting costs, and how.
const SETTINGS: [(&str, &str); 4] = [
    (
        "client",
        "came back within a second after the idle timeout: a longer `timeouts.idle` would have \
         kept the sessions",
    ),
    (
        "client",
        "refused as pool_full while a place came free within 100 ms: a larger `queue.max` would \
         have let them wait",
    ),
    (
        "client",
        "refused as queue_timeout while a place came free within 100 ms: a longer \
         `queue.timeout` would have let them wait",
    ),
    (
        "ejection",
        "while no probe of it failed: more `ejection.failures` would have kept it",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_cost_clients_is_named_and_whose_it_is() {
        let cost = |all, most: &[(&str, u64)]| {
            let each = most.iter().map(|(name, count)| (*name, *count));
            Cost::new(all, each, str::to_owned)
        };
        let none = [(); 4].map(|()| cost(0, &[("pool `a`", 0)]));
        assert!(of(&none).is_empty());
        let all = of(&[
            cost(1, &[]),
            cost(5, &[("pool `a`", 0), ("pool `b`", 3), ("pool `c`", 2)]),
            cost(3, &[("pool `a`", 3)]),
            cost(4, &[("backend `x` of pool `a`", 4)]),
        ]);
        for (sentence, (begin, setting, end)) in all.iter().zip([
            ("1 client came", "`timeouts.idle`", "the sessions"),
            (
                "pool `b`: 3 clients refused",
                "`queue.max`",
                "wait; 2 more of others",
            ),
            ("pool `a`: 3 clients refused", "`queue.timeout`", "wait"),
            (
                "backend `x` of pool `a`: 4 ejections while",
                "`ejection.failures`",
                "kept it",
            ),
        ]) {
            assert!(
                sentence.starts_with(begin)
                    && sentence.contains(setting)
                    && sentence.ends_with(end),
                "{sentence}"
            );
        }
        assert_eq!(all.len(), 4);
    }
}
