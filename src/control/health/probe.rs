//! One probe: connects, sends the request and checks the answer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::config::{Check, CheckInForce, HttpProbe, Probe, Target};
use crate::origin::{Origins, User};
use crate::peek::proxy_protocol::{self, HeaderVersion};
use crate::sys;
use crate::time::between;
use crate::tls::ServerAt;

use super::ProbeOutcome;
use super::answer::{ANSWER_MAX, Expectation};
use super::failure::{Failure, ProbeStage};
use super::running;
use super::stream::ProbeStream;
use super::tls::{ProbeClient, Secured};

/// A check, with what all its probes share.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) check: Check,
    pub(super) tls: Option<ProbeClient>,
    expectation: Result<Expectation, Failure>,
}

impl Spec {
    pub(super) fn new(by: &CheckInForce) -> Self {
        Self {
            check: by.check.clone(),
            tls: ProbeClient::of(&by.tls),
            expectation: Expectation::of(&by.check.probe),
        }
    }
}

/// A check of one address.
#[derive(Debug)]
pub(super) struct Prober {
    to: Address,
    /// Local addresses of the probes, used in turn.
    origins: Origins,
    /// The next of them.
    turn: Cell<usize>,
    /// The host name: for the request, and for the certificate.
    host: Option<String>,
    /// The PROXY header that each probe begins with.
    header: Option<HeaderVersion>,
    spec: Rc<Spec>,
    request: Vec<u8>,
}

impl Prober {
    /// `to`: the probed address, with the check's port.
    pub(super) fn new(to: &Address, origins: Origins, spec: &Rc<Spec>) -> Self {
        Self {
            to: to.clone(),
            origins,
            turn: Cell::new(0),
            host: None,
            header: None,
            spec: Rc::clone(spec),
            request: request(&spec.check.probe, &Target::Address(to)),
        }
    }

    /// The same for an address that was resolved from this host name.
    pub(super) fn with_host(mut self, host: Option<&str>) -> Self {
        self.request = request(&self.check().probe, &Target::new(host, &self.to));
        self.host = host.map(str::to_owned);
        self
    }

    /// The same, where each probe begins with this PROXY header.
    pub(super) fn with_header(self, header: Option<HeaderVersion>) -> Self {
        Self { header, ..self }
    }

    pub(super) fn check(&self) -> &Check {
        &self.spec.check
    }

    #[cfg(test)]
    pub(super) fn request(&self) -> &[u8] {
        &self.request
    }

    /// Probes once, within the check's timeout. Nothing of the probe outlives it.
    pub(super) async fn probe(&self) -> ProbeOutcome {
        let progress = Progress::default();
        let after = self.check().timeout;
        let prepared = match &self.spec.tls {
            Some(client) => client.prepare(after).await,
            None => Ok(()),
        };
        let started = sys::monotonic();
        let (done, stalled) = match prepared {
            Ok(()) => running::within(after, self.converse(&progress)).await,
            Err(failure) => (Some(Err(failure)), false),
        };
        let failure = match done {
            // Only a refusal was still waited for.
            None if progress.shaken.get() => None,
            // The whole time passed while this process ran.
            None => Some(self.late(&progress, after)),
            // The backend may have waited for this process and closed the connection.
            Some(Err(_)) if stalled => Some(Failure::Stalled),
            Some(outcome) => outcome.err(),
        };
        ProbeOutcome {
            failure,
            at: started,
            took: sys::monotonic().saturating_sub(started),
        }
    }

    /// The failure where the timeout expired.
    fn late(&self, progress: &Progress, after: Duration) -> Failure {
        let answer = progress.answer.take();
        match &self.spec.expectation {
            Ok(expectation) if !answer.is_empty() => expectation.unexpected(&answer, Some(after)),
            _ => Failure::Late {
                stage: progress.stage.get(),
                after,
            },
        }
    }

    async fn converse(&self, progress: &Progress) -> Result<(), Failure> {
        let expectation = self.spec.expectation.as_ref().map_err(Clone::clone)?;
        let began = sys::monotonic();
        let mut stream = self.connect().await?;
        if self.talks() {
            stream.talk();
        }
        if let Some(header) = self.header {
            progress.stage.set(ProbeStage::Sending);
            let sent = stream.write_all(proxy_header(header)).await;
            sent.map_err(|error| Failure::broken(&error))?;
        }
        let mut channel = match &self.spec.tls {
            None => Channel::Plain(stream),
            Some(client) => {
                progress.stage.set(ProbeStage::Handshake);
                let server = ServerAt {
                    host: self.host.as_deref(),
                    address: &self.to,
                };
                Channel::Secured(client.secure(stream, server).await?)
            }
        };
        if matches!(expectation, Expectation::Nothing) {
            progress.shaken.set(true);
            // An answer takes one round trip, and what came before two at least.
            let took = between(began, sys::monotonic());
            return channel.await_refusal(took.max(SILENCE)).await;
        }
        progress.stage.set(ProbeStage::Sending);
        channel.write_all(&self.request).await?;
        progress.stage.set(ProbeStage::Answer);
        listen(&mut channel, expectation, &progress.answer).await
    }

