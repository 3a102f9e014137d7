//! A connection to one endpoint: HTTP/1.1, by TLS or not.

use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use hyper::{Method, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::RemoteError;
use crate::config::bounded;
use crate::control::dial::dial;

/// What is asked of a server.
#[derive(Clone, Debug)]
pub(in crate::control) struct Request {
    method: Method,
    /// With its query.
    path: String,
    /// Proves who asks.
    secret: Option<(HeaderName, String)>,
    body: Bytes,
}

impl Request {
    pub(in crate::control) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            secret: None,
            body: Bytes::new(),
        }
    }

    pub(in crate::control) fn post(path: &str, body: &Value) -> Self {
        Self {
            method: Method::POST,
            path: path.to_owned(),
            secret: None,
            body: body.to_string().into(),
        }
    }

    /// Adds a header that proves who asks, if there is one.
    pub(in crate::control) fn with(self, secret: Option<(HeaderName, String)>) -> Self {
        Self { secret, ..self }
    }
}

/// A connection for one request after the other.
pub(in crate::control) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The value of `Host`.
    authority: String,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The lines of an answer that has no end, and the connection that they come by.
pub(in crate::control) struct Lines {
    _connection: Connection,
    body: Incoming,
    /// What came: lines that were taken, and the next ones.
    read: Vec<u8>,
    /// Where the next line begins.
    begin: usize,
    /// Up to where it was searched for the end of that.
    searched: usize,
}

impl Connection {
    /// Connects to an endpoint, one of whose addresses must answer within so much time. `tls`: for
    /// those that are `https://`.
    pub(super) async fn open(
        endpoint: &str,
        tls: Option<TlsConnector>,
        time: Duration,
    ) -> Result<Self, RemoteError> {
        let uri: Uri = endpoint
            .parse()
            .map_err(|error| RemoteError::broken(&error))?;
        let authority = uri.authority().map(ToString::to_string);
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let default = if tls.is_some() { 443 } else { 80 };
        let stream = dial(host, uri.port_u16().unwrap_or(default), time).await?;
        // A request is one small write.
        let _ = stream.set_nodelay(true);
        let authority = authority.unwrap_or_default();
        let Some(tls) = tls else {
            return Self::over(stream, authority).await;
        };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| RemoteError::broken(&error))?;
        let secured = tls.connect(name, stream).await;
        let secured = secured.map_err(|error| RemoteError::broken(&error))?;
        Self::over(secured, authority).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        authority: String,
    ) -> Result<Self, RemoteError> {
        let made = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| RemoteError::broken(&error))?;
        // Its errors come with the answers too.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            authority,
            task,
        })
    }

    /// Whether the server has ended it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request, and answers with the whole answer, of so many bytes at most.
    pub(in crate::control) async fn ask(
        &mut self,
        request: Request,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, RemoteError> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = whole(body, bytes_max).await?;
        Ok(Response::from_parts(head, body))
    }

    /// Sends a request, and answers with the lines that come.
    pub(super) async fn stream(mut self, request: Request) -> Result<Lines, RemoteError> {
        let answer = self.send(request).await?;
        Ok(Lines {
            _connection: self,
            body: answer.into_body(),
            read: Vec::new(),
            begin: 0,
            searched: 0,
        })
    }

    /// Sends a request, and answers with a good answer.
    async fn send(&mut self, request: Request) -> Result<Response<Incoming>, RemoteError> {
        let mut built = hyper::Request::builder()
            .method(request.method)
            .uri(request.path)
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("mahoraga/", env!("CARGO_PKG_VERSION")));
        if !request.body.is_empty() {
            built = built.header(CONTENT_TYPE, "application/json");
        }
        if let Some((name, value)) = request.secret {
            built = built.header(name, value);
        }
        let request = built.body(Full::new(request.body));
        let request = request.map_err(|error| RemoteError::broken(&error))?;
        let ready = self.sender.ready().await;
        ready.map_err(|_| RemoteError::Broken("it closed the connection".to_owned()))?;
        let answer = self.sender.send_request(request).await;
        let answer = answer.map_err(|error| RemoteError::broken(&error))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            _ => Err(refusal(answer).await),
        }
    }
}

impl Lines {
    /// The next line, of so many bytes at most; `None`: the server has ended them. The future can
    /// be dropped without loss.
    pub(in crate::control) async fn next(
        &mut self,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        // Where many have come at once, others on this thread get their turn.
        tokio::task::consume_budget().await;
        loop {
            let mut new = self.read[self.searched..].iter();
            if let Some(end) = new.position(|byte| *byte == b'\n') {
                let end = self.searched + end + 1;
                let line = self.read[self.begin..end].to_vec();
                (self.begin, self.searched) = (end, end);
                return Ok(Some(line));
            }
            self.read.drain(..self.begin);
            self.begin = 0;
            self.searched = self.read.len();
            if self.read.len() > bytes_max {
                return Err(RemoteError::TooLarge(bytes_max));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(RemoteError::broken(&error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

async fn whole(body: Incoming, bytes_max: usize) -> Result<Bytes, RemoteError> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(RemoteError::TooLarge(bytes_max)),
        Err(error) => Err(RemoteError::broken(&error)),
    }
}

async fn refusal(answer: Response<Incoming>) -> RemoteError {
    let status = answer.status();
    let body = whole(answer.into_body(), ERROR_MAX).await;
    let words = body.ok().and_then(|body| error_words(&body));
    let message = words.unwrap_or_else(|| status.canonical_reason().unwrap_or("no words").into());
    RemoteError::Refused {
        status: status.as_u16(),
        message: bounded(message),
    }
}

/// What comes with a status that is not 200, where it is JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorAnswer {
    error: Value,
    message: String,
}

/// The words of an answer that is an error: those of its JSON, or its first line.
fn error_words(text: &[u8]) -> Option<String> {
    let words = match serde_json::from_slice(text) {
        Ok(ErrorAnswer { message, error }) => match (&*message, &error) {
            ("", Value::Null) => String::new(),
            ("", Value::String(words)) => words.clone(),
            ("", other) => stream_error_words(other),
            (_, _) => message,
        },
        Err(_) => plain(text).unwrap_or_default().to_owned(),
    };
    Some(words).filter(|words| !words.is_empty())
}

/// The first line of a text that is for people.
fn plain(text: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(text).ok()?.lines().next()?.trim();
    let is_plain = !line.starts_with('<') && !line.chars().any(char::is_control);
    is_plain.then_some(line)
}

/// The words of an error in a line.
pub(in crate::control) fn stream_error_words(error: &Value) -> String {
    let words = error.get("message").and_then(Value::as_str);
    words.map_or_else(|| error.to_string(), str::to_owned)
}

/// Bytes of an answer that is an error.
const ERROR_MAX: usize = 64 << 10;
