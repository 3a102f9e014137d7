//! Discovery against a DNS server of our own and real files.

mod bounds;
mod loops;
mod prepared;
mod server;

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::path::PathBuf;

use super::*;
use crate::address::Address;
use crate::config::{Discovery, Listener};
use crate::control::remote::WatchPace;
use server::{Reply, Server};

/// Everything runs a hundred times as fast.
const FAST: Pace = Pace {
    ttl_min: Duration::from_millis(50),
    ttl_max: Duration::from_secs(36),
    retry_min: Duration::from_millis(10),
    retry_max: Duration::from_millis(300),
    look: Duration::from_millis(10),
    remote: WatchPace {
        open: Duration::from_secs(20),
        answer: Duration::from_secs(20),
        look: Duration::from_millis(50),
        retry_min: Duration::from_millis(10),
        retry_max: Duration::from_millis(100),
    },
};

/// One pool that discovers.
fn config(discovery: Discovery, resolvers: &[SocketAddr]) -> Config {
    let pool = Pool {
        discovery: Some(discovery),
        ..Pool::of("web", Vec::new())
    };
    Config {
        resolvers: resolvers.to_vec(),
        ..Config::of(Vec::<Listener>::new(), vec![pool])
    }
}

fn name(name: &str) -> Discovery {
    Discovery::Dns {
        name: name.to_owned(),
        port: 80,
    }
}

/// Runs on the control thread's kind of runtime.
fn run(test: impl Future<Output = ()>) {
    tokio_uring::start(async {
        let in_time = tokio::time::timeout(Duration::from_secs(60), test);
        in_time.await.expect("a test ends in a minute");
    });
}

/// The backends found now, in short form.
fn found(discoveries: &Discoveries) -> Vec<String> {
    let found = discoveries.found("web").unwrap_or_default();
    let text = |b: &Backend| {
        let backup = if b.backup { ",backup" } else { "" };
        assert_eq!(b.name, b.address.to_string());
        format!("{},weight={}{backup}", b.address, b.weight)
    };
    found.iter().map(text).collect()
}

/// Waits until a condition is true, and handles news meanwhile.
async fn until(discoveries: &mut Discoveries, mut is_so: impl FnMut(&Discoveries) -> bool) {
    while !is_so(discoveries) {
        let soon = Duration::from_millis(5);
        let _ = tokio::time::timeout(soon, discoveries.changed()).await;
    }
}

fn error(discoveries: &Discoveries) -> Option<&str> {
    discoveries.state("web").unwrap().error.as_deref()
}

#[test]
fn addresses_come_and_go_with_the_answers() {
    run(async {
        let server = Server::start().await;
        server.say(
            "a.test.",
            Reply::addresses(0, &["10.0.0.2", "10.0.0.1", "::2"]),
        );
        let mut discoveries = Discoveries::at_pace(FAST);
        assert_eq!(
            (discoveries.found("web"), discoveries.state("web")),
            (None, None)
        );
        discoveries.follow(&config(name("a.test"), &[server.address]));
        assert_eq!(discoveries.found("web"), None);
        discoveries.changed().await;
        let all = [
            "10.0.0.1:80,weight=1",
            "10.0.0.2:80,weight=1",
            "[::2]:80,weight=1",
        ];
        assert_eq!(found(&discoveries), all);
        let state = discoveries.state("web").unwrap();
        assert!(state.succeeded_at.is_some() && state.error.is_none());
        assert!(state.next_at.unwrap() > SystemTime::now() - Duration::from_secs(1));

        server.say("a.test.", Reply::addresses(0, &["10.0.0.3", "10.0.0.1"]));
        discoveries.changed().await;
        assert_eq!(
            found(&discoveries),
            ["10.0.0.1:80,weight=1", "10.0.0.3:80,weight=1"]
        );
    });
}

#[test]
fn whatever_fails_the_last_good_set_stays() {
    run(async {
        let server = Server::start().await;
        let mut discoveries = Discoveries::at_pace(FAST);
        server.say("a.test.", Reply::NoSuchName);
        discoveries.follow(&config(name("a.test"), &[server.address]));
        until(&mut discoveries, |d| {
            error(d) == Some("a.test has no address")
        })
        .await;
        assert_eq!(discoveries.found("web"), None);
        let good = ["10.0.0.1:80,weight=1"];
        let failures = [
            (Reply::NoSuchName, "a.test has no address"),
            (Reply::Broken, "a.test: the DNS answers \"Server Failure\""),
            (Reply::addresses(0, &[]), "a.test has no address"),
            (Reply::Silence, "a.test: request timed out"),
        ];
        for (failure, message) in failures {
            server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
            until(&mut discoveries, |d| error(d).is_none()).await;
            assert_eq!(found(&discoveries), good);
            server.say("a.test.", failure);
            until(&mut discoveries, |d| error(d).is_some()).await;
            assert_eq!(error(&discoveries), Some(message));
            assert_eq!(found(&discoveries), good);
        }
    });
}

