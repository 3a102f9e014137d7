//! The files of TLS, as they are read.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::admin::model::{CertificateStatus, RevocationListStatus, StapleStatus};
use crate::config::{
    BackendTls, CheckTls, ClientCertificate, Config, ServedFiles, StartTls, Tls, TlsClients,
    UnknownName, Verify,
};
use crate::control::health::system_authorities;
use crate::control::remote::{chain, pair_fault, private_key, roots, unfit, unreadable};
use crate::sys;
use crate::tls::{
    Authorities, ClientSettings, ClientTrust, SelectBy, Served, ServerTrust, provider,
};

use super::expiry::Shown;
use super::revocation::{self, AuthoritiesIn, RevocationLists};
use super::staple;

/// The files of a listener's TLS.
#[derive(Debug)]
pub(super) struct ListenerFiles {
    pub(super) select: SelectBy,
    pub(super) clients: Option<ClientTrust>,
    pub(super) shown: Shown,
}

/// The files of a pool's TLS.
#[derive(Debug)]
pub(super) struct PoolFiles {
    pub(super) settings: ClientSettings,
    pub(super) shown: Shown,
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
    let (mut all, mut staples) = (Vec::new(), Vec::new());
    for (place, files) in settings.certificates.iter().enumerate() {
        let read = served(files).map_err(|its| its.within(&format!("certificates[{place}]")));
        let (key, shown, staple) = read?;
        staples.extend(staple);
        select.add(shown.names.iter().map(|name| &**name), &key);
        if place == 0 && settings.unknown_name == UnknownName::First {
            select.add_for_others(&key);
        }
        all.push(shown);
    }
    let clients = settings.clients.as_ref().map(clients).transpose();
    let (clients, revocation_lists) = clients.map_err(|its| its.within("clients"))?.unzip();
    Ok(ListenerFiles {
        select,
        clients,
        shown: Shown {
            certificates: all,
            staples,
            revocation_lists: revocation_lists.unwrap_or_default(),
        },
    })
}

/// Which certificates of clients are accepted, and the lists of those that are revoked.
fn clients(settings: &TlsClients) -> Result<(ClientTrust, Vec<RevocationListStatus>), Unfit> {
    let TlsClients {
        ca,
        crl,
        certificate,
    } = settings;
    let chain = chain(ca).map_err(Unfit::of("ca"))?;
    let roots = roots(ca, &chain).map_err(Unfit::of("ca"))?;
    let known = AuthoritiesIn {
        path: ca,
        chain: &chain,
    };
    let (authorities, lists) = authorities(roots, Some(known), crl.as_deref())?;
    let trust = ClientTrust::new(authorities, *certificate == ClientCertificate::Required);
    let trust = trust.map_err(|error| Unfit::together(&error))?;
    Ok((trust, lists))
}

/// Which certificates of backends are accepted, and the lists of those that are revoked; `None`:
/// they are not verified.
fn servers(
    settings: &BackendTls,
) -> Result<Option<(ServerTrust, Vec<RevocationListStatus>)>, Unfit> {
    let of_verify = Unfit::of("verify");
    let crl = settings.crl.as_deref();
    let read = match &settings.verify {
        Verify::Off => return Ok(None),
        Verify::Auto | Verify::System => {
            authorities(system_authorities().map_err(&of_verify)?, None, crl)
        }
        Verify::File(path) => {
            let chain = chain(path).map_err(&of_verify)?;
            let roots = roots(path, &chain).map_err(&of_verify)?;
            let known = AuthoritiesIn {
                path,
                chain: &chain,
            };
            authorities(roots, Some(known), crl)
        }
    };
    let (authorities, lists) = read?;
    let trust = ServerTrust::new(&authorities).map_err(|error| Unfit::together(&error))?;
    Ok(Some((trust, lists)))
}

/// Authorities with the revocation lists of a file, if there is one.
fn authorities(
    roots: RootCertStore,
    known: Option<AuthoritiesIn<'_>>,
    crl: Option<&Path>,
) -> Result<(Authorities, Vec<RevocationListStatus>), Unfit> {
    let mut authorities = Authorities::new(roots);
    let lists = crl.map(|crl| revocation::read(crl, &authorities.roots, known));
    let lists = lists.transpose().map_err(Unfit::of("crl"))?;
    let RevocationLists { all, shown } = lists.unwrap_or_default();
    authorities.revocation_lists = all.into();
    Ok((authorities, shown))
}

/// Reads the files of a pool. May take long.
pub(super) fn of_pool(settings: &BackendTls) -> Result<PoolFiles, Unfit> {
    let (trust, revocation_lists) = servers(settings)?.unzip();
    let own = settings.certificate.as_ref();
    let own = own.map(|its| pair(&its.certificate, &its.key)).transpose();
    let own = own.map_err(|its| its.within("certificate"))?;
    let (certificate, shown) = own.unzip();
    Ok(PoolFiles {
        settings: ClientSettings {
            name: settings.sni.clone(),
            policy: settings.policy.policy(),
            protocols: settings.alpn.clone(),
            trust,
            certificate: certificate.map(Arc::new),
            asks_as_postgres: settings.starttls == StartTls::Postgres,
        },
        shown: Shown {
            certificates: shown.into_iter().collect(),
            revocation_lists: revocation_lists.unwrap_or_default(),
            ..Shown::default()
        },
    })
}

