//! Addresses: an IP address and port, or a Unix socket.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// The address of a listener or of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A stream socket in the file system (unix(7)).
    Unix(PathBuf),
}

/// An address as it may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// An address that can be connected to.
    Address(Address),
    /// A host name, which is to be resolved, and a port.
    Host(String, u16),
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `127.0.0.1:80`, `[::1]:80`, `host:80` or `unix:/path`.
    ///
    /// Resolves a host name, once, which may block: takes its first IPv4 address, or its
    /// first IPv6 address when it has no other. An IPv6 zone is a number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse()? {
            Written::Address(address) => Ok(address),
            Written::Host(host, port) => resolve(&host, port),
        }
    }
}

impl FromStr for Written {
    type Err = AddressError;

    /// Reads the same without resolving anything.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(Self::Address);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(Address::Tcp(address)));
        }
        let (host, port) = host_and_port(text)?;
        if host.starts_with('[') && host.contains('%') {
            return Err(AddressError::NamedZone(text.to_owned()));
        }
        if !is_host_name(host) {
            return Err(AddressError::BadHost(host.to_owned()));
        }
        Ok(Self::Host(host.to_owned(), port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Which of two addresses includes the other, and which is included, where the kernel refuses
    /// to listen on both.
    ///
    /// An unspecified address takes its port on every address of its family, and `[::]` on those of
    /// IPv4 too (IPV6_V6ONLY is off, ipv6(7)). Port 0 is a free port each time.
    #[must_use]
    pub fn overlap<'a>(&'a self, other: &'a Self) -> Option<(&'a Self, &'a Self)> {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(two)) if one.port() == two.port() && one.port() != 0 => {
                if includes(one, two) {
                    Some((self, other))
                } else {
                    includes(two, one).then_some((other, self))
                }
            }
            (Self::Unix(one), Self::Unix(two)) if one == two => Some((self, other)),
            _ => None,
        }
    }
}

/// Whether a socket on the first address also takes connections to the second; their ports are
/// equal.
fn includes(one: &SocketAddr, two: &SocketAddr) -> bool {
    // IPv4 written as IPv6, [::ffff:127.0.0.1], is IPv4.
    let (wide, narrow) = (one.ip().to_canonical(), two.ip().to_canonical());
    let zone = |address: &SocketAddr| match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    };
    (wide == narrow && zone(one) == zone(two))
        || (wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4()))
}

/// What kind of address this is, if it is one that no server can have.
///
/// Linux lets hosts have the addresses of 240.0.0.0/4, and those of 0.0.0.0/8 but the first.
#[must_use]
pub fn kind_of_no_server(address: &SocketAddr) -> Option<&'static str> {
    match (address.ip().to_canonical(), address) {
        // To connect to it is to connect to this machine: names that are blocked resolve to it.
        (ip, _) if ip.is_unspecified() => Some("the unspecified address"),
        (ip, _) if ip.is_multicast() => Some("a multicast address"),
        (IpAddr::V4(ip), _) if ip.is_broadcast() => Some("the broadcast address"),
        // connect(2) refuses it by EINVAL, as it names no interface (RFC 4007).
        (IpAddr::V6(ip), SocketAddr::V6(address))
            if ip.is_unicast_link_local() && address.scope_id() == 0 =>
        {
            Some("a link-local address without a zone")
        }
        _ => None,
    }
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// A host alone.
    #[error("`{0}` has no port: write host:port, [IPv6]:port or unix:/path")]
    NoPort(String),
    /// A port right behind the bracket.
    #[error("`{0}` lacks the `:` before the port: write {1}")]
    NoColon(String, String),
    /// A port alone, or a star in front of it.
    #[error("`{text}` has no host: write 0.0.0.0:{port} or [::]:{port} for every address")]
    NoHost {
        /// The whole text.
        text: String,
        /// Its port.
        port: u16,
    },
    /// The port is not a number from 0 to 65535.
    #[error("invalid port `{0}`: expected 0 to 65535")]
    BadPort(String),
    /// A scheme in front, as in `http://`.
    #[error("`{0}` is a URL: write host:port, without a scheme")]
    Scheme(String),
    /// An IPv6 address without its brackets.
    #[error("`{0}` looks like IPv6: write it as [address]:port")]
    Unbracketed(String),
    /// An IPv6 zone (RFC 4007) that is not a number.
    #[error("`{0}`: a zone can't be given by name, write its number as in [fe80::1%2]:80")]
    NamedZone(String),
    /// Neither an IP address nor a host name (RFC 1123, section 2.1).
    #[error("invalid host `{0}`: expected an IP address or a host name")]
    BadHost(String),
    /// The name has no address.
    #[error("cannot resolve `{name}`: {why}")]
    Unresolved {
        /// The host name.
        name: String,
        /// What the resolver said.
        why: String,
    },
    /// A Unix socket path that the kernel would refuse.
    #[error("invalid path `unix:{0}`: expected 1 to 107 bytes, without NUL")]
    BadPath(String),
    /// A path without its `unix:`, or with another spelling of that.
    #[error("invalid address `{text}`, did you mean `unix:{path}`?")]
    NoUnixPrefix {
        /// The whole text.
        text: String,
        /// The path in it.
        path: String,
    },
}

