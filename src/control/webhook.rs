//! Webhooks: posts decisions to scale as JSON to an `http://` or `https://` URL.
//!
//! A task of its own posts one after the other, so the control loop never waits. When too many
//! wait, further ones are dropped, counted and logged. Redirects are not followed: a service that
//! starts machines should have a fixed address.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::aside;
use super::dial::{DialError, dial};
use crate::select::Decision;

/// Posts decisions, one after the other.
#[derive(Debug)]
pub(super) struct Webhooks {
    queue: Sender<Post>,
    failures: Arc<AtomicU64>,
    task: AbortHandle,
}

/// The body of a post: a decision to scale.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Notice {
    /// The pool's name.
    pub(super) pool: String,
    /// `in` or `out`.
    pub(super) action: &'static str,
    /// The names of its backends.
    pub(super) backends: Vec<String>,
    /// Open connections of the pool, now or as forecast.
    pub(super) load: f64,
    /// The same for each backend in rotation, before the decision.
    pub(super) per_backend: f64,
    /// Backends in rotation after the decision.
    pub(super) in_rotation: u32,
    /// Backends left in the reserve after the decision.
    pub(super) reserve_left: u32,
    /// Why, in one sentence.
    pub(super) reason: String,
    /// When (RFC 3339).
    pub(super) at: String,
}

impl Notice {
    /// A decision of a pool, made now.
    #[must_use]
    pub(super) fn of(pool: &str, decision: &Decision) -> Self {
        Self {
            pool: pool.to_owned(),
            action: decision.action.as_str(),
            backends: decision.backends.clone(),
            load: decision.load,
            per_backend: decision.per_backend,
            in_rotation: decision.in_rotation,
            reserve_left: decision.reserve_left,
            reason: decision.reason.clone(),
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        }
    }
}

impl Webhooks {
    /// To be called inside the control thread's runtime.
    #[must_use]
    pub(super) fn new() -> Self {
        Self::with(Trust::System, Pace::default())
    }

    fn with(trust: Trust, pace: Pace) -> Self {
        let (queue, posts) = mpsc::channel(POSTS);
        let failures = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(deliver(posts, Arc::clone(&failures), trust, pace));
        Self {
            queue,
            failures,
            task: task.abort_handle(),
        }
    }

    /// Posts it after those that wait.
    pub(super) fn post(&self, url: &str, notice: Notice) {
        let pool = notice.pool.clone();
        let url = url.to_owned();
        if self.queue.try_send(Post { url, notice }).is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            log::warn!(
                "webhook of pool `{pool}`: cannot post: {POSTS} posts wait already; this one is \
                 dropped"
            );
        }
    }

    /// Posts that failed or were dropped so far.
    #[must_use]
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Post {
    url: String,
    notice: Notice,
}

/// The certificate authorities that are trusted.
#[derive(Debug)]
enum Trust {
    /// Those that the machine trusts; read when they are first needed.
    System,
    /// These.
    Roots(Arc<ClientConfig>),
}

#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Of one try.
    timeout: Duration,
    /// After the first failed try; twice as long after the second.
    pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            pause: Duration::from_secs(1),
        }
    }
}

/// Why a try failed.
#[derive(Debug, Error)]
enum PostError {
    #[error("invalid URL `{0}`: expected http://... or https://...")]
    Url(String),
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the answer is {0}")]
    Refused(StatusCode),
}

async fn deliver(mut posts: Receiver<Post>, failures: Arc<AtomicU64>, trust: Trust, pace: Pace) {
    let mut trust = trust;
    while let Some(Post { url, notice }) = posts.recv().await {
        // Numbers and strings always make JSON.
        let body = Bytes::from(serde_json::to_vec(&notice).unwrap_or_default());
        let mut pause = pace.pause;
        for left in (0..TRIES).rev() {
            let one = once(&url, body.clone(), &mut trust, pace.timeout);
            let tried = tokio::time::timeout(pace.timeout, one).await;
            let Err(error) = tried.unwrap_or(Err(PostError::Timeout)) else {
                break;
            };
            if left == 0 {
                failures.fetch_add(1, Ordering::Relaxed);
                let pool = &notice.pool;
                log::warn!("webhook of pool `{pool}`: {TRIES} tries failed, the last: {error}");
                break;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

/// One try: an address of the server must answer within so much time.
async fn once(url: &str, body: Bytes, trust: &mut Trust, time: Duration) -> Result<(), PostError> {
    let no_url = || PostError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| no_url())?;
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
        return Err(no_url());
    };
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(no_url()),
    };
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("mahoraga/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|_| no_url())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = dial(host, port, time).await?;
    if !is_tls {
        return ask(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| no_url())?;
    let connector = TlsConnector::from(trust.config().await?);
    ask(connector.connect(name, stream).await?, request).await
}

/// Sends a request, and looks only at the status of the answer.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(), PostError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // Both in this task: a try that times out drops its connection too. A server that answers and
    // closes ends the connection when the answer is there.
    let answer = tokio::select! {
        answer = &mut answer => answer?,
        ended = connection => match answer.await {
            Err(error) => return Err(ended.err().unwrap_or(error).into()),
            Ok(answer) => answer,
        },
    };
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(PostError::Refused(status)),
    }
}

impl Trust {
    async fn config(&mut self) -> Result<Arc<ClientConfig>, PostError> {
        if let Self::Roots(config) = self {
            return Ok(Arc::clone(config));
        }
        // This may read some hundred files: not on the control thread.
        let read = aside::read(|| {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            roots
        });
        let roots = read.await.map_err(io::Error::other)?;
        if roots.is_empty() {
            return Err(io::Error::other(
                "cannot verify the certificate: this machine trusts no authority",
            )
            .into());
        }
        let config = trusting(roots)?;
        *self = Self::Roots(Arc::clone(&config));
        Ok(config)
    }
}

fn trusting(roots: RootCertStore) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

/// Posts that wait at most.
const POSTS: usize = 16;
/// Tries of each post.
const TRIES: u32 = 3;

#[cfg(test)]
mod tests;
