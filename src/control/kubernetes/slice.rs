//! A slice: the backends that it names.

use crate::address::Address;
use crate::config::{AddressType, Kubernetes, ServicePort};
use crate::control::remote::server_address;

use super::wire::{Conditions, Object, WireEndpoint, WirePort};

/// The endpoints of a slice that may be backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Slice {
    pub(in crate::control) endpoints: Vec<Endpoint>,
    /// Whether the slice has the port that the pool asks for.
    pub(in crate::control) has_port: bool,
}

/// An endpoint that takes connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Endpoint {
    pub(in crate::control) address: Address,
    /// It takes new ones; otherwise it is about to end.
    pub(in crate::control) is_ready: bool,
}

/// Reads a slice by the rules of a file.
pub(super) fn slice(object: &Object, source: &Kubernetes) -> Result<Slice, String> {
    let address_type = match &*object.address_type {
        "IPv4" => AddressType::IPv4,
        "IPv6" => AddressType::IPv6,
        other => {
            return Err(format!(
                "invalid `addressType` `{other}`: expected IPv4 or IPv6"
            ));
        }
    };
    if source.address_type.is_some_and(|its| its != address_type) {
        return Ok(Slice::default());
    }
    let Some(port) = port(&object.ports, source.port.as_ref())? else {
        return Ok(Slice::default());
    };
    let endpoints = object.endpoints.iter();
    let endpoints = endpoints.filter_map(|its| endpoint(its, address_type, port).transpose());
    Ok(Slice {
        endpoints: endpoints.collect::<Result<_, _>>()?,
        has_port: true,
    })
}

/// The port of a slice; `None`: it has none of that name or number.
fn port(ports: &[WirePort], wanted: Option<&ServicePort>) -> Result<Option<u16>, String> {
    let is_tcp = |port: &&WirePort| port.protocol.as_deref().is_none_or(|its| its == "TCP");
    let mut fitting = ports.iter().filter(is_tcp).filter(|its| match wanted {
        None => true,
        Some(ServicePort::Name(name)) => its.name.as_deref() == Some(name),
        Some(ServicePort::Number(number)) => its.port.is_none_or(|its| its == i64::from(*number)),
    });
    let Some(first) = fitting.next() else {
        return Ok(None);
    };
    let others = fitting.count();
    if others > 0 && wanted.is_none() {
        let count = others + 1;
        return Err(format!(
            "it has {count} ports of TCP: name one of them by `port`"
        ));
    }
    match (first.port, wanted) {
        (None, Some(ServicePort::Number(number))) => Ok(Some(*number)),
        (None, _) => Err("its port has no number: name one by `port`".to_owned()),
        (Some(port), _) => match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(format!("invalid port `{port}`: expected 1 to 65535")),
        },
    }
}

/// An endpoint; `None`: it takes no connections.
fn endpoint(
    endpoint: &WireEndpoint,
    address_type: AddressType,
    port: u16,
) -> Result<Option<Endpoint>, String> {
    let Conditions {
        ready,
        serving,
        terminating,
    } = endpoint.conditions.unwrap_or_default();
    let is_ready = ready.unwrap_or(true);
    let is_serving = serving.unwrap_or(is_ready);
    let drains = is_serving && terminating.unwrap_or(false);
    if !is_ready && !drains {
        return Ok(None);
    }
    // Further addresses have no meaning, and other readers of slices ignore them too.
    let Some(ip) = endpoint.addresses.first() else {
        return Err("an endpoint has no address".to_owned());
    };
    let address = server_address(ip, port)?;
    let is_of_type = match &address {
        Address::Tcp(address) => address.is_ipv6() == (address_type == AddressType::IPv6),
        Address::Unix(_) => false,
    };
    if !is_of_type {
        return Err(format!(
            "invalid address `{ip}`: expected one of the slice's type"
        ));
    }
    Ok(Some(Endpoint { address, is_ready }))
}

#[cfg(test)]
mod tests;
