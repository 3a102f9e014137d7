//! Forecasts each second for pools whose strategy needs it, and logs all pools on SIGUSR1.

use crate::config::Strategy;
use crate::pool::Backend;
use crate::select::{BackendForecast, Forecaster};
use crate::snapshot::Snapshot;
use crate::sys;
use crate::time::SECOND;

use super::roster::Roster;

/// Follows another snapshot, whose pools at these indices have changed. What was learned of a pool
/// is kept.
pub(super) fn follow(roster: &mut Roster, snapshot: &Snapshot, changed: &[usize]) {
    for &place in changed {
        let (record, pool) = (&mut roster.pools[place], snapshot.pools[place].pool());
        let before = record.forecaster.take();
        record.forecaster = pool.strategy.looks_ahead().map(|settings| {
            let same = before.filter(|before| before.settings() == settings);
            let mut forecaster = same.unwrap_or_else(|| Forecaster::new(settings));
            forecaster.follow(pool);
            forecaster
        });
    }
}

/// Learns from the last second, and forecasts.
pub(super) fn tick(roster: &mut Roster, snapshot: &Snapshot) {
    for (record, plan) in roster.pools.iter_mut().zip(&snapshot.pools) {
        if let Some(forecaster) = &mut record.forecaster {
            forecaster.tick(plan.pool(), sys::monotonic());
        }
    }
}

/// Logs a table for each pool: the counts and the forecasts of its backends.
pub(super) fn log(roster: &Roster, snapshot: &Snapshot) {
    for (record, plan) in roster.pools.iter().zip(&snapshot.pools) {
        let (pool, forecaster) = (plan.pool(), record.forecaster.as_ref());
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
        let forecasts = forecaster.map(|known| known.forecasts(pool));
        for (index, backend) in pool.backends.iter().enumerate() {
            let forecast = forecasts.as_ref().and_then(|all| all.get(index));
            // Only one strategy uses the cost of connections.
            let learns = matches!(pool.strategy, Strategy::Predictive(_));
            table.push('\n');
            table.push_str(&line(backend, forecast, learns));
        }
        log::info!(
            target: super::HISTOGRAMS_TARGET,
            "pool {}: {}{clients}{queue}\n{table}",
            pool.name,
            pool.strategy
        );
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

fn line(backend: &Backend, forecast: Option<&BackendForecast>, learns: bool) -> String {
    let tally = &backend.tally;
    let past = tally.history.summary(sys::monotonic());
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
        past.down / SECOND,
        tally.times_ejected(),
    );
    if let Some(forecast) = forecast {
        let model = forecast.model.as_str();
        line += &format!(" {:>9.3} {:>9.3} {model:>6}", forecast.load, forecast.error);
        if learns {
            line += &format!(" {:>6.3} {:>9.2}", forecast.cost, forecast.weight);
        }
    }
    line
}
