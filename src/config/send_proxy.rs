//! What servers are told of clients: a header of the PROXY protocol before a connection's bytes.

use serde_json::json;

use super::codec::{Codec, Leaf, group_or_off, list, named, required, truth};
use super::foreign;
use super::reader::{At, Reader};
use super::table::{self, Shape, settings, words};
use super::text::Text;
use super::{Backend, Check, Pool, ProxyHeader};
use crate::peek::proxy_protocol::HeaderVersion;

settings! {
    /// The PROXY header that connections to backends begin with. It tells a server the address of
    /// its client.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SendProxy: Shape {
        /// The version of the protocol: "v1" is a line of text, "v2" is binary.
        pub version: HeaderVersion = HeaderVersion::V2 => required(version());
        /// What a header of "v2" says beside addresses: "authority" and "alpn" as in the TLS hello,
        /// "ssl", what TLS that ends here has agreed on and whom the client's certificate names,
        /// "unique_id", the id that the access log has, and "crc32c", a checksum.
        pub tlvs: Vec<HeaderPart> = Vec::new() => list(part());
        /// Whether a header of "v2" passes on what the client's own header says, where proxies send
        /// one.
        pub relay: bool = false => truth();
    }
}

impl Shape for SendProxy {
    const SHORT: Option<&'static str> = Some("version");

    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let says_more = [("tlvs", !self.tlvs.is_empty()), ("relay", self.relay)];
        for (name, _) in says_more.into_iter().filter(|(_, is_given)| *is_given) {
            if self.version == HeaderVersion::V1 {
                reader.wrong(
                    at,
                    name,
                    "a header of \"v1\" has addresses only: use \"v2\"",
                );
            }
        }
    }
}

/// The header of connections to one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BackendHeader {
    /// That of its pool.
    #[default]
    OfPool,
    /// None.
    Off,
    /// Its own.
    Own(SendProxy),
}

impl Pool {
    /// The header that connections to one of its backends begin with.
    #[must_use]
    pub fn header_to<'a>(&'a self, backend: &'a Backend) -> Option<&'a SendProxy> {
        match &backend.send_proxy {
            BackendHeader::OfPool => self.send_proxy.as_ref(),
            BackendHeader::Off => None,
            BackendHeader::Own(header) => Some(header),
        }
    }

    /// Whether backends are told what a client's TLS hello says.
    #[must_use]
    pub fn tells_hello(&self) -> bool {
        let own = self.backends.iter().map(|backend| self.header_to(backend));
        let mut all = own.chain([self.send_proxy.as_ref()]).flatten();
        all.any(SendProxy::reads_hello)
    }

    /// The header that probes of one of its backends begin with. A port of the check's own is that
    /// of another server, which may expect none.
    #[must_use]
    pub fn probe_header(&self, backend: &Backend, check: &Check) -> Option<HeaderVersion> {
        match check.proxy_header {
            ProxyHeader::Auto if check.port.is_some() => None,
            ProxyHeader::Auto => self.header_to(backend).map(|header| header.version),
            ProxyHeader::Off => None,
            ProxyHeader::V1 => Some(HeaderVersion::V1),
            ProxyHeader::V2 => Some(HeaderVersion::V2),
        }
    }
}

fn version() -> Leaf<HeaderVersion> {
    named("version", &VERSIONS).meaning(foreign::proxy_header)
}

fn part() -> Leaf<HeaderPart> {
    named("TLV", &HeaderPart::ALL).meaning(foreign::header_part)
}

/// A header, none, or that of the pool.
pub(super) fn backend_header() -> Codec<BackendHeader> {
    let own = group_or_off::<SendProxy>(SEND_PROXY);
    let writer = group_or_off::<SendProxy>(SEND_PROXY);
    Codec::new(
        format!("\"pool\", {SEND_PROXY}"),
        json!({ "anyOf": [{ "const": "pool" }, { "const": "off" }, table::schema::<SendProxy>()] }),
        move |at, reader, _| {
            if at.text() == Some("pool") {
                return Some(BackendHeader::OfPool);
            }
            let own = own.read(at, reader, &None)?;
            Some(own.map_or(BackendHeader::Off, BackendHeader::Own))
        },
        move |value, _, around| match value {
            BackendHeader::OfPool => Text::quoted("pool"),
            BackendHeader::Off => Text::quoted("off"),
            BackendHeader::Own(header) => writer.write(&Some(header.clone()), &None, around),
        },
    )
    .of::<SendProxy>()
}

impl SendProxy {
    /// Whether it says something.
    #[must_use]
    pub fn says(&self, part: HeaderPart) -> bool {
        self.tlvs.contains(&part)
    }

    /// Whether it says something of a client's TLS hello, for which a connection waits.
    #[must_use]
    pub fn reads_hello(&self) -> bool {
        self.says(HeaderPart::Authority) || self.says(HeaderPart::Alpn)
    }
}

words! {
    /// What a header says beside addresses.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum HeaderPart {
        /// The host that the client asks for in its TLS hello.
        Authority = "authority",
        /// The one protocol that its hello offers.
        Alpn = "alpn",
        /// The TLS that ends here, and the common name in the client's certificate.
        Ssl = "ssl",
        /// The session's id.
        UniqueId = "unique_id",
        /// A checksum of the header.
        Crc32c = "crc32c",
    }
}

/// The expected values, in words.
pub(super) const SEND_PROXY: &str =
    "\"off\", \"v1\", \"v2\" or a group such as (version: \"v2\", tlvs: [\"unique_id\"])";
/// The versions by their names.
const VERSIONS: [(&str, HeaderVersion); 2] = {
    let [v1, v2] = [HeaderVersion::V1, HeaderVersion::V2];
    [(v1.as_str(), v1), (v2.as_str(), v2)]
};

#[cfg(test)]
mod tests {
    use super::*;
    use HeaderVersion::{V1, V2};

    fn header(version: HeaderVersion) -> SendProxy {
        SendProxy {
            version,
            tlvs: Vec::new(),
            relay: false,
        }
    }

    #[test]
    fn a_backend_may_have_a_header_of_its_own() {
        let backend = Backend::at("127.0.0.1:1".parse().unwrap());
        let of = |of_pool: Option<SendProxy>, own: BackendHeader| {
            let backend = Backend {
                send_proxy: own,
                ..backend.clone()
            };
            let mut pool = Pool::of("p", vec![backend]);
            pool.send_proxy = of_pool;
            let header = pool.header_to(&pool.backends[0]);
            header.map(|header| header.version)
        };
        for of_pool in [None, Some(V1), Some(V2)] {
            let pool = of_pool.map(header);
            assert_eq!(of(pool.clone(), BackendHeader::OfPool), of_pool);
            assert_eq!(of(pool.clone(), BackendHeader::Off), None);
            assert_eq!(of(pool, BackendHeader::Own(header(V2))), Some(V2));
        }
    }

    #[test]
    fn a_probe_begins_as_a_session_does_unless_its_check_says_otherwise() {
        let mut pool = Pool::of("p", Vec::new());
        pool.send_proxy = Some(header(V2));
        let backend = Backend::at("127.0.0.1:1".parse().unwrap());
        for (proxy_header, port, expected) in [
            (ProxyHeader::Auto, None, Some(V2)),
            (ProxyHeader::Auto, Some(8080), None),
            (ProxyHeader::Off, None, None),
            (ProxyHeader::V1, Some(8080), Some(V1)),
        ] {
            let check = Check {
                proxy_header,
                port,
                ..Check::default()
            };
            assert_eq!(pool.probe_header(&backend, &check), expected);
        }
    }
}
