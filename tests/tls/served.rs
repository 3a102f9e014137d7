//! A name that TLS is ended for, and clients that trust its certificate.

use std::sync::Arc;

use mahoraga::tls::{
    Certificates, Policy, SelectBy, Served as Certificate, ServerSettings, TlsServer, provider,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// The name.
pub(crate) const NAME: &str = "web.test";

/// Its certificate, with the key.
pub(crate) struct Served(pub(crate) rcgen::CertifiedKey<rcgen::KeyPair>);

impl Served {
    /// A new certificate. To make its key takes long.
    pub(crate) fn new() -> Self {
        Self(rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate"))
    }

    /// The balancer's end.
    pub(crate) fn server(&self) -> TlsServer {
        let key = PrivateKeyDer::try_from(self.0.signing_key.serialize_der()).expect("a key");
        let chain = vec![self.0.cert.der().clone()];
        let certified = CertifiedKey::from_der(chain, key, &provider()).expect("they fit");
        let mut select = SelectBy::default();
        let certificate = Arc::new(Certificate::new(certified, None));
        select.add([NAME].into_iter(), &certificate);
        let settings = ServerSettings {
            certificates: Arc::new(Certificates::new(select)),
            policy: Policy::Intermediate,
            protocols: Vec::new(),
            clients: None,
        };
        TlsServer::new(&settings, None).expect("settings that fit")
    }

    /// What clients of a version share, so that they resume.
    pub(crate) fn client(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()));
        let builder = builder
            .with_protocol_versions(&[version])
            .expect("a version");
        let builder = builder.with_root_certificates(self.roots());
        Arc::new(builder.with_no_client_auth())
    }

    /// The authorities that its certificate is verified by.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.cert.der().clone()).expect("a root");
        roots
    }
}
