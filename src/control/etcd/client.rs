//! A client of a cluster: one endpoint at a time, and authentication.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Lines};
use super::{EtcdCounts, EtcdError, WatchPace, files, wire};
use crate::config::Etcd;
use crate::control::aside;

/// Asks one endpoint, until it is told to take the next.
pub(super) struct Client {
    source: Etcd,
    /// Which endpoint is asked.
    at: usize,
    /// Asked one after the other.
    connection: Option<Connection>,
    /// The last good one: while a tool replaces certificates, their files may be half written.
    connector: Option<TlsConnector>,
    token: Token,
    pace: WatchPace,
    counts: Arc<EtcdCounts>,
}

/// What a user's requests prove who they are by.
enum Token {
    /// Not asked for yet, or no longer valid.
    Missing,
    /// There is no user, or etcd has no authentication.
    NotNeeded,
    Known(String),
}

impl Client {
    /// One that begins with an endpoint at random: balancers spread over the members.
    pub(super) fn new(source: &Etcd, pace: WatchPace, counts: &Arc<EtcdCounts>) -> Self {
        Self {
            at: fastrand::usize(..source.endpoints.len().max(1)),
            connection: None,
            connector: None,
            token: Token::Missing,
            pace,
            counts: Arc::clone(counts),
            source: source.clone(),
        }
    }

    pub(super) fn source(&self) -> &Etcd {
        &self.source
    }

    /// The endpoint that is asked.
    pub(super) fn endpoint(&self) -> &str {
        self.source.endpoints.get(self.at).map_or("", |at| at)
    }

    /// Takes the next endpoint.
    pub(super) fn turn(&mut self) {
        self.at = (self.at + 1) % self.source.endpoints.len().max(1);
        self.connection = None;
        // Of another member: tokens of etcd's simple kind are known to all, but may be too new.
        self.token = Token::Missing;
    }

    /// Posts a request, and answers with the body, of so many bytes at most. A token that is no
    /// longer valid is renewed.
    pub(super) async fn ask(
        &mut self,
        path: &str,
        body: &Value,
        bytes_max: usize,
    ) -> Result<Bytes, EtcdError> {
        let body = Bytes::from(body.to_string());
        for is_last in [false, true] {
            let token = self.token().await?;
            let answer = self
                .once((path, token.as_deref()), body.clone(), bytes_max)
                .await;
            match answer {
                Err(EtcdError::Refused { message, .. }) if !is_last && self.is_stale(&message) => {
                    self.token = Token::Missing;
                }
                answer => return answer,
            }
        }
        unreachable!("the last turn returns");
    }

    /// Posts a request on a connection of its own, and answers with the lines that come.
    pub(super) async fn stream(&mut self, path: &str, body: &Value) -> Result<Lines, EtcdError> {
        let token = self.token().await?;
        let connection = self.open().await?;
        EtcdCounts::add(&self.counts.requests, 1);
        let body = Bytes::from(body.to_string());
        let lines = connection.stream((path, token.as_deref()), body);
        within(self.pace.answer, lines).await
    }

    async fn once(
        &mut self,
        path: (&str, Option<&str>),
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Bytes, EtcdError> {
        // It is put back once the whole answer is there: after a failure its state is unknown.
        let before = self.connection.take().filter(|its| !its.is_closed());
        let mut connection = match before {
            Some(connection) => connection,
            None => self.open().await?,
        };
        EtcdCounts::add(&self.counts.requests, 1);
        let answer = within(self.pace.answer, connection.ask(path, body, bytes_max)).await;
        if matches!(answer, Ok(_) | Err(EtcdError::Refused { .. })) {
            self.connection = Some(connection);
        }
        answer
    }

    async fn open(&mut self) -> Result<Connection, EtcdError> {
        let time = self.pace.open;
        let opened = async {
            let is_secured = self.endpoint().starts_with("https:");
            let tls = match is_secured {
                true => Some(self.connector().await?),
                false => None,
            };
            Connection::open(self.endpoint(), tls, time).await
        };
        within(time, opened).await
    }

    async fn connector(&mut self) -> Result<TlsConnector, EtcdError> {
        let source = self.source.clone();
        // One thread at most reads the files of one cluster.
        let at = source.files().next().map(|(_, path)| path.clone());
        let at = at.unwrap_or_else(|| PathBuf::from("the certificates that this machine trusts"));
        let made = aside::look(&at, move || files::connector(&source)).await;
        match (
            made.map_err(|error| error.to_string()).flatten(),
            &self.connector,
        ) {
            (Ok(connector), _) => {
                self.connector = Some(connector.clone());
                Ok(connector)
            }
            (Err(why), Some(before)) => {
                log::warn!("etcd: {why}; using what was read before");
                Ok(before.clone())
            }
            (Err(why), None) => Err(EtcdError::File(why)),
        }
    }

    /// The token of the user, if there is one.
    async fn token(&mut self) -> Result<Option<String>, EtcdError> {
        if let Token::Missing = self.token {
            self.token = match self
                .source
                .user
                .clone()
                .zip(self.source.password_file.clone())
            {
                None => Token::NotNeeded,
                Some((user, file)) => self.authenticate(&user, &file).await?,
            };
        }
        Ok(match &self.token {
            Token::Known(token) => Some(token.clone()),
            Token::Missing | Token::NotNeeded => None,
        })
    }

    async fn authenticate(&mut self, user: &str, file: &Path) -> Result<Token, EtcdError> {
        let path = file.to_owned();
        let read = aside::look(file, move || files::password(&path));
        let read = tokio::time::timeout(self.pace.open, read).await;
        let read = read.map_err(|_| EtcdError::Late(self.pace.open))?;
        let password = read.map_err(|error| error.to_string()).flatten();
        let password = password.map_err(EtcdError::File)?;
        let body = json!({ "name": user, "password": password }).to_string();
        let asked = self.once(("/v3/auth/authenticate", None), body.into(), TOKEN_MAX);
        match asked.await {
            Ok(answer) => {
                let token = wire::read::<wire::Authenticated>(&answer)?.token;
                match token.is_empty() {
                    true => Err(EtcdError::Garbage("expected a token".to_owned())),
                    false => Ok(Token::Known(token)),
                }
            }
            // A cluster may get its users later: then it asks for a token.
            Err(EtcdError::Refused { message, .. }) if message.contains(WITHOUT_USERS) => {
                Ok(Token::NotNeeded)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it is asked for another token.
    fn is_stale(&self, message: &str) -> bool {
        self.source.user.is_some() && STALE.iter().any(|words| message.contains(words))
    }
}

async fn within<T>(
    time: Duration,
    what: impl Future<Output = Result<T, EtcdError>>,
) -> Result<T, EtcdError> {
    let done = tokio::time::timeout(time, what).await;
    done.unwrap_or(Err(EtcdError::Late(time)))
}

/// etcd's words where a token is missing, too old, or from before a change of the users.
const STALE: [&str; 3] = [
    "invalid auth token",
    "user name is empty",
    "revision of auth store is old",
];
/// etcd's words where it has no users.
const WITHOUT_USERS: &str = "authentication is not enabled";
/// Bytes of an answer with a token; one that is signed has some hundred.
const TOKEN_MAX: usize = 64 << 10;
