//! Looking ahead for the pools that are balanced by forecast: once per second.

use std::sync::Arc;

use crate::config::Strategy;
use crate::select::{Forecaster, Plan, Prospect};
use crate::snapshot::Snapshot;
use crate::sys;

/// A forecaster for each pool with the strategy `predictive`.
pub(super) struct Outlook {
    pools: Vec<(Arc<Plan>, Forecaster)>,
}

impl Outlook {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let mut pools: Vec<(Arc<Plan>, Forecaster)> = Vec::new();
        for listener in &snapshot.listeners {
            let plan = &listener.plan;
            let known = pools.iter().any(|(known, _)| Arc::ptr_eq(known, plan));
            if let Strategy::Predictive(settings) = plan.pool().strategy
                && !known
            {
                pools.push((Arc::clone(plan), Forecaster::new(settings)));
            }
        }
        Self { pools }
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
