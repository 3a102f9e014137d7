//! Addresses that lead back to their own pool.

use super::*;
use crate::admin::model::EventKind;
use crate::config::Backend;
use crate::control::events::{EventWatch, Since};

/// The configuration in force, with a listener of the pool.
fn in_force(discoveries: &mut Discoveries, declared: &Config, before: &Config) -> Config {
    discoveries.follow(declared);
    discoveries.without_loops(true, |discoveries| {
        let mut config = merge(declared, |_, pool| discoveries.found(pool));
        let pools = config.pools.iter_mut();
        pools.for_each(|pool| discoveries.resolve(pool, Some(before)));
        config
    })
}

fn addresses(config: &Config) -> Vec<String> {
    let backends = config.pools[0].backends.iter();
    backends.map(|its| its.address.to_string()).collect()
}

/// What was reported as left out since this was last asked.
async fn messages(watch: &mut EventWatch) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, watch.next()).await {
        if event.kind == EventKind::BackendRefused {
            all.push(event.message);
        }
    }
    all
}

fn listening_on(bind: &str, config: Config) -> Config {
    let text = format!(
        "(listeners: [(bind: \"{bind}\", pool: \"web\")],
          pools: [(name: \"web\", backends: [\"unix:/a\"])])"
    );
    let (with, _) = crate::config::parse("f".to_owned(), text.into()).unwrap();
    Config {
        listeners: with.listeners,
        ..config
    }
}

#[test]
fn a_discovered_address_that_leads_back_is_left_out() {
    run(async {
        let server = Server::start().await;
        let mut discoveries = Discoveries::at_pace(FAST);
        let mut watch = discoveries.events.watch(Since::Recent(0));
        let asking = config(name("a.test"), &[server.address]);
        let declared = listening_on("127.0.0.1:80", asking.clone());
        server.say("a.test.", Reply::addresses(0, &["127.0.0.1", "10.0.0.1"]));
        discoveries.follow(&declared);
        discoveries.changed().await;
        let before = in_force(&mut discoveries, &declared, &declared);
        assert_eq!(addresses(&before), ["10.0.0.1:80"]);
        let said = [
            "pool `web`: backend `127.0.0.1:80` leads back to its own pool by the listener on \
             `127.0.0.1:80`, so that a connection would go round without end: expected the \
             address of a server; 127.0.0.1:80 is left out",
        ];
        assert_eq!(messages(&mut watch).await, said);

        // The last good one stays, and nothing is reported twice.
        server.say("a.test.", Reply::addresses(0, &["127.0.0.1"]));
        discoveries.changed().await;
        let config = in_force(&mut discoveries, &declared, &before);
        assert_eq!(addresses(&config), ["10.0.0.1:80"]);
        assert_eq!(messages(&mut watch).await, [""; 0]);

        // With another listener the address is as good as any, until that one is back.
        let elsewhere = listening_on("127.0.0.1:81", asking);
        let config = in_force(&mut discoveries, &elsewhere, &config);
        assert_eq!(addresses(&config), ["127.0.0.1:80"]);
        let config = in_force(&mut discoveries, &declared, &config);
        assert_eq!(addresses(&config), [""; 0]);
        assert_eq!(messages(&mut watch).await, said);
    });
}

#[test]
fn a_host_name_that_leads_back_keeps_its_last_address() {
    run(async {
        let server = Server::start().await;
        let mut discoveries = Discoveries::at_pace(FAST);
        let mut watch = discoveries.events.watch(Since::Recent(0));
        let backend = Backend::written("a.test:80".parse().unwrap());
        let declared = Config {
            resolvers: vec![server.address],
            ..Config::of(Vec::<Listener>::new(), vec![Pool::of("web", vec![backend])])
        };
        let declared = listening_on("127.0.0.1:80", declared);
        server.say("a.test.", Reply::addresses(0, &["127.0.0.1"]));
        let config = discoveries.begin_with(&declared).await;
        until(&mut discoveries, Discoveries::knows_hosts).await;
        let config = in_force(&mut discoveries, &declared, &config);
        let backend = &config.pools[0].backends[0];
        assert!(!backend.is_resolved());
        let why = discoveries.why_unresolved("web", backend);
        assert!(
            why.starts_with("backend `a.test:80` leads back to its own pool"),
            "{why}"
        );
        assert_eq!(messages(&mut watch).await.len(), 1);

        server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
        discoveries.changed().await;
        let config = in_force(&mut discoveries, &declared, &config);
        assert_eq!(addresses(&config), ["10.0.0.1:80"]);
        server.say("a.test.", Reply::addresses(0, &["127.0.0.1"]));
        discoveries.changed().await;
        let config = in_force(&mut discoveries, &declared, &config);
        assert_eq!(addresses(&config), ["10.0.0.1:80"]);
        assert_eq!(messages(&mut watch).await.len(), 1);
    });
}

#[test]
fn addresses_that_no_server_can_have_are_left_out() {
    run(async {
        let server = Server::start().await;
        let mut discoveries = Discoveries::at_pace(FAST);
        let mut watch = discoveries.events.watch(Since::Recent(0));
        let asking = config(name("a.test"), &[server.address]);
        server.say(
            "a.test.",
            Reply::addresses(0, &["10.0.0.1", "224.0.0.1", "ff02::1"]),
        );
        discoveries.follow(&asking);
        discoveries.changed().await;
        assert_eq!(found(&discoveries), ["10.0.0.1:80,weight=1"]);
        let why = "a.test: expected addresses of servers, not 224.0.0.1, a multicast address";
        assert_eq!(error(&discoveries), Some(why));

        // A name that is blocked: the last good one stays.
        server.say("a.test.", Reply::addresses(0, &["0.0.0.0", "::"]));
        let why = "a.test: expected addresses of servers, not 0.0.0.0, the unspecified address";
        until(&mut discoveries, |d| error(d) == Some(why)).await;
        assert_eq!(found(&discoveries), ["10.0.0.1:80,weight=1"]);
        let problem = format!("discovery of pool `web`: {why}; keeping the last known addresses");
        assert_eq!(discoveries.problems(1), (vec![problem.clone()], 0));
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
        until(&mut discoveries, |d| error(d).is_none()).await;
        assert_eq!(discoveries.problems(1), (vec![], 0));
        let reported = [
            watch.next().await.unwrap(),
            watch.next().await.unwrap(),
            watch.next().await.unwrap(),
        ];
        let kinds = reported.each_ref().map(|event| event.kind);
        let [failed, restored] = [EventKind::DiscoveryFailed, EventKind::DiscoveryRestored];
        assert_eq!(kinds, [failed, failed, restored]);
        assert_eq!(reported[1].message, problem);
        assert_eq!(reported[1].pool.as_deref(), Some("web"));
    });
}

#[test]
fn a_host_name_of_nothing_but_such_addresses_is_unresolved() {
    run(async {
        let server = Server::start().await;
        let mut discoveries = Discoveries::at_pace(FAST);
        let config = hosts(&["a.test:80"], &[server.address]);
        let backend = &config.pools[0].backends[0];
        let why = |discoveries: &Discoveries| discoveries.why_unresolved("web", backend);
        assert_eq!(why(&discoveries), "its host name was not looked up yet");
        server.say("a.test.", Reply::addresses(0, &["255.255.255.255"]));
        discoveries.begin_with(&config).await;
        until(&mut discoveries, Discoveries::knows_hosts).await;
        assert_eq!(resolved(&discoveries, &config), ["0.0.0.0:80"]);
        let want = "a.test: expected addresses of servers, not 255.255.255.255, \
                    the broadcast address";
        assert_eq!(why(&discoveries), want);
        server.say("a.test.", Reply::addresses(0, &["fe80::1", "10.0.0.1"]));
        discoveries.look_again();
        discoveries.changed().await;
        assert_eq!(resolved(&discoveries, &config), ["10.0.0.1:80"]);
    });
}
