//! Certificates that are revoked, of clients and of backends, and answers that ours are not.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
};

use crate::authority::{Authority, serial};
use crate::balancer::{Balancer, Launch};
use crate::peers::{self, expect_reset, ping};
use crate::tls;
use crate::tls_backends::{echo_to_close, line, prepared, secured, server, start};
use crate::watchdog::{eventually, watched};

/// How a client's handshake began, or why it is not let in.
fn visit(balancer: &Balancer, config: &Arc<ClientConfig>) -> Result<HandshakeKind, Error> {
    let mut client = tls::secured(balancer, config, "web.test");
    // It says nothing, so that no reset overtakes an alert.
    match client.read_exact(&mut [0]) {
        Ok(()) => Ok(client.conn.handshake_kind().unwrap()),
        Err(error) => Err(*error.into_inner().unwrap().downcast().unwrap()),
    }
}

#[test]
fn a_client_that_is_revoked_is_refused_and_resumes_nothing() {
    watched(|| {
        let (backend, authority) = (peers::greeting(), Authority::new());
        let signer = Authority::new();
        let launch = Launch::with_config("", 1);
        let directory = launch.dir().to_owned();
        signer.write(&directory, "clients");
        signer.sign(&directory, "a", &["a"]);
        signer.sign(&directory, "b", &["b"]);
        signer.revoke(&directory, "clients", &[], 2999);
        let asked = ("clients: (ca: \"clients.pem\", crl: \"clients.crl\")", "");
        let backends = [backend.address.clone()];
        let balancer = tls::launch_in(launch, &authority, &backends, asked);
        let [a, b] = ["a", "b"].map(|name| {
            let own = directory.join(name);
            [&TLS12, &TLS13].map(|version| authority.client_of(&[version], Some(&own), |_| {}))
        });
        for config in a.iter().chain(&b) {
            assert_eq!(visit(&balancer, config), Ok(HandshakeKind::Full));
            assert_eq!(visit(&balancer, config), Ok(HandshakeKind::Resumed));
        }
        // Without a reload the file is looked at.
        signer.revoke(&directory, "clients", &["a"], 2999);
        let refused = Err(Error::AlertReceived(AlertDescription::CertificateRevoked));
        for config in &a {
            eventually("it is refused", || visit(&balancer, config) == refused);
        }
        for config in &b {
            assert_eq!(visit(&balancer, config), Ok(HandshakeKind::Full));
            assert_eq!(visit(&balancer, config), Ok(HandshakeKind::Resumed));
        }
        let why = "tls_error=\"the client's certificate is revoked";
        let lines = || balancer.output().lines_with(why).len();
        eventually("each is logged", || lines() == 2);
        let listener = &balancer.ask(&["listeners"])[0]["tls"];
        assert_eq!(listener["failures"]["revoked_certificate"], 2);
        assert_eq!(listener["revocation_lists"][0]["revoked"], 1);
        balancer.finish();
    });
}

#[test]
fn no_client_is_let_in_by_a_list_that_has_expired() {
    watched(|| {
        let (backend, authority) = (peers::greeting(), Authority::new());
        let signer = Authority::new();
        let launch = Launch::with_config("", 1);
        let directory = launch.dir().to_owned();
        signer.write(&directory, "clients");
        signer.sign(&directory, "a", &["a"]);
        signer.revoke(&directory, "clients", &[], 2020);
        let asked = ("clients: (ca: \"clients.pem\", crl: \"clients.crl\")", "");
        let backends = [backend.address.clone()];
        let balancer = tls::launch_in(launch, &authority, &backends, asked);
        let own = directory.join("a");
        let config = authority.client_of(&[&TLS13], Some(&own), |_| {});
        let refused = Err(Error::AlertReceived(AlertDescription::UnknownCA));
        assert_eq!(visit(&balancer, &config), refused);
        let why = "tls_error=\"unknown whether the client's certificate is revoked: the list in \
                   `crl` has expired, at 2020-12-31T00:00:00Z\"";
        eventually("it is logged", || balancer.output().count(why) == 1);
        let alerts = balancer.ask(&["status"])["alerts"].to_string();
        let alert = "clients.crl has expired: certificates of this issuer are refused";
        assert!(alerts.contains(alert), "{alerts}");
        signer.revoke(&directory, "clients", &[], 2999);
        balancer.ask(&["reload"]);
        assert!(visit(&balancer, &config).is_ok());
        balancer.finish();
    });
}