/// The settings of a TLS client, with what is in their files. May take long.
pub(in crate::control) fn client_settings(settings: &BackendTls) -> Result<ClientSettings, String> {
    let files = of_pool(settings).map_err(|its| its.why)?;
    Ok(files.settings)
}

/// A certificate of a listener, and what is shown of it and of what is stapled to it.
fn served(
    files: &ServedFiles,
) -> Result<(Arc<Served>, CertificateStatus, Option<StapleStatus>), Unfit> {
    let (key, shown) = pair(&files.certificate, &files.key)?;
    let staple = files.ocsp.as_ref().map(|path| {
        let staple = staple::read(path, &key.cert[0]).map_err(Unfit::of("ocsp"))?;
        let file = path.display().to_string();
        let expires = staple.until;
        Ok((staple, StapleStatus { file, expires }))
    });
    let (staple, of_staple) = staple.transpose()?.unzip();
    Ok((Arc::new(Served::new(key, staple)), shown, of_staple))
}

/// A certificate with its key, and what is shown of it.
fn pair(certificate: &Path, key: &Path) -> Result<(CertifiedKey, CertificateStatus), Unfit> {
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
    Ok((made, shown))
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

/// The certificates and revocation lists of a configuration that have expired, each with the
/// setting that names it. May take long.
pub(super) fn expired(config: &Config) -> Vec<(String, String)> {
    let listeners = config.listeners.iter().enumerate();
    let listeners = listeners.flat_map(|(i, listener)| {
        let at = format!("listeners[{i}].tls");
        let tls = listener.tls.iter();
        tls.flat_map(move |tls| expiring_of_listener(&at, tls))
    });
    let pools = config.pools.iter().enumerate();
    let pools = pools.flat_map(|(i, pool)| {
        let check = pool.check.as_ref().and_then(|check| match &check.tls {
            CheckTls::Own(tls) => Some(tls),
            CheckTls::Auto | CheckTls::Plain | CheckTls::On => None,
        });
        let own = pool
            .tls
            .as_ref()
            .map(|its| (format!("pools[{i}].tls"), its));
        let check = check.map(|its| (format!("pools[{i}].check.tls"), its));
        let both = own.into_iter().chain(check);
        both.flat_map(|(at, tls)| expiring_of_server(&at, tls))
    });
    let found = listeners.chain(pools).filter_map(|(setting, file)| {
        let shown = file.shown().ok()?;
        let sentence = shown.expired(SystemTime::now()).next()?;
        Some((setting, sentence))
    });
    found.collect()
}

/// A file of what may expire.
enum MayExpire<'a> {
    Certificate(&'a Path),
    RevocationLists(&'a Path),
    /// An answer about the certificate in the second one.
    Staple(&'a Path, &'a Path),
}

impl MayExpire<'_> {
    fn shown(&self) -> Result<Shown, String> {
        let mut all = Shown::default();
        match self {
            Self::Certificate(path) => all.certificates.push(shown(path, &chain(path)?[0])?),
            Self::RevocationLists(path) => all.revocation_lists = revocation::shown(path)?,
            Self::Staple(path, certificate) => all.staples.push(StapleStatus {
                file: path.display().to_string(),
                expires: staple::read(path, &chain(certificate)?[0])?.until,
            }),
        }
        Ok(all)
    }
}

fn expiring_of_listener<'a>(at: &str, tls: &'a Tls) -> Vec<(String, MayExpire<'a>)> {
    let certificates = tls.certificates.iter().enumerate();
    let certificates = certificates.flat_map(|(place, its)| {
        let group = format!("{at}.certificates[{place}]");
        let staple = its.ocsp.as_ref().map(|staple| {
            let staple = MayExpire::Staple(staple, &its.certificate);
            (format!("{group}.ocsp"), staple)
        });
        let own = MayExpire::Certificate(&its.certificate);
        std::iter::once((format!("{group}.certificate"), own)).chain(staple)
    });
    let crl = tls.clients.as_ref().and_then(|its| its.crl.as_ref());
    let crl = crl.map(|its| (format!("{at}.clients.crl"), MayExpire::RevocationLists(its)));
    certificates.chain(crl).collect()
}

fn expiring_of_server<'a>(at: &str, tls: &'a BackendTls) -> Vec<(String, MayExpire<'a>)> {
    let own = tls.certificate.as_ref().map(|its| {
        let setting = format!("{at}.certificate.certificate");
        (setting, MayExpire::Certificate(&its.certificate))
    });
    let crl = tls.crl.as_ref();
    let crl = crl.map(|its| (format!("{at}.crl"), MayExpire::RevocationLists(its)));
    own.into_iter().chain(crl).collect()
}

/// The DNS names of a certificate (subjectAltName; RFC 5280, section 4.2.1.6), and its end.
pub(super) fn shown(path: &Path, certificate: &[u8]) -> Result<CertificateStatus, String> {
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
