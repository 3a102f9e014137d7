//! Keys: the property of a client that selects its backend, and how it is written.

use std::fmt;
use std::str::FromStr;

use super::values::{self, ValueError};
use crate::peek::Field;
use crate::peek::proxy_protocol::TlvName;

/// The property of a client that selects its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Its address, or its network with these prefix lengths.
    SourceIp {
        /// For IPv4, 0 to 32.
        v4: u8,
        /// For IPv6, 0 to 128.
        v6: u8,
    },
    /// Its address and port: each connection has its own key.
    SourceIpPort,
    /// A field in its first bytes.
    Peeked(Field),
}

impl Key {
    /// Every name with its default settings; a cookie has none, because its name must be given.
    #[must_use]
    pub fn all() -> [(&'static str, Self); 14] {
        [
            ("source_ip", Self::default()),
            ("source_ip_port", Self::SourceIpPort),
            ("sni", Self::Peeked(Field::Sni)),
            ("tls_session_id", Self::Peeked(Field::TlsSessionId)),
            ("http_path", Self::Peeked(Field::HttpPath)),
            ("http_host", Self::Peeked(Field::HttpHost)),
            (
                "http_cookie",
                Self::Peeked(Field::HttpCookie(String::new())),
            ),
            ("rdp_cookie", Self::Peeked(Field::RdpCookie)),
            ("mqtt_client_id", Self::Peeked(Field::MqttClientId)),
            ("postgres_user", Self::Peeked(Field::PostgresUser)),
            ("postgres_database", Self::Peeked(Field::PostgresDatabase)),
            (
                "proxy_tlv",
                Self::Peeked(Field::ProxyTlv(TlvName::AUTHORITY)),
            ),
            ("tls_client_cn", Self::Peeked(Field::TlsClientCn)),
            (
                "tls_client_fingerprint",
                Self::Peeked(Field::TlsClientFingerprint),
            ),
        ]
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SourceIp { .. } => "source_ip",
            Self::SourceIpPort => "source_ip_port",
            Self::Peeked(Field::Sni) => "sni",
            Self::Peeked(Field::TlsSessionId) => "tls_session_id",
            Self::Peeked(Field::HttpPath) => "http_path",
            Self::Peeked(Field::HttpHost) => "http_host",
            Self::Peeked(Field::HttpCookie(_)) => "http_cookie",
            Self::Peeked(Field::RdpCookie) => "rdp_cookie",
            Self::Peeked(Field::MqttClientId) => "mqtt_client_id",
            Self::Peeked(Field::PostgresUser) => "postgres_user",
            Self::Peeked(Field::PostgresDatabase) => "postgres_database",
            Self::Peeked(Field::ProxyTlv(_)) => "proxy_tlv",
            Self::Peeked(Field::TlsClientCn) => "tls_client_cn",
            Self::Peeked(Field::TlsClientFingerprint) => "tls_client_fingerprint",
        }
    }

    /// How it is written.
    fn form(&self) -> &'static str {
        if let Self::SourceIp { .. } = self {
            "source_ip or source_ip(24, 56), the prefix lengths of IPv4 and IPv6"
        } else if let Self::Peeked(Field::HttpCookie(_)) = self {
            "http_cookie(NAME), a name of up to 128 letters, digits and !#$%&'*+-.^_`|~"
        } else if let Self::Peeked(Field::ProxyTlv(_)) = self {
            "proxy_tlv(NAME): alpn, authority, unique_id, netns, ssl_version, ssl_cn, ssl_cipher, \
             ssl_sig_alg, ssl_key_alg or a number such as 0xE0"
        } else {
            self.name()
        }
    }

    /// The key with the settings in its parentheses.
    fn with(&self, settings: &str) -> Option<Self> {
        if let Self::SourceIp { .. } = self {
            let (v4, v6) = settings.split_once(',')?;
            Some(Self::SourceIp {
                v4: prefix_bits(v4, 32)?,
                v6: prefix_bits(v6, 128)?,
            })
        } else if let Self::Peeked(Field::HttpCookie(_)) = self {
            let name = cookie_name(settings)?.to_owned();
            Some(Self::Peeked(Field::HttpCookie(name)))
        } else if let Self::Peeked(Field::ProxyTlv(_)) = self {
            let name = settings.trim_matches(' ').parse().ok()?;
            Some(Self::Peeked(Field::ProxyTlv(name)))
        } else {
            None
        }
    }
}

impl Default for Key {
    fn default() -> Self {
        // One household or host of IPv6 has a /64 of its own (RFC 6177).
        Self::SourceIp { v4: 32, v6: 64 }
    }
}

impl FromStr for Key {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (name, settings) = match text.split_once('(') {
            Some((name, settings)) => (name, Some(settings)),
            None => (text, None),
        };
        let plain = values::named("key", name, &Self::all())?;
        let form = match settings {
            Some(settings) if quotes_singly(settings) => {
                "http_cookie(NAME): the single quotes would be part of the name"
            }
            _ => plain.form(),
        };
        let key = match settings {
            Some(settings) => settings.strip_suffix(')').and_then(|text| plain.with(text)),
            None if matches!(
                plain,
                Self::Peeked(Field::HttpCookie(_) | Field::ProxyTlv(_))
            ) =>
            {
                None
            }
            None => Some(plain),
        };
        key.ok_or_else(|| ValueError::Refused(format!("invalid key `{text}`: expected {form}")))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Self::Peeked(Field::HttpCookie(name)) = self {
            write!(f, "({name})")
        } else if let Self::Peeked(Field::ProxyTlv(name)) = self {
            write!(f, "({name})")
        } else if let Self::SourceIp { v4, v6 } = self
            && *self != Self::default()
        {
            write!(f, "({v4}, {v6})")
        } else {
            Ok(())
        }
    }
}

