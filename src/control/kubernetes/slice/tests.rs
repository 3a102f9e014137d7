//! What slices say.

use serde_json::{Value, json};

use super::*;

fn read(object: Value, source: &Kubernetes) -> Result<Vec<String>, String> {
    let object = serde_json::from_value(object).unwrap();
    let slice = slice(&object, source)?;
    assert!(slice.has_port || slice.endpoints.is_empty());
    let shown = slice.endpoints.iter().map(|its| match its.is_ready {
        true => its.address.to_string(),
        false => format!("{} ends", its.address),
    });
    Ok(shown.collect())
}

fn object(endpoints: Value, ports: Value) -> Value {
    json!({ "addressType": "IPv4", "endpoints": endpoints, "ports": ports })
}

fn by(port: Option<ServicePort>) -> Kubernetes {
    Kubernetes {
        port,
        ..Kubernetes::default()
    }
}

#[test]
fn conditions_say_which_endpoints_take_connections() {
    let of = |conditions: Value| {
        let endpoints =
            json!([{ "addresses": ["10.1.2.3", "10.9.9.9"], "conditions": conditions }]);
        let object = object(endpoints, json!([{ "port": 80 }]));
        read(object, &by(None)).unwrap().join(" ")
    };
    for (conditions, expected) in [
        // What is not said is well.
        (json!(null), "10.1.2.3:80"),
        (json!({}), "10.1.2.3:80"),
        (
            json!({ "ready": null, "serving": null, "terminating": null }),
            "10.1.2.3:80",
        ),
        (
            json!({ "ready": true, "serving": true, "terminating": false }),
            "10.1.2.3:80",
        ),
        // A Service may publish those that are not ready: they are ready then.
        (
            json!({ "ready": true, "serving": false, "terminating": true }),
            "10.1.2.3:80",
        ),
        (
            json!({ "ready": false, "serving": true, "terminating": true }),
            "10.1.2.3:80 ends",
        ),
        (
            json!({ "ready": false, "serving": false, "terminating": true }),
            "",
        ),
        (
            json!({ "ready": false, "serving": false, "terminating": false }),
            "",
        ),
        (json!({ "ready": false }), ""),
        (json!({ "ready": false, "terminating": true }), ""),
    ] {
        assert_eq!(of(conditions.clone()), expected, "{conditions}");
    }
}

#[test]
fn a_port_is_found_by_its_name_or_number() {
    let name = |name: &str| Some(ServicePort::Name(name.to_owned()));
    let number = |number| Some(ServicePort::Number(number));
    let two = json!([
        { "name": "http", "port": 8080, "protocol": "TCP" },
        { "name": "metrics", "port": 9100 },
        { "name": "dns", "port": 53, "protocol": "UDP" },
    ]);
    let of = |ports: &Value, port: Option<ServicePort>| {
        let endpoints = json!([{ "addresses": ["10.1.2.3"] }]);
        read(object(endpoints, ports.clone()), &by(port)).map(|all| all.join(" "))
    };
    assert_eq!(of(&two, name("http")).unwrap(), "10.1.2.3:8080");
    assert_eq!(of(&two, number(9100)).unwrap(), "10.1.2.3:9100");
    assert_eq!(of(&two, name("dns")).unwrap(), "");
    assert_eq!(of(&two, number(1)).unwrap(), "");
    let why = "it has 2 ports of TCP: name one of them by `port`";
    assert_eq!(of(&two, None).unwrap_err(), why);
    // Every port.
    let every = json!([{ "name": "", "port": null, "protocol": "TCP" }]);
    assert_eq!(of(&every, number(443)).unwrap(), "10.1.2.3:443");
    assert!(of(&every, None).unwrap_err().contains("no number"));
    assert_eq!(of(&json!(null), None).unwrap(), "");
    assert!(
        of(&json!([{ "port": 0 }]), None)
            .unwrap_err()
            .contains("`0`: expected 1 to 65535")
    );
}

#[test]
fn addresses_are_of_the_type_of_their_slice() {
    let of = |address_type: &str, ip: &str, wanted| {
        let mut object = object(json!([{ "addresses": [ip] }]), json!([{ "port": 80 }]));
        object["addressType"] = address_type.into();
        let source = Kubernetes {
            address_type: wanted,
            ..Kubernetes::default()
        };
        read(object, &source).map(|all| all.join(" "))
    };
    assert_eq!(of("IPv6", "fd00::1", None).unwrap(), "[fd00::1]:80");
    assert_eq!(of("IPv6", "fd00::1", Some(AddressType::IPv4)).unwrap(), "");
    assert_eq!(
        of("IPv4", "10.0.0.1", Some(AddressType::IPv4)).unwrap(),
        "10.0.0.1:80"
    );
    let why = "invalid `addressType` `FQDN`: expected IPv4 or IPv6";
    assert_eq!(of("FQDN", "web.example", None).unwrap_err(), why);
    assert!(
        of("IPv4", "fd00::1", None)
            .unwrap_err()
            .contains("one of the slice's type")
    );
    assert!(
        of("IPv4", "web", None)
            .unwrap_err()
            .contains("expected an IP")
    );
    assert!(
        of("IPv4", "0.0.0.0", None)
            .unwrap_err()
            .contains("expected the address of a server")
    );
    let none = object(json!([{ "addresses": [] }]), json!([{ "port": 80 }]));
    assert_eq!(
        read(none, &by(None)).unwrap_err(),
        "an endpoint has no address"
    );
}
