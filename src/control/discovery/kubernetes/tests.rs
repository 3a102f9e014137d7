//! What slices make of a pool.

use tokio::sync::Notify;

use super::super::keyed::answer;
use super::*;
use crate::address::Address;
use crate::control::remote::{KeyNews, Step};

fn known() -> Keys<Slice> {
    keys(&Kubernetes {
        service: "web".to_owned(),
        namespace: "shop".to_owned(),
        ..Kubernetes::default()
    })
}

fn slice(name: &str, endpoints: &[(&str, bool)]) -> KeyNews<Slice> {
    let endpoints = endpoints.iter().map(|(address, is_ready)| Endpoint {
        address: Address::Tcp(address.parse().unwrap()),
        is_ready: *is_ready,
    });
    KeyNews {
        key: name.to_owned(),
        revision: 1,
        value: Some(Ok(Slice {
            endpoints: endpoints.collect(),
            has_port: true,
        })),
    }
}

fn take(known: &mut Keys<Slice>, keys: Vec<KeyNews<Slice>>) -> (Vec<String>, Option<String>) {
    let listed = Step::Listed {
        keys,
        has_more: false,
        went_back: false,
    };
    known.take(listed, &Notify::new());
    let (found, error) = answer(known, backends);
    let found = found.map_or_else(Vec::new, |found| found.backends);
    let shown = found.iter().map(|its| match its.state {
        AdminState::Ready => its.name.clone(),
        AdminState::Drain | AdminState::Maint => format!("{} drains", its.name),
    });
    (shown.collect(), error)
}

#[test]
fn several_slices_are_one_pool_without_duplicates() {
    let mut known = known();
    let (found, error) = take(
        &mut known,
        vec![
            slice("web-a", &[("10.0.0.1:80", false), ("10.0.0.2:80", false)]),
            // An endpoint moves from one slice to another: for a moment both have it.
            slice("web-b", &[("10.0.0.1:80", true), ("10.0.0.3:80", true)]),
        ],
    );
    assert_eq!(found, ["10.0.0.1:80", "10.0.0.2:80 drains", "10.0.0.3:80"]);
    assert_eq!(error, None);
}

#[test]
fn where_none_is_ready_those_that_end_still_take_clients() {
    let (found, error) = take(
        &mut known(),
        vec![slice(
            "web-a",
            &[("10.0.0.1:80", false), ("10.0.0.2:80", false)],
        )],
    );
    assert_eq!(found, ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(error, None);
}

#[test]
fn an_empty_answer_keeps_the_set_and_says_why() {
    let mut known = known();
    let error = |(found, error): (Vec<String>, Option<String>)| {
        assert!(found.is_empty());
        error.unwrap()
    };
    assert_eq!(
        error(take(&mut known, Vec::new())),
        "no slices of Service `shop/web`"
    );
    assert_eq!(
        error(take(&mut known, vec![slice("web-a", &[])])),
        "the slices of Service `shop/web` have no endpoint that is ready"
    );
    let mut other = slice("web-a", &[]);
    other.value = Some(Ok(Slice::default()));
    assert_eq!(
        error(take(&mut known, vec![other])),
        "the slices of Service `shop/web` have no such port of TCP"
    );
    let mut bad = slice("web-a", &[]);
    bad.value = Some(Err("an endpoint has no address".to_owned()));
    let (_, told) = take(
        &mut known,
        vec![bad, slice("web-b", &[("10.0.0.1:80", true)])],
    );
    assert_eq!(
        told.unwrap(),
        "slice `shop/web-a`: an endpoint has no address; its last good value stays"
    );
}
