//! A connection to one endpoint: HTTP/1.1, by TLS or not.

use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{EtcdError, wire};
use crate::config::bounded;
use crate::control::dial::dial;

/// A connection for one request after the other.
pub(super) struct Connection {
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
pub(super) struct Lines {
    _connection: Connection,
    body: Incoming,
    /// What came of the next lines.
    read: Vec<u8>,
    /// How much of it has no end of a line.
    searched: usize,
}

impl Connection {
    /// Connects to an endpoint, one of whose addresses must answer within so much time. `tls`: for
    /// those that are `https://`.
    pub(super) async fn open(
        endpoint: &str,
        tls: Option<TlsConnector>,
        time: Duration,
    ) -> Result<Self, EtcdError> {
        let uri: Uri = endpoint
            .parse()
            .map_err(|error| EtcdError::broken(&error))?;
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
        let name = name.map_err(|error| EtcdError::broken(&error))?;
        let secured = tls.connect(name, stream).await;
        let secured = secured.map_err(|error| EtcdError::broken(&error))?;
        Self::over(secured, authority).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        authority: String,
    ) -> Result<Self, EtcdError> {
        let made = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| EtcdError::broken(&error))?;
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

    /// Posts a request, and answers with the whole body, of so many bytes at most.
    pub(super) async fn ask(
        &mut self,
        (path, token): (&str, Option<&str>),
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Bytes, EtcdError> {
        let answer = self.post(path, token, body).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        whole(answer.into_body(), bytes_max).await
    }

    /// Posts a request, and answers with the lines that come.
    pub(super) async fn stream(
        mut self,
        (path, token): (&str, Option<&str>),
        body: Bytes,
    ) -> Result<Lines, EtcdError> {
        let answer = self.post(path, token, body).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        Ok(Lines {
            _connection: self,
            body: answer.into_body(),
            read: Vec::new(),
            searched: 0,
        })
    }

    async fn post(
        &mut self,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, EtcdError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("mahoraga/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| EtcdError::broken(&error))?;
        let ready = self.sender.ready().await;
        ready.map_err(|_| EtcdError::Broken("it closed the connection".to_owned()))?;
        let answer = self.sender.send_request(request).await;
        answer.map_err(|error| EtcdError::broken(&error))
    }
}

impl Lines {
    /// The next line, of so many bytes at most; `None`: the server has ended them. The future can
    /// be dropped without loss.
    pub(super) async fn next(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, EtcdError> {
        loop {
            let mut new = self.read[self.searched..].iter();
            if let Some(end) = new.position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(self.searched + end + 1);
                self.searched = 0;
                return Ok(Some(std::mem::replace(&mut self.read, rest)));
            }
            self.searched = self.read.len();
            if self.read.len() > bytes_max {
                return Err(EtcdError::TooLarge(bytes_max));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(EtcdError::broken(&error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

async fn whole(body: Incoming, bytes_max: usize) -> Result<Bytes, EtcdError> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(EtcdError::TooLarge(bytes_max)),
        Err(error) => Err(EtcdError::broken(&error)),
    }
}

async fn refusal(answer: Response<Incoming>) -> EtcdError {
    let status = answer.status();
    let body = whole(answer.into_body(), ERROR_MAX).await;
    let words = body.ok().and_then(|body| wire::error_words(&body));
    let message = words.unwrap_or_else(|| status.canonical_reason().unwrap_or("no words").into());
    EtcdError::Refused {
        status: status.as_u16(),
        message: bounded(message),
    }
}

/// Bytes of an answer that is an error.
const ERROR_MAX: usize = 64 << 10;
