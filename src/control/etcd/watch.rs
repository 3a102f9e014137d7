//! The keys under a prefix, as they are and as they change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::client::Client;
use super::connection::Lines;
use super::wire::{self, KeyValue, Ranged, WatchLine, Watched};
use super::{Counted, EtcdCounts, EtcdError};
use crate::config::{Etcd, bounded};

/// What is known of a key now.
#[derive(Debug)]
pub(in crate::control) struct KeyNews<T> {
    /// What follows the prefix.
    pub(in crate::control) key: String,
    /// Of its last change: the latest of several has the highest.
    pub(in crate::control) revision: i64,
    /// `None`: it is gone.
    pub(in crate::control) value: Option<Result<T, String>>,
}

/// What has happened.
#[derive(Debug)]
pub(in crate::control) enum Step<T> {
    /// All keys.
    Listed {
        keys: Vec<KeyNews<T>>,
        /// There are more keys than may be.
        has_more: bool,
        /// The revision is lower than one before: the cluster was wiped, or restored.
        went_back: bool,
    },
    /// Some keys have changed.
    Changed(Vec<KeyNews<T>>),
    /// No endpoint answers: why, and when the next is asked.
    Failed(String, Duration),
}

/// Reads the value of a key.
pub(in crate::control) type Reader<T> = fn(&str, &[u8]) -> Result<T, String>;

/// Follows the keys under a prefix.
pub(in crate::control) struct Watch<T> {
    client: Client,
    reader: Reader<T>,
    keys_max: usize,
    pace: WatchPace,
    /// The highest revision that was seen.
    revision: i64,
    counts: Arc<EtcdCounts>,
}

/// How often and how long a watch waits.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct WatchPace {
    /// For a connection.
    pub(in crate::control) open: Duration,
    /// For an answer.
    pub(in crate::control) answer: Duration,
    /// From one look whether the endpoint still answers to the next.
    pub(in crate::control) look: Duration,
    /// After the first failure of all endpoints; it doubles with each further one.
    pub(in crate::control) retry_min: Duration,
    /// The longest such pause.
    pub(in crate::control) retry_max: Duration,
}

impl Default for WatchPace {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(3),
            answer: Duration::from_secs(5),
            look: Duration::from_secs(5),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
        }
    }
}

/// What a line of a watch says.
enum Line<T> {
    Changes(Vec<KeyNews<T>>),
    /// What was listed is too old, or not of this cluster any more.
    ListAgain,
}

impl<T: Send> Watch<T> {
    /// Follows up to so many keys.
    pub(in crate::control) fn new(
        source: &Etcd,
        (reader, keys_max): (Reader<T>, usize),
        pace: WatchPace,
        counts: &Arc<EtcdCounts>,
    ) -> Self {
        Self {
            client: Client::new(source, pace, counts),
            reader,
            keys_max,
            pace,
            revision: 0,
            counts: Arc::clone(counts),
        }
    }