/// `sun_path` of `sockaddr_un` holds 108 bytes with its closing NUL (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Splits a text that is neither a literal address and port nor a well-written path.
fn host_and_port(text: &str) -> Result<(&str, u16), AddressError> {
    if let Some(path) = misspelt_path(text) {
        return Err(AddressError::NoUnixPrefix {
            text: text.to_owned(),
            path: path.to_owned(),
        });
    }
    if text.contains("://") {
        return Err(AddressError::Scheme(text.to_owned()));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some(parts) if !text.ends_with(']') => parts,
        None if is_digits(text) => ("", text),
        _ => return Err(AddressError::NoPort(text.to_owned())),
    };
    if let Some((address, port)) = text.strip_prefix('[').and_then(|text| text.split_once(']'))
        && is_digits(port)
    {
        let meant = format!("[{address}]:{port}");
        return Err(AddressError::NoColon(text.to_owned(), meant));
    }
    if is_bare_ipv6(host) {
        return Err(AddressError::Unbracketed(text.to_owned()));
    }
    if port.is_empty() {
        return Err(AddressError::NoPort(text.to_owned()));
    }
    // Rust accepts a sign in front of a number; a port has none.
    let number = port.parse().ok().filter(|_| is_digits(port));
    let port = number.ok_or_else(|| AddressError::BadPort(port.to_owned()))?;
    if matches!(host, "" | "*") {
        let text = text.to_owned();
        return Err(AddressError::NoHost { text, port });
    }
    Ok((host, port))
}

/// The path in a text that seems to be meant as one.
fn misspelt_path(text: &str) -> Option<&str> {
    if text.starts_with('/') || text.starts_with("./") {
        return Some(text);
    }
    let (prefix, path) = text.split_once(':')?;
    prefix.eq_ignore_ascii_case("unix").then_some(path)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether what stands before the last `:` is a piece of an IPv6 address.
fn is_bare_ipv6(host: &str) -> bool {
    // The bracket that closes may be missing.
    let inner = host.strip_prefix('[').filter(|rest| !rest.contains(']'));
    let host = inner.unwrap_or(host);
    // The digits of a zone may be any letters.
    let (digits, _) = host.split_once('%').unwrap_or((host, ""));
    digits.contains(':')
        && digits
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
}

fn unix(path: &str) -> Result<Address, AddressError> {
    match path.len() {
        1..=UNIX_PATH_BYTES_MAX if !path.contains('\0') => {
            Ok(Address::Unix(Path::new(path).to_owned()))
        }
        _ => Err(AddressError::BadPath(path.to_owned())),
    }
}

/// Whether it is a host name (RFC 1123, section 2.1), with underscores as services have them.
pub(crate) fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    // All digits and dots is an IPv4 address that did not parse, such as 300.0.0.1.
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    name.len() <= 253 && !numeric && name.split('.').all(label)
}