#[test]
fn a_server_that_is_silent_for_one_type_takes_nothing_away() {
    run(async {
        let server = Server::start().await;
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1", "::1"]));
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.follow(&config(name("a.test"), &[server.address]));
        discoveries.changed().await;
        let both = ["10.0.0.1:80,weight=1", "[::1]:80,weight=1"];
        assert_eq!(found(&discoveries), both);
        server.say(
            "a.test.",
            Reply::BrokenForIpv6(vec!["10.0.0.2".parse().unwrap()]),
        );
        discoveries.changed().await;
        assert_eq!(
            found(&discoveries),
            ["10.0.0.2:80,weight=1", "[::1]:80,weight=1"]
        );
        let message = "a.test: the DNS answers \"Server Failure\"";
        assert_eq!(error(&discoveries), Some(message));
    });
}

#[test]
fn services_have_priorities_and_weights() {
    run(async {
        let server = Server::start().await;
        server.say(
            "_db._tcp.test.",
            Reply::services(&[
                (10, 600, 5432, "one.test."),
                (10, 300, 5433, "two.test."),
                (20, 7, 5434, "one.test."),
                (30, 7, 5435, "gone.test."),
                (5, 1, 1, "."),
            ]),
        );
        server.say("one.test.", Reply::addresses(0, &["10.0.0.1", "::1"]));
        server.say("two.test.", Reply::addresses(0, &["10.0.0.2"]));
        server.say("gone.test.", Reply::NoSuchName);
        let mut discoveries = Discoveries::at_pace(FAST);
        let of = Discovery::Srv("_db._tcp.test".to_owned());
        discoveries.follow(&config(of, &[server.address]));
        discoveries.changed().await;
        let want = [
            "10.0.0.1:5432,weight=256",
            "10.0.0.2:5433,weight=128",
            "[::1]:5432,weight=256",
            "10.0.0.1:5434,weight=7,backup",
            "[::1]:5434,weight=7,backup",
        ];
        assert_eq!(found(&discoveries), want);
        assert_eq!(error(&discoveries), None);

        // Addresses that come along in an answer are not queried.
        let along = [("three.test.", "10.0.0.3")];
        server.say(
            "_db._tcp.test.",
            Reply::services_with(&[(1, 1, 80, "three.test.")], &along),
        );
        discoveries.changed().await;
        assert_eq!(found(&discoveries), ["10.0.0.3:80,weight=1"]);
        assert_eq!(server.asked("three.test."), 0);
        server.say("_db._tcp.test.", Reply::services(&[(0, 0, 80, ".")]));
        until(&mut discoveries, |d| error(d).is_some()).await;
        assert_eq!(error(&discoveries), Some("_db._tcp.test has no address"));
        assert_eq!(found(&discoveries), ["10.0.0.3:80,weight=1"]);
    });
}

/// The number of queries of a name shows how long its answers were kept.
#[test]
fn answers_hold_for_their_least_time_to_live_within_bounds() {
    run(async {
        let server = Server::start().await;
        server.say("short.test.", Reply::addresses(0, &["10.0.0.1"]));
        server.say("long.test.", Reply::addresses(90_000, &["10.0.0.1"]));
        let mut both = config(name("short.test"), &[server.address]);
        let long = Pool {
            discovery: Some(name("long.test")),
            ..Pool::of("long", Vec::new())
        };
        both.pools.push(long.into());
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.follow(&both);
        until(&mut discoveries, |_| server.asked("short.test.") >= 6).await;
        // A and AAAA, once.
        assert_eq!(server.asked("long.test."), 2);
        let next = discoveries.state("long").unwrap().next_at.unwrap();
        let in_time = next.duration_since(SystemTime::now()).unwrap();
        assert!(in_time <= FAST.ttl_max, "{in_time:?}");

        let records = [("10.0.0.1", 9), ("10.0.0.2", 7), ("::1", 8)];
        server.say("mixed.test.", Reply::of(&records));
        discoveries.follow(&config(name("mixed.test"), &[server.address]));
        discoveries.changed().await;
        let next = discoveries.state("web").unwrap().next_at.unwrap();
        let left = next.duration_since(SystemTime::now()).unwrap();
        assert!(left <= Duration::from_secs(7), "{left:?}");
    });
}

