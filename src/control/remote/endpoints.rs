//! The endpoints of a server, of which one is asked at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use hyper::body::Bytes;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Lines, Request};
use super::rotating::LastGood;
use super::{RemoteCounts, RemoteError, WatchPace, files};
use crate::config::Server;
use crate::control::aside;

/// Asks one endpoint, until it is told to take the next.
pub(in crate::control) struct Endpoints {
    server: Server,
    /// Which endpoint is asked.
    at: usize,
    /// Asked one after the other.
    connection: Option<Connection>,
    connector: LastGood<TlsConnector>,
    pace: WatchPace,
    counts: Arc<RemoteCounts>,
}

impl Endpoints {
    /// It begins with an endpoint at random: balancers spread over them.
    pub(in crate::control) fn new(
        server: Server,
        pace: WatchPace,
        counts: &Arc<RemoteCounts>,
    ) -> Self {
        Self {
            at: fastrand::usize(..server.endpoints.len().max(1)),
            connection: None,
            connector: LastGood::new(),
            pace,
            counts: Arc::clone(counts),
            server,
        }
    }

    pub(in crate::control) fn pace(&self) -> WatchPace {
        self.pace
    }

    pub(in crate::control) fn counts(&self) -> &Arc<RemoteCounts> {
        &self.counts
    }

    /// How many there are; one at least.
    pub(super) fn count(&self) -> usize {
        self.server.endpoints.len().max(1)
    }

    /// The endpoint that is asked.
    pub(in crate::control) fn current(&self) -> &str {
        self.server.endpoints.get(self.at).map_or("", |at| at)
    }

    /// Takes the next endpoint.
    pub(in crate::control) fn turn(&mut self) {
        self.at = (self.at + 1) % self.count();
        self.connection = None;
    }

    /// Sends a request, and answers with the answer, of so many bytes at most.
    pub(in crate::control) async fn ask(
        &mut self,
        request: Request,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, RemoteError> {
        // It is put back once the whole answer is there: after a failure its state is unknown.
        let before = self.connection.take().filter(|its| !its.is_closed());
        let mut connection = match before {
            Some(connection) => connection,
            None => self.open().await?,
        };
        RemoteCounts::add(&self.counts.requests, 1);
        let answer = within(self.pace.answer, connection.ask(request, bytes_max)).await;
        if matches!(answer, Ok(_) | Err(RemoteError::Refused { .. })) {
            self.connection = Some(connection);
        }
        answer
    }

    /// Sends a request on a connection of its own, and answers with the lines that come.
    pub(in crate::control) async fn stream(
        &mut self,
        request: Request,
    ) -> Result<Lines, RemoteError> {
        let connection = self.open().await?;
        RemoteCounts::add(&self.counts.requests, 1);
        within(self.pace.answer, connection.stream(request)).await
    }

    /// Asks whether the endpoint still answers, whatever it answers. One that hangs does not.
    pub(in crate::control) async fn look(&mut self, path: &str) -> Result<(), RemoteError> {
        match self.ask(Request::get(path.to_owned()), LOOK_MAX).await {
            Ok(_) | Err(RemoteError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A connection for a request that takes long: the one before, unless it was closed.
    pub(in crate::control) async fn apart(
        &mut self,
        before: Option<Connection>,
    ) -> Result<Connection, RemoteError> {
        let connection = match before.filter(|its| !its.is_closed()) {
            Some(connection) => connection,
            None => self.open().await?,
        };
        RemoteCounts::add(&self.counts.requests, 1);
        Ok(connection)
    }

    /// A connection of its own.
    async fn open(&mut self) -> Result<Connection, RemoteError> {
        let time = self.pace.open;
        let opened = async {
            let is_secured = self.current().starts_with("https:");
            let tls = match is_secured {
                true => Some(self.connector().await?),
                false => None,
            };
            Connection::open(self.current(), tls, time).await
        };
        within(time, opened).await
    }

    async fn connector(&mut self) -> Result<TlsConnector, RemoteError> {
        let server = self.server.clone();
        // One thread at most reads the files of one server.
        let at = server.files().next().map(|(_, path)| path.to_owned());
        let at = at.unwrap_or_else(|| PathBuf::from("the certificates that this machine trusts"));
        let made = aside::look(&at, move || files::connector(&server)).await;
        let made = made.map_err(|error| error.to_string()).flatten();
        self.connector.take(made)
    }
}

async fn within<T>(
    time: Duration,
    what: impl Future<Output = Result<T, RemoteError>>,
) -> Result<T, RemoteError> {
    let done = tokio::time::timeout(time, what).await;
    done.unwrap_or(Err(RemoteError::Late(time)))
}

/// Bytes of the answer to a look.
const LOOK_MAX: usize = 64 << 10;
