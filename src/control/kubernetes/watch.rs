//! The slices of a Service, as they are and as they change.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderName};
use tokio::time::Instant;

use super::slice::{Slice, slice};
use super::wire::{Event, List, Object, PAGE};
use crate::config::{Kubernetes, bounded};
use crate::control::remote::{
    Counted, Endpoints, KeyNews, Lines, RemoteCounts, RemoteError, Request, Round, Rounds, Secret,
    Step, WatchPace, encoded, jittered, read,
};

/// Follows the slices of a Service.
pub(in crate::control) struct KubernetesWatch {
    source: Kubernetes,
    endpoints: Endpoints,
    token: Option<Secret>,
    /// Counts lists and changes, in the order in which they came. Versions of Kubernetes are not to
    /// be compared.
    revision: i64,
    /// Lists in a row whose rest had expired.
    expired: u32,
}

/// What a list has.
struct Listed {
    keys: Vec<KeyNews<Slice>>,
    has_more: bool,
    version: String,
}

/// What a line of a watch says.
enum Line {
    Change(KeyNews<Slice>),
    /// Only the version is a later one.
    Bookmark,
    /// The version has expired.
    ListAgain,
}

/// How a watch has ended.
enum Ended {
    /// In order: it goes on from its version.
    Watch,
    /// All is to be listed again.
    Round,
}

impl Rounds<Slice> for KubernetesWatch {
    const KIND: &'static str = "Kubernetes";

    fn endpoints(&mut self) -> &mut Endpoints {
        &mut self.endpoints
    }

    async fn round(&mut self, mut round: Round<'_, Slice>) -> Result<(), RemoteError> {
        let Some(listed) = self.list().await? else {
            self.expired += 1;
            return match self.expired < EXPIRED_MAX {
                true => Ok(()),
                false => Err(RemoteError::Expired),
            };
        };
        self.expired = 0;
        let mut version = listed.version;
        let step = Step::Listed {
            keys: listed.keys,
            has_more: listed.has_more,
            went_back: false,
        };
        let _ = round.steps.send(step).await;
        let pace = self.endpoints.pace();
        let counts = Arc::clone(self.endpoints.counts());
        loop {
            let began = Instant::now();
            let Some(lines) = self.watch(&version).await? else {
                return Ok(());
            };
            let watching = Counted::new(&counts, |counts| &counts.watching);
            if let Ended::Round = self.take_lines(lines, &mut version, &mut round).await? {
                return Ok(());
            }
            drop(watching);
            // A server that ends watches at once is not asked all the time.
            let early = pace.retry_min.saturating_sub(began.elapsed());
            tokio::time::sleep(jittered(early)).await;
        }
    }
}

impl KubernetesWatch {
    pub(in crate::control) fn new(
        source: &Kubernetes,
        pace: WatchPace,
        counts: &Arc<RemoteCounts>,
    ) -> Self {
        Self {
            endpoints: Endpoints::new(super::server(source), pace, counts),
            token: source.token_path().map(|path| Secret::new(path.to_owned())),
            revision: 0,
            expired: 0,
            source: source.clone(),
        }
    }

    /// All slices, page by page; `None`: the rest has expired, so the list begins again.
    async fn list(&mut self) -> Result<Option<Listed>, RemoteError> {
        let (mut keys, mut rest, mut page) = (Vec::new(), String::new(), PAGE);
        self.revision += 1;
        // A page may have one slice, and may have none; so many are no list of a Service.
        for _ in 0..=SLICES_MAX {
            let limit = page.min(SLICES_MAX + 1 - keys.len());
            let mut query = format!("limit={limit}");
            if !rest.is_empty() {
                query += &format!("&continue={}", encoded(&rest));
            }
            let request = self.request(&query).await?;
            let answer = match self.endpoints.ask(request, ANSWER_MAX).await {
                Err(RemoteError::TooLarge(_)) if limit > 1 => {
                    page = (limit / 8).max(1);
                    continue;
                }
                Err(RemoteError::Refused { status: 410, .. }) if !rest.is_empty() => {
                    return Ok(None);
                }
                answer => answer?,
            };
            let list: List = read(answer.body())?;
            if list.items.len() > limit {
                return Err(RemoteError::Garbage(
                    "more slices than asked for".to_owned(),
                ));
            }
            if list.metadata.resource_version.is_empty() {
                return Err(RemoteError::Garbage("a list without a version".to_owned()));
            }
            for object in &list.items {
                keys.push(self.key(object, false));
            }
            rest = list.metadata.r#continue;
            let is_whole = rest.is_empty();
            if is_whole || keys.len() > SLICES_MAX {
                let has_more = !is_whole || keys.len() > SLICES_MAX;
                keys.truncate(SLICES_MAX);
                RemoteCounts::add(&self.endpoints.counts().lists, 1);
                return Ok(Some(Listed {
                    keys,
                    has_more,
                    version: list.metadata.resource_version,
                }));
            }
        }
        Err(RemoteError::Garbage("a list without an end".to_owned()))
    }

