//! What instances make of a pool.

use tokio::sync::Notify;

use super::super::keyed::answer;
use super::*;
use crate::address::Address;
use crate::config::AdminState;
use crate::control::remote::{KeyNews, Step};

fn source() -> Consul {
    Consul {
        service: "web".to_owned(),
        ..Consul::default()
    }
}

fn instance(name: &str, address: &str, weight: u16) -> KeyNews<Instance> {
    KeyNews {
        key: name.to_owned(),
        revision: 1,
        value: Some(Ok(Instance {
            address: Address::Tcp(address.parse().unwrap()),
            weight,
            state: AdminState::Ready,
        })),
    }
}

fn take(known: &mut Keys<Instance>, keys: Vec<KeyNews<Instance>>) -> (Vec<String>, Option<String>) {
    let listed = Step::Listed {
        keys,
        has_more: false,
        went_back: false,
    };
    known.take(listed, &Notify::new());
    let (found, error) = answer(known, backends);
    let found = found.map_or_else(Vec::new, |found| found.backends);
    let shown = found
        .iter()
        .map(|its| format!("{}*{}", its.name, its.weight));
    (shown.collect(), error)
}

#[test]
fn weights_are_in_proportion_and_addresses_distinct() {
    let mut known = keys(&source());
    let all = vec![
        instance("a/web", "10.0.0.1:80", 1_024),
        instance("b/web", "10.0.0.2:80", 512),
        instance("b/old", "10.0.0.2:80", 4),
    ];
    let (found, error) = take(&mut known, all);
    assert_eq!(found, ["10.0.0.1:80*256", "10.0.0.2:80*128"]);
    assert_eq!(error, None);
}

#[test]
fn an_empty_answer_keeps_the_set_and_a_bad_instance_its_last_good_value() {
    let mut known = keys(&source());
    take(&mut known, vec![instance("a/web", "10.0.0.1:80", 1)]);
    let bad = KeyNews {
        key: "a/web".to_owned(),
        revision: 2,
        value: Some(Err(
            "invalid `Service.Port` `0`: expected 1 to 65535".to_owned()
        )),
    };
    let (found, error) = take(&mut known, vec![bad]);
    assert_eq!(found, ["10.0.0.1:80*1"]);
    assert_eq!(
        error.unwrap(),
        "instance `a/web`: invalid `Service.Port` `0`: expected 1 to 65535; its last good value \
         stays"
    );
    let (found, error) = take(&mut known, Vec::new());
    assert!(found.is_empty());
    assert_eq!(error.unwrap(), "no instances of service `web`");
    let failed = Step::Failed("away".to_owned(), std::time::Duration::from_secs(1));
    known.take(failed, &Notify::new());
    let (found, error) = answer(&known, backends);
    assert_eq!((found, error), (None, Some("away".to_owned())));
}

#[test]
fn ten_thousand_instances_are_a_thousand_backends() {
    let mut known = keys(&source());
    let of = |n: u32| {
        let ip = std::net::Ipv4Addr::from(0x0a00_0000 + n);
        instance(&format!("n{n}/web"), &format!("{ip}:80"), 1)
    };
    let (found, error) = take(&mut known, (1..=10_000).map(of).collect());
    assert_eq!(found.len(), 1_000);
    // All balancers take the same.
    assert_eq!(
        (&*found[0], &*found[999]),
        ("10.0.0.1:80*1", "10.0.3.232:80*1")
    );
    assert_eq!(
        error.unwrap(),
        "more than 1000 backends: others are left out"
    );
}
