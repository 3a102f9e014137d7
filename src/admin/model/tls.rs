//! What is shown of TLS that ends at a listener, or of TLS with a pool's backends.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS that ends at a listener, or that a pool's backends speak.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsStatus {
    /// Its own certificates, in their order.
    pub certificates: Vec<CertificateStatus>,
    /// The lists of revoked certificates that those of peers are looked up in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocation_lists: Vec<RevocationListStatus>,
    /// The answers by OCSP that are stapled to its certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staples: Vec<StapleStatus>,
    /// Whether clients of a listener show certificates: `required`, `optional` or `off`; not of a
    /// pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<String>,
    /// Handshakes since it is there, by version and by whether they began a session or resumed one,
    /// such as `1.3/full` or `1.2/resumed`.
    #[serde(default)]
    pub handshakes: BTreeMap<String, u64>,
    /// Clients, or attempts to reach a backend, whose TLS failed since then, by the kind of
    /// failure.
    #[serde(default)]
    pub failures: BTreeMap<String, u64>,
    /// Why its files could not be read again; what they held before stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A certificate of a listener or a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateStatus {
    /// Its file.
    pub file: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
}

/// A list of the certificates that an authority has revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevocationListStatus {
    /// Its file.
    pub file: String,
    /// The subject of the authority.
    pub issuer: String,
    /// How many certificates are in it.
    pub revoked: usize,
    /// When it expires (`nextUpdate`), in seconds since 1970.
    pub expires: i64,
}

/// The answer of an authority about a certificate (OCSP).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StapleStatus {
    /// Its file.
    pub file: String,
    /// When it expires (`nextUpdate`), in seconds since 1970. It is sent no longer.
    pub expires: i64,
}
