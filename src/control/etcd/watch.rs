//! The keys under a prefix, as they are and as they change.

use std::sync::Arc;

use tokio::time::Instant;

use super::client::Client;
use super::wire::{self, KeyValue, Ranged, WatchLine, Watched};
use crate::config::{Etcd, bounded};
use crate::control::remote::{
    Counted, Endpoints, KeyNews, Lines, RemoteCounts, RemoteError, Round, Rounds, Step, WatchPace,
    jittered, read, stream_error_words,
};

/// Reads the value of a key.
pub(in crate::control) type Reader<T> = fn(&str, &[u8]) -> Result<T, String>;

/// Follows the keys under a prefix.
pub(in crate::control) struct Watch<T> {
    client: Client,
    reader: Reader<T>,
    keys_max: usize,
    /// The highest revision that was seen.
    revision: i64,
}

/// What a line of a watch says.
enum Line<T> {
    Changes(Vec<KeyNews<T>>),
    /// What was listed is too old, or not of this cluster any more.
    ListAgain,
}

impl<T: Send> Rounds<T> for Watch<T> {
    const KIND: &'static str = "etcd";

    fn endpoints(&mut self) -> &mut Endpoints {
        &mut self.client.endpoints
    }

    async fn round(&mut self, mut round: Round<'_, T>) -> Result<(), RemoteError> {
        let (keys, has_more, revision) = self.list().await?;
        let went_back = revision < self.revision;
        if went_back {
            log::warn!(
                "etcd: {}: the revision went back from {} to {revision}: the cluster was wiped, \
                 or restored from a backup",
                self.client.endpoints.current(),
                self.revision
            );
        }
        let next = revision.checked_add(1).filter(|next| *next > 0);
        let next = next.ok_or_else(|| RemoteError::Garbage(format!("revision {revision}")))?;
        self.revision = revision;
        let listed = Step::Listed {
            keys,
            has_more,
            went_back,
        };
        let _ = round.steps.send(listed).await;
        let (from, to) = self.range();
        let request = wire::watch(&from, &to, next);
        let pace = self.client.endpoints.pace();
        let counts = Arc::clone(self.client.endpoints.counts());
        let mut lines = self.client.stream("/v3/watch", &request).await?;
        let created = tokio::time::timeout(pace.answer, created(&mut lines)).await;
        if !created.unwrap_or(Err(RemoteError::Late(pace.answer)))? {
            return Ok(());
        }
        let _watching = Counted::new(&counts, |counts| &counts.watching);
        let mut look_at = Instant::now() + jittered(pace.look);
        let mut silence = Silence::default();
        loop {
            let line = tokio::select! {
                line = lines.next(LINE_MAX) => line,
                () = tokio::time::sleep_until(look_at) => {
                    let present = self.present().await?;
                    if present.header.revision < self.revision {
                        return Ok(());
                    }
                    round.went_well();
                    let pause = match silence.look(&present, self.revision)? {
                        true => pace.look / 5,
                        false => pace.look,
                    };
                    look_at = Instant::now() + jittered(pause);
                    continue;
                }
                () = round.again.notified() => return Ok(()),
                () = round.steps.closed() => return Ok(()),
            };
            let line = match line {
                // Each value is read by itself, and the large one left out.
                Err(RemoteError::TooLarge(_)) => return Ok(()),
                line => line?,
            };
            match self.take(line)? {
                Line::ListAgain => return Ok(()),
                Line::Changes(changes) if changes.is_empty() => {}
                Line::Changes(changes) => {
                    round.went_well();
                    silence = Silence::default();
                    RemoteCounts::add(&counts.changes, changes.len());
                    let _ = round.steps.send(Step::Changed(changes)).await;
                }
            }
        }
    }
}

impl<T: Send> Watch<T> {
    /// Follows up to so many keys.
    pub(in crate::control) fn new(
        source: &Etcd,
        (reader, keys_max): (Reader<T>, usize),
        pace: WatchPace,
        counts: &Arc<RemoteCounts>,
    ) -> Self {
        Self {
            client: Client::new(source, pace, counts),
            reader,
            keys_max,
            revision: 0,
        }
    }

