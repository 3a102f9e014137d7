//! The files of TLS, as they are read.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::admin::model::CertificateStatus;
use crate::config::{
    BackendTls, CertificateFiles, CheckTls, ClientCertificate, Config, Tls, UnknownName, Verify,
};
use crate::control::health::system_authorities;
use crate::control::remote::{authorities, chain, pair_fault, private_key, unfit, unreadable};
use crate::sys;
use crate::tls::{ClientSettings, ClientTrust, SelectBy, provider};

use super::expiry;

/// The files of a listener's TLS.
#[derive(Debug)]
pub(super) struct ListenerFiles {
    pub(super) select: SelectBy,
    pub(super) clients: Option<ClientTrust>,
    pub(super) shown: Vec<CertificateStatus>,
}

/// The files of a pool's TLS.
#[derive(Debug)]
pub(super) struct PoolFiles {
    pub(super) settings: ClientSettings,
    pub(super) shown: Vec<CertificateStatus>,
}

/// A file that can't be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    /// The setting that names it, such as `certificates[0].key`; empty: all of them together.
    pub(super) setting: String,
    /// Its name, and what is wrong with it.
    pub(super) why: String,
}

impl Unfit {
    fn of(setting: &str) -> impl Fn(String) -> Self {
        let setting = setting.to_owned();
        move |why| Self {
            setting: setting.clone(),
            why,
        }
    }

    /// Each file is right, and all of them are not.
    pub(super) fn together(error: &rustls::Error) -> Self {
        let setting = String::new();
        let why = format!("its files can't be used together: {error}");
        Self { setting, why }
    }

    fn within(self, group: &str) -> Self {
        let setting = format!("{group}.{}", self.setting);
        Self { setting, ..self }
    }
}

/// Reads the files of a listener. May take long.
pub(super) fn of_listener(settings: &Tls) -> Result<ListenerFiles, Unfit> {
    let mut select = SelectBy::default();
    let mut all = Vec::new();
    for (place, files) in settings.certificates.iter().enumerate() {
        let read = pair(files).map_err(|its| its.within(&format!("certificates[{place}]")));
        let (key, shown) = read?;
        select.add(shown.names.iter().map(|name| &**name), &key);
        if place == 0 && settings.unknown_name == UnknownName::First {
            select.add_for_others(&key);
        }
        all.push(shown);
    }
    let clients = settings.clients.as_ref().map(|clients| {
        let authorities = authorities(&clients.ca).map_err(Unfit::of("clients.ca"));
        Ok::<_, Unfit>(ClientTrust {
            authorities: authorities?,
            required: clients.certificate == ClientCertificate::Required,
        })
    });
    Ok(ListenerFiles {
        select,
        clients: clients.transpose()?,
        shown: all,
    })
}

/// Reads the files of a pool. May take long.
pub(super) fn of_pool(settings: &BackendTls) -> Result<PoolFiles, Unfit> {
    let authorities = match &settings.verify {
        Verify::Off => Ok(None),
        Verify::Auto | Verify::System => system_authorities().map(Some),
        Verify::File(path) => authorities(path).map(Some),
    };
    let own = settings.certificate.as_ref().map(pair).transpose();
    let own = own.map_err(|its| its.within("certificate"))?;
    let (certificate, shown) = own.unzip();
    Ok(PoolFiles {
        settings: ClientSettings {
            name: settings.sni.clone(),
            policy: settings.policy.policy(),
            protocols: settings.alpn.clone(),
            authorities: authorities.map_err(Unfit::of("verify"))?,
            certificate,
        },
        shown: shown.into_iter().collect(),
    })
}

/// The settings of a TLS client, with what is in their files. May take long.
pub(in crate::control) fn client_settings(settings: &BackendTls) -> Result<ClientSettings, String> {
    let files = of_pool(settings).map_err(|its| its.why)?;
    Ok(files.settings)
}

/// A certificate with its key, and what is shown of it.
fn pair(files: &CertificateFiles) -> Result<(Arc<CertifiedKey>, CertificateStatus), Unfit> {
    let CertificateFiles { certificate, key } = files;
    let (of_certificate, of_key) = (Unfit::of("certificate"), Unfit::of("key"));
    let chain = chain(certificate).map_err(&of_certificate)?;
    let shown = shown(certificate, &chain[0]).map_err(&of_certificate)?;
    refuse_public(key).map_err(&of_key)?;
    let private = private_key(key).map_err(&of_key)?;
    let made = CertifiedKey::from_der(chain, private, &provider());
    let made = made.map_err(|error| {
        let fault = pair_fault(certificate, key, &error);
        let at_fault = if fault.is_key { of_key } else { of_certificate };
        at_fault(fault.to_string())
    })?;
    Ok((Arc::new(made), shown))
}

/// A key that anybody may read is no secret.
fn refuse_public(key: &Path) -> Result<(), String> {
    match sys::is_open_to_others(key) {
        Ok(false) => Ok(()),
        Ok(true) => {
            let remedy = format!("anybody may read it: run `chmod o= {}`", key.display());
            Err(unfit(key, &remedy))
        }
        Err(error) => Err(unreadable(key, &error)),
    }
}

/// The certificates of a configuration that have expired, each with the setting that names it. May
/// take long.
pub(in crate::control) fn expired(config: &Config) -> Vec<(String, String)> {
    let listeners = config.listeners.iter().enumerate();
    let listeners = listeners.flat_map(|(i, listener)| {
        let all = listener.tls.iter().flat_map(|tls| &tls.certificates);
        let all = all.enumerate();
        all.map(move |(j, its)| (format!("listeners[{i}].tls.certificates[{j}]"), its))
    });
    let pools = config.pools.iter().enumerate();
    let pools = pools.flat_map(|(i, pool)| {
        let own = pool.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        let check = pool.check.as_ref().and_then(|check| match &check.tls {
            CheckTls::Own(tls) => tls.certificate.as_ref(),
            CheckTls::Auto | CheckTls::Plain | CheckTls::On => None,
        });
        let own = own.map(|its| (format!("pools[{i}].tls.certificate"), its));
        let check = check.map(|its| (format!("pools[{i}].check.tls.certificate"), its));
        own.into_iter().chain(check)
    });
    let found = listeners.chain(pools).filter_map(|(group, files)| {
        let chain = chain(&files.certificate).ok()?;
        let shown = shown(&files.certificate, chain.first()?).ok()?;
        let sentence = expiry::expired(&[shown], SystemTime::now()).next()?;
        Some((format!("{group}.certificate"), sentence))
    });
    found.collect()
}

/// The DNS names of a certificate (subjectAltName; RFC 5280, section 4.2.1.6), and its end.
fn shown(path: &Path, certificate: &[u8]) -> Result<CertificateStatus, String> {
    let parsed = X509Certificate::from_der(certificate);
    let (_, parsed) = parsed.map_err(|_| unfit(path, &"its certificate can't be read"))?;
    if parsed.version() != X509Version::V3 {
        let why = format!(
            "its certificate is of X.509 version {}, which has no names: expected version 3",
            u64::from(parsed.version().0) + 1
        );
        return Err(unfit(path, &why));
    }
    let names = parsed.subject_alternative_name();
    let names = names.map_err(|_| unfit(path, &"its names (subjectAltName) can't be read"))?;
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

#[cfg(test)]
mod tests;
