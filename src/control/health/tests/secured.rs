//! Single probes inside TLS.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ProtocolVersion, ServerConfig, ServerConnection, SupportedProtocolVersion, version};

use crate::config::{BackendTls, CheckTls, Verify};

use super::probes::{failure_text, http, in_force};
use super::*;
use crate::origin::Origins;

/// The settings of a TLS server.
struct Make {
    names: Vec<String>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// The certificate is valid from the start of one year to that of the other.
    years: Option<[i32; 2]>,
}

impl Default for Make {
    fn default() -> Self {
        Self {
            names: vec!["db.test".to_owned()],
            alpn: Vec::new(),
            versions: vec![&version::TLS12, &version::TLS13],
            years: None,
        }
    }
}

impl Make {
    /// The server, and its certificate as PEM.
    fn serve(self) -> (Server, String) {
        let issuer = self.names[0].clone();
        let mut params = CertificateParams::new(self.names).expect("names");
        params.distinguished_name.push(DnType::CommonName, issuer);
        if let Some([from, to]) = self.years {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        }
        let signing_key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&signing_key).expect("a certificate");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("they fit");
        config.alpn_protocols = self.alpn;
        let config = Arc::new(config);
        let server = Server::of(move |mut stream| {
            let mut tls = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let mut tls = rustls::Stream::new(&mut tls, &mut stream);
            // The probe may have closed, or refused the certificate.
            let Ok(length) = tls.read(&mut [0; 4_096]) else {
                return;
            };
            if length > 0 {
                let old = tls.conn.protocol_version() == Some(ProtocolVersion::TLSv1_2);
                let sni = tls.conn.server_name().unwrap_or("nobody").to_owned();
                let version = if old { "1.2" } else { "1.3" };
                let _ = write!(tls, "HTTP/1.1 200 OK\r\nX: {sni} over {version}\r\n\r\n");
                let _ = tls.flush();
            }
        });
        (server, cert.pem())
    }
}

fn with(tls: BackendTls, check: Check) -> Check {
    Check {
        tls: CheckTls::Own(tls),
        timeout: Duration::from_secs(5),
        ..check
    }
}

fn by_file(path: &std::path::Path, sni: Option<&str>) -> Check {
    let tls = BackendTls {
        sni: sni.map(str::to_owned),
        verify: Verify::File(path.to_owned()),
        ..BackendTls::default()
    };
    with(tls, quick())
}

/// The TLS of a check that has its own.
fn own(spec: &Spec) -> &own_tls::OwnTls {
    match spec.tls.as_ref().expect("it has TLS") {
        ProbeClient::Own { client, .. } => client,
        ProbeClient::OfPool(_) => panic!("it is the pool's"),
    }
}

/// A file that is removed in the end.
struct Pem(PathBuf);

