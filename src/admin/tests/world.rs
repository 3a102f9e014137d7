//! A fake control thread with set answers, both servers before it, and a client.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::admin::endpoints::{Deadlines, Endpoint, ServerContext, endpoints};
use crate::admin::model::{
    AccessListDetail, AccessListStatus, BackendStatus, BanStatus, Banned, BannedBy, Changed,
    ConfigText, DryRunStatus, HistogramStatus, Lifted, LiftedBans, ListenerRoutes, ListenerStatus,
    PoolStatus, Reloaded, RouteChoice, SessionExplanation, SessionStatus, Stage, Status,
};
use crate::admin::server::{
    self, EXPLANATIONS_AT_ONCE, READINGS_AT_ONCE, SCRAPES_MAX, WATCHERS_MAX,
};
use crate::admin::{AdminListener, Author, Call, Calls, Handle, NoRouteTold, Tokens, UnbanError};
use crate::config::{AdminHttp, Change, ChangeError};
use crate::sys::SocketFile;
use crate::worker::LatencyCounts;

pub(super) const READ: &str = "a-token-that-may-look";
pub(super) const WRITE: &str = "a-token-that-may-change-things";

/// The calls to the control thread, and its answers.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) stage: Stage,
    /// Calls that it got.
    pub(super) calls: u32,
    /// Calls that would change something, in short.
    pub(super) done: Vec<String>,
    pub(super) changes: Vec<(Change, Author)>,
    /// The reason for which changes and reloads are refused.
    pub(super) refusal: Option<ChangeError>,
    /// The open sessions.
    pub(super) sessions: u32,
    /// It takes calls and does not answer.
    pub(super) is_stuck: bool,
    /// Calls that are not answered yet.
    stuck: Vec<Call>,
}

pub(super) struct World {
    pub(super) dir: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) bound: SocketAddr,
    pub(super) handle: Handle,
    pub(super) played: Arc<Mutex<Played>>,
    pub(super) control: JoinHandle<()>,
    pub(super) stop: Option<watch::Sender<()>>,
    pub(super) servers: Vec<JoinHandle<()>>,
    /// Places of watchers over the Unix socket.
    pub(super) watchers: Arc<Semaphore>,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The sentence of a problem.
    pub(super) fn error(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

/// The caller of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Socket,
    Http(Option<&'static str>),
}

/// Listens on a Unix socket, as a start does.
pub(super) fn listener(path: &Path) -> io::Result<AdminListener> {
    let mut file = SocketFile::claim(path)?;
    Ok(AdminListener::unix(file.listen_privately()?, file)?.0)
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(Deadlines::default()).await
    }

    pub(super) async fn with(deadlines: Deadlines) -> Self {
        Self::of(deadlines, AdminHttp::default()).await
    }

    /// Over HTTP it answers as these settings say.
    pub(super) async fn serving(settings: AdminHttp) -> Self {
        Self::of(Deadlines::default(), settings).await
    }

    async fn of(deadlines: Deadlines, settings: AdminHttp) -> Self {
        let dir = temporary();
        let admin = AdminHttp {
            bind: "127.0.0.1:0".parse().unwrap(),
            read_token: Some(file(&dir, "read", READ, 0o600)),
            write_token: Some(file(&dir, "write", &format!(" {WRITE}\n"), 0o640)),
            ..AdminHttp::default()
        };
        let socket = dir.join("admin.sock");
        let unix = listener(&socket).unwrap();
        let http = AdminListener::http(admin.bind, Tokens::read(&admin.tokens()).unwrap());
        let http = http.unwrap().serving(&settings, None);
        let bound = http.address().unwrap();
        let (handle, calls) = Handle::new();
        let played = Arc::new(Mutex::new(Played {
            stage: Stage::Ready,
            sessions: 1,
            ..Played::default()
        }));
        let (stop, stopped) = watch::channel(());
        let watchers = || Arc::new(Semaphore::new(WATCHERS_MAX));
        let serve = |listener, watchers: &Arc<Semaphore>| {
            let context = ServerContext {
                handle: handle.clone(),
                stop: stopped.clone(),
                watchers: Arc::clone(watchers),
                scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
                explanations: Arc::new(Semaphore::new(EXPLANATIONS_AT_ONCE)),
                readings: Arc::new(Semaphore::new(READINGS_AT_ONCE)),
                deadlines,
            };
            tokio::spawn(server::serve_in(listener, context))
        };
        let over_socket = watchers();
        let servers = vec![serve(unix, &over_socket), serve(http, &watchers())];
        let control = tokio::spawn(play(calls, Arc::clone(&played)));
        Self {
            dir,
            socket,
            bound,
            handle,
            played,
            control,
            stop: Some(stop),
            servers,
            watchers: over_socket,
        }
    }

    pub(super) fn request(&self, by: By, method: Method, path: &str) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.bound.to_string());
        if let By::Http(Some(token)) = by {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::default()).unwrap()
    }

    /// OpenAPI must describe every answer.
    pub(super) async fn send(&self, by: By, request: Request<Full<Bytes>>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let sending = async {
            match by {
                By::Socket => exchange(UnixStream::connect(&self.socket).await, request).await,
                By::Http(_) => exchange(TcpStream::connect(self.bound).await, request).await,
            }
        };
        let answer = bounded(sending).await;
        assert!(
            is_described(&method, &path, answer.status),
            "{method} {path}: {}",
            answer.status
        );
        answer
    }

    pub(super) async fn ask(&self, by: By, method: Method, path: &str) -> Answer {
        self.send(by, self.request(by, method, path)).await
    }

    /// Over the socket.
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(By::Socket, Method::GET, path).await
    }

    /// JSON over the socket.
    pub(super) async fn tell(&self, method: Method, path: &str, body: &str) -> Answer {
        let request = self.request(By::Socket, method, path);
        self.send(By::Socket, with_body(request, body)).await
    }
}

