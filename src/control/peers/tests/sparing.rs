//! Where something is short: time, room in queues, descriptors.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::AtomicBool;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::hostile::connect;
use super::*;
use crate::control::peers::frame::{Body, Frame};
use crate::control::peers::hub::Change;
use crate::control::peers::link::{FrameReader, LinkError};
use crate::control::peers::{incoming, outgoing};

#[tokio::test]
async fn one_that_is_too_slow_gets_all_anew_and_one_that_takes_nothing_is_left() {
    let site = Site::new(2);
    let (mut hub, counts, _news) = fresh(&site);
    hub.patience = Duration::from_millis(500);
    let hub = Arc::new(hub);
    let (mut near, mut far) = tokio::io::duplex(64);
    let sender = Arc::clone(&hub);
    let sending = tokio::spawn(async move { outgoing::send(&sender, 1, &mut near).await });
    let mut reader = FrameReader::default();
    let mut synced = async || {
        while reader.next(&mut far).await.unwrap().body != Body::Synced {}
    };
    synced().await;
    // More than waits for it.
    (0..1_000).for_each(|_| hub.send(Body::Beat));
    synced().await;
    assert_eq!(counts[1].status().resyncs, 1);
    (0..10).for_each(|_| hub.send(Body::Beat));
    let error = sending.await.unwrap();
    assert!(matches!(error, LinkError::Stalled(_)), "{error}");
}

#[tokio::test]
async fn what_is_lost_while_all_is_sent_is_sent_after_that() {
    let site = Site::new(2);
    let (hub, counts, _news) = fresh(&site);
    let (hub, snapshot) = (Arc::new(hub), snapshot(&["web"]));
    hub.look_at_clients(&snapshot);
    fill(&snapshot, 4_000);
    let (mut near, mut far) = tokio::io::duplex(64);
    let sender = Arc::clone(&hub);
    let sending = tokio::spawn(async move { outgoing::send(&sender, 1, &mut near).await });
    let mut reader = FrameReader::default();
    let mut next = async || {
        let next = timeout(Duration::from_secs(5), reader.next(&mut far)).await;
        next.expect("in time").unwrap().body
    };
    while !matches!(next().await, Body::Clients(_)) {}
    // A client of that page may be among those that are lost, and no later page has it.
    hub.send_all_again();
    assert!(matches!(next().await, Body::Clients(_)));
    for _ in 0..2 {
        while next().await != Body::Synced {}
    }
    assert_eq!(counts[1].status().resyncs, 1);
    sending.abort();
}

#[tokio::test]
async fn a_busy_pool_does_not_keep_others_waiting() {
    let site = Site::new(2);
    let (hub, _, _news) = fresh(&site);
    let snapshot = snapshot(&["web", "shop"]);
    hub.look_at_clients(&snapshot);
    let mut changes = hub.changes();
    // Each has as many as are told in two ticks.
    fill(&snapshot, 40_000);
    hub.look_at_clients(&snapshot);
    hub.look_at_clients(&snapshot);
    let mut told = BTreeSet::new();
    while let Ok(Change::Frame(bytes, ..)) = changes.try_recv() {
        if let Body::Clients(clients) = Frame::read(&bytes[4..]).unwrap().body {
            told.insert(clients.pool);
        }
    }
    assert_eq!(told, BTreeSet::from(["shop".to_owned(), "web".to_owned()]));
}

/// The hub of the first member, which runs no tasks.
fn fresh(site: &Site) -> (Hub, Vec<Arc<PeerCounts>>, mpsc::Receiver<PeersNews>) {
    let (settings, bans) = (site.settings("lb-0.test"), no_bans());
    let fresh = hub(&settings, (1, &bans), &Arc::default());
    fresh.0.begin();
    fresh
}

/// So many clients come to each pool.
fn fill(snapshot: &Snapshot, clients: u64) {
    for plan in snapshot.pools.iter() {
        let table = plan.pool().sticky.clone().unwrap();
        for client in 0..clients {
            table.insert(client, hash("a"), None, sys::monotonic());
        }
    }
}

#[tokio::test]
async fn members_stay_connected_while_descriptors_are_short() {
    let site = Site::new(2);
    let (hub, counts, mut news) = fresh(&site);
    let (hub, at) = (Arc::new(hub), &site.members[0].address);
    let listener = TcpListener::bind(at).await.unwrap();
    let is_short = AtomicBool::new(false);
    let accept = || async {
        let accepted = listener.accept().await;
        match is_short.swap(false, Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::EMFILE)),
            false => accepted,
        }
    };
    let member = async {
        let as_member = site.settings("lb-1.test");
        let mut stream = connect(&site, &as_member).await.unwrap();
        eventually(|| counts[1].status().receiving).await;
        is_short.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(at).await);
        let told = news.recv().await.map(|its| its.what);
        let Some(News::Failed(why)) = told else {
            panic!("expected that it fails");
        };
        assert!(why.starts_with("cannot take connections of peers at 127.0.0.1:"));
        // The member is still heard, and others come in.
        let beat = Frame::now(Body::Beat);
        stream.write_all(&beat.bytes()).await.unwrap();
        let answer = FrameReader::default().next(&mut stream).await.unwrap();
        assert_eq!(answer.body, Body::Ack(beat.sent));
        connect(&site, &as_member).await.unwrap();
    };
    tokio::select! {
        () = incoming::take(&hub, accept) => panic!("it ended"),
        () = member => {}
    }
}