#[test]
fn a_pool_that_is_no_longer_followed_is_not_queried() {
    run(async {
        let server = Server::start().await;
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
        server.say("b.test.", Reply::addresses(0, &["10.0.0.2"]));
        server.say("bad.test.", Reply::NoSuchName);
        let mut discoveries = Discoveries::at_pace(FAST);
        let first = config(name("a.test"), &[server.address]);
        discoveries.follow(&first);
        discoveries.changed().await;
        let succeeded_at = discoveries.state("web").unwrap().succeeded_at;
        discoveries.follow(&first);
        assert_eq!(found(&discoveries), ["10.0.0.1:80,weight=1"]);
        assert_eq!(discoveries.state("web").unwrap().succeeded_at, succeeded_at);

        // Backends found by other settings stay until the first answer.
        discoveries.follow(&config(name("b.test"), &[server.address]));
        assert_eq!(found(&discoveries), ["10.0.0.1:80,weight=1"]);
        discoveries.changed().await;
        assert_eq!(found(&discoveries), ["10.0.0.2:80,weight=1"]);
        let asked = server.asked("a.test.");
        discoveries.follow(&config(name("bad.test"), &[server.address]));
        discoveries.changed().await;
        assert_eq!(discoveries.found("web"), None);
        assert_eq!(server.asked("a.test."), asked);

        discoveries.follow(&Config::of(Vec::new(), vec![Pool::of("web", Vec::new())]));
        assert_eq!(
            (discoveries.found("web"), discoveries.state("web")),
            (None, None)
        );
    });
}

/// Known addresses are stored by question.
#[test]
fn whatever_else_changes_while_the_dns_fails_the_known_addresses_stay() {
    run(async {
        let server = Server::start().await;
        let silent = Server::start().await;
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1", "::1"]));
        silent.say(
            "a.test.",
            Reply::BrokenForIpv6(vec!["10.0.0.1".parse().unwrap()]),
        );
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.follow(&config(name("a.test"), &[server.address]));
        discoveries.changed().await;
        let with_port =
            |port: u16| ["10.0.0.1", "[::1]"].map(|host| format!("{host}:{port},weight=1"));
        assert_eq!(found(&discoveries), with_port(80));
        server.say("a.test.", Reply::Broken);
        until(&mut discoveries, |d| error(d).is_some()).await;
        let other = |name: &str, port| Discovery::Dns {
            name: name.to_owned(),
            port,
        };
        // Another port, another case, another name of the pool, other servers.
        let failed = Some("a.test: the DNS answers \"Server Failure\"");
        discoveries.follow(&config(other("a.test", 81), &[server.address]));
        assert_eq!(found(&discoveries), with_port(81));
        discoveries.follow(&config(other("A.Test", 82), &[server.address]));
        assert_eq!(found(&discoveries), with_port(82));
        assert_eq!(error(&discoveries), failed);
        let mut renamed = config(other("a.test", 83), &[server.address]);
        renamed.pools[0].name = "api".to_owned();
        discoveries.follow(&renamed);
        let at: Vec<_> = discoveries.found("api").unwrap();
        assert_eq!(at[0].address.to_string(), "10.0.0.1:83");
        assert_eq!(discoveries.found("web"), None);
        discoveries.follow(&config(other("a.test", 84), &[silent.address]));
        assert_eq!(found(&discoveries), with_port(84));
        until(&mut discoveries, |d| error(d).is_some()).await;
        assert_eq!(found(&discoveries), with_port(84), "of both types");
    });
}

#[test]
fn services_stay_known_when_another_pool_asks_for_them() {
    run(async {
        let server = Server::start().await;
        let services = [(0, 1, 80, "a.test.")];
        server.say("_db._tcp.test.", Reply::services(&services));
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
        let mut discoveries = Discoveries::at_pace(FAST);
        let srv = || Discovery::Srv("_db._tcp.test".to_owned());
        discoveries.follow(&config(srv(), &[server.address]));
        discoveries.changed().await;
        server.say("_db._tcp.test.", Reply::Broken);
        until(&mut discoveries, |d| error(d).is_some()).await;
        let mut renamed = config(srv(), &[server.address]);
        renamed.pools[0].name = "api".to_owned();
        discoveries.follow(&renamed);
        assert_eq!(discoveries.found("api").unwrap()[0].name, "10.0.0.1:80");
    });
}