pub(super) fn with_body(request: Request<Full<Bytes>>, body: &str) -> Request<Full<Bytes>> {
    let mut request = request.map(|_| Full::from(body.to_owned()));
    let json = header::HeaderValue::from_static("application/json; charset=utf-8");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    request
}

/// Values that fit no row are ignored here.
fn is_described(method: &Method, path: &str, status: StatusCode) -> bool {
    let parts: Vec<_> = path.split('/').collect();
    let fits = |row: &Endpoint| {
        let wanted: Vec<_> = row.path.split('/').collect();
        let mut both = wanted.iter().zip(&parts);
        row.method == *method
            && wanted.len() == parts.len()
            && both.all(|(wanted, part)| wanted.starts_with('{') || wanted == part)
    };
    let rows = endpoints();
    let row = rows.iter().find(|row| fits(row));
    row.is_none_or(|row| row.success == status || row.refusals(true).contains(&status))
}

/// Fails instead of waiting for ever.
pub(super) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    let time = Duration::from_secs(20);
    let outcome = tokio::time::timeout(time, future).await;
    outcome.expect("an end within 20 s")
}

pub(super) async fn exchange<S>(stream: io::Result<S>, request: Request<Full<Bytes>>) -> Answer
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream.unwrap());
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Answer {
        status: head.status,
        headers: head.headers,
        body,
    }
}

