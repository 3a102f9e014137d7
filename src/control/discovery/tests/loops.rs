//! Addresses that lead back to their own pool.

use super::*;
use crate::config::Backend;

/// The configuration in force, with a listener of the pool.
fn in_force(discoveries: &mut Discoveries, declared: &Config, before: &Config) -> Config {
    discoveries.follow(declared);
    discoveries.without_loops(declared, true, |discoveries| {
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

fn messages(discoveries: &mut Discoveries) -> Vec<String> {
    let refused = discoveries.take_refused().into_iter();
    refused.map(|refused| refused.message).collect()
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
        assert_eq!(messages(&mut discoveries), said);

        // The last good one stays, and nothing is reported twice.
        server.say("a.test.", Reply::addresses(0, &["127.0.0.1"]));
        discoveries.changed().await;
        let config = in_force(&mut discoveries, &declared, &before);
        assert_eq!(addresses(&config), ["10.0.0.1:80"]);
        assert_eq!(messages(&mut discoveries), [""; 0]);

        // With another listener the address is as good as any, until that one is back.
        let elsewhere = listening_on("127.0.0.1:81", asking);
        let config = in_force(&mut discoveries, &elsewhere, &config);
        assert_eq!(addresses(&config), ["127.0.0.1:80"]);
        let config = in_force(&mut discoveries, &declared, &config);
        assert_eq!(addresses(&config), [""; 0]);
        assert_eq!(messages(&mut discoveries), said);
    });
}

#[test]
fn a_host_name_that_leads_back_keeps_its_last_address() {
    run(async {
        let server = Server::start().await;
        let mut discoveries = Discoveries::at_pace(FAST);
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
        assert!(!config.pools[0].backends[0].is_resolved());
        assert_eq!(messages(&mut discoveries).len(), 1);

        server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
        discoveries.changed().await;
        let config = in_force(&mut discoveries, &declared, &config);
        assert_eq!(addresses(&config), ["10.0.0.1:80"]);
        server.say("a.test.", Reply::addresses(0, &["127.0.0.1"]));
        discoveries.changed().await;
        let config = in_force(&mut discoveries, &declared, &config);
        assert_eq!(addresses(&config), ["10.0.0.1:80"]);
        assert_eq!(messages(&mut discoveries).len(), 1);
    });
}
