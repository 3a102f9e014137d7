//! What those do that lie, flood or are no members.

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::control::peers::clock::{Clock, Stamp, wall};
use crate::control::peers::frame::{BANS_MAX, BanEntry, Body, ClientEntry, Clients, Frame};
use crate::control::peers::link::FrameReader;
use crate::control::peers::tls::identity;
use crate::time::SECOND;

/// Connects to a member with the certificate of another one, or of a stranger.
pub(super) async fn connect(
    site: &Site,
    settings: &PeerSettings,
) -> std::io::Result<TlsStream<TcpStream>> {
    let to = &site.members[0];
    let identity = identity(settings).unwrap();
    let stream = loop {
        match TcpStream::connect(&to.address).await {
            Ok(stream) => break stream,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    let name = ServerName::try_from(to.name.clone()).unwrap();
    identity.connector.connect(name, stream).await
}

/// Sends as the second member, and waits until the first one closes.
async fn send(site: &Site, bytes: &[u8]) {
    let mut stream = connect(site, &site.settings("lb-1.test")).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut answers = Vec::new();
    let end = stream.read_to_end(&mut answers);
    let _ = timeout(Duration::from_secs(10), end)
        .await
        .expect("it closes");
}

fn entry(prefix: &str, stamp: Stamp) -> BanEntry {
    BanEntry {
        prefix: prefix.parse().unwrap(),
        stamp,
        writer: 9,
        left_ms: None,
        reason: Some("".into()),
    }
}

fn bans(sent: u64, entries: Vec<BanEntry>) -> Vec<u8> {
    let frame = Frame {
        sent,
        body: Body::Bans(entries),
    };
    frame.bytes().to_vec()
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection_and_is_counted() {
    let site = Site::new(2);
    let mut a = site.start(0);
    let beat = Frame::now(Body::Beat);
    let mut other_version = beat.bytes().to_vec();
    other_version[4] = 9;
    let huge = [&u32::MAX.to_be_bytes()[..], &[0; 100]].concat();
    let garbage = [&20_u32.to_be_bytes()[..], &[1, 77], &[3; 18]].concat();
    for (nth, bytes) in [other_version, huge, garbage].iter().enumerate() {
        send(&site, bytes).await;
        eventually(|| a.of(1).refused.get("malformed") == Some(&(nth as u64 + 1))).await;
    }
    assert!(a.was_told("peer lb-1.test: it speaks version 9"));
    assert!(a.was_told("peer lb-1.test: it sends a frame of 4294967295 bytes"));
}

#[tokio::test]
async fn a_clock_that_is_ahead_wins_nothing() {
    let site = Site::new(2);
    let mut a = site.start(0);
    let ahead = wall() + 60 * SECOND;
    send(
        &site,
        &bans(ahead, vec![entry("192.0.2.1", Stamp::at(ahead))]),
    )
    .await;
    eventually(|| a.was_told("its clock differs from the one here by")).await;
    assert_eq!(a.of(1).refused.get("clock"), Some(&1));
    // The frame is of now, and what it has is of the future.
    let stream = connect(&site, &site.settings("lb-1.test")).await;
    let mut stream = stream.unwrap();
    let far = entry("192.0.2.1", Stamp(u64::MAX));
    let wide = entry("0.0.0.0/0", Stamp::at(wall()));
    let good = entry("192.0.2.9", Stamp::at(wall()));
    let sent = bans(wall(), vec![far, wide, good]);
    stream.write_all(&sent).await.unwrap();
    eventually(|| a.bans("192.0.2.9")).await;
    assert!(!a.bans("192.0.2.1"));
    let refused = a.of(1).refused;
    assert_eq!((refused["clock"], refused["too_wide"]), (2, 1));
}

#[tokio::test]
async fn a_clock_that_is_ahead_does_not_take_others_along() {
    let site = Site::new(2);
    let mut a = site.start(0);
    let stream = connect(&site, &site.settings("lb-1.test")).await;
    let mut stream = stream.unwrap();
    let ahead = wall() + 9 * SECOND;
    let sent = bans(ahead, vec![entry("192.0.2.1", Stamp::at(ahead))]);
    stream.write_all(&sent).await.unwrap();
    eventually(|| a.bans("192.0.2.1")).await;
    let beat = Frame::now(Body::Beat);
    stream.write_all(&beat.bytes()).await.unwrap();
    let answer = FrameReader::default().next(&mut stream).await.unwrap();
    assert_eq!(answer.body, Body::Ack(beat.sent));
    assert!(answer.sent <= wall());
}

#[tokio::test]
async fn those_that_are_no_members_are_refused_and_counted() {
    let site = Site::new(2);
    let mut a = site.start(0);
    let count = Arc::clone(&a.strangers);
    let strangers = || count.load(Ordering::Relaxed);
    // The right authority, and a name that is none of a member.
    let mut stream = connect(&site, &site.settings("stranger.test"))
        .await
        .unwrap();
    let end = timeout(Duration::from_secs(10), stream.read(&mut [0])).await;
    assert!(matches!(end.expect("it closes"), Ok(0) | Err(_)));
    eventually(|| strangers() == 1).await;
    eventually(|| a.was_told("its certificate names none of `members`")).await;
    // The name of a member, by another authority.
    let mut other = site.settings("lb-1.test");
    other.certificate = site.directory.join("other/lb-1.test.pem");
    other.key = site.directory.join("other/lb-1.test.key");
    if let Ok(mut stream) = connect(&site, &other).await {
        let end = timeout(Duration::from_secs(10), stream.read(&mut [0])).await;
        assert!(matches!(end.expect("it closes"), Ok(0) | Err(_)));
    }
    eventually(|| strangers() == 2).await;
    // The member's own certificate, played back to it.
    let mut stream = connect(&site, &site.settings("lb-0.test")).await.unwrap();
    let end = timeout(Duration::from_secs(10), stream.read(&mut [0])).await;
    assert!(matches!(end.expect("it closes"), Ok(0) | Err(_)));
    eventually(|| strangers() == 3).await;
    // No TLS at all.
    let mut plain = TcpStream::connect(&site.members[0].address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    eventually(|| strangers() == 4).await;
    assert!(!a.of(1).receiving);
}

#[tokio::test]
async fn strangers_that_hold_all_places_keep_no_member_out() {
    let site = Site::new(2);
    let a = site.start(0);
    let count = Arc::clone(&a.strangers);
    eventually(|| std::net::TcpStream::connect(&site.members[0].address).is_ok()).await;
    let to: std::net::SocketAddr = site.members[0].address.parse().unwrap();
    let from = async |ip: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket
            .bind((std::net::Ipv4Addr::from(ip), 0).into())
            .unwrap();
        socket.connect(to).await.unwrap()
    };
    // One address has four places: its oldest connections give way.
    let mut one = Vec::new();
    for _ in 0..6 {
        one.push(from([127, 0, 9, 1]).await);
    }
    for stream in &mut one[..2] {
        let end = timeout(Duration::from_secs(2), stream.read(&mut [0])).await;
        assert!(matches!(end.expect("it is closed"), Ok(0) | Err(_)));
    }
    // Others take all places, and more.
    let mut others = Vec::new();
    for number in 2..=40 {
        others.push(from([127, 0, 9, number]).await);
    }
    // A member has a place, from its own address, and from another one.
    let as_member = site.settings("lb-1.test");
    let _member = connect(&site, &as_member).await.unwrap();
    eventually(|| a.of(1).receiving).await;
    let identity = identity(&as_member).unwrap();
    let name = ServerName::try_from(site.members[0].name.clone()).unwrap();
    let stream = from([127, 0, 9, 99]).await;
    identity.connector.connect(name, stream).await.unwrap();
    assert!(count.load(Ordering::Relaxed) >= 2 + 4);
}

#[tokio::test]
async fn a_member_that_is_silent_is_left() {
    let site = Site::new(2);
    let mut a = site.start(0);
    let _stream = connect(&site, &site.settings("lb-1.test")).await.unwrap();
    eventually(|| a.of(1).receiving).await;
    eventually(|| a.was_told("peer lb-1.test: it sends nothing for 2 s")).await;
    assert!(!a.of(1).receiving);
}

#[tokio::test]
async fn a_flood_fills_its_own_part_and_no_more() {
    let site = Site::new(2);
    let mut a = site.start(0);
    let mut stream = connect(&site, &site.settings("lb-1.test")).await.unwrap();
    let mut clock = Clock::default();
    let mut number = 0_u32;
    // More than a member may have.
    for _ in 0..11_000_usize.div_ceil(BANS_MAX) {
        let entries = (0..BANS_MAX).map(|_| {
            number += 1;
            let prefix = std::net::Ipv4Addr::from_bits(number).to_string();
            entry(&prefix, clock.stamp(wall()))
        });
        stream
            .write_all(&bans(wall(), entries.collect()))
            .await
            .unwrap();
    }
    eventually(|| a.of(1).received >= 11_000).await;
    eventually(|| a.of(1).refused.get("no_room").copied() == Some(a.of(1).received - 10_000)).await;
    // The operator still bans.
    a.ban("198.51.100.1");
    assert!(a.bans("198.51.100.1"));
}

#[tokio::test]
async fn clients_of_what_is_not_known_here_are_dropped_and_counted() {
    let site = Site::new(2);
    let a = site.start(0);
    a.visit(1, "a");
    let mut stream = connect(&site, &site.settings("lb-1.test")).await.unwrap();
    let clients = |pool: &str, key: &str, used: u64| Clients {
        pool: pool.to_owned(),
        key: key.to_owned(),
        backends: vec!["b".to_owned(), "c".to_owned()],
        entries: [(7, 0), (8, 1)]
            .map(|(client, backend)| ClientEntry {
                client,
                backend,
                used: Stamp(used),
            })
            .to_vec(),
    };
    let past = wall() - SECOND;
    for clients in [
        clients("other", "source_ip", past),
        clients("web", "sni", past),
        clients("web", "source_ip", wall() + 60 * SECOND),
        clients("web", "source_ip", past),
    ] {
        let frame = Frame::now(Body::Clients(clients));
        stream.write_all(&frame.bytes()).await.unwrap();
    }
    eventually(|| a.backend(7) == Some("b")).await;
    assert_eq!((a.backend(8), a.backend(1)), (None, Some("a")));
    let refused = a.of(1).refused;
    let of = |why: &str| refused.get(why).copied();
    assert_eq!((of("unknown_pool"), of("other_key")), (Some(2), Some(2)));
    assert_eq!((of("clock"), of("unknown_backend")), (Some(1), Some(2)));
}

#[tokio::test]
async fn one_that_breaks_off_is_told_of_in_plain_words() {
    let site = Site::new(2);
    let to = &site.members[1].address;
    let listener = tokio::net::TcpListener::bind(to).await.unwrap();
    let mut a = site.start(0);
    let identity = identity(&site.settings("lb-1.test")).unwrap();
    // It ends without the end that TLS has.
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = identity.acceptor.accept(stream).await.unwrap();
    let mut reader = FrameReader::default();
    while reader.next(&mut stream).await.unwrap().body != Body::Synced {}
    drop(stream);
    eventually(|| a.was_told("peer lb-1.test: it closed the connection")).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
    drop(stream);
    eventually(|| a.was_told("it closed the connection within the TLS handshake")).await;
    let foreign = |its: &&String| its.contains("rustls") || its.contains("os error");
    assert_eq!(a.told.iter().find(foreign), None);
}

#[test]
fn a_certificate_that_names_no_member_is_told() {
    let site = Site::new(2);
    let told = |name: &str| mistake_in(&site.settings(name));
    let (setting, why) = told("stranger.test").unwrap();
    assert_eq!(setting, "certificate");
    assert!(why.contains("it names none of `members`"), "{why}");
    assert_eq!(told("lb-1.test"), None);
}
