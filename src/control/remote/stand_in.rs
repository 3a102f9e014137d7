//! A server that answers GET requests from a script: as it should, late, wrong or not at all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use super::{RemoteCounts, Rounds, Step, follow};

/// One answer.
#[derive(Clone, Debug)]
pub(in crate::control) enum Scripted {
    /// A status, headers and a body.
    Whole(u16, String, String),
    /// Lines in chunks, and no end.
    Lines(Vec<String>),
    /// Lines in chunks, and the end of the answer.
    Ended(Vec<String>),
    /// These bytes, and the end of the connection.
    Raw(String),
    Silence,
}

impl Scripted {
    pub(in crate::control) fn json(text: impl ToString) -> Self {
        Self::Whole(200, String::new(), text.to_string())
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub(in crate::control) struct Asked {
    /// With its query.
    pub(in crate::control) path: String,
    /// The token.
    pub(in crate::control) secret: Option<String>,
}

/// What it answers next, by the kind of the request; the last answer of each kind is given again
/// and again. Without one it is silent.
#[derive(Default)]
struct Script {
    answers: BTreeMap<&'static str, VecDeque<Scripted>>,
    asked: Vec<Asked>,
}

#[derive(Clone)]
pub(in crate::control) struct StandIn {
    port: u16,
    /// The kind of a request, by its path.
    kind: fn(&str) -> &'static str,
    script: Arc<Mutex<Script>>,
}

impl StandIn {
    pub(in crate::control) async fn start(kind: fn(&str) -> &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            kind,
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

    pub(in crate::control) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(in crate::control) fn set(
        &self,
        kind: &'static str,
        answers: impl IntoIterator<Item = Scripted>,
    ) {
        let answers = answers.into_iter().collect();
        self.script.lock().answers.insert(kind, answers);
    }

    /// The requests of a kind that came.
    pub(in crate::control) fn asked(&self, kind: &str) -> Vec<Asked> {
        let script = self.script.lock();
        let asked = script.asked.iter();
        asked
            .filter(|its| (self.kind)(&its.path) == kind)
            .cloned()
            .collect()
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut asked = Asked {
                path: String::new(),
                secret: None,
            };
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await? == 0 {
                    return Ok(());
                }
                let line = line.trim_end();
                if let Some(rest) = line.strip_prefix("GET ") {
                    asked.path = rest.split(' ').next().unwrap().to_owned();
                } else if let Some(("authorization" | "x-consul-token", secret)) =
                    line.split_once(": ")
                {
                    asked.secret = Some(secret.to_owned());
                } else if line.is_empty() {
                    break;
                }
            }
            match self.answer(asked) {
                Scripted::Whole(status, headers, text) => {
                    let length = text.len();
                    let head =
                        format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n");
                    stream.write_all((head + &text).as_bytes()).await?;
                }
                Scripted::Lines(lines) => {
                    write_lines(&mut stream, &lines).await?;
                    stream.read_u8().await?;
                }
                Scripted::Ended(lines) => {
                    write_lines(&mut stream, &lines).await?;
                    stream.write_all(b"0\r\n\r\n").await?;
                }
                Scripted::Raw(text) => return stream.write_all(text.as_bytes()).await,
                Scripted::Silence => drop(stream.read_u8().await?),
            }
        }
    }

    fn answer(&self, asked: Asked) -> Scripted {
        let mut script = self.script.lock();
        let kind = (self.kind)(&asked.path);
        script.asked.push(asked);
        let answer = script
            .answers
            .get_mut(kind)
            .and_then(|all| match all.len() {
                0 | 1 => all.front().cloned(),
                _ => all.pop_front(),
            });
        answer.unwrap_or(Scripted::Silence)
    }
}

/// Writes each line as two chunks: lines do not come whole.
async fn write_lines(stream: &mut BufReader<TcpStream>, lines: &[String]) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for line in lines {
        let (first, rest) = line.split_at(line.len() / 2);
        for part in [first.to_owned(), format!("{rest}\n")] {
            if !part.is_empty() {
                let chunk = format!("{:x}\r\n{part}\r\n", part.len());
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
    }
    Ok(())
}

/// Rounds that run, what they send in words, and their figures.
pub(in crate::control) struct Running<T> {
    steps: mpsc::Receiver<Step<T>>,
    in_words: fn(Step<T>) -> String,
    pub(in crate::control) again: Arc<Notify>,
    pub(in crate::control) counts: Arc<RemoteCounts>,
}

impl<T: Send + 'static> Running<T> {
    pub(in crate::control) fn begin<R: Rounds<T> + 'static>(
        rounds: impl FnOnce(&Arc<RemoteCounts>) -> R,
        in_words: fn(Step<T>) -> String,
    ) -> Self {
        let (sender, steps) = mpsc::channel(4);
        let (again, counts) = (Arc::new(Notify::new()), Arc::default());
        tokio::spawn(follow(rounds(&counts), sender, Arc::clone(&again)));
        Self {
            steps,
            in_words,
            again,
            counts,
        }
    }

    pub(in crate::control) async fn next(&mut self) -> String {
        (self.in_words)(self.steps.recv().await.unwrap())
    }

    /// Waits for a step that has this in it; earlier steps may come again.
    pub(in crate::control) async fn until(&mut self, part: &str) {
        while !self.next().await.contains(part) {}
    }
}

/// Runs a test, which ends in a minute.
pub(in crate::control) fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let in_time = async {
        let test = tokio::time::timeout(std::time::Duration::from_secs(60), test);
        test.await.expect("a test ends in a minute");
    };
    runtime.block_on(in_time);
}

/// Everything runs a hundred times as fast, but for what a busy machine must not miss.
pub(in crate::control) const FAST: super::WatchPace = super::WatchPace {
    open: std::time::Duration::from_secs(20),
    answer: std::time::Duration::from_secs(20),
    look: std::time::Duration::from_millis(20),
    retry_min: std::time::Duration::from_millis(5),
    retry_max: std::time::Duration::from_millis(20),
};
