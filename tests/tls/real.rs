//! TLS by rustls, at both ends.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use mahoraga::tls::{
    Authorities, ClientSettings, Policy, ServerTrust, TlsClient, TlsServer, provider,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::peers::PeerTls;
use crate::served::{NAME, Served};

/// What all seeds share: to make a key takes long.
static SERVED: LazyLock<Served> = LazyLock::new(Served::new);

/// What begins it on the balancer.
pub(crate) fn server() -> TlsServer {
    SERVED.server()
}

/// What backends of all seeds share, by whether they speak the newest version.
static SERVERS: LazyLock<[Arc<ServerConfig>; 2]> = LazyLock::new(|| {
    [&TLS12, &TLS13].map(|version| {
        let key = PrivateKeyDer::try_from(SERVED.0.signing_key.serialize_der()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
        let builder = builder
            .with_protocol_versions(&[version])
            .expect("a version");
        let chain = vec![SERVED.0.cert.der().clone()];
        let config = builder.with_no_client_auth().with_single_cert(chain, key);
        Arc::new(config.expect("they fit"))
    })
});

/// What begins it with backends.
pub(crate) fn backends() -> TlsClient {
    let trust = ServerTrust::new(&Authorities::new(SERVED.roots()));
    let settings = ClientSettings {
        name: Some(NAME.to_owned()),
        policy: Policy::Intermediate,
        protocols: Vec::new(),
        trust: Some(trust.expect("an authority")),
        certificate: None,
        asks_as_postgres: false,
    };
    TlsClient::new(&settings).expect("settings that fit")
}

/// What clients of a seed share, so that they resume.
pub(crate) fn clients(is_newest: bool) -> Arc<ClientConfig> {
    SERVED.client(if is_newest { &TLS13 } else { &TLS12 })
}

/// A peer.
pub(crate) struct RealPeer {
    connection: Connection,
    closed: bool,
    plain: Vec<u8>,
    /// It could not read what came: rustls is not to be asked again.
    broken: bool,
}

impl RealPeer {
    pub(crate) fn client(config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from(NAME).expect("a name");
        let connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
        Self::new(connection.into())
    }

    pub(crate) fn server(is_newest: bool) -> Self {
        let config = &SERVERS[usize::from(is_newest)];
        let connection = ServerConnection::new(Arc::clone(config)).expect("a server");
        Self::new(connection.into())
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            closed: false,
            plain: Vec::new(),
            broken: false,
        }
    }
}

impl PeerTls for RealPeer {
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.broken {
            // Behind the end nothing may come.
            if !matches!(self.connection.read_tls(&mut bytes), Ok(1..)) {
                return false;
            }
            match self.connection.process_new_packets() {
                Ok(state) => self.closed |= state.peer_has_closed(),
                Err(_) => self.broken = true,
            }
            let mut part = [0; 4_096];
            while let Ok(count @ 1..) = self.connection.reader().read(&mut part) {
                self.plain.extend(&part[..count]);
            }
        }
        !self.broken
    }

    fn outgoing(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            self.connection
                .write_tls(&mut out)
                .expect("memory takes it");
        }
        out
    }

    fn write(&mut self, bytes: &[u8]) {
        // Some clients change their keys now and then.
        if bytes.len().is_multiple_of(7) {
            let _ = self.connection.refresh_traffic_keys();
        }
        self.connection
            .writer()
            .write_all(bytes)
            .expect("memory takes it");
    }

    fn close(&mut self) {
        self.connection.send_close_notify();
    }

    fn plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }

    fn is_established(&self) -> bool {
        !self.connection.is_handshaking()
    }

    fn was_closed(&self) -> bool {
        self.closed
    }
}