    /// All keys at one revision, page by page; whether there are more than may be; the revision.
    async fn list(&mut self) -> Result<(Vec<KeyNews<T>>, bool, i64), RemoteError> {
        let (mut from, to) = self.range();
        let mut keys = Vec::new();
        let (mut page, mut revision) = (PAGE, 0);
        let has_more = loop {
            let limit = page.min(self.keys_max + 1 - keys.len());
            let request = wire::range(&from, &to, limit, revision);
            let answer = self.client.ask("/v3/kv/range", &request, ANSWER_MAX).await;
            let mut answer: Ranged = match answer {
                Ok(answer) => read(&answer)?,
                Err(RemoteError::TooLarge(_)) if limit > 1 => {
                    page = (limit / 8).max(1);
                    continue;
                }
                // The name alone.
                Err(RemoteError::TooLarge(_)) => {
                    let mut request = request;
                    request["keys_only"] = true.into();
                    let answer = self
                        .client
                        .ask("/v3/kv/range", &request, ANSWER_MAX)
                        .await?;
                    let mut answer: Ranged = read(&answer)?;
                    // Of no value: longer than one may be.
                    let long = "A".repeat(VALUE_MAX * 2);
                    answer
                        .kvs
                        .iter_mut()
                        .for_each(|kv| kv.value.clone_from(&long));
                    answer
                }
                Err(RemoteError::Refused { message, .. }) if message.contains(COMPACTED) => {
                    return Err(RemoteError::Expired);
                }
                Err(error) => return Err(error),
            };
            if answer.kvs.len() > limit {
                return Err(RemoteError::Garbage("more keys than asked for".to_owned()));
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
        RemoteCounts::add(&self.client.endpoints.counts().lists, 1);
        Ok((keys, has_more, revision))
    }

    fn take(&mut self, line: Option<Vec<u8>>) -> Result<Line<T>, RemoteError> {
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
    async fn present(&mut self) -> Result<Ranged, RemoteError> {
        let (from, to) = self.range();
        let request = wire::newest(&from, &to);
        let answer = self
            .client
            .ask("/v3/kv/range", &request, ANSWER_MAX)
            .await?;
        read(&answer)
    }

    fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let prefix = &self.client.source().prefix;
        (prefix.as_bytes().to_vec(), wire::end_of(prefix))
    }

    fn entry(&self, kv: &KeyValue, is_gone: bool) -> Result<KeyNews<T>, RemoteError> {
        let key = wire::decoded(&kv.key)?;
        let Some(rest) = key.strip_prefix(self.client.source().prefix.as_bytes()) else {
            return Err(RemoteError::Garbage("a key without the prefix".to_owned()));
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
    fn look(&mut self, present: &Ranged, known: i64) -> Result<bool, RemoteError> {
        let newest = present.kvs.first().map_or(0, |kv| kv.mod_revision);
        let is_behind = newest > known || self.count.is_some_and(|count| count != present.count);
        if is_behind && self.is_behind {
            return Err(RemoteError::Broken(
                "keys change, and its watch is silent".to_owned(),
            ));
        }
        self.is_behind = is_behind;
        self.count.get_or_insert(present.count);
        Ok(is_behind)
    }
}

/// Waits until the watch has begun; `false`: its revision was compacted.
async fn created(lines: &mut Lines) -> Result<bool, RemoteError> {
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
        _ => Err(RemoteError::Garbage("expected a new watch".to_owned())),
    }
}

fn watched(line: Option<Vec<u8>>) -> Result<Watched, RemoteError> {
    let Some(line) = line else {
        return Err(RemoteError::Broken("it ended the watch".to_owned()));
    };
    let line: WatchLine = read(&line)?;
    match (line.result, line.error) {
        (Some(watched), None) => Ok(watched),
        (_, Some(error)) => Err(canceled(&stream_error_words(&error))),
        (None, None) => Err(RemoteError::Garbage("expected a result".to_owned())),
    }
}

fn canceled(reason: &str) -> RemoteError {
    RemoteError::Broken(format!(
        "it ended the watch: {}",
        bounded(reason.to_owned())
    ))
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
