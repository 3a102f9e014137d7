//! SIGHUP: the configuration file is read again. What is wrong leaves the old one in force.

use std::sync::Arc;

use crate::config::{Config, ConfigError};
use crate::pool::Standing;
use crate::snapshot::Snapshot;

use super::crew::Crew;
use super::{StartError, capacity, listening};

/// Reads the configuration again, from where it came.
pub type Reread<'a> = dyn Fn() -> Result<Config, ConfigError> + 'a;

/// Reads the configuration again and has all workers route by it. Answers with what is in force
/// then, when that is another one. Says in the log what happened.
pub(super) fn reload(
    crew: &Crew,
    present: &Snapshot,
    old: &Config,
    reread: &Reread<'_>,
) -> Option<(Config, Arc<Snapshot>)> {
    let new = match reread() {
        Ok(config) => config,
        Err(error) => {
            log::error!("reload: the old configuration stays in force\n{error}");
            return None;
        }
    };
    let snapshot = match publish(crew, present, &new) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            log::error!("reload: the old configuration stays in force\n{error}");
            return None;
        }
    };
    for setting in restart_needed(old, &new) {
        log::warn!("reload: {setting} takes effect at the next start");
    }
    log::info!("reload: version {} is in force", snapshot.version);
    Some((new, snapshot))
}

fn publish(crew: &Crew, present: &Snapshot, new: &Config) -> Result<Arc<Snapshot>, StartError> {
    // First, as nothing has changed yet when it fails.
    let bound = listening::bind_new(present, new, crew.len())?;
    let max = capacity::within(new.max_connections, crew.connections_possible);
    let standing = |_: &str, _: &_| Standing::default();
    let snapshot = Arc::new(Snapshot::compose(Some(present), new, max, standing));
    crew.publish(&snapshot, bound);
    Ok(snapshot)
}

/// What has changed and does not take effect in a running balancer.
fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("workers", old.workers != new.workers),
        ("access_log", old.access_log != new.access_log),
        ("histogram_log", old.histogram_log != new.histogram_log),
    ];
    let changed = changed.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(setting, _)| setting).collect()
}
