//! Writes this balancer's bans to etcd, for the others: each with a lease that ends with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::sync::mpsc;

use crate::config::{Etcd, bounded};
use crate::control::etcd::KeyWriter;
use crate::control::remote::{RemoteCounts, RemoteError, WatchPace};
use crate::guard::Ban;
use crate::prefix::Prefix;
use crate::sys;
use crate::time::{NEVER, between};

use super::FleetNews;

/// What is to be written.
#[derive(Debug)]
pub(super) enum Write {
    /// A ban, and until when; `None`: until it is lifted.
    Ban(Arc<Ban>, Option<SystemTime>),
    /// These bans were lifted.
    Lifted(Vec<Prefix>),
}

impl Write {
    /// A ban of this balancer.
    pub(super) fn ban(ban: &Arc<Ban>) -> Self {
        let left = (ban.until < NEVER).then(|| between(sys::monotonic(), ban.until));
        let until = left.and_then(|left| SystemTime::now().checked_add(left));
        Self::Ban(Arc::clone(ban), until)
    }
}

/// Writes one after the other, and tells what goes wrong. It runs on the thread of `remote`.
pub(super) async fn write(
    source: Etcd,
    mut writes: mpsc::Receiver<Write>,
    (number, sender): (u64, mpsc::Sender<FleetNews>),
    pace: WatchPace,
    counts: Arc<RemoteCounts>,
) {
    let mut writer = KeyWriter::new(&source, pace, &counts);
    let mut told = None;
    while let Some(mut write) = writes.recv().await {
        let mut pause = pace.retry_min;
        loop {
            let outcome = once(&mut writer, &mut write).await;
            let error = outcome
                .as_ref()
                .err()
                .map(|error| bounded(error.to_string()));
            if error != told {
                told.clone_from(&error);
                let news = FleetNews::Written { number, error };
                // Without a receiver the balancer is ending, and this task with it.
                let _ = sender.send(news).await;
            }
            match outcome {
                Ok(()) => break,
                // Another try has the same answer.
                Err(RemoteError::Refused {
                    status: 400..500, ..
                }) => break,
                Err(_) if is_over(&write) => break,
                Err(_) => writer.turn(),
            }
            tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
            pause = pace.retry_max.min(pause * 2);
        }
    }
}

/// One try. What it has done of several goes, so the next one takes the others.
async fn once(writer: &mut KeyWriter, write: &mut Write) -> Result<(), RemoteError> {
    if is_over(write) {
        return Ok(());
    }
    match write {
        Write::Lifted(all) => {
            while let Some(prefix) = all.last() {
                writer.delete(&format!("bans/{prefix}")).await?;
                all.pop();
            }
            Ok(())
        }
        Write::Ban(ban, until) => {
            let text = until.map(|until| humantime::format_rfc3339_seconds(until).to_string());
            let value = json!({ "until": text, "reason": &*ban.reason }).to_string();
            let lasts = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
            // etcd counts whole seconds, and takes its time.
            let lasts = lasts.map(|left| left.as_secs() + 1);
            writer
                .put(&format!("bans/{}", ban.prefix), &value, lasts)
                .await
        }
    }
}

fn is_over(write: &Write) -> bool {
    match write {
        Write::Lifted(_) | Write::Ban(_, None) => false,
        Write::Ban(_, Some(until)) => {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            left < Duration::from_secs(1)
        }
    }
}