    /// Begins to watch; `None`: the version has expired.
    async fn watch(&mut self, version: &str) -> Result<Option<Lines>, RemoteError> {
        let seconds = (self.endpoints.pace().look * LOOKS).as_secs().max(1);
        let version = encoded(version);
        let request = self
            .request(&format!(
                "watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}\
                 &resourceVersion={version}"
            ))
            .await?;
        match self.endpoints.stream(request).await {
            Err(RemoteError::Refused { status: 410, .. }) => Ok(None),
            lines => lines.map(Some),
        }
    }

    /// Takes the lines of a watch in, until it ends.
    async fn take_lines(
        &mut self,
        mut lines: Lines,
        version: &mut String,
        round: &mut Round<'_, Slice>,
    ) -> Result<Ended, RemoteError> {
        let pace = self.endpoints.pace();
        let counts = Arc::clone(self.endpoints.counts());
        // The server ends it before that.
        let until = Instant::now() + pace.look * LOOKS + pace.look + pace.answer;
        let mut look_at = Instant::now() + jittered(pace.look);
        loop {
            let line = tokio::select! {
                line = lines.next(LINE_MAX) => line,
                () = tokio::time::sleep_until(look_at) => {
                    self.endpoints.look("/livez").await?;
                    round.went_well();
                    look_at = Instant::now() + jittered(pace.look);
                    continue;
                }
                () = tokio::time::sleep_until(until) => return Ok(Ended::Watch),
                () = round.again.notified() => return Ok(Ended::Round),
                () = round.steps.closed() => return Ok(Ended::Round),
            };
            let line = match line {
                // A list reads it in parts.
                Err(RemoteError::TooLarge(_)) => return Ok(Ended::Round),
                line => line?,
            };
            let Some(line) = line else {
                round.went_well();
                return Ok(Ended::Watch);
            };
            match self.take(&line, version)? {
                Line::ListAgain => return Ok(Ended::Round),
                Line::Bookmark => round.went_well(),
                Line::Change(change) => {
                    round.went_well();
                    RemoteCounts::add(&counts.changes, 1);
                    let _ = round.steps.send(Step::Changed(vec![change])).await;
                }
            }
        }
    }

    fn take(&mut self, line: &[u8], version: &mut String) -> Result<Line, RemoteError> {
        let event: Event = read(line)?;
        let is_gone = match &*event.r#type {
            "ADDED" | "MODIFIED" | "BOOKMARK" => false,
            "DELETED" => true,
            "ERROR" if event.object.code == 410 => return Ok(Line::ListAgain),
            "ERROR" => {
                return Err(RemoteError::Refused {
                    status: event.object.code,
                    message: bounded(event.object.message),
                });
            }
            other => {
                let other = bounded(other.to_owned());
                return Err(RemoteError::Garbage(format!("an event of type `{other}`")));
            }
        };
        if event.object.metadata.resource_version.is_empty() {
            return Err(RemoteError::Garbage(
                "an event without a version".to_owned(),
            ));
        }
        version.clone_from(&event.object.metadata.resource_version);
        if event.r#type == "BOOKMARK" {
            return Ok(Line::Bookmark);
        }
        self.revision += 1;
        Ok(Line::Change(self.key(&event.object, is_gone)))
    }

    fn key(&self, object: &Object, is_gone: bool) -> KeyNews<Slice> {
        let value = (!is_gone).then(|| slice(object, &self.source).map_err(bounded));
        KeyNews {
            key: object.metadata.name.chars().take(NAME_CHARS_MAX).collect(),
            revision: self.revision,
            value,
        }
    }

    /// A request about the slices of the Service.
    async fn request(&mut self, query: &str) -> Result<Request, RemoteError> {
        let Kubernetes {
            namespace, service, ..
        } = &self.source;
        let label = encoded(&format!("kubernetes.io/service-name={service}"));
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={label}\
             &{query}"
        );
        let secret = match &mut self.token {
            None => None,
            Some(token) => Some(bearer(&token.read(self.endpoints.pace().open).await?)),
        };
        Ok(Request::get(path).with(secret))
    }
}

fn bearer(token: &str) -> (HeaderName, String) {
    (AUTHORIZATION, format!("Bearer {token}"))
}

/// So many lists in a row that expire before they are whole are a failure.
const EXPIRED_MAX: u32 = 3;
/// How many looks a watch lasts: five minutes. The server ends it then, in order.
const LOOKS: u32 = 60;
/// Slices of a Service. One has up to 1,000 endpoints, and 100 by default.
pub(in crate::control) const SLICES_MAX: usize = 256;
/// Bytes of a page of slices. Beyond: it is asked for in smaller ones.
const ANSWER_MAX: usize = 8 << 20;
/// Bytes of a line of a watch: more than an object of Kubernetes may have.
const LINE_MAX: usize = 4 << 20;
/// The longest name of a slice that is kept; Kubernetes allows 253.
const NAME_CHARS_MAX: usize = 256;
