//! The files that servers are reached by: certificates, private keys, passwords, tokens. Reading
//! them may take long, so another thread does.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::config::{Server, bounded};
use crate::control::{remedy, sandbox};
use crate::sys;

/// What connects to endpoints by TLS.
pub(super) fn connector(server: &Server) -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let roots = match &server.ca {
        Some(path) => authorities(path)?,
        None => system()?,
    };
    let builder = builder.with_root_certificates(roots);
    let config = match server.certificate.as_deref().zip(server.key.as_deref()) {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let made = builder.with_client_auth_cert(chain(certificate)?, private_key(key)?);
            made.map_err(|error| pair_fault(certificate, key, &error).to_string())?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The password or the token in a file, without the end of its line.
pub(in crate::control) fn secret(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(contents(path)?).map_err(|_| unfit(path, &"it is not UTF-8"))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(unfit(path, &"it is empty"));
    }
    Ok(secret.to_owned())
}

/// What is wrong with the files that a server is reached by, and with that of a secret, by the name
/// of the setting, if anything. May take long.
pub(in crate::control) fn mistake_in(
    server: &Server,
    secret_file: Option<(&'static str, &Path)>,
) -> Option<(&'static str, String)> {
    let mistakes = server
        .files()
        .map(|(setting, path)| (setting, contents(path).err()));
    let of_secret = secret_file.map(|(setting, path)| (setting, secret(path).err()));
    let mut all = mistakes.chain(of_secret);
    let found = all.find_map(|(setting, why)| Some((setting, why?)));
    let connects = || {
        let why = server.is_secured().then(|| connector(server).err());
        why.flatten().map(|why| ("ca", why))
    };
    let found = found.or_else(connects);
    found.map(|(setting, why)| (setting, bounded(why)))
}

/// What is in a file.
pub(in crate::control) fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let file = sys::open_regular(path).map_err(|error| unreadable(path, &error))?;
    let read = file.take(FILE_MAX + 1).read_to_end(&mut text);
    let length = read.map_err(|error| unreadable(path, &error))?;
    match u64::try_from(length).is_ok_and(|length| length <= FILE_MAX) {
        true => Ok(text),
        false => {
            let why = format!("it is too long: expected at most {} MiB", FILE_MAX >> 20);
            Err(unfit(path, &why))
        }
    }
}

/// The authorities in a PEM file.
pub(in crate::control) fn authorities(path: &Path) -> Result<RootCertStore, String> {
    roots(path, &chain(path)?)
}

/// The authorities in a PEM file that was read.
pub(in crate::control) fn roots(
    path: &Path,
    chain: &[CertificateDer<'static>],
) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (place, certificate) in chain.iter().enumerate() {
        let added = roots.add(certificate.clone());
        added.map_err(|_| {
            let why = format!("certificate {} in it can't be read", place + 1);
            unfit(path, &why)
        })?;
    }
    Ok(roots)
}

fn system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Some of a machine's certificates may be unusable.
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    // One without any is refused only where it is needed.
    if added == 0 {
        log::debug!("this machine trusts no authority");
    }
    Ok(roots)
}

/// The certificates in a PEM file.
pub(in crate::control) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = contents(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| unfit(path, &pem_fault(&error)))?;
    if all.is_empty() {
        return Err(unfit(path, &"it holds no certificate in PEM"));
    }
    Ok(all)
}

/// The private key in a PEM file.
pub(in crate::control) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = contents(path)?;
    let holds = |words: &str| text.windows(words.len()).any(|its| its == words.as_bytes());
    // PKCS #8, and what OpenSSL wrote before it.
    if holds("BEGIN ENCRYPTED PRIVATE KEY") || holds("Proc-Type: 4,ENCRYPTED") {
        let path = path.display();
        return Err(format!(
            "cannot use {path}: the key has a passphrase: write it without one by `openssl pkey \
             -in {path} -out NEW.key`, and keep that file private"
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(&text);
    key.map_err(|error| unfit(path, &pem_fault(&error)))
}

/// What is wrong with PEM.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may add errors, for which there are general words"
)]
pub(in crate::control) fn pem_fault(error: &pem::Error) -> &'static str {
    match error {
        // Of all else there is a list, which is empty then.
        pem::Error::NoItemsFound => "it holds no private key in PEM",
        pem::Error::MissingSectionEnd { .. } => "its PEM is cut off: an END line is missing",
        pem::Error::Base64Decode(_) => "its PEM is damaged: what it holds is no base64",
        _ => "its PEM is damaged",
    }
}

/// Why a certificate and a key can't be used together.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::control) struct PairFault {
    /// The key is at fault, or that both are no pair; else the certificate.
    pub(in crate::control) is_key: bool,
    why: String,
}

impl std::fmt::Display for PairFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// What rustls says of a certificate and a key, in words.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors, which it says about the key"
)]
pub(in crate::control) fn pair_fault(
    certificate: &Path,
    key: &Path,
    error: &rustls::Error,
) -> PairFault {
    let (is_key, why) = match error {
        rustls::Error::InvalidCertificate(_) => {
            let why = "it is no certificate that TLS can use: expected X.509 version 3";
            (false, unfit(certificate, &why))
        }
        rustls::Error::InconsistentKeys(_) => {
            let certificate = certificate.display();
            let why = format!("it is not the key of the certificate in {certificate}");
            (true, unfit(key, &why))
        }
        _ => {
            let why = "it is no key that Mahoraga can use: expected RSA of 2048 to 4096 bits, \
                       ECDSA by P-256 or P-384, or Ed25519";
            (true, unfit(key, &why))
        }
    };
    PairFault { is_key, why }
}

/// Why a file can't be read.
pub(in crate::control) fn unreadable(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return unfit(path, error);
    }
    let user = sandbox::user();
    let who = match &*user {
        "" => "this user".to_owned(),
        user => format!("user `{user}`"),
    };
    let why = format!("{who} may not read it; {}", remedy::of_unreadable());
    unfit(path, &why)
}

/// Why a file is of no use.
pub(in crate::control) fn unfit(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("cannot use {}: {why}", path.display())
}

/// Bytes of a file: more than all authorities of a machine have, or a list of 100,000 revoked
/// certificates.
const FILE_MAX: u64 = 4 << 20;
