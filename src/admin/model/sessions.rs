//! Sessions that are open.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::session::SessionState;
use crate::tls::ClientIdentity;

/// A session that is open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionStatus {
    /// Worker and number, as in the access log: `0-17`.
    pub id: String,
    /// Its listener.
    pub listener: String,
    /// Its pool.
    pub pool: String,
    /// Its backend, once one was selected.
    pub backend: Option<String>,
    /// The client's address and port; none over a Unix socket.
    pub client: Option<String>,
    /// The proxy that named the client by a header: its address and port, or `unix`.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Whom a certificate says that the client is, where it has shown one (`clients` of `tls`).
    #[serde(default)]
    pub tls_client: Option<TlsClientStatus>,
    /// How far it has come.
    pub state: SessionState,
    /// Since it was accepted, in seconds.
    pub age_s: f64,
    /// Since the last byte, in seconds.
    pub idle_s: f64,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
}

/// Whom the certificate of a client, which was verified, says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsClientStatus {
    /// The subject (RFC 4514), cut at 256 bytes.
    pub subject: String,
    /// The first common name in it.
    pub common_name: Option<String>,
    /// The alternative names, such as `DNS:a.example`; of many the first 32.
    pub names: Vec<String>,
    /// The serial number, in hexadecimal digits.
    pub serial: String,
    /// The SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
}

impl From<&ClientIdentity> for TlsClientStatus {
    fn from(identity: &ClientIdentity) -> Self {
        Self {
            subject: identity.subject.to_string(),
            common_name: identity.common_name.as_deref().map(str::to_owned),
            names: identity.names.iter().map(|its| its.to_string()).collect(),
            serial: identity.serial.to_string(),
            fingerprint: identity.fingerprint.to_string(),
        }
    }
}
