//! Certificates that are revoked, of clients and of backends.

use std::io::Read;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, Error, HandshakeKind};

use crate::authority::Authority;
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
