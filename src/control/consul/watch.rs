//! The blocking queries of a service.

use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::HeaderName;
use tokio::time::Instant;

use super::instance::{HealthEntries, INSTANCES_MAX, Instance};
use super::pause::Bucket;
use crate::config::{Consul, ConsulHealth, bounded};
use crate::control::remote::{
    Connection, Counted, Endpoints, KeyNews, RemoteCounts, RemoteError, Request, Round, Rounds,
    Secret, Step, WatchPace, encoded, jittered, read,
};

/// Follows the instances of a service.
pub(in crate::control) struct ConsulWatch {
    source: Consul,
    endpoints: Endpoints,
    token: Option<Secret>,
    /// What queries go by: they take long.
    connection: Option<Connection>,
    /// Answers so far.
    answers: i64,
}

/// An answer to a query.
struct Answer {
    response: Response<Bytes>,
    /// The index of what it has; `None`: it has none that is of use.
    index: Option<u64>,
}

impl Rounds<Instance> for ConsulWatch {
    const KIND: &'static str = "Consul";

    fn endpoints(&mut self) -> &mut Endpoints {
        &mut self.endpoints
    }

    async fn round(&mut self, mut round: Round<'_, Instance>) -> Result<(), RemoteError> {
        self.connection = None;
        let counts = Arc::clone(self.endpoints.counts());
        let mut index = 0;
        let mut watching = None;
        let mut bucket = Bucket::new(self.endpoints.pace().look);
        loop {
            if index > 0 {
                tokio::select! {
                    () = tokio::time::sleep_until(bucket.next(Instant::now())) => {}
                    () = round.again.notified() => return Ok(()),
                    () = round.steps.closed() => return Ok(()),
                }
            }
            let Some(answer) = self.query(index, &round).await? else {
                return Ok(());
            };
            let is_same = index > 0 && answer.index == Some(index);
            let went_back = answer.index.is_some_and(|new| new < index);
            if !is_same {
                let keys = self.instances(&answer.response)?;
                RemoteCounts::add(&counts.lists, 1);
                RemoteCounts::add(&counts.changes, usize::from(index > 0));
                let listed = Step::Listed {
                    keys,
                    has_more: false,
                    went_back,
                };
                let _ = round.steps.send(listed).await;
            }
            if index > 0 {
                round.went_well();
            }
            watching.get_or_insert_with(|| Counted::new(&counts, |counts| &counts.watching));
            index = match answer.index {
                // A snapshot was restored, or watches changed: from the beginning.
                Some(_) if went_back => 0,
                Some(index) => index,
                // That is the index of nothing yet, which waits where there is nothing.
                None => 1,
            };
        }
    }
}

impl ConsulWatch {
    pub(in crate::control) fn new(
        source: &Consul,
        pace: WatchPace,
        counts: &Arc<RemoteCounts>,
    ) -> Self {
        Self {
            endpoints: Endpoints::new(source.server(), pace, counts),
            token: source.token_file.clone().map(Secret::new),
            connection: None,
            answers: 0,
            source: source.clone(),
        }
    }

    /// Asks for the instances, once they are others than at this index; 0: at once. `None`: they
    /// are to be listed again. Meanwhile looks notice an endpoint that hangs.
    async fn query(
        &mut self,
        index: u64,
        round: &Round<'_, Instance>,
    ) -> Result<Option<Answer>, RemoteError> {
        let pace = self.endpoints.pace();
        let wait = pace.look * LOOKS;
        let request = self.request(index, wait).await?;
        let before = self.connection.take();
        let mut connection = self.endpoints.apart(before).await?;
        // Consul adds up to a sixteenth.
        let time = match index {
            0 => pace.answer,
            _ => wait + wait / 16 + pace.answer,
        };
        let answer = {
            let answer = tokio::time::timeout(time, connection.ask(request, ANSWER_MAX));
            tokio::pin!(answer);
            loop {
                tokio::select! {
                    answer = &mut answer => break answer.unwrap_or(Err(RemoteError::Late(time)))?,
                    () = tokio::time::sleep(jittered(pace.look)) => {
                        self.endpoints.look("/v1/status/leader").await?;
                    }
                    () = round.again.notified() => return Ok(None),
                    () = round.steps.closed() => return Ok(None),
                }
            }
        };
        self.connection = Some(connection);
        let index = answer.headers().get("x-consul-index");
        let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
        Ok(Some(Answer {
            index: index.filter(|index| *index > 0),
            response: answer,
        }))
    }

    async fn request(&mut self, index: u64, wait: Duration) -> Result<Request, RemoteError> {
        let source = &self.source;
        let mut path = format!("/v1/health/service/{}?", encoded(&source.service));
        let mut add = |name: &str, value: &str| {
            path.push_str(&format!("{name}={}&", encoded(value)));
        };
        if source.health == ConsulHealth::Passing {
            add("passing", "1");
        }
        let filter = filter(source);
        for (name, value) in [
            ("filter", filter.as_ref()),
            ("dc", source.datacenter.as_ref()),
            ("ns", source.namespace.as_ref()),
            ("partition", source.partition.as_ref()),
        ] {
            if let Some(value) = value {
                add(name, value);
            }
        }
        add("index", &index.to_string());
        add("wait", &format!("{}ms", wait.as_millis()));
        path.pop();
        let token = match &mut self.token {
            None => None,
            Some(token) => Some((TOKEN, token.read(self.endpoints.pace().open).await?)),
        };
        Ok(Request::get(path).with(token))
    }

    /// The instances of an answer.
    fn instances(
        &mut self,
        answer: &Response<Bytes>,
    ) -> Result<Vec<KeyNews<Instance>>, RemoteError> {
        self.answers += 1;
        let HealthEntries(entries) = read(answer.body())?;
        let entries = entries.iter().filter_map(|entry| {
            let value = entry.instance(&self.source)?;
            Some((entry.name(), value))
        });
        // Consul leaves out what the token may not read, and says no more than that.
        let is_hidden = answer.headers().get("x-consul-results-filtered-by-acls");
        let is_hidden = is_hidden.is_some_and(|value| value == "true");
        let hidden = is_hidden.then(|| (HIDDEN.to_owned(), Err(HIDDEN_WHY.to_owned())));
        let news = entries.chain(hidden).map(|(key, value)| KeyNews {
            key,
            revision: self.answers,
            value: Some(value.map_err(bounded)),
        });
        Ok(news.take(INSTANCES_MAX).collect())
    }
}

/// The expression that instances must fit.
fn filter(source: &Consul) -> Option<String> {
    let own = source.filter.iter().map(|filter| format!("({filter})"));
    let tags = source.tags.iter();
    let tags = tags.map(|tag| format!("`{tag}` in Service.Tags"));
    let all: Vec<_> = own.chain(tags).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

/// How many looks a query waits for a change: a minute.
const LOOKS: u32 = 12;
/// Bytes of an answer: some 1,500 for each instance that it may have.
const ANSWER_MAX: usize = 16 << 20;
/// The header with the token.
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
/// Stands for instances that the token may not read.
const HIDDEN: &str = "(hidden)";
const HIDDEN_WHY: &str = "the token may not read some instances: it needs `node:read` and \
                          `service:read`";
