//! Webhooks to servers of our own.

use std::future::Future;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::select::ScalingAction;

const FAST: Pace = Pace {
    timeout: Duration::from_secs(5),
    pause: Duration::from_millis(1),
};

fn notice() -> Notice {
    let decision = Decision {
        action: ScalingAction::In,
        backends: vec!["b \"4\"".to_owned()],
        load: 250.5,
        per_backend: 125.25,
        in_rotation: 3,
        reserve_left: 1,
        reason: "above".to_owned(),
    };
    Notice::of("web", &decision)
}

/// Runs on the control thread's kind of runtime.
fn run(test: impl Future<Output = ()>) {
    tokio_uring::start(async {
        let in_time = tokio::time::timeout(Duration::from_secs(60), test);
        in_time.await.expect("a test ends in a minute");
    });
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Reads one whole request and answers with a status.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &str) -> String {
    let mut request = Vec::new();
    let mut bytes = [0; 4_096];
    while !request.ends_with(b"\"}") {
        let length = stream.read(&mut bytes).await.unwrap();
        assert!(length > 0, "the request ended early");
        request.extend_from_slice(&bytes[..length]);
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    String::from_utf8(request).unwrap()
}

#[test]
fn a_decision_is_posted_as_json() {
    run(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let hooks = Webhooks::with(Trust::System, FAST);
        hooks.post(&format!("http://{address}/scale?token=1"), notice());
        let (stream, _) = server.accept().await.unwrap();
        let request = answer(stream, "204 No Content").await;
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("POST /scale?token=1 HTTP/1.1\r\n"),
            "{head}"
        );
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nhost: {address}")), "{head}");
        assert!(
            head.contains("\r\ncontent-type: application/json"),
            "{head}"
        );
        let reported: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&reported["pool"], &reported["action"]),
            (&"web".into(), &"in".into())
        );
        assert_eq!(reported["backends"], serde_json::json!(["b \"4\""]));
        assert_eq!(
            (&reported["load"], &reported["per_backend"]),
            (&250.5.into(), &125.25.into())
        );
        assert_eq!(
            (&reported["in_rotation"], &reported["reserve_left"]),
            (&3.into(), &1.into())
        );
        let at = reported["at"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(at).is_ok(), "{at}");
        assert_eq!(hooks.failures(), 0);
    });
}

/// After the answer the end of a connection is no failure, whichever is seen first.
#[test]
fn a_server_that_answers_and_closes_gets_one_request() {
    run(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let hooks = Webhooks::with(Trust::System, FAST);
        for _ in 0..50 {
            hooks.post(&format!("http://{address}/"), notice());
            let (mut stream, _) = server.accept().await.unwrap();
            // Both are there before the other side looks.
            let mut request = vec![0; 4_096];
            let mut length = 0;
            while !request[..length].ends_with(b"\"}") {
                length += stream.read(&mut request[length..]).await.unwrap();
            }
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            drop(stream);
            let again = tokio::time::timeout(Duration::from_millis(20), server.accept()).await;
            assert!(again.is_err(), "it is posted again");
        }
        assert_eq!(hooks.failures(), 0);
    });
}

#[test]
fn a_failure_is_tried_again_and_counted_at_the_third() {
    run(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let hooks = Webhooks::with(Trust::System, FAST);
        hooks.post(&format!("http://{address}/"), notice());
        for status in ["500 No", "302 Elsewhere", "200 OK"] {
            let (stream, _) = server.accept().await.unwrap();
            answer(stream, status).await;
        }
        for status in ["500 No", "500 No", "500 No"] {
            if status == "500 No" && hooks.failures() == 0 {
                hooks.post(&format!("http://{address}/"), notice());
            }
            let (stream, _) = server.accept().await.unwrap();
            answer(stream, status).await;
        }
        until(|| hooks.failures() > 0).await;
    });
}

#[test]
fn a_silent_or_absent_server_delays_nothing() {
    run(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("http://{}/", server.local_addr().unwrap());
        let pace = Pace {
            timeout: Duration::from_millis(20),
            ..FAST
        };
        let hooks = Webhooks::with(Trust::System, pace);
        for _ in 0..30 {
            // Returns at once, even if the webhook fails.
            hooks.post(&silent, notice());
        }
        // Nothing was sent yet, so the queue takes as many as may wait.
        assert_eq!(hooks.failures(), 30 - POSTS as u64);
        until(|| hooks.failures() == 30).await;
        for url in ["ftp://127.0.0.1/", "nonsense", "http://127.0.0.1:1/"] {
            let before = hooks.failures();
            hooks.post(url, notice());
            until(|| hooks.failures() == before + 1).await;
        }
    });
}

/// A server with its own certificate, and the file that trusts it.
fn certified(host: &str) -> (TlsAcceptor, Trust) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([host.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth();
    let config = config
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    (acceptor, Trust::Roots(trusting(roots).unwrap()))
}

#[test]
fn tls_requires_a_trusted_certificate() {
    run(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let (acceptor, trust) = certified("localhost");
        let hooks = Webhooks::with(trust, FAST);
        hooks.post(&format!("https://localhost:{port}/"), notice());
        let (stream, _) = loop {
            let (stream, from) = server.accept().await.unwrap();
            if from.ip().is_loopback() {
                break (stream, from);
            }
        };
        let stream = acceptor.accept(stream).await.unwrap();
        let request = answer(stream, "200 OK").await;
        assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
        assert_eq!(hooks.failures(), 0);

        // The certificate is another host's.
        hooks.post(&format!("https://127.0.0.1:{port}/"), notice());
        for _ in 0..TRIES {
            let (stream, _) = server.accept().await.unwrap();
            assert!(acceptor.accept(stream).await.is_err());
        }
        until(|| hooks.failures() == 1).await;
        // No issuer vouches for this one.
        let hooks = Webhooks::with(Trust::System, FAST);
        hooks.post(&format!("https://localhost:{port}/"), notice());
        for _ in 0..TRIES {
            let accepted = tokio::time::timeout(Duration::from_millis(500), server.accept());
            if let Ok(Ok((stream, _))) = accepted.await {
                assert!(acceptor.accept(stream).await.is_err());
            }
        }
        until(|| hooks.failures() == 1).await;
    });
}
