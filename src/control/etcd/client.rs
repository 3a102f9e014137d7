//! A client of a cluster: one endpoint at a time, and authentication.

use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderName};
use serde_json::{Value, json};

use super::wire;
use crate::config::Etcd;
use crate::control::remote::{
    self, Endpoints, Lines, RemoteCounts, RemoteError, Request, Secret, WatchPace,
};

/// Asks one endpoint, until it is told to take the next.
pub(super) struct Client {
    source: Etcd,
    pub(super) endpoints: Endpoints,
    password: Option<Secret>,
    token: Token,
}

/// What a user's requests prove who they are by.
enum Token {
    /// Not asked for yet, or no longer valid.
    Missing,
    /// There is no user, or etcd has no authentication.
    NotNeeded,
    /// Of the endpoint with this name.
    Known(String, String),
}

impl Client {
    pub(super) fn new(source: &Etcd, pace: WatchPace, counts: &Arc<RemoteCounts>) -> Self {
        Self {
            endpoints: Endpoints::new(source.server(), pace, counts),
            password: source.password_file.clone().map(Secret::new),
            token: Token::Missing,
            source: source.clone(),
        }
    }

    pub(super) fn source(&self) -> &Etcd {
        &self.source
    }

    /// Posts a request, and answers with the body, of so many bytes at most. A token that is no
    /// longer valid is renewed.
    pub(super) async fn ask(
        &mut self,
        path: &str,
        body: &Value,
        bytes_max: usize,
    ) -> Result<Bytes, RemoteError> {
        let request = Request::post(path, body);
        for is_last in [false, true] {
            let request = request.clone().with(self.token().await?);
            let answer = self.endpoints.ask(request, bytes_max).await;
            match answer {
                Err(RemoteError::Refused { message, .. })
                    if !is_last && self.is_stale(&message) =>
                {
                    self.token = Token::Missing;
                }
                answer => return Ok(answer?.into_body()),
            }
        }
        unreachable!("the last turn returns");
    }

    /// Posts a request on a connection of its own, and answers with the lines that come.
    pub(super) async fn stream(&mut self, path: &str, body: &Value) -> Result<Lines, RemoteError> {
        let request = Request::post(path, body).with(self.token().await?);
        self.endpoints.stream(request).await
    }

    /// The header with the token of the user, if there is one.
    async fn token(&mut self) -> Result<Option<(HeaderName, String)>, RemoteError> {
        if let Token::Known(_, endpoint) = &self.token
            && endpoint != self.endpoints.current()
        {
            // Tokens of etcd's simple kind are known to all members, but may be too new.
            self.token = Token::Missing;
        }
        if let Token::Missing = self.token {
            self.token = self.authenticate().await?;
        }
        Ok(match &self.token {
            Token::Known(token, _) => Some((AUTHORIZATION, token.clone())),
            Token::Missing | Token::NotNeeded => None,
        })
    }

    async fn authenticate(&mut self) -> Result<Token, RemoteError> {
        let Some((user, password)) = self.source.user.as_ref().zip(self.password.as_mut()) else {
            return Ok(Token::NotNeeded);
        };
        let password = password.read(self.endpoints.pace().open).await?;
        let body = json!({ "name": user, "password": password });
        let request = Request::post("/v3/auth/authenticate", &body);
        match self.endpoints.ask(request, TOKEN_MAX).await {
            Ok(answer) => {
                let token = remote::read::<wire::Authenticated>(answer.body())?.token;
                let endpoint = self.endpoints.current().to_owned();
                match token.is_empty() {
                    true => Err(RemoteError::Garbage("expected a token".to_owned())),
                    false => Ok(Token::Known(token, endpoint)),
                }
            }
            // A cluster may get its users later: then it asks for a token.
            Err(RemoteError::Refused { message, .. }) if message.contains(WITHOUT_USERS) => {
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