fn prefix_bits(text: &str, max: u8) -> Option<u8> {
    let digits = text.trim_matches(' ');
    let is_digits = digits.bytes().all(|b| b.is_ascii_digit());
    let bits = digits.parse().ok().filter(|_| is_digits)?;
    (bits <= max).then_some(bits)
}

/// The name of a cookie, a token (RFC 6265, section 4.1.1; RFC 9110, section 5.6.2), which may
/// stand in quotes.
fn cookie_name(text: &str) -> Option<&str> {
    let text = text.trim_matches(' ');
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let name = quoted.unwrap_or(text);
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let fits = (1..=COOKIE_NAME_BYTES_MAX).contains(&name.len());
    let right = fits && name.bytes().all(is_token) && !quotes_singly(name);
    right.then_some(name)
}

/// Whether the name of a cookie is in single quotes, with or without the closing bracket. A token
/// may contain single quotes, but a user who puts them around a name means the name alone.
fn quotes_singly(text: &str) -> bool {
    let text = text.trim_end_matches(')').trim_matches(' ');
    text.len() > 1 && text.starts_with('\'') && text.ends_with('\'')
}

/// The longest name of a cookie.
const COOKIE_NAME_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(name: &str) -> Key {
        Key::Peeked(Field::HttpCookie(name.to_owned()))
    }

    fn tlv(name: &str) -> Key {
        Key::Peeked(Field::ProxyTlv(name.parse().unwrap()))
    }

    #[test]
    fn what_is_shown_is_read() {
        let keys = Key::all().map(|(_, key)| key);
        let plain = keys.into_iter().filter(|key| *key != cookie(""));
        let more = [
            Key::SourceIp { v4: 0, v6: 0 },
            Key::SourceIp { v4: 32, v6: 128 },
            cookie("SESSION"),
            cookie("__Host-!#$%&'*+-.^_`|~9"),
            cookie(&"a".repeat(128)),
            tlv("0xE0"),
            tlv("ssl_cn"),
        ];
        for key in plain.chain(more) {
            assert_eq!(key.to_string().parse(), Ok(key.clone()), "{key}");
            assert!(key.to_string().starts_with(key.name()));
        }
        for (name, key) in Key::all() {
            assert_eq!(name, key.name());
        }
    }

    #[test]
    fn keys_are_short_where_nothing_is_said() {
        assert_eq!("source_ip".parse(), Ok(Key::SourceIp { v4: 32, v6: 64 }));
        let shown = |text: &str| text.parse::<Key>().map(|key| key.to_string());
        for (text, want) in [
            ("source_ip(32, 64)", "source_ip"),
            ("source_ip( 24,56 )", "source_ip(24, 56)"),
            ("http_cookie(\"SESSION\")", "http_cookie(SESSION)"),
            ("http_cookie( a )", "http_cookie(a)"),
            ("sni", "sni"),
            ("proxy_tlv( authority )", "proxy_tlv(authority)"),
            ("proxy_tlv(0xe1)", "proxy_tlv(0xE1)"),
        ] {
            assert_eq!(shown(text), Ok(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_none() {
        let error = |text: &str| text.parse::<Key>().unwrap_err().to_string();
        assert_eq!(
            error("sourceip(24, 56)"),
            "invalid key `sourceip`, did you mean `source_ip`?"
        );
        assert_eq!(
            error("x"),
            "invalid key `x`: expected `source_ip`, `source_ip_port`, `sni`, \
             `tls_session_id`, `http_path`, `http_host`, `http_cookie`, `rdp_cookie`, \
             `mqtt_client_id`, `postgres_user`, `postgres_database`, `proxy_tlv`, \
             `tls_client_cn` or `tls_client_fingerprint`"
        );
        assert_eq!(error("sni(a)"), "invalid key `sni(a)`: expected sni");
        for bad in ["http_cookie('a')", "http_cookie( 'a' )", "http_cookie('a'"] {
            let want = format!(
                "invalid key `{bad}`: expected http_cookie(NAME): the single quotes would be \
                 part of the name"
            );
            assert_eq!(error(bad), want);
        }
        assert!("http_cookie('a)".parse::<Key>().is_ok());
        for bad in [
            "",
            "24",
            "24,",
            "33, 56",
            "24, 129",
            "+4, 56",
            "24, 56, 1",
            "24, 256",
        ] {
            let want = format!(
                "invalid key `source_ip({bad})`: expected source_ip or source_ip(24, 56), \
                 the prefix lengths of IPv4 and IPv6"
            );
            assert_eq!(error(&format!("source_ip({bad})")), want);
        }
        let long = format!("({})", "a".repeat(129));
        for bad in [
            "", "()", "(a b)", "(a=b)", "(\"\")", "(\"a)", "(é)", "(a", "(a))", &long,
        ] {
            let want = format!(
                "invalid key `http_cookie{bad}`: expected http_cookie(NAME), \
                 a name of up to 128 letters, digits and !#$%&'*+-.^_`|~"
            );
            assert_eq!(error(&format!("http_cookie{bad}")), want);
        }
    }
}
