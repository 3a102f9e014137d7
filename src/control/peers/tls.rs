//! Who a balancer is: certificates on both sides of each connection, of authorities of the fleet's
//! own. A certificate names its balancer, and nothing else does.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::{Resumption, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig, version};
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::{PeerMember, PeerSettings};
use crate::control::aside;
use crate::control::remote::{authorities, chain, pair_fault, private_key, unfit};

/// What this balancer shows to others, and what it takes of them.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
    /// The place of this balancer among the members, where its certificate names it.
    pub(super) own: Option<usize>,
}

/// The identity of the files as they were a moment ago, at most.
pub(super) struct Identities {
    settings: PeerSettings,
    last: Mutex<Last>,
}

/// What came of reading the files.
#[derive(Clone, Default)]
struct Last {
    /// When they were read, or could not be.
    at: Option<Instant>,
    /// What they held when they could be read last.
    identity: Option<Identity>,
    /// Why they could not be read.
    why: Option<String>,
}

impl Identities {
    pub(super) fn new(settings: &PeerSettings) -> Self {
        Self {
            settings: settings.clone(),
            last: Mutex::default(),
        }
    }

    /// The identity; that of before while the files can't be read. The error comes with it, or
    /// alone where there has been none. However often others connect, files are read once in a
    /// while, also those that can't be.
    pub(super) async fn present(&self) -> (Option<Identity>, Option<String>) {
        let last = self.last.lock().clone();
        if last.at.is_some_and(|at| at.elapsed() < FRESH) {
            return (last.identity, last.why);
        }
        let settings = self.settings.clone();
        let read = aside::read(move || identity(&settings)).await;
        let read = read.unwrap_or_else(|_| Err("no thread can be made".to_owned()));
        let mut last = self.last.lock();
        last.at = Some(Instant::now());
        match read {
            Ok(identity) => (last.identity, last.why) = (Some(identity), None),
            Err(why) => last.why = Some(why),
        }
        (last.identity.clone(), last.why.clone())
    }
}

/// Reads the files. May take long.
pub(super) fn identity(settings: &PeerSettings) -> Result<Identity, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let certificates = chain(&settings.certificate)?;
    let key = private_key(&settings.key)?;
    let roots = Arc::new(authorities(&settings.ca)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let verifier = verifier.build().map_err(|error| text(&error))?;
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| text(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates.clone(), key.clone_key());
    let fault = |error| pair_fault(&settings.certificate, &settings.key, &error).to_string();
    let mut server = server.map_err(fault)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| text(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates.clone(), key);
    let mut client = client.map_err(fault)?;
    // Each connection shows its certificate again.
    server.send_tls13_tickets = 0;
    client.resumption = Resumption::disabled();
    server.alpn_protocols = vec![ALPN.to_vec()];
    client.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Identity {
        acceptor: TlsAcceptor::from(Arc::new(server)),
        connector: TlsConnector::from(Arc::new(client)),
        own: certificates
            .first()
            .and_then(|certificate| named(certificate, &settings.members)),
    })
}

/// The place of the member that a certificate names; `None`: it names none, or several, as one for
/// all names of a domain does: it says of no balancer who it is.
pub(super) fn named(certificate: &CertificateDer<'_>, members: &[PeerMember]) -> Option<usize> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let mut named = (0..members.len()).filter(|place| {
        let name = ServerName::try_from(members[*place].name.as_str());
        name.is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
    });
    let first = named.next()?;
    named.next().is_none().then_some(first)
}

/// What is wrong with the files, by the name of the setting, if anything. May take long.
pub(in crate::control) fn mistake_in(settings: &PeerSettings) -> Option<(&'static str, String)> {
    let ca = authorities(&settings.ca).err().map(|why| ("ca", why));
    let shown = || chain(&settings.certificate).err();
    let key = || private_key(&settings.key).err();
    let first = ca
        .or_else(|| Some(("certificate", shown()?)))
        .or_else(|| Some(("key", key()?)));
    first.or_else(|| match identity(settings) {
        Err(why) => Some(("key", why)),
        Ok(Identity { own: None, .. }) => {
            let why = "it names none of `members`: expected the `name` of this balancer as a DNS \
                       name of it (subjectAltName)";
            Some(("certificate", unfit(&settings.certificate, &why)))
        }
        Ok(_) => None,
    })
}

/// The protocol that both sides name (RFC 7301), so that no other service is taken for a peer.
const ALPN: &[u8] = b"mahoraga-peers";
/// How long files are not looked at again.
const FRESH: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_for_several_members_names_none() {
        let members = ["a.lb.test", "b.lb.test"].map(|name| PeerMember {
            name: name.to_owned(),
            address: String::new(),
        });
        let place_of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            named(made.cert.der(), &members)
        };
        assert_eq!(place_of(&["b.lb.test", "c.lb.test"]), Some(1));
        assert_eq!(place_of(&["c.lb.test"]), None);
        assert_eq!(place_of(&["*.lb.test"]), None);
        assert_eq!(place_of(&["a.lb.test", "b.lb.test"]), None);
    }

    #[tokio::test]
    async fn files_that_cannot_be_read_are_not_read_for_each_stranger() {
        let name = format!("mahoraga-identity-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let identities = Identities::new(&PeerSettings {
            listen: "127.0.0.1:1".parse().unwrap(),
            members: Vec::new(),
            certificate: file.clone(),
            key: file.clone(),
            ca: file.clone(),
        });
        let missing = identities.present().await.1;
        std::fs::write(&file, "no certificate").unwrap();
        let soon = identities.present().await.1;
        let long_ago = Instant::now().checked_sub(FRESH);
        identities.last.lock().at = long_ago;
        let later = identities.present().await.1;
        std::fs::remove_file(&file).unwrap();
        assert!(missing.is_some() && soon == missing && later.is_some());
        assert_ne!(later, missing);
    }
}