    /// Sends what happens, until there is no receiver. After a notification it lists all keys
    /// again.
    pub(in crate::control) async fn run(
        mut self,
        steps: mpsc::Sender<Step<T>>,
        again: Arc<Notify>,
    ) {
        let _followed = Counted::new(&self.counts, |counts| &counts.followed);
        let mut failures = 0_usize;
        loop {
            let began = Instant::now();
            let outcome = self.round((&steps, &again), &mut failures).await;
            if steps.is_closed() {
                return;
            }
            let Err(error) = outcome else {
                // A cluster that compacts all the time is not listed all the time.
                let early = self.pace.retry_min.saturating_sub(began.elapsed());
                tokio::time::sleep(jittered(early / 2)).await;
                continue;
            };
            failures += 1;
            EtcdCounts::add(&self.counts.failures, 1);
            let why = bounded(format!("{}: {error}", self.client.endpoint()));
            log::debug!("etcd: {why}");
            self.client.turn();
            let rounds = failures / self.client.source().endpoints.len().max(1);
            let pause = match rounds {
                // Another endpoint may be well.
                0 => self.pace.retry_min / 10,
                rounds => backed_off(&self.pace, rounds),
            };
            let pause = jittered(pause);
            if rounds > 0 && steps.send(Step::Failed(why, pause)).await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = again.notified() => {}
            }
        }
    }

    /// Lists all keys, and follows their changes. It ends well when they are to be listed again.
    async fn round(
        &mut self,
        (steps, again): (&mpsc::Sender<Step<T>>, &Notify),
        failures: &mut usize,
    ) -> Result<(), EtcdError> {
        let (keys, has_more, revision) = self.list().await?;
        let went_back = revision < self.revision;
        if went_back {
            log::warn!(
                "etcd: {}: the revision went back from {} to {revision}: the cluster was wiped, \
                 or restored from a backup",
                self.client.endpoint(),
                self.revision
            );
        }
        let next = revision.checked_add(1).filter(|next| *next > 0);
        let next = next.ok_or_else(|| EtcdError::Garbage(format!("revision {revision}")))?;
        self.revision = revision;
        let listed = Step::Listed {
            keys,
            has_more,
            went_back,
        };
        let _ = steps.send(listed).await;
        let (from, to) = self.range();
        let request = wire::watch(&from, &to, next);
        let mut lines = self.client.stream("/v3/watch", &request).await?;
        let created = tokio::time::timeout(self.pace.answer, created(&mut lines)).await;
        if !created.unwrap_or(Err(EtcdError::Late(self.pace.answer)))? {
            return Ok(());
        }
        let _watching = Counted::new(&self.counts, |counts| &counts.watching);
        let mut look_at = Instant::now() + jittered(self.pace.look);
        let mut silence = Silence::default();
        loop {
            let line = tokio::select! {
                line = lines.next(LINE_MAX) => line,
                () = tokio::time::sleep_until(look_at) => {
                    let present = self.present().await?;
                    if present.header.revision < self.revision {
                        return Ok(());
                    }
                    *failures = 0;
                    let pause = match silence.look(&present, self.revision)? {
                        true => self.pace.look / 5,
                        false => self.pace.look,
                    };
                    look_at = Instant::now() + jittered(pause);
                    continue;
                }
                () = again.notified() => return Ok(()),
                () = steps.closed() => return Ok(()),
            };
            let line = match line {
                // Each value is read by itself, and the large one left out.
                Err(EtcdError::TooLarge(_)) => return Ok(()),
                line => line?,
            };
            match self.take(line)? {
                Line::ListAgain => return Ok(()),
                Line::Changes(changes) if changes.is_empty() => {}
                Line::Changes(changes) => {
                    *failures = 0;
                    silence = Silence::default();
                    EtcdCounts::add(&self.counts.changes, changes.len());
                    let _ = steps.send(Step::Changed(changes)).await;
                }
            }
        }
    }

    /// All keys at one revision, page by page; whether there are more than may be; the revision.
    async fn list(&mut self) -> Result<(Vec<KeyNews<T>>, bool, i64), EtcdError> {
        let (mut from, to) = self.range();
        let mut keys = Vec::new();
        let (mut page, mut revision) = (PAGE, 0);
        let has_more = loop {
            let limit = page.min(self.keys_max + 1 - keys.len());
            let request = wire::range(&from, &to, limit, revision);
            let answer = self.client.ask("/v3/kv/range", &request, ANSWER_MAX).await;
            let mut answer: Ranged = match answer {
                Ok(answer) => wire::read(&answer)?,
                Err(EtcdError::TooLarge(_)) if limit > 1 => {
                    page = (limit / 8).max(1);
                    continue;
                }
                // The name alone.
                Err(EtcdError::TooLarge(_)) => {
                    let mut request = request;
                    request["keys_only"] = true.into();
                    let answer = self
                        .client
                        .ask("/v3/kv/range", &request, ANSWER_MAX)
                        .await?;
                    let mut answer: Ranged = wire::read(&answer)?;
                    // Of no value: longer than one may be.
                    let long = "A".repeat(VALUE_MAX * 2);
                    answer
                        .kvs
                        .iter_mut()
                        .for_each(|kv| kv.value.clone_from(&long));
                    answer
                }
                Err(EtcdError::Refused { message, .. }) if message.contains(COMPACTED) => {
                    return Err(EtcdError::Compacted);
                }
                Err(error) => return Err(error),
            };
            if answer.kvs.len() > limit {
                return Err(EtcdError::Garbage("more keys than asked for".to_owned()));
            }
            page = PAGE.min(page * 2);
            if revision == 0 {
                revision = answer.header.revision;
            }
            let last = answer
                .kvs
                .last()
                .map(|kv| wire::decoded(&kv.key))
                .transpose()?;
            for kv in answer.kvs.drain(..) {
                keys.push(self.entry(&kv, false)?);
            }
            match last {
                Some(last) if answer.more && keys.len() <= self.keys_max => {
                    from = last;
                    from.push(0);
                }
                _ => break answer.more || keys.len() > self.keys_max,
            }
        };
        keys.truncate(self.keys_max);
        EtcdCounts::add(&self.counts.lists, 1);
        Ok((keys, has_more, revision))
    }

    fn take(&mut self, line: Option<Vec<u8>>) -> Result<Line<T>, EtcdError> {
        let watched = watched(line)?;
        if watched.canceled {
            return match watched.compact_revision {
                1.. => Ok(Line::ListAgain),
                _ => Err(canceled(&watched.cancel_reason)),
            };
        }
        self.revision = self.revision.max(watched.header.revision);
        let events = watched.events.iter();
        let changes = events.map(|event| self.entry(&event.kv, event.r#type == "DELETE"));
        Ok(Line::Changes(changes.collect::<Result<_, _>>()?))
    }

    /// What the endpoint has now: one that hangs does not answer.
    async fn present(&mut self) -> Result<Ranged, EtcdError> {
        let (from, to) = self.range();
        let request = wire::newest(&from, &to);
        let answer = self
            .client
            .ask("/v3/kv/range", &request, ANSWER_MAX)
            .await?;
        wire::read(&answer)
    }

    fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let prefix = &self.client.source().prefix;
        (prefix.as_bytes().to_vec(), wire::end_of(prefix))
    }

    fn entry(&self, kv: &KeyValue, is_gone: bool) -> Result<KeyNews<T>, EtcdError> {
        let key = wire::decoded(&kv.key)?;
        let Some(rest) = key.strip_prefix(self.client.source().prefix.as_bytes()) else {
            return Err(EtcdError::Garbage("a key without the prefix".to_owned()));
        };
        let name = String::from_utf8_lossy(&rest[..rest.len().min(KEY_MAX)]).into_owned();
        let value = if is_gone {
            None
        } else if rest.len() > KEY_MAX {
            let expected = format!("expected at most {KEY_MAX} bytes after the prefix");
            Some(Err(format!("invalid key: {expected}, not {}", rest.len())))
        } else if kv.value.len() > VALUE_MAX.div_ceil(3) * 4 {
            Some(Err(format!(
                "invalid value: expected at most {VALUE_MAX} bytes"
            )))
        } else {
            let value = wire::decoded(&kv.value)?;
            Some((self.reader)(&name, &value).map_err(bounded))
        };
        Ok(KeyNews {
            key: name,
            revision: kv.mod_revision,
            value,
        })
    }
}