/// An empty directory of this test alone.
pub(in crate::admin) fn temporary() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("mahoraga-admin-{}-{count}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

pub(in crate::admin) fn file(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = dir.join(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    path
}

async fn play(mut calls: Calls, played: Arc<Mutex<Played>>) {
    while let Some(call) = calls.next().await {
        let mut played = played.lock();
        played.calls += 1;
        if played.is_stuck {
            played.stuck.push(call);
        } else {
            played.answer(call);
        }
    }
}

/// The caller may be gone.
fn ban() -> BanStatus {
    BanStatus {
        prefix: "192.0.2.0/24".parse().unwrap(),
        by: BannedBy::Hand,
        reason: None,
        since: "2026-01-01T00:00:00Z".to_owned(),
        until: None,
        left_s: None,
        hits: 3,
    }
}

fn banned() -> Banned {
    Banned {
        ban: ban(),
        replaced: false,
        notes: Vec::new(),
    }
}

fn sent<T>(_: Result<(), T>) {}

impl Played {
    /// The calls that it left open.
    pub(super) fn open(&self) -> usize {
        self.stuck.len()
    }

    /// Answers the calls that it left open.
    pub(super) fn unstick(&mut self) {
        self.is_stuck = false;
        for call in std::mem::take(&mut self.stuck) {
            self.answer(call);
        }
    }

    /// Remembers what was done, and answers with it or with a refusal.
    fn record<T>(&mut self, done: String, answer: T) -> Result<T, String> {
        self.done.push(done);
        match &self.refusal {
            Some(error) => Err(error.to_string()),
            None => Ok(answer),
        }
    }

    #[expect(clippy::too_many_lines, reason = "an arm for each call")]
    fn answer(&mut self, call: Call) {
        match call {
            Call::Status(reply) => sent(reply.send(Status {
                stage: self.stage,
                connections: 3,
                max_connections: 100,
                ..Status::default()
            })),
            Call::Listeners(reply) => sent(reply.send(vec![ListenerStatus {
                name: "web".to_owned(),
                ..ListenerStatus::default()
            }])),
            Call::AccessLists(reply) => sent(reply.send(vec![AccessListStatus::default()])),
            Call::AccessList(name, client, reply) => {
                self.done.push(format!("{name} {client:?}"));
                sent(reply.send(match &*name {
                    "ofice" => Err(vec!["office".to_owned()]),
                    _ => Ok(AccessListDetail::default()),
                }));
            }
            Call::Route(name, client, spoken, reply) => {
                self.done.push(format!("{name} {client:?} {spoken:?}"));
                sent(reply.send(match &*name {
                    "wbe" => Err(NoRouteTold::Unknown(vec!["web".to_owned()])),
                    "plain" => Err(NoRouteTold::Unsaid("no client says that".to_owned())),
                    _ => Ok(RouteChoice::default()),
                }));
            }
            Call::Routes(name, reply) => sent(reply.send(match &*name {
                "wbe" => Err(vec!["web".to_owned()]),
                _ => Ok(ListenerRoutes::default()),
            })),
            Call::Bans(filter, reply) => {
                self.done.push(format!("{filter:?}"));
                sent(reply.send(vec![ban()]));
            }
            Call::Ban(ban, author, reply) => {
                let answer = self.record(format!("ban {ban} {author}"), banned());
                sent(reply.send(answer));
            }
            Call::Unban(prefix, author, reply) => {
                let lifted = Lifted {
                    ban: ban(),
                    notes: Vec::new(),
                };
                let answer = self.record(format!("unban {prefix} {author}"), lifted);
                let answer = answer.map_err(UnbanError::NotBanned);
                sent(reply.send(answer));
            }
            Call::UnbanAll(filter, author, reply) => {
                self.done.push(format!("{filter:?} {author}"));
                sent(reply.send(LiftedBans {
                    bans: 7,
                    notes: Vec::new(),
                }));
            }
            Call::Pools(_, reply) => sent(reply.send(vec![pool("main"), pool("other")])),
            Call::Sessions(filter, reply) => {
                self.done.push(format!("{filter:?}"));
                sent(reply.send(Ok(vec![session(); self.sessions as usize])));
            }
            Call::Explain(filter, reply) => {
                self.done.push(format!("{filter:?}"));
                sent(reply.send(Ok(vec![SessionExplanation::default()])));
            }
            Call::DryRun(question, reply) => {
                self.done.push(format!("{question:?}"));
                sent(reply.send(Ok(DryRunStatus::default())));
            }
            Call::Kill(filter, author, reply) => {
                self.done.push(format!("kill {filter:?} {author}"));
                sent(reply.send(Ok(self.sessions.into())));
            }
            Call::Latencies(reply) => sent(reply.send(vec![LatencyCounts::default()])),
            Call::Histograms(reply) => sent(reply.send(vec![HistogramStatus::default()])),
            Call::Config(reply) => sent(reply.send(ConfigText {
                ron: "(pools: [])".to_owned(),
                ..ConfigText::default()
            })),
            Call::Change {
                change,
                author,
                reply,
            } => {
                self.changes.push((change, author));
                let changed = Changed {
                    snapshot: 7,
                    changed: true,
                    ..Changed::default()
                };
                sent(reply.send(self.refusal.clone().map_or(Ok(changed), Err)));
            }
            Call::Reload(author, reply) => {
                let reloaded = Reloaded {
                    snapshot: 8,
                    changed: true,
                    notes: vec!["workers takes effect at the next start".to_owned()],
                    changes: Vec::new(),
                };
                let answer = self.record(format!("reload {author}"), reloaded);
                sent(reply.send(answer));
            }
            Call::Leave(wait, author, reply) => {
                let left = self.record(format!("leave {wait:?} {author}"), Stage::Leaving);
                sent(reply.send(left.map_err(|error| error.to_string())));
            }
            Call::Join(author, reply) => {
                let joined = self.record(format!("join {author}"), Stage::Ready);
                sent(reply.send(joined.map_err(|error| error.to_string())));
            }
            Call::Reopen(reply) => {
                let refusal = self.refusal.clone().map(|error| error.to_string());
                sent(reply.send(refusal.map_or_else(|| Ok(vec!["access.log".to_owned()]), Err)));
            }
        }
    }
}

fn pool(name: &str) -> PoolStatus {
    let backend = |name: &str| BackendStatus {
        name: name.to_owned(),
        ..BackendStatus::default()
    };
    let backends = ["alpha", "10.0.0.1:80", "unix:/run/a b%2F.sock"];
    PoolStatus {
        name: name.to_owned(),
        queue_max: 10,
        queue_timeout_s: 2.5,
        backends: backends.map(backend).to_vec(),
        ..PoolStatus::default()
    }
}

fn session() -> SessionStatus {
    SessionStatus {
        id: "0-17".to_owned(),
        ..SessionStatus::default()
    }
}
