//! What the files of TLS hold once they were swapped.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};
use serde_json::json;

use crate::authority::Authority;
use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, expect_reset, ping};
use crate::tls;
use crate::tls_backends::{echo_to_close, line, prepared, secured, server, start};
use crate::watchdog::{eventually, watched};

/// How a client's handshake began; `None`: it is not let in.
fn visit(balancer: &Balancer, config: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let mut client = tls::secured(balancer, config, "web.test");
    let sent = client.write_all(b"x").and_then(|()| client.flush());
    sent.and_then(|()| client.read_exact(&mut [0])).ok()?;
    client.conn.handshake_kind()
}

#[test]
fn no_ticket_opens_a_listener_that_asks_for_other_certificates() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let [first, second] = [Authority::new(), Authority::new()];
        let launch = Launch::with_config("", 1);
        let directory = launch.dir().to_owned();
        first.write(&directory, "clients");
        let asked = ("clients: (ca: \"clients.pem\")", "");
        let backends = [backend.address.clone()];
        let balancer = tls::launch_in(launch, &authority, &backends, asked);
        let clients_of = |signer: &Authority| {
            signer.sign(&directory, "own", &["somebody"]);
            let own = directory.join("own");
            [&TLS12, &TLS13].map(|version| authority.client_of(&[version], Some(&own), |_| {}))
        };
        let old = clients_of(&first);
        for config in &old {
            assert_eq!(visit(&balancer, config), Some(HandshakeKind::Full));
            assert_eq!(visit(&balancer, config), Some(HandshakeKind::Resumed));
        }
        // The same authorities in a file that was written again.
        first.write(&directory, "clients");
        balancer.ask(&["reload"]);
        for config in &old {
            assert_eq!(visit(&balancer, config), Some(HandshakeKind::Resumed));
        }
        second.write(&directory, "clients");
        balancer.ask(&["reload"]);
        for config in &old {
            assert_eq!(visit(&balancer, config), None);
        }
        let new = clients_of(&second);
        for config in &new {
            assert_eq!(visit(&balancer, config), Some(HandshakeKind::Full));
            assert_eq!(visit(&balancer, config), Some(HandshakeKind::Resumed));
        }
        // Without a reload the file is looked at.
        first.write(&directory, "clients");
        for config in &new {
            eventually("it is refused", || visit(&balancer, config).is_none());
        }
        balancer.finish();
    });
}

#[test]
fn no_ticket_of_a_backend_outlives_the_authorities_that_verified_it() {
    watched(|| {
        let (launch, authority) = prepared(1);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "srv", &["127.0.0.1"]);
        let config = server(&directory.join("srv"), &[&TLS12, &TLS13], None);
        let backend = secured(config, echo_to_close);
        let settings = "tls: (verify: \"ca.pem\"), ejection: \"off\"";
        let balancer = start(launch, &[(settings, &[&backend.address])]);
        ping(&mut balancer.connect(), b"first");
        line(&balancer, " backend_tls_resumed=false ");
        ping(&mut balancer.connect(), b"again");
        line(&balancer, " backend_tls_resumed=true ");
        Authority::new().write(&directory, "ca");
        balancer.ask(&["reload"]);
        expect_reset(&mut balancer.connect());
        let refused = line(&balancer, "reason=connect_failed ");
        // Those of these tests have one name.
        assert!(refused.contains("\"wrong signature: "), "{refused}");
        balancer.finish();
    });
}

#[test]
fn each_expired_certificate_is_told_once_and_stays_an_alert() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let balancer = tls::launch_in(
            Launch::with_config("", 1),
            &authority,
            std::slice::from_ref(&backend.address),
            ("", ""),
        );
        let directory = balancer.dir();
        authority.sign_until(directory, "web", &["web.test"], Some(2020));
        authority.sign_until(directory, "wild", &["*.wild.test"], Some(2021));
        balancer.ask(&["reload"]);
        let told = |name: &str| {
            let what = format!("the certificate in {name}.pem has expired");
            balancer.log().count(&what)
        };
        eventually("both are told", || told("web") + told("wild") == 2);
        let alerts = balancer.ask(&["status"])["alerts"].to_string();
        for name in ["web", "wild"] {
            let what = format!("the certificate in {name}.pem has expired");
            assert!(alerts.contains(&what), "{alerts}");
        }
        // Another one takes the place of the first: the second is not told again.
        authority.sign(directory, "web", &["web.test"]);
        balancer.ask(&["reload"]);
        authority.sign_until(directory, "web", &["web.test"], Some(2022));
        balancer.ask(&["reload"]);
        eventually("the new one is told", || told("web") == 2);
        assert_eq!(told("wild"), 1);
        balancer.finish();
    });
}

#[test]
fn each_pool_whose_backends_fail_has_an_event_of_its_own() {
    watched(|| {
        let (launch, authority) = prepared(2);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "srv", &["127.0.0.1"]);
        // With TLS 1.3 it is refused after the handshake.
        let both = [&TLS12, &TLS13].map(|version| {
            let config = server(&directory.join("srv"), &[version], Some(&authority));
            secured(config, echo_to_close)
        });
        let settings = "tls: (verify: \"ca.pem\"), ejection: \"off\"";
        let [old, new] = &both;
        let pools: &[(&str, &[&str])] = &[(settings, &[&old.address]), (settings, &[&new.address])];
        let balancer = start(launch, pools);
        let events = balancer.follow();
        for listener in 0..2 {
            let mut client = crate::peers::connect(balancer.address_of(listener));
            let _ = client.write_all(b"x");
            expect_reset(&mut client);
        }
        let told = [(); 2].map(|()| events.next("backend_tls_failed"));
        let mut pools = told.each_ref().map(|event| event["pool"].clone());
        pools.sort_by_key(ToString::to_string);
        assert_eq!(pools, [json!("p0"), json!("p1")]);
        for event in &told {
            let message = event["message"].to_string();
            let why = "handshake refused: the server requires a client certificate";
            let has_why = message.contains(why);
            assert!(has_why && message.contains("(such as backend"), "{message}");
        }
        drop(events);
        balancer.finish();
    });
}
