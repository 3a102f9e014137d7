//! Looking ahead for the pools whose strategy stands on it: once per second.

use std::sync::Arc;

use crate::select::{Forecaster, Plan, Prospect};
use crate::snapshot::Snapshot;
use crate::sys;

/// A forecaster for each of those pools.
pub(super) struct Outlook {
    pools: Vec<(Arc<Plan>, Forecaster)>,
}

impl Outlook {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let mut outlook = Self { pools: Vec::new() };
        outlook.follow(snapshot);
        outlook
    }

    /// Goes over to another snapshot. What was learned of a pool goes along.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let mut old = std::mem::take(&mut self.pools);
        for plan in &snapshot.pools {
            let Some(settings) = plan.pool().strategy.looks_ahead() else {
                continue;
            };
            let same = |(before, forecaster): &(Arc<Plan>, Forecaster)| {
                before.pool().name == plan.pool().name && forecaster.settings() == settings
            };
            let mut forecaster = match old.iter().position(same) {
                Some(at) => old.swap_remove(at).1,
                None => Forecaster::new(settings),
            };
            forecaster.follow(plan.pool());
            self.pools.push((Arc::clone(plan), forecaster));
        }
    }

    pub(super) fn tick(&mut self) {
        for (plan, forecaster) in &mut self.pools {
            forecaster.tick(plan.pool(), sys::monotonic());
        }
    }

    /// A table for each pool.
    pub(super) fn log(&self) {
        for (plan, forecaster) in &self.pools {
            let mut table = format!(
                "{:<24} {:>10} {:>10} {:>8} {:>8} {:>8}",
                "", "load", "error", "model", "cost", "weight"
            );
            for prospect in forecaster.prospects(plan.pool()) {
                table.push('\n');
                table.push_str(&line(&prospect));
            }
            log::info!(
                target: super::HISTOGRAMS_TARGET,
                "pool {}: forecast\n{table}",
                plan.pool().name
            );
        }
    }
}

fn line(prospect: &Prospect) -> String {
    let Prospect {
        backend,
        load,
        error,
        model,
        cost,
        weight,
    } = prospect;
    let model = model.as_str();
    format!("{backend:<24} {load:>10.3} {error:>10.3} {model:>8} {cost:>8.3} {weight:>8.2}")
}
