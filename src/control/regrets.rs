//! What settings have cost clients since the start, in sentences that name the setting, and the
//! listener, the pool or the backend that it cost most.

use std::sync::Arc;

use crate::config::Config;
use crate::pool::Missed;
use crate::snapshot::Snapshot;
use crate::time::{SECOND, between};
use crate::wording::plural;
use crate::worker::Stats;

use super::roster::Roster;

/// What one setting cost.
struct Cost {
    /// In all, with what has been removed since.
    all: u64,
    /// What it cost the most, and how much of it; `None`: that is not known, or has been removed.
    most: Option<(String, u64)>,
    /// What the setting should have been there, where that is known.
    right: Option<String>,
}

impl Cost {
    fn new<T>(all: u64, most: Option<(T, u64)>, name: impl Fn(T) -> String) -> Self {
        Self {
            all,
            most: most.map(|(of, count)| (name(of), count)),
            right: None,
        }
    }
}

/// The largest of these counts above 0.
fn largest<T>(each: impl Iterator<Item = (T, u64)>) -> Option<(T, u64)> {
    let some = each.filter(|(_, count)| *count > 0);
    // Of those that have as many, the first.
    some.reduce(|most, one| if one.1 > most.1 { one } else { most })
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
        let most = largest(pools.map(|pool| (&pool.name, pool.queue.regrets(why))));
        Cost::new(all, most, |pool| format!("pool `{pool}`"))
    };
    let members = config.pools.iter().zip(&roster.pools);
    let members = members.flat_map(|(pool, record)| {
        let each = record.members.iter();
        each.map(|member| ((&pool.name, &member.name), member.ejection_regrets))
    });
    of(&[
        of_idle(sum(|its| its.idle_regrets.get()), snapshot),
        queued(sum(|its| its.full_regrets.get()), Missed::Full),
        queued(sum(|its| its.queue_regrets.get()), Missed::Late),
        Cost::new(
            members.clone().map(|(_, count)| count).sum(),
            largest(members),
            |(pool, backend)| format!("backend `{backend}` of pool `{pool}`"),
        ),
    ])
}

/// What idle timeouts cost, all listeners together, but for those that have been mended since.
fn of_idle(all: u64, snapshot: &Snapshot) -> Cost {
    let listeners = snapshot.listeners.iter();
    let (mended, short): (Vec<_>, Vec<_>) =
        listeners.partition(|its| is_mended(its.limits.idle, its.gate.idle_regretted()));
    let mended: u64 = mended.iter().map(|its| its.gate.idle_regrets()).sum();
    let all = all.saturating_sub(mended);
    let most = largest(short.into_iter().map(|its| (its, its.gate.idle_regrets())));
    let right = most.map(|(its, _)| enough(its.gate.idle_regretted()));
    Cost {
        right: right.map(|enough| humantime::format_duration(between(0, enough)).to_string()),
        ..Cost::new(all, most, |its| format!("listener `{}`", its.name))
    }
}

/// The idle timeout, instead of this one, that would have kept clients who came back within a
/// second; both in ns.
fn enough(regretted: u64) -> u64 {
    regretted.saturating_add(SECOND)
}

/// Whether this idle timeout would have kept the clients that the longest regretted one cut; both
/// in ns.
fn is_mended(idle: u64, regretted: u64) -> bool {
    idle >= enough(regretted)
}

fn of(costs: &[Cost; 4]) -> Vec<String> {
    let each = costs.iter().zip(SETTINGS).filter(|(cost, _)| cost.all > 0);
    each.map(|(cost, setting)| sentence(cost, setting))
        .collect()
}

/// `WHOSE: N THINGS WHAT HAPPENED: SETTING, of RIGHT, WOULD HAVE DONE; M more of others`.
fn sentence(cost: &Cost, (thing, happened, setting, effect): (&str, &str, &str, &str)) -> String {
    let right = cost.right.as_ref();
    let right = right.map_or(String::new(), |right| format!(", of {right},"));
    let what = format!("{happened}: {setting}{right} {effect}");
    match &cost.most {
        Some((whose, most)) => {
            let more = match cost.all.saturating_sub(*most) {
                0 => String::new(),
                more => format!("; {more} more of others"),
            };
            format!("{whose}: {} {what}{more}", plural(*most, thing))
        }
        None => format!("{} {what}", plural(cost.all, thing)),
    }
}

/// What each setting costs, how, and what would have helped.
const SETTINGS: [(&str, &str, &str, &str); 4] = [
    (
        "client",
        "came back within a second after the idle timeout",
        "a longer `timeouts.idle`",
        "would have kept the sessions",
    ),
    (
        "client",
        "refused as pool_full while a place came free within 100 ms",
        "a larger `queue.max`",
        "would have let them wait",
    ),
    (
        "client",
        "refused as queue_timeout while a place came free within 100 ms",
        "a longer `queue.timeout`",
        "would have let them wait",
    ),
    (
        "ejection",
        "while no probe of it failed",
        "more `ejection.failures`",
        "would have kept it",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::NEVER;

    #[test]
    fn a_longer_timeout_mends_what_a_shorter_one_cost() {
        let regretted = 600 * SECOND;
        for (idle, want) in [
            (5, false),
            (600, false),
            (601, true),
            (NEVER / SECOND, true),
        ] {
            assert_eq!(is_mended(idle * SECOND, regretted), want, "{idle} s");
        }
        assert!(is_mended(NEVER, NEVER - 1));
    }

    #[test]
    fn each_setting_that_cost_clients_is_named_and_whose_it_is() {
        let cost = |all, most: &[(&str, u64)]| {
            let each = most.iter().map(|(name, count)| (*name, *count));
            Cost::new(all, largest(each), str::to_owned)
        };
        let none = [(); 4].map(|()| cost(0, &[("pool `a`", 0)]));
        assert!(of(&none).is_empty());
        let all = of(&[
            cost(1, &[]),
            cost(5, &[("pool `a`", 0), ("pool `b`", 3), ("pool `c`", 2)]),
            cost(3, &[("pool `a`", 3)]),
            cost(4, &[("backend `x` of pool `a`", 4)]),
        ]);
        let kept = Cost {
            right: Some("10m 1s".to_owned()),
            ..cost(2, &[("listener `l`", 2)])
        };
        let kept = sentence(&kept, SETTINGS[0]);
        let right = "listener `l`: 2 clients came back within a second after the idle timeout: a \
                     longer `timeouts.idle`, of 10m 1s, would have kept the sessions";
        assert_eq!(kept, right);
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
