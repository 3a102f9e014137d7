//! Sends requests to a balancer: each has a connection of its own, and a deadline.

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::address::{AdminAddress, AdminAddressError};
use super::args::ClientOptions;
use crate::admin::TokenFile;
use crate::admin::model::Problem;
use crate::config::ADMIN_SOCKET;
use crate::sys;

/// Why a command fails.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// Arguments that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// The address in the environment is invalid.
    #[error("{ADDRESS}: {0}")]
    Environment(AdminAddressError),
    /// The token can't be read.
    #[error("cannot use the token file {}: {why}", path.display())]
    Token { path: PathBuf, why: String },
    /// Nothing listens on the default socket.
    #[error(
        "no balancer answers at {0}: is `mahoraga run` or `mahoraga proxy` running here? Name its \
         socket with --admin"
    )]
    NotRunning(AdminAddress),
    /// Nothing listens at the address that the user gave.
    #[error("no balancer answers at {0}: is `mahoraga run` or `mahoraga proxy` running there?")]
    NotRunningThere(AdminAddress),
    /// The socket is another user's.
    #[error("{0}: permission denied: only root, and the user that runs the balancer, may use it")]
    Denied(AdminAddress),
    /// Another failure to connect, or of the connection.
    #[error("cannot reach {0}: {1}")]
    Connection(AdminAddress, String),
    /// The answer takes too long.
    #[error("no answer from {0} within {seconds} s", seconds = TIME.as_secs())]
    Timeout(AdminAddress),
    /// The answer is not HTTP.
    #[error("another program answers at {0}, not a balancer")]
    NotABalancer(AdminAddress),
    /// The connection ended before its answer did.
    #[error("the balancer at {0} closed the connection before it answered")]
    Closed(AdminAddress),
    /// The balancer requires a token.
    #[error("{0} requires a token: name its file with --token-file")]
    TokenRequired(AdminAddress),
    /// The balancer refused: its own sentence.
    #[error("{0}")]
    Refused(String),
    /// An answer that this version does not understand.
    #[error("{0} answers {1} {2} with {3}: is it a balancer of this version?")]
    Unexpected(AdminAddress, Method, String, String),
    /// The terminal can't be drawn on.
    #[error("cannot draw on the terminal: {0}")]
    Terminal(#[from] io::Error),
    /// A backend still has connections after the time that the user gave.
    #[error("{0}")]
    StillBusy(String),
}

impl ClientError {
    /// 2 for a mistake in arguments or environment, else 1.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Environment(_) | Self::Token { .. } => 2,
            Self::NotRunning(_)
            | Self::NotRunningThere(_)
            | Self::Denied(_)
            | Self::Connection(..)
            | Self::Timeout(_)
            | Self::NotABalancer(_)
            | Self::Closed(_)
            | Self::TokenRequired(_)
            | Self::Refused(_)
            | Self::Unexpected(..)
            | Self::Terminal(_)
            | Self::StillBusy(_) => 1,
        }
    }
}

/// A client of one balancer.
#[derive(Debug)]
pub(super) struct Client {
    address: AdminAddress,
    /// Whether the user gave no address.
    is_default: bool,
    token: Option<String>,
}

impl Client {
    /// Takes address and token from the flags, or else from the environment.
    pub(super) fn new(options: &ClientOptions) -> Result<Self, ClientError> {
        let named = match (&options.admin, variable(ADDRESS)) {
            (Some(address), _) => Some(address.clone()),
            (None, Some(text)) => {
                let address = text.to_string_lossy().parse();
                Some(address.map_err(ClientError::Environment)?)
            }
            (None, None) => None,
        };
        let is_default = named.is_none();
        let address = named.unwrap_or_else(|| AdminAddress::Socket(default_socket()));
        let file = options.token_file.clone();
        let file = file.or_else(|| variable(TOKEN_FILE).map(PathBuf::from));
        let token = match (&address, file) {
            (AdminAddress::Http(_), Some(path)) => Some(token(path)?),
            (AdminAddress::Http(_), None) | (AdminAddress::Socket(_), _) => None,
        };
        Ok(Self {
            address,
            is_default,
            token,
        })
    }

