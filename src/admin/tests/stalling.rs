//! Clients that stall hold nobody up but themselves, and that not for long.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::world::{By, READ, World, bounded};
use crate::admin::endpoints::Deadlines;
use crate::admin::server::CONNECTIONS_MAX;

fn short() -> Deadlines {
    Deadlines {
        head: Duration::from_millis(100),
        body: Duration::from_millis(100),
        write: Duration::from_millis(100),
        ..Deadlines::default()
    }
}

#[tokio::test]
async fn others_are_answered_meanwhile() {
    let world = World::new().await;
    let mut stalled = Vec::new();
    for _ in 1..CONNECTIONS_MAX {
        let mut stream = UnixStream::connect(&world.socket).await.unwrap();
        stream.write_all(b"GET /v1/sta").await.unwrap();
        stalled.push(stream);
    }
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let world = World::with(short()).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(world.bound).await.unwrap());
    }
    // Those that say nothing lose theirs.
    let answer = world
        .ask(By::Http(Some(READ)), Method::GET, "/v1/status")
        .await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn connections_are_few_at_a_time() {
    let world = World::new().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        held.push(UnixStream::connect(&world.socket).await.unwrap());
    }
    let waiting = world.get("/healthz");
    let time = Duration::from_millis(300);
    assert!(tokio::time::timeout(time, waiting).await.is_err());
    held.pop();
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let world = World::with(short()).await;
    for begun in ["", "GET /v1/status HTTP/1.1\r\nHost: loc"] {
        let mut stream = UnixStream::connect(&world.socket).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        bounded(stream.read_to_end(&mut rest)).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_request() {
    let world = World::with(short()).await;
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    let head = "PATCH /v1/limits HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                Content-Length: 99\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    bounded(stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn an_answer_that_is_not_taken_ends_the_connection() {
    let world = World::with(short()).await;
    world.played.lock().sessions = 10_000;
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    let request = "GET /v1/sessions HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let broken = async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    bounded(broken).await;
    let mut taken = Vec::new();
    // However the connection ends, the answer is cut.
    let _ = bounded(stream.read_to_end(&mut taken)).await;
    let head = String::from_utf8_lossy(&taken[..taken.len().min(1_000)]).into_owned();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    assert!(taken.len() < length, "{} of {length}", taken.len());
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let world = World::new().await;
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(200_000));
    for nonsense in ["\x16\x03\x01 hello\r\n\r\n", "GET\r\n\r\n", &long] {
        let mut stream = TcpStream::connect(world.bound).await.unwrap();
        // The answer may come first.
        let _ = stream.write_all(nonsense.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = bounded(stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"));
    }
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_being_answered_at_the_end_is_answered() {
    let mut world = World::new().await;
    world.played.lock().is_stuck = true;
    let (stop, played) = (world.stop.take(), world.played.clone());
    let ending = async {
        while played.lock().calls == 0 {
            tokio::task::yield_now().await;
        }
        drop(stop);
        tokio::time::sleep(Duration::from_millis(50)).await;
        played.lock().unstick();
    };
    let (answer, ()) = tokio::join!(world.get("/v1/pools"), ending);
    assert_eq!(answer.status, StatusCode::OK);
    for server in world.servers.drain(..) {
        bounded(server).await.unwrap();
    }
}

#[tokio::test]
async fn the_end_waits_for_nobody_long() {
    let deadlines = Deadlines {
        end: Duration::from_millis(100),
        ..Deadlines::default()
    };
    let mut world = World::with(deadlines).await;
    world.played.lock().is_stuck = true;
    let (stop, played) = (world.stop.take(), world.played.clone());
    let servers: Vec<_> = world.servers.drain(..).collect();
    let ending = async {
        while played.lock().calls == 0 {
            tokio::task::yield_now().await;
        }
        drop(stop);
        for server in servers {
            bounded(server).await.unwrap();
        }
    };
    tokio::select! {
        () = ending => {}
        () = async {
            let mut stream = UnixStream::connect(&world.socket).await.unwrap();
            let request = b"GET /v1/pools HTTP/1.1\r\nHost: a\r\n\r\n";
            stream.write_all(request).await.unwrap();
            std::future::pending().await
        } => {}
    }
}
