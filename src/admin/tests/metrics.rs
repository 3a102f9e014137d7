//! The listener for metrics: what it has, who may read it, and that it costs the API nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{HeaderValue, Method, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::world::{Answer, By, READ, World, bounded, exchange, file};
use crate::admin::endpoints::{Deadlines, ServerContext};
use crate::admin::server::{CONNECTIONS_MAX, SCRAPES_MAX, refused_scrapers, serve_in};
use crate::admin::{AdminListener, Tokens};
use crate::config::TokenFiles;

/// A world with a listener for metrics.
struct Scraped {
    world: World,
    at: SocketAddr,
    /// Permits to write metrics.
    scrapes: Arc<Semaphore>,
    _stop: watch::Sender<()>,
}

impl Scraped {
    async fn new(bind: &str, allow: &[&str], with_token: bool) -> Self {
        let world = World::new().await;
        let tokens = with_token.then(|| {
            let read = Some(file(&world.dir, "metrics", READ, 0o600));
            Tokens::read(&TokenFiles { read, write: None }).unwrap()
        });
        let allow: Vec<_> = allow.iter().map(|text| text.parse().unwrap()).collect();
        let listener = AdminListener::metrics(bind.parse().unwrap(), &allow, tokens).unwrap();
        let port = listener.address().unwrap().port();
        let (stop, stopped) = watch::channel(());
        let scrapes = Arc::new(Semaphore::new(SCRAPES_MAX));
        let context = ServerContext {
            handle: world.handle.clone(),
            stop: stopped,
            watchers: Arc::new(Semaphore::new(0)),
            scrapes: Arc::clone(&scrapes),
            explanations: Arc::new(Semaphore::new(0)),
            readings: Arc::new(Semaphore::new(0)),
            deadlines: Deadlines::default(),
        };
        tokio::spawn(serve_in(listener, context));
        Self {
            world,
            at: SocketAddr::new([127, 0, 0, 1].into(), port),
            scrapes,
            _stop: stop,
        }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let by = By::Http(None);
        let mut request = self.world.request(by, method, path);
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            let name: header::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value);
        }
        bounded(exchange(TcpStream::connect(self.at).await, request)).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> StatusCode {
        self.send(Method::GET, path, headers).await.status
    }

    /// Connects from this address.
    async fn connect(&self, from: [u8; 4]) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        socket.connect(self.at).await
    }
}

#[tokio::test]
async fn it_has_metrics_and_health_and_nothing_else() {
    let scraped = Scraped::new("0.0.0.0:0", &["127.0.0.0/8"], false).await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        let answer = scraped.send(Method::GET, path, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
        let posted = scraped.send(Method::POST, path, &[]).await;
        assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    let calls = scraped.world.played.lock().calls;
    for (method, path) in [
        (Method::GET, "/v1/status"),
        (Method::GET, "/v1/config"),
        (Method::POST, "/v1/reload"),
        (Method::DELETE, "/v1/sessions?all=true"),
        (Method::GET, "/v1/openapi.json"),
        (Method::GET, "/"),
    ] {
        let answer = scraped.send(method, path, &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.error().contains("/metrics"), "{path}");
    }
    assert_eq!(scraped.world.played.lock().calls, calls);
}

#[tokio::test]
async fn a_token_is_needed_for_metrics_where_there_is_one() {
    let scraped = Scraped::new("0.0.0.0:0", &[], true).await;
    let right = format!("Bearer {READ}");
    for (path, token, status) in [
        ("/metrics", &*right, StatusCode::OK),
        (
            "/metrics",
            "Bearer another-token-of-sixteen",
            StatusCode::UNAUTHORIZED,
        ),
        (
            "/healthz",
            "Bearer another-token-of-sixteen",
            StatusCode::OK,
        ),
    ] {
        let headers = [("authorization", token)];
        assert_eq!(scraped.get(path, &headers).await, status, "{path} {token}");
    }
    let none = scraped.get("/metrics", &[]).await;
    assert_eq!(none, StatusCode::UNAUTHORIZED);
    assert_eq!(scraped.get("/readyz", &[]).await, StatusCode::OK);
}

#[tokio::test]
async fn any_name_of_this_machine_will_do_and_no_page_reads_it() {
    let scraped = Scraped::new("0.0.0.0:0", &["127.0.0.1"], false).await;
    for host in ["lb-1.example.com:9100", "10.0.0.5", "lb-1"] {
        let status = scraped.get("/metrics", &[("host", host)]).await;
        assert_eq!(status, StatusCode::OK, "{host}");
    }
    let page = [("origin", "http://evil.com")];
    assert_eq!(scraped.get("/metrics", &page).await, StatusCode::FORBIDDEN);
    // A browser of this machine reaches loopback by every name that an attacker chooses.
    let local = Scraped::new("127.0.0.1:0", &[], false).await;
    let host = format!("localhost:{}", local.at.port());
    assert_eq!(
        local.get("/metrics", &[("host", &host)]).await,
        StatusCode::OK
    );
    let host = format!("evil.com:{}", local.at.port());
    let evil = local.get("/metrics", &[("host", &host)]).await;
    assert_eq!(evil, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn others_are_reset_before_they_have_sent_anything() {
    let scraped = Scraped::new("0.0.0.0:0", &["127.0.0.2", "::/0"], false).await;
    let before = refused_scrapers();
    let mut refused = scraped.connect([127, 0, 0, 3]).await.unwrap();
    let end = bounded(refused.read_u8()).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    assert!(refused_scrapers() > before);
    let mut allowed = scraped.connect([127, 0, 0, 2]).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    allowed.write_all(request).await.unwrap();
    let mut head = [0; 12];
    bounded(allowed.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_crowd_there_delays_no_caller_of_the_api() {
    let scraped = Scraped::new("127.0.0.1:0", &[], false).await;
    let mut crowd = Vec::new();
    for _ in 0..2 * CONNECTIONS_MAX {
        let mut client = scraped.connect([127, 0, 0, 1]).await.unwrap();
        client.write_all(b"GET /metr").await.unwrap();
        crowd.push(client);
    }
    for by in [By::Socket, By::Http(Some(READ))] {
        let answer = scraped.world.ask(by, Method::GET, "/v1/status").await;
        assert_eq!(answer.status, StatusCode::OK, "{by:?}");
    }
    let host = scraped.at.to_string();
    assert_eq!(
        scraped.get("/metrics", &[("host", &host)]).await,
        StatusCode::OK
    );
}

#[tokio::test]
async fn scrapes_wait_for_their_turn_and_nothing_else_does() {
    let scraped = Scraped::new("0.0.0.0:0", &["127.0.0.1"], false).await;
    let others = Arc::clone(&scraped.scrapes).acquire_owned().await.unwrap();
    let mut scrape = std::pin::pin!(scraped.get("/metrics", &[]));
    for _ in 0..10 {
        tokio::select! {
            status = &mut scrape => panic!("{status} while another one is written"),
            status = scraped.get("/healthz", &[]) => assert_eq!(status, StatusCode::OK),
        }
        let of_api = scraped.world.get("/metrics").await;
        assert_eq!(of_api.status, StatusCode::OK);
    }
    drop(others);
    assert_eq!(scrape.await, StatusCode::OK);
    assert_eq!(scraped.scrapes.available_permits(), SCRAPES_MAX);
}
