//! Certificates that can be used, and that clients or backends are likely to refuse.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::config::{CheckTls, Config, Tls};
use crate::control::remote::chain;

use super::expiry::is_over;
use super::files::{expired, shown};

/// Warnings about the certificates of a configuration, each with the setting that names it. May
/// take long.
pub(in crate::control) fn warnings(config: &Config) -> Vec<(String, String)> {
    let mut found = expired(config);
    let now = SystemTime::now();
    for (i, listener) in config.listeners.iter().enumerate() {
        if let Some(tls) = &listener.tls {
            of_listener(&format!("listeners[{i}].tls"), tls, now, &mut found);
        }
    }
    for (i, pool) in config.pools.iter().enumerate() {
        let own = pool.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        let check = pool.check.as_ref().and_then(|check| match &check.tls {
            CheckTls::Own(tls) => tls.certificate.as_ref(),
            CheckTls::Auto | CheckTls::Plain | CheckTls::On => None,
        });
        for (group, files) in [("tls", own), ("check.tls", check)] {
            let Some(path) = files.map(|files| &files.certificate) else {
                continue;
            };
            // A file that can't be used is an error of its own.
            if let Ok(chain) = chain(path) {
                let at = format!("pools[{i}].{group}.certificate.certificate");
                intermediates(&at, (path, &chain), now, &mut found);
            }
        }
    }
    found
}

fn of_listener(at: &str, tls: &Tls, now: SystemTime, found: &mut Vec<(String, String)>) {
    let mut first = HashMap::<(String, Vec<u8>), PathBuf>::new();
    for (place, files) in tls.certificates.iter().enumerate() {
        let at = format!("{at}.certificates[{place}].certificate");
        let path = &files.certificate;
        let Ok(chain) = chain(path) else {
            continue;
        };
        intermediates(&at, (path, &chain), now, found);
        let Some(parsed) = parsed(&chain[0]) else {
            continue;
        };
        let names = parsed.subject_alternative_name().ok().flatten();
        if names.is_none_or(|names| names.value.general_names.is_empty()) {
            let path = path.display();
            let sentence = format!(
                "the certificate in {path} has no names (subjectAltName): clients refuse it, and \
                 none gets it by the name that it asks for"
            );
            found.push((at.clone(), sentence));
        }
        let kind = kind_of_key(parsed.public_key());
        let names = shown(path, &chain[0]).map(|its| its.names);
        for name in names.unwrap_or_default() {
            let name = name.to_ascii_lowercase();
            let before = first.entry((name.clone(), kind.clone()));
            let before = before.or_insert_with(|| path.to_owned());
            if before != path {
                let sentence = format!(
                    "the certificates in {} and in {} are both for {name}, with the same kind of \
                     key: clients get the first",
                    before.display(),
                    path.display()
                );
                found.push((at.clone(), sentence));
                // One name is enough to say it.
                break;
            }
        }
    }
}

/// Says which certificates between the first one and its authority have expired.
fn intermediates(
    at: &str,
    (path, chain): (&Path, &[CertificateDer<'_>]),
    now: SystemTime,
    found: &mut Vec<(String, String)>,
) {
    for (place, certificate) in chain.iter().enumerate().skip(1) {
        let end = parsed(certificate).map(|its| its.validity().not_after.timestamp());
        if end.is_some_and(|end| is_over(end, now)) {
            let sentence = format!(
                "certificate {} in {}, which is between the first one and its authority, has \
                 expired",
                place + 1,
                path.display()
            );
            found.push((at.to_owned(), sentence));
        }
    }
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let parsed = X509Certificate::from_der(certificate);
    parsed.ok().map(|(_, parsed)| parsed)
}

/// What tells kinds of keys apart: the algorithm, and of ECDSA the curve.
fn kind_of_key(key: &SubjectPublicKeyInfo<'_>) -> Vec<u8> {
    let curve = key.algorithm.parameters.as_ref();
    let curve = curve.map_or(&[][..], |its| its.data);
    [key.algorithm.algorithm.as_bytes(), curve].concat()
}

#[cfg(test)]
mod tests;
