//! The stream of events.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::world::{By, World, bounded};
use crate::admin::model::{BalancerEvent, EventKind};
use crate::admin::server::WATCHERS_MAX;

/// A stream that the test reads message by message.
struct Stream {
    body: Incoming,
    text: String,
}

async fn open(world: &World, request: Request<Full<Bytes>>) -> (StatusCode, Stream) {
    let stream = UnixStream::connect(&world.socket).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = bounded(sender.send_request(request)).await.unwrap();
    let status = response.status();
    if status.is_success() {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
    }
    let body = response.into_body();
    let text = String::new();
    (status, Stream { body, text })
}

async fn watch(world: &World, query: &str) -> Stream {
    let path = format!("/v1/events{query}");
    let (status, stream) = open(world, world.request(By::Socket, Method::GET, &path)).await;
    assert_eq!(status, StatusCode::OK);
    stream
}

impl Stream {
    /// The next message's id and event; none at the end.
    async fn next(&mut self) -> Option<(String, BalancerEvent)> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = message.lines();
                    lines
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap()
                        .to_owned()
                };
                let event = serde_json::from_str(&field("data: ")).unwrap();
                let found = (field("id: "), event);
                self.text = rest.to_owned();
                return Some(found);
            }
            let frame = bounded(self.body.frame()).await?.ok()?;
            self.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
    }
}

const ONE: EventKind = EventKind::Ready;
const TWO: EventKind = EventKind::BackendDown;
const THREE: EventKind = EventKind::BackendUp;
const FOUR: EventKind = EventKind::Stopping;

fn happens(world: &World, kind: EventKind) {
    world.handle.events().push(BalancerEvent {
        kind,
        message: "two\nlines".to_owned(),
        ..BalancerEvent::default()
    });
}

#[tokio::test]
async fn recent_events_come_first_then_those_that_happen() {
    let world = World::new().await;
    for kind in [ONE, TWO, THREE] {
        happens(&world, kind);
    }
    let mut stream = watch(&world, "?recent=2").await;
    let mut only_new = watch(&world, "").await;
    happens(&world, FOUR);
    for (number, kind) in [(2, TWO), (3, THREE), (4, FOUR)] {
        let (_, event) = stream.next().await.unwrap();
        assert_eq!((event.number, event.kind), (number, kind));
        assert_eq!(event.message, "two\nlines");
        assert!(event.at.ends_with('Z'));
    }
    assert_eq!(only_new.next().await.unwrap().1.kind, FOUR);
}

#[tokio::test]
async fn a_returning_watcher_goes_on_after_its_last_id() {
    let world = World::new().await;
    for kind in [ONE, TWO, THREE] {
        happens(&world, kind);
    }
    let (id, event) = watch(&world, "?recent=2").await.next().await.unwrap();
    assert_eq!(event.kind, TWO);
    let mut request = world.request(By::Socket, Method::GET, "/v1/events");
    let id = HeaderValue::from_str(&id).unwrap();
    request.headers_mut().insert("last-event-id", id);
    let (_, mut stream) = open(&world, request).await;
    assert_eq!(stream.next().await.unwrap().1.kind, THREE);
}

#[tokio::test]
async fn a_slow_watcher_learns_how_many_events_it_missed() {
    let world = World::new().await;
    let mut stream = watch(&world, "").await;
    // No reader runs in between: the server runs on this very thread.
    for _ in 0..2_000 {
        happens(&world, ONE);
    }
    let (_, missed) = stream.next().await.unwrap();
    assert_eq!(missed.kind, EventKind::Missed);
    assert_eq!(missed.message, format!("{} events missed", missed.number));
    assert_eq!(stream.next().await.unwrap().1.number, missed.number + 1);
}

#[tokio::test]
async fn a_stream_ends_with_the_server() {
    let mut world = World::new().await;
    let mut stream = watch(&world, "").await;
    world.stop = None;
    assert!(stream.next().await.is_none());
    for server in world.servers.drain(..) {
        bounded(server).await.unwrap();
    }
}

#[tokio::test]
async fn watchers_leave_room_for_others() {
    let world = World::new().await;
    let mut streams = Vec::new();
    for _ in 0..WATCHERS_MAX {
        streams.push(watch(&world, "").await);
    }
    let request = || world.request(By::Socket, Method::GET, "/v1/events");
    let (status, _) = open(&world, request()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.get("/v1/status").await.status, StatusCode::OK);
    // A place is free once its client is gone.
    streams.pop();
    let freed = async {
        while open(&world, request()).await.0 != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    bounded(freed).await;
}

#[tokio::test]
async fn a_watcher_that_sends_no_more_goes_on_until_it_is_gone() {
    let world = World::new().await;
    let watchers = || world.watchers.available_permits();
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    let request = b"GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = String::new();
    while !received.contains("two") {
        happens(&world, ONE);
        let mut piece = [0; 1_024];
        let read = bounded(stream.read(&mut piece)).await.unwrap();
        assert!(read > 0, "{received}");
        received += &String::from_utf8_lossy(&piece[..read]);
    }
    assert_eq!(watchers(), WATCHERS_MAX - 1);
    drop(stream);
    let freed = async {
        while watchers() < WATCHERS_MAX {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    bounded(freed).await;
}