impl Pem {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("mahoraga-{}-{name}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_handshake_is_enough_unless_more_is_asked() {
    let (server, _) = Make::default().serve();
    assert_eq!(
        failure_text(server.address, &with(BackendTls::default(), quick())),
        ""
    );
}

#[test]
fn http_goes_through_both_versions_of_tls() {
    for (version, wanted) in [(&version::TLS12, "1.2"), (&version::TLS13, "1.3")] {
        let (server, _) = Make {
            versions: vec![version],
            ..Make::default()
        }
        .serve();
        let tls = BackendTls {
            sni: Some("db.test".to_owned()),
            ..BackendTls::default()
        };
        assert_eq!(failure_text(server.address, &with(tls.clone(), http())), "");
        let probe = Probe::SendExpect {
            send: b"hello".to_vec(),
            expect: config::Expect::Bytes(format!("X: db.test over {wanted}").into_bytes()),
        };
        let check = Check { probe, ..quick() };
        assert_eq!(failure_text(server.address, &with(tls, check)), "");
    }
}

#[test]
fn without_sni_no_name_is_asked_for() {
    let (server, _) = Make::default().serve();
    let probe = Probe::SendExpect {
        send: b"hello".to_vec(),
        expect: config::Expect::Bytes(b"X: nobody over".to_vec()),
    };
    let check = Check { probe, ..quick() };
    assert_eq!(
        failure_text(server.address, &with(BackendTls::default(), check)),
        ""
    );
}

#[test]
fn a_certificate_is_verified_by_a_file() {
    let names = vec!["db.test".to_owned(), "127.0.0.1".to_owned()];
    let (server, pem) = Make {
        names,
        ..Make::default()
    }
    .serve();
    let own = Pem::new("own", &pem);
    assert_eq!(
        failure_text(server.address, &by_file(&own.0, Some("db.test"))),
        ""
    );
    assert_eq!(
        failure_text(server.address, &by_file(&own.0, None)),
        "",
        "by its address"
    );
    assert_eq!(
        failure_text(server.address, &by_file(&own.0, Some("mail.test"))),
        "TLS: wrong name: the certificate is for db.test, 127.0.0.1, not for mail.test"
    );

    for (name, want) in [
        ("other.test", UNKNOWN),
        (
            "db.test",
            "TLS: wrong signature: another issuer of the same name may have signed the certificate",
        ),
    ] {
        let names = vec![name.to_owned()];
        let (_, stranger) = Make {
            names,
            ..Make::default()
        }
        .serve();
        let strange = Pem::new(name, &stranger);
        assert_eq!(
            failure_text(server.address, &by_file(&strange.0, Some("db.test"))),
            want
        );
    }
}

#[test]
fn a_certificate_out_of_its_time_says_when() {
    for (years, want) in [
        (
            [2020, 2021],
            "TLS: the certificate has expired, at 2021-01-01T00:00:00Z",
        ),
        (
            [9000, 9001],
            "TLS: the certificate is not yet valid, only from 9000-01-01T00:00:00Z: check the \
             clocks",
        ),
    ] {
        let (server, pem) = Make {
            years: Some(years),
            ..Make::default()
        }
        .serve();
        let own = Pem::new(&years[0].to_string(), &pem);
        assert_eq!(
            failure_text(server.address, &by_file(&own.0, Some("db.test"))),
            want
        );
    }
}

#[test]
fn certificates_that_cannot_be_read_in_time_say_nothing_about_the_backend() {
    let (server, pem) = Make::default().serve();
    let file = Pem::new("hanging", &pem);
    let mut check = by_file(&file.0, Some("db.test"));
    check.timeout = Duration::from_millis(100);
    let spec = Rc::new(Spec::new(&in_force(&check)));
    own(&spec).hang();
    let prober = Prober::new(&Address::Tcp(server.address), Origins::default(), &spec);
    let outcome = tokio_uring::start(async move { prober.probe().await });
    let failure = outcome.failure.expect("no probe was made");
    assert!(!failure.is_telling(), "{failure}");
    assert_eq!(
        failure.to_string(),
        "not probed: its certificates are still being read"
    );
}

#[test]
fn an_invalid_file_is_reported_and_read_again_once_it_changed() {
    let (server, pem) = Make::default().serve();
    let file = Pem::new("late", "nothing\n");
    let check = by_file(&file.0, Some("db.test"));
    let spec = Rc::new(Spec::new(&in_force(&check)));
    let probe = || {
        let prober = Prober::new(&Address::Tcp(server.address), Origins::default(), &spec);
        let outcome = tokio_uring::start(async move { prober.probe().await });
        let failure = outcome.failure;
        failure.map_or_else(String::new, |failure| failure.to_string())
    };
    let path = file.0.display();
    let empty = format!("not probed: cannot use {path}: it holds no certificate in PEM");
    assert_eq!(probe(), empty);
    std::fs::write(&file.0, &pem).expect("it can be written");
    assert_eq!(
        probe(),
        empty,
        "not at once: that would cost more than success"
    );
    own(&spec).refresh();
    assert_eq!(probe(), "");

    let gone = by_file(std::path::Path::new("/nowhere/ca.pem"), None);
    let message = failure_text(server.address, &gone);
    assert!(
        message.starts_with("not probed: cannot use /nowhere/ca.pem: "),
        "{message}"
    );
    let directory = by_file(&std::env::temp_dir(), None);
    let message = failure_text(server.address, &directory);
    assert!(
        message.contains("expected a regular file") || message.contains("directory"),
        "{message}"
    );
}

/// As while a tool replaces it. A reload, also one without a change, has it read again.
#[test]
fn a_file_that_becomes_unusable_stays_in_use_as_it_was() {
    let (server, pem) = Make::default().serve();
    let file = Pem::new("replaced", &pem);
    let check = by_file(&file.0, Some("db.test"));
    let spec = Rc::new(Spec::new(&in_force(&check)));
    let probe = || {
        own(&spec).refresh();
        let prober = Prober::new(&Address::Tcp(server.address), Origins::default(), &spec);
        let outcome = tokio_uring::start(async move { prober.probe().await });
        let failure = outcome.failure;
        failure.map_or_else(String::new, |failure| failure.to_string())
    };
    assert_eq!(probe(), "");
    let half = &pem[..pem.len() / 2];
    for text in [Some(""), Some("nothing\n"), Some(half), None, Some(&pem)] {
        match text {
            Some(text) => std::fs::write(&file.0, text).expect("it can be written"),
            None => std::fs::remove_file(&file.0).expect("it is there"),
        }
        assert_eq!(probe(), "", "{text:?}");
    }
    let (_, stranger) = Make {
        names: vec!["other.test".to_owned()],
        ..Make::default()
    }
    .serve();
    std::fs::write(&file.0, stranger).expect("it can be written");
    assert_eq!(probe(), UNKNOWN);
}

/// It blames no backend, whose check may decide who is served.
#[test]
fn a_file_that_was_never_usable_says_nothing_about_the_backend() {
    let (server, _) = Make::default().serve();
    let check = by_file(std::path::Path::new("/nowhere/ca.pem"), None);
    let spec = Rc::new(Spec::new(&in_force(&check)));
    let prober = Prober::new(&Address::Tcp(server.address), Origins::default(), &spec);
    let outcome = tokio_uring::start(async move { prober.probe().await });
    assert!(!outcome.failure.expect("no probe was made").is_telling());
}

#[test]
fn a_machine_does_not_trust_a_stranger() {
    let (server, _) = Make::default().serve();
    let tls = BackendTls {
        sni: Some("db.test".to_owned()),
        verify: Verify::System,
        ..BackendTls::default()
    };
    let message = failure_text(server.address, &with(tls, quick()));
    // Some machines have no trusted certificates.
    assert!(
        message == UNKNOWN || message.contains("this machine trusts none"),
        "{message}"
    );
}

#[test]
fn an_offered_protocol_must_be_taken() {
    let offer = |alpn: &[&str]| {
        let tls = BackendTls {
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            ..BackendTls::default()
        };
        with(tls, quick())
    };
    let (http2, _) = Make {
        alpn: vec![b"h2".to_vec()],
        ..Make::default()
    }
    .serve();
    assert_eq!(failure_text(http2.address, &offer(&["http/1.1", "h2"])), "");
    let refused = failure_text(http2.address, &offer(&["http/1.1"]));
    assert_eq!(refused, "TLS: it accepts none of the offered protocols");
    let (plain, _) = Make::default().serve();
    let ignored = failure_text(plain.address, &offer(&["h2"]));
    assert_eq!(ignored, "TLS: it accepts none of the offered protocols");
}

/// A probe by the TLS of a pool with these settings, of a server that has a host name.
fn probe_as_pool(server: &Server, tls: BackendTls, host: &str) -> String {
    let pool = Pool {
        tls: Some(tls.clone()),
        ..pool("p", &quick(), Vec::new())
    };
    let spec = Rc::new(Spec::new(&pool.check_in_force().expect("it has a check")));
    let prober = || {
        let prober = Prober::new(&Address::Tcp(server.address), Origins::default(), &spec);
        let prober = prober.with_host(Some(host));
        let outcome = tokio_uring::start(async move { prober.probe().await });
        let failure = outcome.failure;
        failure.map_or_else(String::new, |failure| failure.to_string())
    };
    let unread = format!("not probed: {}", crate::tls::UNREAD);
    assert_eq!(prober(), unread);
    let settings = crate::control::tls::client_settings(&tls).expect("its files are right");
    let client = TlsClient::new(&settings).expect("they fit together");
    let in_use = spec.tls.as_ref().expect("it has TLS");
    in_use.follow(Some(Arc::new(client)));
    prober()
}

#[test]
fn probes_with_the_tls_of_a_pool_are_as_its_connections() {
    let (server, pem) = Make::default().serve();
    let file = Pem::new("pool", &pem);
    let verified = BackendTls {
        verify: Verify::File(file.0.clone()),
        alpn: vec!["h2".to_owned()],
        ..BackendTls::default()
    };
    let unverified = BackendTls {
        verify: Verify::Off,
        ..BackendTls::default()
    };
    let unfit = "no..name";
    assert_eq!(probe_as_pool(&server, verified.clone(), "db.test"), "");
    assert_eq!(
        probe_as_pool(&server, verified, unfit),
        "TLS: `no..name` is no name that a certificate can have: set `sni`"
    );
    assert_eq!(probe_as_pool(&server, unverified, unfit), "");
}

#[test]
fn servers_without_tls_are_distinguished() {
    let quick = |check| Check {
        timeout: Duration::from_secs(1),
        ..with(BackendTls::default(), check)
    };
    let silent = Server::silent();
    let late = "no TLS handshake within 1s";
    assert_eq!(failure_text(silent.address, &quick(http())), late);
    let plain = Server::answering(b"220 mail.test ESMTP\r\n");
    assert_eq!(
        failure_text(plain.address, &quick(http())),
        "TLS: the server does not speak TLS: is the port right?"
    );
    let mute = Server::of(|mut stream| {
        let _ = stream.read(&mut [0; 4_096]);
    });
    let closed = "it closed the connection within the TLS handshake";
    assert_eq!(failure_text(mute.address, &quick(http())), closed);
}

const UNKNOWN: &str = "TLS: unknown issuer: none that `verify` trusts has signed the certificate";
