//! Forecasts each second for pools whose strategy needs it, and logs all pools on SIGUSR1.

use std::sync::Arc;

use crate::config::Strategy;
use crate::pool::{Backend, Pool};
use crate::select::{BackendForecast, Forecaster};
use crate::snapshot::Snapshot;
use crate::sys;
use crate::time::SECOND;

use super::aside;
use super::history::{Recorder, Wanted};
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

/// Asks the history for the past of loads whose forecasts are new, and hands it to them once it is
/// there.
pub(super) fn recall(roster: &mut Roster, snapshot: &Snapshot, history: &mut Recorder) {
    for mut learned in history.recalled().into_iter().flatten() {
        let both = roster.pools.iter_mut().zip(&snapshot.pools);
        for (record, plan) in both.filter(|(_, plan)| plan.pool().name == learned.of.pool) {
            let forecaster = record.forecaster.as_mut();
            // One with other settings asks for itself.
            let same = forecaster.filter(|its| its.settings() == learned.of.settings);
            if let Some(forecaster) = same {
                forecaster.adopt(plan.pool(), &mut learned.forecasts);
            }
        }
    }
    if !history.can_recall() {
        return;
    }
    let both = roster.pools.iter_mut().zip(&snapshot.pools);
    let wanted = both.filter_map(|(record, plan)| {
        let forecaster = record.forecaster.as_mut()?;
        forecaster.takes_past().then(|| Wanted {
            pool: plan.pool().name.clone(),
            settings: forecaster.settings(),
        })
    });
    let wanted: Vec<_> = wanted.collect();
    if !wanted.is_empty() {
        history.recall(wanted);
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

/// Logs tables of each pool: the counts and the forecasts of its backends. Another thread does it,
/// as there may be tens of thousands.
pub(super) fn log(roster: &Roster, snapshot: &Arc<Snapshot>) {
    let snapshot = Arc::clone(snapshot);
    let forecasts = roster.pools.iter().zip(&snapshot.pools);
    let forecasts = forecasts.map(|(record, plan)| {
        let forecaster = record.forecaster.as_ref();
        forecaster.map(|known| known.forecasts(plan.pool()))
    });
    let forecasts: Vec<_> = forecasts.collect();
    drop(aside::compute(move || {
        for (plan, forecasts) in snapshot.pools.iter().zip(&forecasts) {
            for table in tables(plan.pool(), forecasts.as_deref()) {
                log::info!(target: super::HISTOGRAMS_TARGET, "{table}");
            }
        }
    }));
}

/// The tables of a pool, each short enough for one record of the log.
fn tables(pool: &Pool, forecasts: Option<&[BackendForecast]>) -> impl Iterator<Item = String> {
    let sticky = pool.sticky.as_ref();
    let clients = sticky.map_or_else(String::new, |table| {
        let (known, room) = (table.clients(), table.capacity());
        format!(", {known} of {room} clients known")
    });
    let queue = match pool.queue.len() {
        0 => String::new(),
        waiting => format!(", {waiting} waiting for a place"),
    };
    let title = format!("pool {}: {}{clients}{queue}", pool.name, pool.strategy);
    // Only one strategy uses the cost of connections.
    let learns = matches!(pool.strategy, Strategy::Predictive(_));
    let all = pool.backends.len();
    // A pool that discovers its backends may have none yet.
    let firsts = (0..all.max(1)).step_by(LINES_MAX);
    firsts.map(move |first| {
        let mut table = match all {
            ..=LINES_MAX => format!("{title}\n"),
            _ => format!("{title}, from backend {} of {all} on\n", first + 1),
        };
        table += &header(forecasts.is_some());
        let part = pool.backends.iter().enumerate().skip(first);
        for (index, backend) in part.take(LINES_MAX) {
            let forecast = forecasts.and_then(|all| all.get(index));
            table.push('\n');
            table += &line(backend, forecast, learns);
        }
        table
    })
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

/// Backends of a table: some 150 KiB, where a record of some MiB finds no room.
const LINES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::config;

    #[test]
    fn a_large_pool_is_several_tables() {
        let address = |i: u16| Address::Tcp(([10, 0, 0, 1], 1 + i).into());
        let backend = |i| config::Backend::at(address(i));
        let of = |count| Pool::new(&config::Pool::of("p", (0..count).map(backend).collect()));
        let tables = |count| tables(&of(count), None).collect::<Vec<_>>();
        let lines = |table: &String| {
            (
                table.lines().next().unwrap().to_owned(),
                table.lines().count(),
            )
        };
        let small: Vec<_> = tables(3).iter().map(lines).collect();
        assert_eq!(small, [("pool p: round_robin".to_owned(), 5)]);
        let large: Vec<_> = tables(2_001).iter().map(lines).collect();
        let title = |first| format!("pool p: round_robin, from backend {first} of 2001 on");
        assert_eq!(
            large,
            [(title(1), 1_002), (title(1_001), 1_002), (title(2_001), 3)]
        );
        assert_eq!(tables(0).len(), 1);
    }
}
