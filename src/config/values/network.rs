//! Names and addresses beyond those of listeners and backends.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::ValueError;
use crate::address::{Address, AddressError, is_host_name};
use crate::prefix::{Prefix, PrefixError};

/// Reads where the admin API listens on TCP.
pub fn loopback(text: &str) -> Result<SocketAddr, ValueError> {
    let address = match text.parse() {
        Err(AddressError::NoHost { text, port }) => {
            let sentence = format!("`{text}` has no host: write 127.0.0.1:{port} or [::1]:{port}");
            return Err(ValueError::Refused(sentence));
        }
        read => read?,
    };
    let port = match &address {
        Address::Tcp(address) if address.ip().is_loopback() => return Ok(*address),
        Address::Tcp(address) => address.port(),
        Address::Unix(_) => ADMIN_PORT,
    };
    Err(ValueError::Refused(format!(
        "`{address}` is not a loopback address: write 127.0.0.1:{port} or [::1]:{port}"
    )))
}

/// The port that examples of the admin API have.
const ADMIN_PORT: u16 = 9_900;

/// Reads the origin of a web page: its scheme, host and maybe port (RFC 6454, section 6.1).
pub(in crate::config) fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let authority = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))?;
    let its: axum::http::uri::Authority = authority.parse().ok()?;
    let is_whole = match its.port_u16() {
        Some(port) => authority == format!("{}:{port}", its.host()),
        None => authority == its.host(),
    };
    (is_whole && !its.host().is_empty()).then_some(text)
}

/// Reads where metrics are served on TCP.
pub(in crate::config) fn http_bind(text: &str) -> Result<SocketAddr, ValueError> {
    match text.parse()? {
        Address::Tcp(address) => Ok(address),
        other @ Address::Unix(_) => Err(ValueError::Refused(format!(
            "`{other}` is not an address of TCP: write 127.0.0.1:9100 or [::]:9100"
        ))),
    }
}

/// Reads where connections of other balancers are taken.
pub(in crate::config) fn peers_listen(text: &str) -> Result<SocketAddr, ValueError> {
    let refused = |what: String| Err(ValueError::Refused(what));
    match text.parse()? {
        Address::Tcp(address) if address.port() != 0 => Ok(address),
        Address::Tcp(_) => refused(format!("invalid port `0` of `{text}`: expected 1 to 65535")),
        other @ Address::Unix(_) => refused(format!(
            "`{other}` is not an address of TCP: write 10.0.0.1:7946 or [::]:7946"
        )),
    }
}

/// Reads where another balancer listens: an IP or a name of the DNS, and a port.
pub(in crate::config) fn peer_address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let is_address = text
        .parse()
        .is_ok_and(|at: SocketAddr| !at.ip().is_unspecified());
    let is_known = is_address || host.parse::<IpAddr>().is_err() && is_host_name(host);
    (port != 0 && is_known).then(|| text.to_owned())
}

/// Reads the path of the admin socket, as an address or alone, or `off` as none.
pub fn admin_socket(text: &str) -> Result<Option<PathBuf>, ValueError> {
    if text == "off" {
        return Ok(None);
    }
    let path = text.strip_prefix("unix:").unwrap_or(text);
    match format!("unix:{path}").parse()? {
        Address::Unix(path) => Ok(Some(path)),
        Address::Tcp(_) => Err(ValueError::Unexpected("the path of a socket".to_owned())),
    }
}

/// Reads the address of a resolver: without a port it is that of the DNS.
pub(in crate::config) fn resolver(text: &str) -> Option<SocketAddr> {
    let alone = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
    // A name would have to be resolved first.
    let address = text.parse().or(alone).ok();
    address.filter(|address| address.port() != 0)
}

/// The addresses of this machine that connections may begin at, in words.
pub(in crate::config) const SOURCE_ADDRESS: &str =
    "the IP address of this machine, such as \"10.0.0.5\"";

/// Reads an address of this machine that connections begin at.
#[must_use]
pub fn source_address(text: &str) -> Option<IpAddr> {
    let is_own = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    text.parse().ok().filter(is_own)
}

/// Reads what one flag names connections to begin at, of what `source` may be in a file.
///
/// # Errors
/// It is neither the word `client` nor an address of a machine.
pub fn source(text: &str) -> Result<(), ValueError> {
    let is_known = text == "client" || source_address(text).is_some();
    let expected = || format!("\"client\", or {SOURCE_ADDRESS}");
    is_known
        .then_some(())
        .ok_or_else(|| ValueError::Unexpected(expected()).of_flag())
}

/// Reads an IP address, or a prefix.
///
/// # Errors
/// It is none, or bits are set beyond its length.
pub fn prefix(text: &str) -> Result<Prefix, ValueError> {
    text.parse().map_err(|error: PrefixError| match error {
        PrefixError::Malformed => ValueError::Unexpected(PREFIX.to_owned()),
        PrefixError::Beyond { .. } => {
            ValueError::Refused(format!("invalid prefix `{text}`: {error}"))
        }
    })
}

/// The prefixes that are expected, in words.
pub(in crate::config) const PREFIX: &str =
    "an IP address or a prefix, such as \"10.0.0.0/8\" or \"2001:db8::/32\"";

/// Reads a name of the DNS.
pub(in crate::config) fn discovered_name(text: &str) -> Option<String> {
    is_host_name(text).then(|| text.to_owned())
}

/// Reads the address of a webhook (RFC 9110, section 4.2).
pub(in crate::config) fn webhook(text: &str) -> Option<String> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?']).next());
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    let fits = text.len() <= 2048 && is_plain && authority.is_some_and(is_authority);
    fits.then(|| text.to_owned())
}

/// Reads an endpoint of a server: a URL of a host, with or without a port, and nothing more.
pub(in crate::config) fn endpoint(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (_, authority) = text.split_once("://")?;
    webhook(text).filter(|_| !authority.contains(['/', '?']))
}

/// Reads the prefix of keys of etcd.
pub(in crate::config) fn etcd_prefix(text: &str) -> Option<String> {
    let fits = (1..=512).contains(&text.len()) && text.ends_with('/');
    let is_plain = !text.chars().any(char::is_control);
    (fits && is_plain).then(|| text.to_owned())
}

/// Reads a word of Consul, such as the name of a service.
pub(in crate::config) fn consul_word(text: &str) -> Option<String> {
    let fits = (1..=256).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// Reads a tag of Consul. It is written between backticks in a filter.
pub(in crate::config) fn consul_tag(text: &str) -> Option<String> {
    consul_word(text).filter(|text| !text.contains('`'))
}

/// Reads a name of Kubernetes that is a label of the DNS (RFC 1123, section 2.1).
pub(in crate::config) fn dns_label(text: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=63).contains(&text.len()) && text.bytes().all(is_plain);
    let is_label = fits && !text.starts_with('-') && !text.ends_with('-');
    is_label.then(|| text.to_owned())
}

/// Whether it is a host with or without a port.
fn is_authority(text: &str) -> bool {
    let bracketed = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    let (is_host, port) = if let Some((host, port)) = bracketed {
        let port = (!port.is_empty()).then_some(port);
        let is_port = port.is_none_or(|port| port.starts_with(':'));
        let is_ip = host.parse::<std::net::Ipv6Addr>().is_ok();
        (is_ip && is_port, port.map(|port| &port[1..]))
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let is_ip = host.parse::<IpAddr>().is_ok();
        (is_ip || is_host_name(host), port)
    };
    let is_number = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let is_port = |port: &str| is_number(port) && port.parse::<u16>().is_ok_and(|port| port > 0);
    is_host && port.is_none_or(is_port)
}
