//! Who the client is by the header of a proxy, and why a header is refused.

use std::net::{IpAddr, SocketAddr};

use crate::guard::{PeerDenied, PeerStage};
use crate::kernel::{Kernel, Socket};
use crate::peek::Miss;
use crate::peek::proxy_protocol::{self, CheckedTlvs, Endpoints, Header};
use crate::session::CloseReason;
use crate::worker::refuse::Caller;

/// What a session keeps of the header that it began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker) struct NamedClient {
    /// Who has sent it.
    pub(in crate::worker) proxy: ProxyPeer,
    /// It is a connection of the proxy's own, such as its health check (LOCAL).
    pub(in crate::worker) is_own: bool,
    /// The address that the client connected to, where the header says it.
    pub(in crate::worker) destination: Option<SocketAddr>,
    /// What else it says, checked: [`CheckedTlvs::of_checked`] reads it.
    ///
    /// [`CheckedTlvs::of_checked`]: crate::peek::proxy_protocol::CheckedTlvs::of_checked
    pub(in crate::worker) tlvs: Box<[u8]>,
}

impl NamedClient {
    /// What else the header says.
    pub(in crate::worker) fn tlvs(&self) -> CheckedTlvs<'_> {
        CheckedTlvs::of_checked(&self.tlvs)
    }
}

/// Whether a connection is one of a proxy's own, which is no client's: rules about clients are not
/// asked.
pub(in crate::worker) fn is_own(named: Option<&NamedClient>) -> bool {
    named.is_some_and(|named| named.is_own)
}

/// The TLVs of the header that a client came with.
pub(in crate::worker) fn tlvs_of(named: Option<&NamedClient>) -> CheckedTlvs<'_> {
    named.map_or(CheckedTlvs::NONE, NamedClient::tlvs)
}

/// The peer that names clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyPeer {
    /// Its address.
    Tcp(SocketAddr),
    /// It came by a Unix socket.
    Unix,
}

impl ProxyPeer {
    pub(super) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix => None,
        }
    }

    pub(super) fn ip(self) -> Option<IpAddr> {
        self.address().map(|address| address.ip())
    }
}

impl std::fmt::Display for ProxyPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Who a connection's client is by its header.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) struct HeaderClient {
    /// The address that counts; `None`: it came by a Unix socket, and the header has none.
    pub(super) peer: Option<SocketAddr>,
    pub(super) named: Box<NamedClient>,
}

impl HeaderClient {
    /// The address that rules about clients are asked about; `None`: the connection is the
    /// proxy's own, or has none.
    pub(in crate::worker) fn asked(&self) -> Option<IpAddr> {
        let peer = self.peer.filter(|_| !self.named.is_own);
        peer.map(|peer| peer.ip())
    }

    /// The client of a header that this peer has sent.
    fn of(header: &Header<'_>, proxy: ProxyPeer) -> Self {
        let (peer, destination) = match header.endpoints {
            Endpoints::Tcp {
                source,
                destination,
            } => (Some(canonical(source)), Some(canonical(destination))),
            Endpoints::Local | Endpoints::Unknown | Endpoints::Unix { .. } => {
                (proxy.address(), None)
            }
        };
        Self {
            peer,
            named: Box::new(NamedClient {
                proxy,
                is_own: header.endpoints == Endpoints::Local,
                destination,
                tlvs: header.tlvs.as_bytes().into(),
            }),
        }
    }

    pub(in crate::worker) fn caller(&self) -> Caller {
        Caller {
            client: self.peer,
            proxy: Some(self.named.proxy),
        }
    }
}

/// As the kernel names the same client where it connects by itself: IPv4 in its own form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why a header is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) reason: CloseReason,
    pub(super) what: String,
}

impl Flaw {
    pub(super) fn header(what: impl ToString) -> Self {
        let what = what.to_string();
        let reason = CloseReason::ProxyHeader;
        Self { reason, what }
    }

    /// The connection broke: it is no fault of the header.
    pub(super) fn reset() -> Self {
        let what = String::new();
        let reason = CloseReason::ClientReset;
        Self { reason, what }
    }
}

/// What more bytes are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    /// So many have come.
    pub(super) come: usize,
    /// The header is complete. Behind it stands what may be the beginning of a second one.
    pub(super) has_header: bool,
}

/// The client of a header in the first bytes of a connection, and the header's length. `last`: no
/// more bytes are waited for.
///
/// A second header would name another client, and two readers might take different ones. So bytes
/// that begin one are refused, and what may be its beginning is waited for.
fn client_of(
    first: &[u8],
    proxy: ProxyPeer,
    last: bool,
) -> Result<Result<(usize, HeaderClient), Lack>, Flaw> {
    let lack = |has_header| {
        let come = first.len();
        Ok(Err(Lack { come, has_header }))
    };
    let Some(header) = proxy_protocol::parse(first).map_err(Flaw::header)? else {
        return lack(false);
    };
    let rest = &first[header.length..];
    match proxy_protocol::version_of(rest) {
        Ok(_) => return Err(Flaw::header("a second PROXY header follows the first")),
        Err(Miss::Incomplete) if !rest.is_empty() && !last => return lack(true),
        Err(Miss::Incomplete | Miss::Absent) => {}
    }
    Ok(Ok((header.length, HeaderClient::of(&header, proxy))))
}

/// Looks for the header at a socket, and takes it from there once it is complete and alone.
pub(super) fn look(
    kernel: &mut impl Kernel,
    socket: &Socket,
    proxy: ProxyPeer,
    last: bool,
) -> Result<Result<HeaderClient, Lack>, Flaw> {
    let first = kernel.bytes_ahead(None, socket);
    let (length, client) = match client_of(first, proxy, last)? {
        Ok(found) => found,
        Err(lack) => return Ok(Err(lack)),
    };
    match take(kernel, socket, length) {
        true => Ok(Ok(client)),
        false => Err(Flaw::reset()),
    }
}

/// Takes so many bytes that wait at a socket, and drops them. `false`: the connection broke.
fn take(kernel: &mut impl Kernel, socket: &Socket, mut length: usize) -> bool {
    let mut scratch = [0; HEADER_USUAL];
    while length > 0 {
        let into = &mut scratch[..length.min(HEADER_USUAL)];
        match kernel.hear(socket, into) {
            Ok(taken) if taken > 0 => length -= taken,
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

/// Counts a flaw that is the peer's.
pub(super) fn count(stage: &PeerStage, proxy: ProxyPeer, flaw: &Flaw) {
    let denied = PeerDenied::ALL
        .into_iter()
        .find(|denied| CloseReason::from(*denied) == flaw.reason);
    if let Some(denied) = denied {
        stage.count_refused(denied, || match proxy.ip() {
            Some(ip) => format!("{ip}: {}", flaw.what),
            None => flaw.what.clone(),
        });
    }
}

/// Nearly all headers are shorter, so that one call takes them.
const HEADER_USUAL: usize = 512;

#[cfg(test)]
mod tests;
