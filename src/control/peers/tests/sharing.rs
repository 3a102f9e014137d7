//! What members share.

use super::*;

#[tokio::test]
async fn bans_come_and_go_among_three() {
    let site = Site::new(3);
    let mut nodes: Vec<_> = (0..3).map(|place| site.start(place)).collect();
    eventually(|| nodes.iter().all(Node::is_connected)).await;
    nodes[0].ban("192.0.2.1");
    eventually(|| nodes.iter_mut().all(|node| node.bans("192.0.2.1"))).await;
    let by = nodes[2]
        .snapshot
        .bans
        .exact("192.0.2.1".parse().unwrap(), 0);
    assert_eq!(by.unwrap().by, BannedBy::Peer);
    // Any of them lifts it: it is lifted on all, and on the one that made it.
    nodes[1].unban("192.0.2.1");
    eventually(|| nodes.iter_mut().all(|node| !node.bans("192.0.2.1"))).await;
    for node in &nodes {
        let refused = node.counts.iter().map(|its| its.status().refused.len());
        assert_eq!(refused.sum::<usize>(), 0);
        assert_eq!(node.strangers.load(Ordering::Relaxed), 0);
    }
    // Each sends its own writes: two entries came of two writes, to each.
    let came: u64 = nodes[2]
        .counts
        .iter()
        .map(|its| its.status().received)
        .sum();
    assert_eq!(came, 2);
}

#[tokio::test]
async fn one_that_was_away_learns_what_happened() {
    let site = Site::new(2);
    let mut a = site.start(0);
    a.ban("192.0.2.1");
    eventually(|| a.was_told("peer lb-1.test: ")).await;
    let mut b = site.start(1);
    eventually(|| b.bans("192.0.2.1")).await;
    eventually(|| a.was_told("peer lb-1.test: well")).await;
    drop(b);
    eventually(|| !a.of(1).sending && !a.of(1).receiving).await;
    a.ban("192.0.2.2");
    let mut b = site.start(1);
    // It starts again, and learns of both.
    eventually(|| b.bans("192.0.2.1") && b.bans("192.0.2.2")).await;
}

#[tokio::test]
async fn a_member_that_takes_nothing_is_left_and_costs_no_other() {
    let site = Site::new(3);
    let mut a = site.start(0);
    let mut b = site.start(1);
    // It takes connections, and no byte.
    let _stuck = tokio::net::TcpListener::bind(&site.members[2].address).await;
    eventually(|| a.of(1).sending && b.of(0).sending).await;
    a.ban("192.0.2.1");
    eventually(|| b.bans("192.0.2.1")).await;
    eventually(|| a.was_told("peer lb-2.test: it does not answer by TLS")).await;
    let told = a.told.iter().filter(|its| its.contains("lb-2.test"));
    assert_eq!(told.count(), 1, "{:?}", a.told);
}

#[tokio::test]
async fn a_client_keeps_its_backend_on_the_others() {
    let site = Site::new(3);
    let nodes: Vec<_> = (0..2).map(|place| site.start(place)).collect();
    // What is known before a balancer comes, and what is written after that.
    nodes[0].visit(1, "a");
    eventually(|| nodes[0].of(1).sending && nodes[1].of(0).sending).await;
    eventually(|| nodes[1].backend(1) == Some("a")).await;
    nodes[0].visit(2, "b");
    nodes[1].visit(3, "a");
    eventually(|| nodes[1].backend(2) == Some("b") && nodes[0].backend(3) == Some("a")).await;
    // A third one learns of all, and a client that it sends elsewhere is known so.
    let late = site.start(2);
    eventually(|| {
        [1, 2, 3].map(|client| late.backend(client)) == [Some("a"), Some("b"), Some("a")]
    })
    .await;
    late.table()
        .insert(1, hash("b"), Some(hash("a")), sys::monotonic());
    eventually(|| nodes.iter().all(|node| node.backend(1) == Some("b"))).await;
}

#[tokio::test]
async fn one_that_starts_anew_gets_its_clients_back() {
    let site = Site::new(2);
    let a = site.start(0);
    let b = site.start(1);
    a.visit(1, "a");
    eventually(|| b.backend(1) == Some("a")).await;
    drop(a);
    let a = site.start(0);
    eventually(|| a.backend(1) == Some("a")).await;
}

#[tokio::test]
async fn a_reload_keeps_the_bans_of_members_that_are_away() {
    let site = Site::new(3);
    let mut a = site.start(0);
    let b = site.start(1);
    let c = site.start(2);
    b.ban("192.0.2.1");
    c.ban("192.0.2.2");
    eventually(|| a.bans("192.0.2.1") && a.bans("192.0.2.2")).await;
    drop((b, c));
    eventually(|| !a.of(1).receiving && !a.of(2).receiving).await;
    // Another order, and one that is new.
    let mut settings = site.settings("lb-0.test");
    settings.members.rotate_left(1);
    settings.members.push(PeerMember {
        name: "lb-9.test".to_owned(),
        address: "127.0.0.1:1".to_owned(),
    });
    let mut a = a.reload(&settings);
    a.next_list().await;
    assert!(a.bans("192.0.2.1") && a.bans("192.0.2.2"));
    // One leaves: its bans end, and those of the other one do not.
    settings.members.retain(|its| its.name != "lb-2.test");
    let mut a = a.reload(&settings);
    a.next_list().await;
    assert!(a.bans("192.0.2.1") && !a.bans("192.0.2.2"));
}

#[tokio::test]
async fn what_is_passed_on_comes_from_who_has_made_it() {
    let site = Site::new(3);
    let mut a = site.start(0);
    let b = site.start(1);
    b.ban("192.0.2.1");
    eventually(|| a.bans("192.0.2.1")).await;
    drop(b);
    // It starts while the one that made the ban is away, and then that one leaves the fleet.
    let mut c = site.start(2);
    eventually(|| c.bans("192.0.2.1")).await;
    let mut settings = site.settings("lb-2.test");
    settings.members.remove(1);
    let mut c = c.reload(&settings);
    eventually(|| !c.bans("192.0.2.1")).await;
    // The other one still has it as a member, and passes its ban on.
    eventually(|| c.of(0).refused.get("unknown_member") == Some(&1)).await;
    assert!(!c.bans("192.0.2.1"));
}