#[test]
fn a_backend_that_is_revoked_gets_no_byte_and_fails_its_check() {
    watched(|| {
        let (launch, authority) = prepared(2);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "srv", &["127.0.0.1"]);
        authority.revoke(&directory, "ca", &[], 2999);
        let config = server(&directory.join("srv"), &[&TLS12, &TLS13], None);
        let backend = secured(config, echo_to_close);
        let settings = "tls: (verify: \"ca.pem\", crl: \"ca.crl\"), ejection: \"off\"";
        let check = "check: (type: \"tcp\", interval: \"100ms\", timeout: \"100ms\", fall: 1)";
        let checked = format!("{settings}, {check}");
        let to: &[&str] = &[&backend.address];
        let balancer = start(launch, &[(settings, to), (&checked, to)]);
        let client = || peers::connect(balancer.address_of(0));
        ping(&mut client(), b"first");
        authority.revoke(&directory, "ca", &["srv"], 2999);
        balancer.ask(&["reload"]);
        let why = "the certificate is revoked, or that of an issuer of it";
        let backends = || balancer.ask(&["backends"]).to_string();
        eventually("its check fails", || backends().contains(why));
        expect_reset(&mut client());
        let refused = line(&balancer, "reason=connect_failed ");
        assert!(refused.contains(&format!("\"{why}\"")), "{refused}");
        let pool = &balancer.ask(&["pools"])[0]["tls"];
        assert!(pool["failures"]["revoked_certificate"].as_u64() > Some(0));
        assert_eq!(pool["revocation_lists"][0]["revoked"], 1);
        balancer.finish();
    });
}

/// Takes any certificate, and keeps what is stapled to it.
#[derive(Debug, Default)]
struct Stapled(Mutex<Vec<u8>>);

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        answer: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock() = answer.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A value in DER, of these parts.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[tag, 0x82, length[0], length[1]], &*body].concat()
}

/// An answer by OCSP that the certificate in a file is good, with the year in which it ends.
fn answer(certificate: &Path, year: u16) -> Vec<u8> {
    let serial = serial(certificate);
    let (algorithm, hash) = (der(0x30, &[]), der(4, &[&[0; 20]]));
    let id = der(
        0x30,
        &[&algorithm, &hash, &hash, &der(2, &[serial.as_ref()])],
    );
    let time = |year: u16| der(0x18, &[format!("{year}0101000000Z").as_bytes()]);
    let end = der(0xa0, &[&time(year)]);
    let single = der(0x30, &[&id, &[0x80, 0], &time(2019), &end]);
    let responder = der(0xa2, &[&hash]);
    let data = der(0x30, &[&responder, &time(2019), &der(0x30, &[&single])]);
    let basic = der(0x30, &[&data, &algorithm, &der(3, &[&[0, 0]])]);
    let kind = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    let bytes = der(0x30, &[&kind, &der(4, &[&basic])]);
    der(0x30, &[&[10, 1, 0], &der(0xa0, &[&bytes])])
}

#[test]
fn clients_get_what_is_stapled_until_it_ends() {
    watched(|| {
        let (backend, authority) = (peers::greeting(), Authority::new());
        let launch = Launch::with_config("", 1);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "web", &["web.test"]);
        let staple = |year| {
            let answer = answer(&directory.join("web.pem"), year);
            std::fs::write(directory.join("web.ocsp"), &answer).unwrap();
            answer
        };
        let good = staple(2999);
        let balancer = launch.file(&format!(
            "(workers: 1, listeners: [(bind: \"127.0.0.1:0\", pool: \"p\", tls: (certificates: \
             [(certificate: \"web.pem\", key: \"web.key\", ocsp: \"web.ocsp\")]))], \
             pools: [(name: \"p\", backends: [\"{}\"])])",
            backend.address
        ));
        let balancer = balancer.start();
        let stapled = |version| {
            let seen = Arc::new(Stapled::default());
            let config = authority.client_of(&[version], None, |config| {
                let verifier = Arc::clone(&seen);
                config.dangerous().set_certificate_verifier(verifier);
            });
            visit(&balancer, &config).unwrap();
            let seen = seen.0.lock();
            seen.clone()
        };
        for version in [&TLS12, &TLS13] {
            assert_eq!(stapled(version), good);
        }
        staple(2020);
        balancer.ask(&["reload"]);
        assert_eq!(stapled(&TLS13), b"");
        let alerts = balancer.ask(&["status"])["alerts"].to_string();
        assert!(alerts.contains("web.ocsp has expired"), "{alerts}");
        let better = staple(2998);
        // Without a reload the file is looked at.
        eventually("the new one comes", || stapled(&TLS13) == better);
        balancer.finish();
    });
}
