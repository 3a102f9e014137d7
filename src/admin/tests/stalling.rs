//! Clients that stall delay no other client, and are cut off soon.

use std::cell::Cell;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use socket2::{Domain, SockAddr, Type};
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

/// In turns of the runtime, whatever each answer costs.
#[tokio::test]
async fn a_client_that_pipelines_requests_gets_one_answer_in_a_turn() {
    for path in ["/v1/openapi.json", "/healthz", "/v1/pools"] {
        let world = World::new().await;
        let requests = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(200);
        let mut greedy = UnixStream::connect(&world.socket).await.unwrap();
        greedy.write_all(requests.as_bytes()).await.unwrap();
        let answered = Cell::new(0);
        let reading = async {
            let mut read = Vec::new();
            loop {
                greedy.read_buf(&mut read).await.unwrap();
                let head = b"HTTP/1.1 200";
                let heads = read.windows(head.len()).filter(|it| it == head);
                answered.set(heads.count());
            }
        };
        tokio::select! {
            () = reading => {}
            answer = world.get("/healthz") => assert_eq!(answer.status, StatusCode::OK),
        }
        let first = answered.get();
        assert!(
            first < 60,
            "{path}: {first} answers came before another client's"
        );
    }
}

/// In turns of the runtime, which a task counts that sleeps for a moment in each.
#[tokio::test]
async fn clients_that_connect_and_close_delay_others_for_few_turns() {
    for sent in [
        "",
        "GET /v1/sta",
        "\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let world = World::new().await;
        for _ in 0..1_000 {
            if !connect_and_close(&world.socket, sent.as_bytes()) {
                // `net.core.somaxconn` allows no more to wait; it has room for one more soon.
                break;
            }
        }
        let turns = Cell::new(0);
        let counting = async {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                turns.set(turns.get() + 1);
            }
        };
        let asking = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            world.get("/healthz").await
        };
        tokio::select! {
            () = counting => {}
            answer = asking => assert_eq!(answer.status, StatusCode::OK),
        }
        assert!(turns.get() < 30, "{} turns after {sent:?}", turns.get());
    }
}

/// In such turns: were the expressions compiled by the runtime's thread, there would be few.
#[tokio::test]
async fn routes_that_take_long_to_read_delay_no_other_client() {
    let world = World::new().await;
    let costly = r#""~(a|b|c|[0-9]{1,40}){1,8}x""#;
    let body = format!("{{\"routes\": [{{\"sni\": [{costly}, {costly}], \"pool\": \"x\"}}]}}");
    let turns = Cell::new(0);
    let counting = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            turns.set(turns.get() + 1);
        }
    };
    let path = "/v1/listeners/web/routes";
    tokio::select! {
        () = counting => {}
        answer = world.tell(Method::PUT, path, &body) => {
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        }
    }
    assert!(turns.get() > 10, "{} turns", turns.get());
}

/// The same over TCP, where one that has closed looks as if it had ended its requests only.
#[tokio::test]
async fn clients_that_ask_and_close_over_tcp_delay_others_for_few_turns() {
    let world = World::new().await;
    for _ in 0..1_000 {
        let mut client = std::net::TcpStream::connect(world.bound).unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
        std::io::Write::write_all(&mut client, request).unwrap();
    }
    let turns = Cell::new(0);
    let counting = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            turns.set(turns.get() + 1);
        }
    };
    tokio::select! {
        () = counting => {}
        answer = world.ask(By::Http(None), Method::GET, "/healthz") => {
            assert_eq!(answer.status, StatusCode::OK);
        }
    }
    assert!(turns.get() < 30, "{} turns", turns.get());
}

/// `false`: too many wait already. The server is on this thread, so that nothing here may wait.
fn connect_and_close(socket: &Path, bytes: &[u8]) -> bool {
    let client = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
    let connected = client.connect(&SockAddr::unix(socket).unwrap());
    if let Err(error) = &connected {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    } else if !bytes.is_empty() {
        assert_eq!(client.send(bytes).unwrap(), bytes.len());
    }
    connected.is_ok()
}

/// Clients that send nothing, or begin a request and do not end it.
#[tokio::test]
async fn the_connection_that_is_idle_for_longest_goes_first() {
    let world = World::new().await;
    let begun = "PATCH /v1/limits HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                 Content-Length: 99\r\n\r\n{";
    for by in [By::Socket, By::Http(Some(READ))] {
        let (mut unix, mut tcp) = (Vec::new(), Vec::new());
        for number in 0..3 * CONNECTIONS_MAX {
            let message = ["", "GET /v1/sta", begun][number % 3].as_bytes();
            if by == By::Socket {
                let mut stream = UnixStream::connect(&world.socket).await.unwrap();
                let _ = stream.write_all(message).await;
                unix.push(stream);
            } else {
                let mut stream = TcpStream::connect(world.bound).await.unwrap();
                let _ = stream.write_all(message).await;
                tcp.push(stream);
            }
        }
        for _ in 0..3 {
            let asking = world.ask(by, Method::GET, "/v1/status");
            let answer = tokio::time::timeout(Duration::from_secs(5), asking).await;
            assert_eq!(answer.expect("an answer at once").status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_being_answered_keeps_its_place() {
    let world = World::new().await;
    world.played.lock().is_stuck = true;
    let mut asking = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = UnixStream::connect(&world.socket).await.unwrap();
        let request = b"GET /v1/pools HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        asking.push(stream);
    }
    // Only then each of them is being answered.
    let all_asked = async {
        while world.played.lock().open() < CONNECTIONS_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    bounded(all_asked).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(UnixStream::connect(&world.socket).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.played.lock().is_stuck = false;
    world.played.lock().unstick();
    for mut stream in asking {
        let mut answer = [0; 12];
        bounded(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
}

/// As `nc -N` and `socat` do.
#[tokio::test]
async fn a_client_that_sends_no_more_gets_its_answer() {
    let world = World::new().await;
    let body = r#"{"max_connections": 9}"#;
    let change = format!(
        "PATCH /v1/limits HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let look = "GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n";
    for _ in 0..20 {
        for request in [look, &change] {
            let mut stream = UnixStream::connect(&world.socket).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            bounded(stream.read_to_end(&mut answer)).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
        }
    }
    assert_eq!(world.played.lock().changes.len(), 20);
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
    // However the connection ends, the answer is truncated.
    let _ = bounded(stream.read_to_end(&mut taken)).await;
    let head = String::from_utf8_lossy(&taken[..taken.len().min(1_000)]).into_owned();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    assert!(taken.len() < length, "{} of {length}", taken.len());
}

#[tokio::test]
async fn other_protocols_than_http_are_refused() {
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
async fn requests_under_way_at_the_end_are_answered() {
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
async fn the_end_waits_briefly_for_clients() {
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