/// A configuration with one backend of each host name.
fn hosts(names: &[&str], resolvers: &[SocketAddr]) -> Config {
    let backends = names
        .iter()
        .map(|name| Backend::written(name.parse().unwrap()));
    Config {
        resolvers: resolvers.to_vec(),
        ..Config::of(Vec::new(), vec![Pool::of("web", backends.collect())])
    }
}

/// Where they lead to.
fn resolved(discoveries: &Discoveries, config: &Config) -> Vec<String> {
    let mut config = config.clone();
    let resolve = |config: &mut Config| {
        let pools = config.pools.iter_mut();
        pools.for_each(|pool| discoveries.resolve(pool, None));
    };
    resolve(&mut config);
    let before = config.clone();
    resolve(&mut config);
    let mut both = before.pools.iter().zip(&config.pools);
    assert!(both.all(|(one, other)| Shared::is_same(one, other)));
    let backends = config.pools[0].backends.iter();
    backends.map(|one| one.address.to_string()).collect()
}

#[test]
fn a_host_name_keeps_its_address_while_it_has_it() {
    run(async {
        let server = Server::start().await;
        server.say(
            "a.test.",
            Reply::addresses(0, &["10.0.0.2", "::1", "10.0.0.3"]),
        );
        server.say("b.test.", Reply::NoSuchName);
        let config = hosts(&["A.test:80", "a.test:81", "b.test:80"], &[server.address]);
        let mut discoveries = Discoveries::at_pace(FAST);
        let first = discoveries.begin_with(&config).await;
        assert!(discoveries.knows_hosts());
        let known = ["10.0.0.2:80", "10.0.0.2:81", "0.0.0.0:80"];
        assert_eq!(resolved(&discoveries, &config), known);
        assert_eq!(first.pools[0].backends[0].address.to_string(), known[0]);
        assert!(!first.pools[0].backends[2].is_resolved());
        assert_eq!(first.pools[0].backends[0].name, "A.test:80");
        assert_eq!(discoveries.failed_hosts(), ["b.test"]);
        assert!(discoveries.failed_hosts().is_empty(), "told once");
        assert_eq!(
            discoveries.host_error("B.test").unwrap(),
            "b.test has no address"
        );
        // An address that sorts first comes along: the known one stays.
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1", "10.0.0.2"]));
        server.say("b.test.", Reply::addresses(0, &["::2"]));
        until(&mut discoveries, |d| resolved(d, &config)[2] == "[::2]:80").await;
        assert_eq!(resolved(&discoveries, &config)[..2], known[..2]);
        // The known one goes: another replaces it, and stays whatever fails.
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
        until(&mut discoveries, |d| {
            resolved(d, &config)[0] == "10.0.0.1:80"
        })
        .await;
        server.say("a.test.", Reply::Broken);
        until(&mut discoveries, |d| d.host_error("a.test").is_some()).await;
        assert_eq!(resolved(&discoveries, &config)[1], "10.0.0.1:81");
        // A backend that is added with a known name has its address at once.
        let more = hosts(&["a.test:80", "a.test:81", "a.test:82"], &[server.address]);
        discoveries.follow(&more);
        assert_eq!(resolved(&discoveries, &more)[2], "10.0.0.1:82");
    });
}

#[test]
fn an_operator_has_all_asked_again() {
    run(async {
        let server = Server::start().await;
        server.say("a.test.", Reply::addresses(90_000, &["10.0.0.1"]));
        let config = hosts(&["a.test:80"], &[server.address]);
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.begin_with(&config).await;
        server.say("a.test.", Reply::addresses(90_000, &["10.0.0.2"]));
        discoveries.look_again();
        assert_eq!(resolved(&discoveries, &config), ["10.0.0.1:80"]);
        assert!(discoveries.knows_hosts());
        discoveries.changed().await;
        assert_eq!(resolved(&discoveries, &config), ["10.0.0.2:80"]);
        assert_eq!(server.asked("a.test."), 4);
    });
}

#[test]
fn a_start_does_not_wait_for_a_name_server_that_is_silent() {
    run(async {
        let server = Server::start().await;
        server.say("a.test.", Reply::Silence);
        let mut discoveries = Discoveries::at_pace(FAST);
        let began = SystemTime::now();
        let config = hosts(&["a.test:80", "localhost:81"], &[server.address]);
        discoveries.begin_with(&config).await;
        assert!(began.elapsed().unwrap() < Duration::from_secs(2));
        assert_eq!(
            resolved(&discoveries, &config),
            ["0.0.0.0:80", "127.0.0.1:81"]
        );
    });
}