fn resolve(host: &str, port: u16) -> Result<Address, AddressError> {
    let unresolved = |why: String| AddressError::Unresolved {
        name: host.to_owned(),
        why,
    };
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| unresolved(error.to_string()))?
        .collect();
    let first = found
        .iter()
        .find(|address| address.is_ipv4())
        .or_else(|| found.first());
    first
        .map(|address| Address::Tcp(*address))
        .ok_or_else(|| unresolved("it has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn reads_every_form() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        assert_eq!("127.0.0.1:80".parse(), Ok(tcp("127.0.0.1:80")));
        assert_eq!("[::1]:80".parse(), Ok(tcp("[::1]:80")));
        assert_eq!("localhost:80".parse(), Ok(tcp("127.0.0.1:80")));
        assert_eq!(
            "unix:/run/a.sock".parse(),
            Ok(Address::Unix("/run/a.sock".into()))
        );
    }

    #[test]
    fn refuses_with_the_reason() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(error("127.0.0.1"), AddressError::NoPort("127.0.0.1".into()));
        assert_eq!(error("127.0.0.1:x"), AddressError::BadPort("x".into()));
        assert_eq!(
            error("127.0.0.1:65536"),
            AddressError::BadPort("65536".into())
        );
        assert_eq!(
            error("::1:80:"),
            AddressError::Unbracketed("::1:80:".into())
        );
        assert_eq!(error("[::1"), AddressError::Unbracketed("[::1".into()));
        assert_eq!(
            error("300.0.0.1:80"),
            AddressError::BadHost("300.0.0.1".into())
        );
        assert_eq!(error("a b:80"), AddressError::BadHost("a b".into()));
        assert_eq!(error("unix:"), AddressError::BadPath(String::new()));
        assert!(matches!(
            error(&format!("unix:/{}", "a".repeat(107))),
            AddressError::BadPath(_)
        ));
    }

    #[test]
    fn says_what_to_write_instead() {
        let said = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        for url in ["http://127.0.0.1:8080", "tcp://db:80", "http://db/"] {
            let want = format!("`{url}` is a URL: write host:port, without a scheme");
            assert_eq!(said(url), want);
        }
        for host in ["[::1]", "localhost", "localhost:", "[::1]:"] {
            let want = format!("`{host}` has no port: write host:port, [IPv6]:port or unix:/path");
            assert_eq!(said(host), want);
        }
        for port in [":8080", "*:8080", "8080"] {
            let want =
                format!("`{port}` has no host: write 0.0.0.0:8080 or [::]:8080 for every address");
            assert_eq!(said(port), want);
        }
        assert_eq!(
            said("[fe80::1%eth0]:80"),
            "`[fe80::1%eth0]:80`: a zone can't be given by name, \
             write its number as in [fe80::1%2]:80"
        );
        for (text, path) in [("UNIX:/a", "/a"), ("/a", "/a"), ("./a:b", "./a:b")] {
            let want = format!("invalid address `{text}`, did you mean `unix:{path}`?");
            assert_eq!(said(text), want);
        }
        let port = |text: &str| format!("invalid port `{text}`: expected 0 to 65535");
        assert_eq!(said("127.0.0.1:+80"), port("+80"));
        assert_eq!(said("db:+80"), port("+80"));
        assert_eq!(said(":-1"), port("-1"));
        assert_eq!(
            said("tcp:127.0.0.1:80"),
            "invalid host `tcp:127.0.0.1`: expected an IP address or a host name"
        );
        assert_eq!(
            said("fe80::1%eth0:80"),
            "`fe80::1%eth0:80` looks like IPv6: write it as [address]:port"
        );
    }

    #[test]
    fn addresses_that_no_server_can_have() {
        let kind = |text: &str| kind_of_no_server(&text.parse().unwrap());
        for (text, want) in [
            ("0.0.0.0:1", "the unspecified address"),
            ("[::]:1", "the unspecified address"),
            ("[::ffff:0.0.0.0]:1", "the unspecified address"),
            ("224.0.0.1:1", "a multicast address"),
            ("[ff02::1%2]:1", "a multicast address"),
            ("255.255.255.255:1", "the broadcast address"),
            ("[fe80::1]:1", "a link-local address without a zone"),
        ] {
            assert_eq!(kind(text), Some(want), "{text}");
        }
        for text in [
            "127.0.0.1:1",
            "0.0.0.1:1",
            "240.0.0.1:1",
            "[::1]:1",
            "[fe80::1%2]:1",
        ] {
            assert_eq!(kind(text), None, "{text}");
        }
    }

    #[test]
    fn zones_are_numbers() {
        let Ok(Address::Tcp(SocketAddr::V6(address))) = "[fe80::1%2]:80".parse() else {
            panic!("no IPv6 address");
        };
        assert_eq!(address.scope_id(), 2);
    }

    #[test]
    fn overlaps_are_those_of_the_kernel() {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let hosts = [
            "0.0.0.0",
            "127.0.0.1",
            "127.0.0.2",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ];
        let mut addresses = hosts.map(|host| format!("{host}:{port}")).to_vec();
        // A machine may be without IPv6.
        addresses.retain(|address| TcpListener::bind(address).is_ok());
        for first in &addresses {
            let _first = TcpListener::bind(first).unwrap();
            for second in &addresses {
                let refused = TcpListener::bind(second).is_err();
                let [one, two]: [Address; 2] = [first, second].map(|text| text.parse().unwrap());
                assert_eq!(one.overlap(&two).is_some(), refused, "{first} {second}");
            }
        }
    }

    #[test]
    fn the_wider_address_includes_the_other() {
        let read = |text: &str| text.parse::<Address>().unwrap();
        let (any, one) = (read("[::]:80"), read("127.0.0.1:80"));
        assert_eq!(any.overlap(&one), Some((&any, &one)));
        assert_eq!(one.overlap(&any), Some((&any, &one)));
        assert_eq!(one.overlap(&one), Some((&one, &one)));
        assert_eq!(read("[::]:0").overlap(&read("[::]:0")), None);
        assert_eq!(any.overlap(&read("127.0.0.1:81")), None);
        assert_eq!(
            read("[fe80::1%1]:80").overlap(&read("[fe80::1%2]:80")),
            None
        );
        let path = read("unix:/a");
        assert_eq!(path.overlap(&path), Some((&path, &path)));
        assert_eq!(path.overlap(&read("unix:/b")), None);
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["127.0.0.1:80", "[::1]:80", "unix:/run/a.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }
}
