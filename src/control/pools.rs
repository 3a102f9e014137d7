//! What the control thread does for pools: it looks ahead each second for those whose strategy
//! stands on it, and shows them all on SIGUSR1.

use std::sync::Arc;

use crate::config::Strategy;
use crate::pool::Backend;
use crate::select::{Forecaster, Plan, Prospect};
use crate::snapshot::Snapshot;
use crate::sys;

/// The pools of a snapshot.
pub(super) struct Pools {
    pools: Vec<(Arc<Plan>, Option<Forecaster>)>,
}

impl Pools {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let mut pools = Self { pools: Vec::new() };
        pools.follow(snapshot);
        pools
    }

    /// Goes over to another snapshot. What was learned of a pool goes along.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let mut old = std::mem::take(&mut self.pools);
        let pools = snapshot.pools.iter().map(|plan| {
            let forecaster = plan.pool().strategy.looks_ahead().map(|settings| {
                let mut before = old.iter_mut();
                let before = before.find(|(before, _)| before.pool().name == plan.pool().name);
                let before = before.and_then(|(_, forecaster)| forecaster.take());
                let same = before.filter(|before| before.settings() == settings);
                let mut forecaster = same.unwrap_or_else(|| Forecaster::new(settings));
                forecaster.follow(plan.pool());
                forecaster
            });
            (Arc::clone(plan), forecaster)
        });
        self.pools = pools.collect();
    }

    /// Looks at what happened during the last second, and ahead.
    pub(super) fn tick(&mut self) {
        for (plan, forecaster) in &mut self.pools {
            if let Some(forecaster) = forecaster {
                forecaster.tick(plan.pool(), sys::monotonic());
            }
        }
    }

    /// A table for each pool: what is counted of its backends, what is foreseen of them.
    pub(super) fn log(&self) {
        for (plan, forecaster) in &self.pools {
            let pool = plan.pool();
            let sticky = pool.sticky.as_ref();
            let clients = sticky.map_or_else(String::new, |table| {
                format!(
                    ", {} of {} clients known",
                    table.clients(),
                    table.capacity()
                )
            });
            let queue = match pool.queue.len() {
                0 => String::new(),
                waiting => format!(", {waiting} waiting for a place"),
            };
            let mut table = header(forecaster.is_some());
            let prospects = forecaster.as_ref().map(|known| known.prospects(pool));
            for (index, backend) in pool.backends.iter().enumerate() {
                let prospect = prospects.as_ref().and_then(|all| all.get(index));
                // What a connection costs has an effect on one strategy only.
                let learns = matches!(pool.strategy, Strategy::Predictive(_));
                table.push('\n');
                table.push_str(&line(backend, prospect, learns));
            }
            log::info!(
                target: super::HISTOGRAMS_TARGET,
                "pool {}: {}{clients}{queue}\n{table}",
                pool.name,
                pool.strategy
            );
        }
    }
}

fn header(looks_ahead: bool) -> String {
    let mut header = format!(
        "{:<24} {:>6} {:>11} {:>7} {:>8} {:>10} {:>14} {:>14} {:>5} {:>8} {:>7}",
        "",
        "weight",
        "connections",
        "waiting",
        "failures",
        "answer_ms",
        "bytes_up",
        "bytes_down",
        "downs",
        "down_s",
        "ejected"
    );
    if looks_ahead {
        header += &format!(
            " {:>9} {:>9} {:>6} {:>6} {:>9}",
            "load", "error", "model", "cost", "effective"
        );
    }
    header
}

fn line(backend: &Backend, prospect: Option<&Prospect>, learns: bool) -> String {
    let tally = &backend.tally;
    let past = tally.history.past(sys::monotonic());
    let [up, down] = tally.traffic.bytes();
    let answer = tally.latency().last();
    let answer = answer.map_or_else(|| "-".to_owned(), |us| format!("{:.3}", us / 1_000.0));
    let mut line = format!(
        "{:<24} {:>6} {:>11} {:>7} {:>8} {answer:>10} {up:>14} {down:>14} {:>5} {:>8} {:>7}",
        backend.name,
        backend.weight,
        tally.connections.used(),
        tally.waiting(),
        tally.failures(),
        past.times_down,
        past.down / 1_000_000_000,
        past.times_ejected,
    );
    if let Some(prospect) = prospect {
        let model = prospect.model.as_str();
        line += &format!(" {:>9.3} {:>9.3} {model:>6}", prospect.load, prospect.error);
        if learns {
            line += &format!(" {:>6.3} {:>9.2}", prospect.cost, prospect.weight);
        }
    }
    line
}
