//! What servers are told of clients: a header of the PROXY protocol before a connection's bytes.

use super::codec::{list, named, required};
use super::reader::{At, Reader};
use super::table::{Shape, settings, words};
use crate::peek::proxy_protocol::HeaderVersion;

settings! {
    /// The PROXY header that connections to backends begin with. It tells a server the address of
    /// its client.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SendProxy: Shape {
        /// The version of the protocol: "v1" is a line of text, "v2" is binary.
        pub version: HeaderVersion = HeaderVersion::V2 => required(named("version", &VERSIONS));
        /// What a header of "v2" says beside addresses: "authority" and "alpn" as in the TLS hello,
        /// "unique_id", the id that the access log has, and "crc32c", a checksum.
        pub tlvs: Vec<HeaderPart> = Vec::new() => list(named("TLV", &HeaderPart::ALL));
    }
}

impl Shape for SendProxy {
    const SHORT: Option<&'static str> = Some("version");

    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        if self.version == HeaderVersion::V1 && !self.tlvs.is_empty() {
            reader.wrong(
                at,
                "tlvs",
                "a header of \"v1\" has addresses only: use \"v2\"",
            );
        }
    }
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
const VERSIONS: [(&str, HeaderVersion); 2] = [("v1", HeaderVersion::V1), ("v2", HeaderVersion::V2)];