    /// The address that it connects to.
    pub(super) fn address(&self) -> &AdminAddress {
        &self.address
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Posts without a body.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::POST, path, Bytes::new()).await
    }

    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::DELETE, path, Bytes::new()).await
    }

    /// Sends a change.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("the model has text for keys alone");
        self.ask(method, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let exchange = async {
            let answer = self.request(&method, path, body).await?;
            let body = self.body(answer).await?;
            serde_json::from_slice(&body).map_err(|error| self.unexpected(&method, path, &error))
        };
        timeout(TIME, exchange)
            .await
            .unwrap_or_else(|_| Err(self.timed_out()))
    }

    /// An answer whose body is endless: the caller reads it, without a deadline.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, ClientError> {
        let request = self.request(&Method::GET, path, Bytes::new());
        let answer = timeout(TIME, request).await;
        let answer = answer.unwrap_or_else(|_| Err(self.timed_out()))?;
        Ok(answer.into_body())
    }

    /// The answer, if it is a success.
    async fn request(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        let host = match &self.address {
            AdminAddress::Socket(_) => "localhost".to_owned(),
            AdminAddress::Http(address) => address.to_string(),
        };
        request = request.header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| self.failed(&error))?;
        let answer = match &self.address {
            AdminAddress::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                self.exchange(stream.map_err(|error| self.unconnected(&error))?, request)
                    .await?
            }
            AdminAddress::Http(address) => {
                let stream = TcpStream::connect(address).await.and_then(refuse_itself);
                self.exchange(stream.map_err(|error| self.unconnected(&error))?, request)
                    .await?
            }
        };
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(self.refused(method, path, answer).await)
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| self.broken(&error))?;
        // Ends with the answer, or when its reader is dropped. The answer reports its errors.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        answer.map_err(|error| self.broken(&error))
    }

    async fn body(&self, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let collected = body.collect().await;
        collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => self.broken(&error),
                Err(error) => self.failed(&*error),
            })
    }

    /// The error of an answer that is not a success.
    async fn refused(
        &self,
        method: &Method,
        path: &str,
        answer: Response<Incoming>,
    ) -> ClientError {
        let status = answer.status();
        let body = match self.body(answer).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        if status == StatusCode::UNAUTHORIZED && self.token.is_none() {
            return ClientError::TokenRequired(self.address.clone());
        }
        match serde_json::from_slice(&body) {
            Ok(Problem { error }) => ClientError::Refused(error),
            Err(_) => self.unexpected(method, path, &status),
        }
    }

    fn unconnected(&self, error: &io::Error) -> ClientError {
        let address = self.address.clone();
        let kind = error.kind();
        if kind == ErrorKind::NotFound || kind == ErrorKind::ConnectionRefused {
            if self.is_default {
                ClientError::NotRunning(address)
            } else {
                ClientError::NotRunningThere(address)
            }
        } else if kind == ErrorKind::PermissionDenied {
            ClientError::Denied(address)
        } else {
            ClientError::Connection(address, error.to_string())
        }
    }

    /// The error of a connection that breaks.
    pub(super) fn broken(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() {
            ClientError::NotABalancer(self.address.clone())
        } else {
            ClientError::Closed(self.address.clone())
        }
    }

    fn failed(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Connection(self.address.clone(), error.to_string())
    }

    fn unexpected(&self, method: &Method, path: &str, what: &dyn std::fmt::Display) -> ClientError {
        let (path, what) = (path.to_owned(), what.to_string());
        ClientError::Unexpected(self.address.clone(), method.clone(), path, what)
    }

    fn timed_out(&self) -> ClientError {
        ClientError::Timeout(self.address.clone())
    }
}

/// A path of several parts, each percent-encoded.
pub(super) fn path(parts: &[&str]) -> String {
    let mut path = "/v1".to_owned();
    for part in parts {
        path.push('/');
        encode(&mut path, part);
    }
    path
}

/// `?name=value&...` of the fields that have a value.
pub(super) fn query(fields: &impl Serialize) -> String {
    let text = serde_urlencoded::to_string(fields).expect("fields are strings and numbers");
    if text.is_empty() {
        text
    } else {
        format!("?{text}")
    }
}

/// Leaves the unreserved characters of RFC 3986, section 2.3.
fn encode(into: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// The default socket: in this directory, or else where the service has it.
fn default_socket() -> PathBuf {
    let service = fs::metadata(SERVICE_SOCKET).map_err(|error| error.kind());
    // Without permission to look it may still be there: the attempt to connect tells.
    let has_service = matches!(service, Ok(_) | Err(ErrorKind::PermissionDenied));
    let is_here = fs::symlink_metadata(ADMIN_SOCKET).is_ok();
    let path = if has_service && !is_here {
        SERVICE_SOCKET
    } else {
        ADMIN_SOCKET
    };
    PathBuf::from(path)
}

/// Whether a command that names no balancer asks this socket.
pub(in crate::cli) fn is_default(socket: &Path) -> bool {
    match variable(ADDRESS) {
        Some(address) => Path::new(&address) == socket,
        None => default_socket() == socket,
    }
}

/// The value of a variable of the environment; an empty one is none.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn token(path: PathBuf) -> Result<String, ClientError> {
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let why = error.to_string();
            return Err(ClientError::Token { path, why });
        }
    };
    // One that the balancer made has a token for each role.
    let made = TokenFile::token_in(&text, "write");
    let token = made.unwrap_or(&text).trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = "expected one word in it".to_owned();
        return Err(ClientError::Token { path, why });
    }
    Ok(token.to_owned())
}

/// Where scripts/mahoraga.service puts the socket.
const SERVICE_SOCKET: &str = "/run/mahoraga/mahoraga.sock";
/// The variable with the address of the admin API.
const ADDRESS: &str = "MAHORAGA_ADMIN";
/// The variable with the path of the token's file.
const TOKEN_FILE: &str = "MAHORAGA_TOKEN_FILE";
/// The deadline of a whole answer, connecting included.
const TIME: Duration = Duration::from_secs(5);
/// The largest answer is a configuration: its file may have 16 MiB, and JSON escapes some of it.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Refuses a socket that is connected to itself. That means that nothing listens on the port, and
/// the kernel took the same one as the local port.
fn refuse_itself(stream: TcpStream) -> io::Result<TcpStream> {
    if sys::is_one_end(stream.local_addr().ok(), stream.peer_addr().ok()) {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        let encoded = path(&["pools", "a/b c", "backends", "unix:/run/ä"]);
        assert_eq!(
            encoded,
            "/v1/pools/a%2Fb%20c/backends/unix%3A%2Frun%2F%C3%A4"
        );
        assert_eq!(query(&[("a", None::<&str>)]), "");
        let fields = [("a", Some("1&2")), ("b", None), ("c", Some("x"))];
        assert_eq!(query(&fields), "?a=1%262&c=x");
    }
}