/// What looks have shown since the watch had its last change. Its connection may be dead, as one
/// that a firewall has forgotten, while looks go over another one.
#[derive(Default)]
struct Silence {
    /// How many keys there were at the first look.
    count: Option<i64>,
    /// The last look has shown a change that did not come. It may be on its way.
    is_behind: bool,
}

impl Silence {
    /// Answers whether to look again soon.
    fn look(&mut self, present: &Ranged, known: i64) -> Result<bool, EtcdError> {
        let newest = present.kvs.first().map_or(0, |kv| kv.mod_revision);
        let is_behind = newest > known || self.count.is_some_and(|count| count != present.count);
        if is_behind && self.is_behind {
            return Err(EtcdError::Broken(
                "keys change, and its watch is silent".to_owned(),
            ));
        }
        self.is_behind = is_behind;
        self.count.get_or_insert(present.count);
        Ok(is_behind)
    }
}

/// Waits until the watch has begun; `false`: its revision was compacted.
async fn created(lines: &mut Lines) -> Result<bool, EtcdError> {
    let line = lines.next(LINE_MAX).await?;
    let watched = watched(line)?;
    match watched {
        Watched {
            canceled: false,
            created: true,
            ..
        } => Ok(true),
        Watched {
            canceled: true,
            compact_revision: 1..,
            ..
        } => Ok(false),
        Watched {
            canceled: true,
            cancel_reason,
            ..
        } => Err(canceled(&cancel_reason)),
        _ => Err(EtcdError::Garbage("expected a new watch".to_owned())),
    }
}

fn watched(line: Option<Vec<u8>>) -> Result<Watched, EtcdError> {
    let Some(line) = line else {
        return Err(EtcdError::Broken("it ended the watch".to_owned()));
    };
    let line: WatchLine = wire::read(&line)?;
    match (line.result, line.error) {
        (Some(watched), None) => Ok(watched),
        (_, Some(error)) => Err(canceled(&wire::stream_error_words(&error))),
        (None, None) => Err(EtcdError::Garbage("expected a result".to_owned())),
    }
}

fn canceled(reason: &str) -> EtcdError {
    EtcdError::Broken(format!(
        "it ended the watch: {}",
        bounded(reason.to_owned())
    ))
}

/// How long to wait after so many failures of all endpoints, of which there is one at least.
fn backed_off(pace: &WatchPace, rounds: usize) -> Duration {
    let doublings = u32::try_from(rounds - 1).unwrap_or(u32::MAX);
    let doubled = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    pace.retry_min.saturating_mul(doubled).min(pace.retry_max)
}

/// Up to half longer: balancers do not come together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + fastrand::f64() / 2.0)
}

/// etcd's words where a revision was compacted.
const COMPACTED: &str = "required revision has been compacted";
/// Keys that are asked for at a time, where their values are small.
pub(super) const PAGE: usize = 512;
/// Bytes of an answer: room for a value of etcd's own limit, in base64.
const ANSWER_MAX: usize = 4 << 20;
/// Bytes of a line of a watch. Beyond: all keys are listed again.
const LINE_MAX: usize = 4 << 20;
/// Bytes of a value.
const VALUE_MAX: usize = 64 << 10;
/// Bytes of a key after the prefix.
const KEY_MAX: usize = 256;
