//! TLS by rustls, at both ends.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use mahoraga::tls::{
    Certificates, ClientSettings, Policy, SelectBy, ServerSettings, TlsClient, TlsServer, provider,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

use crate::peers::PeerTls;

/// What all seeds share: to make a key takes long.
static KEY: LazyLock<rcgen::CertifiedKey<rcgen::KeyPair>> = LazyLock::new(|| {
    rcgen::generate_simple_self_signed(vec!["web.test".to_owned()]).expect("a certificate")
});

/// What begins it on the balancer.
pub(crate) fn server() -> TlsServer {
    let key = PrivateKeyDer::try_from(KEY.signing_key.serialize_der()).expect("a key");
    let chain = vec![KEY.cert.der().clone()];
    let certified = CertifiedKey::from_der(chain, key, &provider()).expect("they fit");
    let mut select = SelectBy::default();
    select.add(["web.test"].into_iter(), &Arc::new(certified));
    let settings = ServerSettings {
        certificates: Arc::new(Certificates::new(select)),
        policy: Policy::Intermediate,
        protocols: Vec::new(),
        clients: None,
    };
    TlsServer::new(&settings, None).expect("settings that fit")
}

/// What backends of all seeds share, by whether they speak the newest version.
static SERVERS: LazyLock<[Arc<ServerConfig>; 2]> = LazyLock::new(|| {
    [&TLS12, &TLS13].map(|version| {
        let key = PrivateKeyDer::try_from(KEY.signing_key.serialize_der()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
        let builder = builder
            .with_protocol_versions(&[version])
            .expect("a version");
        let chain = vec![KEY.cert.der().clone()];
        let config = builder.with_no_client_auth().with_single_cert(chain, key);
        Arc::new(config.expect("they fit"))
    })
});

/// What begins it with backends.
pub(crate) fn backends() -> TlsClient {
    let mut roots = RootCertStore::empty();
    roots.add(KEY.cert.der().clone()).expect("a root");
    let settings = ClientSettings {
        name: Some("web.test".to_owned()),
        policy: Policy::Intermediate,
        protocols: Vec::new(),
        authorities: Some(roots),
        certificate: None,
    };
    TlsClient::new(&settings).expect("settings that fit")
}

/// What clients of a seed share, so that they resume.
pub(crate) fn clients(is_newest: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(KEY.cert.der().clone()).expect("a root");
    let versions = if is_newest { &[&TLS13] } else { &[&TLS12] };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()));
    let builder = builder.with_protocol_versions(versions).expect("a version");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
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
        let name = ServerName::try_from("web.test").expect("a name");
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
