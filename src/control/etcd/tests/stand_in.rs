//! A server that answers as etcd's gateway does, or as it should not.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::PREFIX;
use crate::control::etcd::wire::encoded;

/// One answer.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Json(u16, String),
    /// Lines, and no end.
    Lines(Vec<String>),
    /// These bytes, and the end of the connection.
    Raw(String),
    Silence,
}

impl Answer {
    /// The lines of a watch that has begun.
    pub(super) fn lines(lines: impl IntoIterator<Item = String>) -> Self {
        Self::Lines([created(0)].into_iter().chain(lines).collect())
    }
}

/// What it answers next; the last answer of each kind is given again and again, and without one it
/// has no keys.
#[derive(Default)]
struct Script {
    lists: VecDeque<Answer>,
    watches: VecDeque<Answer>,
    looks: VecDeque<Answer>,
    tokens: VecDeque<&'static str>,
    asked: Vec<(String, Value)>,
    last_token: Option<String>,
}

#[derive(Clone)]
pub(super) struct StandIn {
    port: u16,
    script: Arc<Mutex<Script>>,
}

impl StandIn {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            script: Arc::default(),
        };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = accepting.clone();
                // A client that goes ends it.
                tokio::spawn(async move { drop(server.serve(stream).await) });
            }
        });
        server
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn lists(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().lists = answers.into_iter().collect();
    }

    pub(super) fn watches(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().watches = answers.into_iter().collect();
    }

    pub(super) fn looks(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().looks = answers.into_iter().collect();
    }

    pub(super) fn tokens(&self, tokens: impl IntoIterator<Item = &'static str>) {
        self.script.lock().tokens.extend(tokens);
    }

    /// The bodies that were posted to a path.
    pub(super) fn asked(&self, path: &str) -> Vec<Value> {
        let script = self.script.lock();
        let asked = script.asked.iter().filter(|(to, _)| to == path);
        asked.map(|(_, body)| body.clone()).collect()
    }

    pub(super) fn last_token(&self) -> Option<String> {
        self.script.lock().last_token.clone()
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut path, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await? == 0 {
                    return Ok(());
                }
                let line = line.trim_end();
                if let Some(rest) = line.strip_prefix("POST ") {
                    path = rest.split(' ').next().unwrap().to_owned();
                } else if let Some(number) = line.strip_prefix("content-length: ") {
                    length = number.parse().unwrap();
                } else if let Some(token) = line.strip_prefix("authorization: ") {
                    self.script.lock().last_token = Some(token.to_owned());
                } else if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            let answer = self.answer(path, serde_json::from_slice(&body).unwrap());
            match answer {
                Answer::Json(status, text) => {
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
                        text.len()
                    );
                    stream.write_all((head + &text).as_bytes()).await?;
                }
                Answer::Lines(lines) => {
                    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                    stream.write_all(head.as_bytes()).await?;
                    for line in lines {
                        let chunk = format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
                        stream.write_all(chunk.as_bytes()).await?;
                    }
                    stream.read_u8().await?;
                }
                Answer::Raw(text) => return stream.write_all(text.as_bytes()).await,
                Answer::Silence => drop(stream.read_u8().await?),
            }
        }
    }

    fn answer(&self, path: String, body: Value) -> Answer {
        let mut script = self.script.lock();
        let answers = match &*path {
            "/v3/auth/authenticate" => {
                let token = script.tokens.pop_front().unwrap();
                script.asked.push((path, body));
                return Answer::Json(200, json!({ "token": token }).to_string());
            }
            "/v3/watch" => &mut script.watches,
            _ if body["sort_target"] == "MOD" => &mut script.looks,
            _ => &mut script.lists,
        };
        let answer = match answers.len() {
            0 => None,
            1 => answers.front().cloned(),
            _ => answers.pop_front(),
        };
        let answer = answer.unwrap_or_else(|| match &*path {
            "/v3/watch" => Answer::lines([]),
            _ => Answer::Json(200, json!({ "header": { "revision": "1000" } }).to_string()),
        });
        script.asked.push((path, body));
        answer
    }
}

fn kv((key, value, revision): (&str, &str, i64)) -> Value {
    json!({
        "key": encoded(format!("{PREFIX}{key}").as_bytes()),
        "value": encoded(value.as_bytes()),
        "mod_revision": revision.to_string(),
    })
}

/// An answer with these keys.
pub(super) fn listed(revision: i64, keys: &[(&str, &str, i64)]) -> Answer {
    let kvs: Vec<_> = keys.iter().copied().map(kv).collect();
    let header = json!({ "revision": revision.to_string() });
    Answer::Json(200, json!({ "header": header, "kvs": kvs }).to_string())
}

/// A line with these changes.
pub(super) fn changes(revision: i64, keys: &[(&str, Option<&str>, i64)]) -> String {
    let events = keys.iter().map(|(key, value, revision)| match value {
        Some(value) => json!({ "kv": kv((key, value, *revision)) }),
        None => json!({ "type": "DELETE", "kv": kv((key, "", *revision)) }),
    });
    let events: Vec<_> = events.collect();
    let header = json!({ "revision": revision.to_string() });
    json!({ "result": { "header": header, "events": events } }).to_string()
}

/// The first line of a watch.
pub(super) fn created(revision: i64) -> String {
    let header = json!({ "revision": revision.to_string() });
    json!({ "result": { "header": header, "created": true } }).to_string()
}

/// The line that ends a watch.
pub(super) fn canceled(compact_revision: i64, reason: &str) -> String {
    let compacted = compact_revision.to_string();
    json!({ "result": {
        "canceled": true,
        "compact_revision": compacted,
        "cancel_reason": reason,
    } })
    .to_string()
}