/// Each round opens sockets; none stays open.
#[test]
fn rounds_leave_no_descriptor_behind() {
    run(async {
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let server = Server::start().await;
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
        let of = Question::Addresses("a.test".to_owned());
        let pace = Pace {
            ttl_min: Duration::from_millis(1),
            ..FAST
        };
        let (sender, mut news) = mpsc::channel(1);
        let teller = Teller {
            question: of.clone(),
            task: 1,
            sender,
        };
        let dns = dns::Dns {
            question: of,
            servers: vec![server.address],
            memory: dns::LastAnswers::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        };
        let task = tokio::spawn(dns.follow(teller, pace, Arc::default()));
        let mut most = 0;
        for round in 0..200 {
            assert!(news.recv().await.unwrap().found.is_some());
            // Other tests of this process open descriptors too.
            if round < 20 {
                most = most.max(open());
            }
        }
        task.abort();
        // Theirs are closed again; a leak would stay.
        let mut left = open();
        for _ in 0..100 {
            if left < most + 100 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            left = open();
        }
        panic!("{left} {most}");
    });
}

/// An empty directory for one test.
fn directory(test: &str) -> PathBuf {
    let name = format!("mahoraga-{test}-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

#[test]
fn a_file_that_goes_bad_changes_nothing() {
    run(async {
        let directory = directory("discovery");
        let path = directory.join("backends");
        let write = |text: &str| {
            fs::write(directory.join("next"), text).unwrap();
            fs::rename(directory.join("next"), &path).unwrap();
        };
        write("127.0.0.1:2,weight=5\n127.0.0.1:1,backup\nunix:/a\n");
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.follow(&config(Discovery::File(path.clone()), &[]));
        discoveries.changed().await;
        let good = [
            "127.0.0.1:2,weight=5",
            "unix:/a,weight=1",
            "127.0.0.1:1,weight=1,backup",
        ];
        assert_eq!(found(&discoveries), good);
        for bad in ["", "nonsense\n"] {
            write(bad);
            until(&mut discoveries, |d| error(d).is_some()).await;
            assert_eq!(found(&discoveries), good);
            write("127.0.0.1:2,weight=5\n127.0.0.1:1,backup\nunix:/a\n");
            until(&mut discoveries, |d| error(d).is_none()).await;
        }
        fs::remove_file(&path).unwrap();
        until(&mut discoveries, |d| error(d).is_some()).await;
        assert_eq!(found(&discoveries), good);
        write("127.0.0.1:3\n");
        discoveries.changed().await;
        assert_eq!(found(&discoveries), ["127.0.0.1:3,weight=1"]);
        fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
fn found_backends_stand_behind_the_declared() {
    let at = |address: &str| Backend::at(address.parse().unwrap());
    let mut declared = config(name("a.test"), &[]);
    let named = Backend {
        name: "10.0.0.9:80".to_owned(),
        weight: 7,
        ..at("10.0.0.1:80")
    };
    declared.pools[0].backends = vec![named.clone()];
    let other = Pool::of("other", vec![at("10.0.0.5:80")]);
    declared.pools.push(other.into());
    let set = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"]
        .map(at)
        .to_vec();
    let sets = HashMap::from([("web", set.clone()), ("other", set)]);
    let merged = merge(&declared, |_, pool| sets.get(pool).cloned());
    assert_eq!(merged.pools[0].backends, [named, at("10.0.0.2:80")]);
    // This pool has no discovery.
    assert_eq!(merged.pools[1], declared.pools[1]);
    assert_eq!(merge(&declared, |_, _| None), declared);
}

#[test]
fn at_most_a_thousand_backends_are_kept() {
    let mut set: Vec<_> = (0..1_100_u16)
        .map(|port| Backend {
            backup: port < 50,
            ..Backend::at(Address::Tcp(([10, 0, 0, 1], 2_000 - port).into()))
        })
        .collect();
    set.extend(set.clone());
    let Found {
        backends: kept,
        dropped,
    } = Found::of(set);
    assert_eq!((kept.len(), dropped), (1_000, 100));
    assert!(kept.iter().all(|backend| !backend.backup));
    assert!(
        kept.windows(2)
            .all(|pair| pair[0].address < pair[1].address)
    );
}
