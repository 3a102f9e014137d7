//! What probes send and expect.

use std::ops::RangeInclusive;
use std::path::Path;

use regex::bytes::{Regex, RegexBuilder};
use rustls::pki_types::DnsName;

use super::{ValueError, is_file, named};
use crate::config::table::words;
use crate::config::{Verify, foreign};

words! {
    /// What a check does, by name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::config) enum CheckType {
        Off = "off",
        Tcp = "tcp",
        SendExpect = "send_expect",
        Http = "http",
        Tls = "tls",
    }
}

/// Reads what a check does.
pub(in crate::config) fn check_type(name: &str) -> Result<CheckType, ValueError> {
    if PROCESSES.contains(&name) {
        return Err(ValueError::Refused(format!(
            "`{name}` would start a process, and none is started after the start: \
             use `tcp`, `send_expect`, `http` or `tls`"
        )));
    }
    let kind = named("check", name, &CheckType::ALL);
    kind.map_err(|error| error.meaning(foreign::check(name)))
}

/// Compiles what an answer must match, with the bound that holds for configurations.
///
/// # Errors
/// It is no regular expression of the crate `regex`, or takes more than 1 MiB once compiled.
pub fn expect_regex(pattern: &str) -> Result<Regex, ValueError> {
    // An answer is bytes: `.` is one of them, and letters are those of ASCII.
    let compiled = RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(REGEX_BYTES_MAX)
        .build();
    compiled.map_err(|error| {
        let why = if let regex::Error::CompiledTooBig(_) = error {
            "it takes more than 1 MiB once compiled".to_owned()
        } else {
            // The expression stands above it, with a caret of its own.
            let said = error.to_string();
            let last = said.lines().last().unwrap_or_default();
            last.trim().trim_start_matches("error: ").to_owned()
        };
        ValueError::Refused(format!("invalid regular expression `{pattern}`: {why}"))
    })
}

/// Reads the method of a request, a token (RFC 9110, section 9.1).
pub(in crate::config) fn http_method(text: &str) -> Option<String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(is_token);
    fits.then(|| text.to_owned())
}

/// Reads the path and query of a request (RFC 9112, section 3.2.1).
pub(in crate::config) fn http_path(text: &str) -> Option<String> {
    let fits = text.starts_with('/') && text.len() <= 2048;
    (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

/// Reads the `Host` field of a request (RFC 9110, section 7.2).
pub(in crate::config) fn http_host(text: &str) -> Option<String> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]".contains(&b);
    let fits = (1..=261).contains(&text.len()) && text.bytes().all(is_part);
    fits.then(|| text.to_owned())
}

/// Reads status codes (RFC 9110, section 15), `200-399` or one alone. The range may be empty.
pub(in crate::config) fn status(text: &str) -> Option<RangeInclusive<u16>> {
    let code = |part: &str| {
        let is_code = part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit());
        let code = part.parse().ok().filter(|_| is_code);
        code.filter(|code| (100..=599).contains(code))
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Some(code(from)?..=code(to)?)
}

/// Reads the server name that TLS asks for: a DNS name (RFC 6066, section 3).
pub(in crate::config) fn server_name(text: &str) -> Option<String> {
    let is_name = DnsName::try_from(text).is_ok();
    is_name.then(|| text.to_owned())
}

/// Reads a protocol that TLS offers (RFC 7301, section 3.1).
pub(in crate::config) fn alpn(text: &str) -> Option<String> {
    let fits = (1..=255).contains(&text.len());
    fits.then(|| text.to_owned())
}

/// Reads by what a certificate is verified: `off`, `system` or a file.
pub(crate) fn verify(text: &str) -> Option<Verify> {
    match text {
        "auto" => Some(Verify::Auto),
        "off" => Some(Verify::Off),
        "system" => Some(Verify::System),
        // What others call it, rather than a file that is not there.
        "none" | "no" | "false" | "optional" | "required" | "on" | "yes" | "true" => None,
        path => is_file(Path::new(path)).then(|| Verify::File(path.into())),
    }
}

/// What other balancers call a check by a program of the operator's.
const PROCESSES: [&str; 4] = ["command", "exec", "script", "external"];

const REGEX_BYTES_MAX: usize = 1 << 20;
