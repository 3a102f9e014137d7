//! The files of TLS, as they are read.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::admin::model::CertificateStatus;
use crate::config::{BackendTls, CertificateFiles, ClientCertificate, Tls, UnknownName, Verify};
use crate::control::health::system_authorities;
use crate::control::remote::{authorities, chain, private_key, unfit};
use crate::sys;
use crate::tls::{ClientSettings, SelectBy, provider};

/// The files of a listener's TLS.
#[derive(Debug)]
pub(super) struct ListenerFiles {
    pub(super) select: SelectBy,
    /// The authorities of clients' certificates, and whether each client needs one.
    pub(super) clients: Option<(RootCertStore, bool)>,
    pub(super) shown: Vec<CertificateStatus>,
}

/// The files of a pool's TLS.
#[derive(Debug)]
pub(super) struct PoolFiles {
    pub(super) settings: ClientSettings,
    pub(super) shown: Vec<CertificateStatus>,
}

/// Reads the files of a listener. May take long.
pub(super) fn of_listener(settings: &Tls) -> Result<ListenerFiles, String> {
    let mut select = SelectBy::default();
    let mut all = Vec::new();
    for (place, files) in settings.certificates.iter().enumerate() {
        let (key, shown) = certified(files)?;
        select.add(shown.names.iter().map(|name| &**name), &key);
        if place == 0 && settings.unknown_name == UnknownName::First {
            select.add_for_others(&key);
        }
        all.push(shown);
    }
    let clients = settings.clients.as_ref().map(|clients| {
        let required = clients.certificate == ClientCertificate::Required;
        Ok::<_, String>((authorities(&clients.ca)?, required))
    });
    Ok(ListenerFiles {
        select,
        clients: clients.transpose()?,
        shown: all,
    })
}

/// Reads the files of a pool. May take long.
pub(super) fn of_pool(settings: &BackendTls) -> Result<PoolFiles, String> {
    let authorities = match &settings.verify {
        Verify::Off => None,
        Verify::Auto | Verify::System => Some(system_authorities()?),
        Verify::File(path) => Some(authorities(path)?),
    };
    let own = settings.certificate.as_ref().map(certified).transpose()?;
    let (certificate, shown) = own.unzip();
    Ok(PoolFiles {
        settings: ClientSettings {
            name: settings.sni.clone(),
            policy: settings.policy.policy(),
            protocols: settings.alpn.clone(),
            authorities,
            certificate,
        },
        shown: shown.into_iter().collect(),
    })
}

/// The settings of a TLS client, with what is in their files. May take long.
pub(in crate::control) fn client_settings(settings: &BackendTls) -> Result<ClientSettings, String> {
    of_pool(settings).map(|files| files.settings)
}

/// A certificate with its key, and what is shown of it.
fn certified(files: &CertificateFiles) -> Result<(Arc<CertifiedKey>, CertificateStatus), String> {
    let chain = chain(&files.certificate)?;
    refuse_public(&files.key)?;
    let key = private_key(&files.key)?;
    let shown = shown(&files.certificate, &chain[0])?;
    let key = CertifiedKey::from_der(chain, key, &provider());
    let key = key.map_err(|error| unfit(&files.key, &error))?;
    Ok((Arc::new(key), shown))
}

/// A key that anybody may read is no secret.
fn refuse_public(key: &Path) -> Result<(), String> {
    match sys::is_open_to_others(key) {
        Ok(false) => Ok(()),
        Ok(true) => Err(unfit(key, &"anybody may read it: run `chmod o= FILE`")),
        Err(error) => Err(unfit(key, &error)),
    }
}

/// The DNS names of a certificate (subjectAltName; RFC 5280, section 4.2.1.6), and its end.
fn shown(path: &Path, certificate: &[u8]) -> Result<CertificateStatus, String> {
    let parsed = X509Certificate::from_der(certificate);
    let (_, parsed) = parsed.map_err(|error| unfit(path, &error))?;
    let names = parsed.subject_alternative_name();
    let names = names.map_err(|error| unfit(path, &error))?;
    let names = names.into_iter().flat_map(|its| &its.value.general_names);
    let dns = names.filter_map(|name| {
        let GeneralName::DNSName(name) = name else {
            return None;
        };
        Some((*name).to_owned())
    });
    Ok(CertificateStatus {
        file: path.display().to_string(),
        names: dns.collect(),
        expires: parsed.validity().not_after.timestamp(),
    })
}