    /// Connects from each origin in turn. One that this machine does not have, or that has no port,
    /// is passed over.
    async fn connect(&self) -> Result<ProbeStream, Failure> {
        let mut left = self.origins.len();
        loop {
            let turn = self.turn.replace(self.turn.get().wrapping_add(1));
            let from = self.origins.nth(turn % self.origins.len(), User::Probes);
            left -= 1;
            match ProbeStream::connect(&self.to, from).await {
                Err(Failure::Originless(_)) if left > 0 => {}
                connected => return connected,
            }
        }
    }

    /// Whether the probe sends or waits for anything beside the TCP handshake.
    fn talks(&self) -> bool {
        self.check().probe != Probe::Tcp || self.spec.tls.is_some() || self.header.is_some()
    }
}

/// How far a probe has come, for the time when its timeout expires.
#[derive(Default)]
struct Progress {
    stage: Cell<ProbeStage>,
    /// The handshake is done, and all that is left is to wait for a refusal.
    shaken: Cell<bool>,
    /// What has arrived of the answer.
    answer: RefCell<Vec<u8>>,
}

async fn listen(
    channel: &mut Channel,
    expectation: &Expectation,
    arrived: &RefCell<Vec<u8>>,
) -> Result<(), Failure> {
    let mut answer = vec![0; ANSWER_MAX];
    let mut length = 0;
    loop {
        let (_, room) = answer.split_at_mut(length);
        let read = channel.read(room).await?;
        length += read;
        let (so_far, room) = answer.split_at(length);
        let ended = read == 0 || room.is_empty();
        if let Some(verdict) = expectation.verdict(so_far, ended) {
            return verdict;
        }
        let mut arrived = arrived.borrow_mut();
        let known = arrived.len();
        arrived.extend_from_slice(so_far.get(known..).unwrap_or_default());
    }
}

enum Channel {
    Plain(ProbeStream),
    Secured(Secured),
}

impl Channel {
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Plain(stream) => {
                let sent = stream.write_all(bytes).await;
                sent.map_err(|error| Failure::broken(&error))
            }
            Self::Secured(secured) => secured.write_all(bytes).await,
        }
    }

    /// Waits whether the server refuses what the handshake has shown it, for this long.
    async fn await_refusal(&mut self, silence: Duration) -> Result<(), Failure> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Secured(secured) => secured.await_refusal(silence).await,
        }
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        match self {
            Self::Plain(stream) => {
                let read = stream.read(into).await;
                read.map_err(|error| Failure::broken(&error))
            }
            Self::Secured(secured) => secured.read(into).await,
        }
    }
}

/// The request of a probe.
fn request(probe: &Probe, to: &Target<'_>) -> Vec<u8> {
    match probe {
        Probe::Tcp => Vec::new(),
        Probe::SendExpect { send, .. } => send.clone(),
        Probe::Http(HttpProbe {
            method, path, host, ..
        }) => {
            let host = host.clone().unwrap_or_else(|| authority(to));
            format!(
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mahoraga\r\n\
                 Accept: */*\r\nConnection: close\r\n\r\n"
            )
            .into_bytes()
        }
    }
}

/// An address as a Host field names it (RFC 9110, section 7.2), which knows no IPv6 zones.
fn authority(to: &Target<'_>) -> String {
    match to {
        Target::Address(Address::Tcp(address)) => {
            std::net::SocketAddr::new(address.ip(), address.port()).to_string()
        }
        Target::Address(Address::Unix(_)) => "localhost".to_owned(),
        Target::Host(..) => to.to_string(),
    }
}

/// The PROXY header of a connection that the balancer makes for itself.
fn proxy_header(version: HeaderVersion) -> &'static [u8] {
    match version {
        HeaderVersion::V1 => proxy_protocol::LOCAL_V1,
        HeaderVersion::V2 => proxy_protocol::LOCAL_V2,
    }
}

/// How long a server may take at least to refuse our certificate after the handshake.
const SILENCE: Duration = Duration::from_millis(50);
