//! Names of cipher suites.

use rustls::CipherSuite;

/// The name of a suite at IANA.
pub(super) fn iana_name(suite: CipherSuite) -> Option<&'static str> {
    let name = suite.as_str()?;
    let known = SUITES.iter().find(|known| known.0 == name);
    Some(known.map_or(name, |known| known.1))
}

/// The name at OpenSSL of a suite with this name at IANA, as servers know it.
pub(crate) fn openssl_name(iana: &'static str) -> &'static str {
    let known = SUITES.iter().find(|known| known.1 == iana);
    known.map_or(iana, |known| known.2)
}

/// The suites that are spoken: their names at rustls, at IANA, and at OpenSSL.
const SUITES: [(&str, &str, &str); 9] = [
    (
        "TLS13_AES_128_GCM_SHA256",
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_128_GCM_SHA256",
    ),
    (
        "TLS13_AES_256_GCM_SHA384",
        "TLS_AES_256_GCM_SHA384",
        "TLS_AES_256_GCM_SHA384",
    ),
    (
        "TLS13_CHACHA20_POLY1305_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::provider;

    #[test]
    fn each_suite_that_is_spoken_has_its_names() {
        let suites = provider().cipher_suites;
        assert_eq!(suites.len(), SUITES.len());
        for suite in suites {
            let iana = iana_name(suite.suite()).unwrap();
            assert!(iana.starts_with("TLS_"), "{iana}");
            let openssl = openssl_name(iana);
            let is_same = iana == openssl;
            assert_eq!(is_same, suite.tls13().is_some(), "{openssl}");
        }
    }
}
