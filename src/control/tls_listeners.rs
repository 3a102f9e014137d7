//! The TLS of listeners: their certificates, which are read before a configuration that names them
//! takes effect.
//!
//! Each listener keeps the keys of its tickets over all configurations, so that its clients resume.
//! Other certificates take the places of those before without a new listener: connections that
//! stand go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

use crate::config::{CertificateFiles, ClientCertificate, Config, Tls, UnknownName};
use crate::sys;
use crate::tls::{
    Certificates, SelectBy, ServerSettings, Terminate, Terminator, Terminators, TlsServer, provider,
};

use super::StartError;
use super::remote::{authorities, chain, private_key, unfit};

/// The TLS of all listeners that have some.
#[derive(Debug, Default)]
pub(super) struct TlsListeners {
    by_listener: BTreeMap<String, Live>,
    /// What was read for a configuration that is about to take effect.
    offered: Vec<TlsRead>,
    terminators: Terminators,
}

/// The TLS of a listener.
#[derive(Debug)]
struct Live {
    settings: Tls,
    certificates: Arc<Certificates>,
    server: Arc<TlsServer>,
    terminator: Arc<Terminator>,
}

/// The files of a listener's TLS.
#[derive(Debug)]
pub(super) struct TlsRead {
    listener: String,
    settings: Tls,
    select: SelectBy,
    clients: Option<(RootCertStore, bool)>,
}

/// Reads the certificates and keys of all listeners. May take long.
///
/// # Errors
/// A listener, and what is wrong with one of its files.
pub(super) fn read_files(config: &Config) -> Result<Vec<TlsRead>, StartError> {
    let secured = config.listeners.iter();
    let secured = secured.filter_map(|listener| Some((listener, listener.tls.as_ref()?)));
    let all = secured.map(|(listener, settings)| {
        let read = read(&listener.name, settings).and_then(|read| {
            // What does not fit together shows now, and not when the listener is to have it.
            Live::new(&read, SelectBy::default(), None).map_err(|error| error.to_string())?;
            Ok(read)
        });
        read.map_err(|why| StartError::Tls {
            listener: listener.name.clone(),
            why,
        })
    });
    all.collect()
}

fn read(listener: &str, settings: &Tls) -> Result<TlsRead, String> {
    let mut select = SelectBy::default();
    for (place, files) in settings.certificates.iter().enumerate() {
        let (key, names) = certified(files)?;
        select.add(names.iter().map(|name| &**name), &key);
        if place == 0 && settings.unknown_name == UnknownName::First {
            select.add_for_others(&key);
        }
    }
    let clients = settings.clients.as_ref().map(|clients| {
        let required = clients.certificate == ClientCertificate::Required;
        Ok::<_, String>((authorities(&clients.ca)?, required))
    });
    Ok(TlsRead {
        listener: listener.to_owned(),
        settings: settings.clone(),
        select,
        clients: clients.transpose()?,
    })
}

/// A certificate with its key, and the names that it is for.
fn certified(files: &CertificateFiles) -> Result<(Arc<CertifiedKey>, Vec<String>), String> {
    let chain = chain(&files.certificate)?;
    refuse_public(&files.key)?;
    let key = private_key(&files.key)?;
    let names = names(&files.certificate, &chain[0])?;
    let key = CertifiedKey::from_der(chain, key, &provider());
    let key = key.map_err(|error| unfit(&files.key, &error))?;
    Ok((Arc::new(key), names))
}

/// A key that anybody may read is no secret.
fn refuse_public(key: &Path) -> Result<(), String> {
    match sys::is_open_to_others(key) {
        Ok(false) => Ok(()),
        Ok(true) => Err(unfit(key, &"anybody may read it: run `chmod o= FILE`")),
        Err(error) => Err(unfit(key, &error)),
    }
}

/// The DNS names of a certificate (subjectAltName).
fn names(path: &Path, certificate: &[u8]) -> Result<Vec<String>, String> {
    let der = rustls::pki_types::CertificateDer::from(certificate);
    let parsed = webpki::EndEntityCert::try_from(&der);
    let parsed = parsed.map_err(|error| unfit(path, &error))?;
    Ok(parsed.valid_dns_names().map(str::to_owned).collect())
}

impl Live {
    fn new(read: &TlsRead, select: SelectBy, before: Option<&Self>) -> Result<Self, rustls::Error> {
        let certificates = Arc::new(Certificates::new(select));
        let settings = ServerSettings {
            certificates: Arc::clone(&certificates),
            policy: read.settings.policy.policy(),
            protocols: read.settings.alpn.clone(),
            clients: read.clients.clone(),
        };
        // Tickets of clients that had to show less must not open what asks for more.
        let same = before.filter(|before| before.settings.clients == read.settings.clients);
        let server = TlsServer::new(&settings, same.map(|before| before.server.tickets()))?;
        let server = Arc::new(server);
        let counts = before.map(|before| Arc::clone(&before.terminator.counts));
        let terminator = Terminator {
            begins: Arc::clone(&server) as Arc<dyn Terminate>,
            counts: counts.unwrap_or_default(),
        };
        Ok(Self {
            settings: read.settings.clone(),
            certificates,
            server,
            terminator: Arc::new(terminator),
        })
    }
}

impl TlsListeners {
    /// The TLS of a configuration whose files were read.
    pub(super) fn new(config: &Config, read: Vec<TlsRead>) -> Self {
        let mut all = Self {
            offered: read,
            ..Self::default()
        };
        all.follow(config);
        all
    }

    /// What workers begin TLS by, by the names of listeners.
    pub(super) fn terminators(&self) -> &Terminators {
        &self.terminators
    }

    /// Takes files that were read for the next configuration.
    pub(super) fn offer(&mut self, read: Vec<TlsRead>) {
        self.offered = read;
    }

    /// Makes the TLS of a configuration. Answers whether listeners have other TLS now.
    pub(super) fn follow(&mut self, config: &Config) -> bool {
        for mut read in std::mem::take(&mut self.offered) {
            let select = std::mem::take(&mut read.select);
            let before = self.by_listener.get(&read.listener);
            let same = before.filter(|its| its.settings == read.settings && read.clients.is_none());
            if let Some(same) = same {
                same.certificates.replace(select);
                continue;
            }
            match Live::new(&read, select, before) {
                Ok(live) => drop(self.by_listener.insert(read.listener, live)),
                // It was made before from the same files, so only random bytes can be missing.
                Err(error) => log::error!("TLS of listener `{}`: {error}", read.listener),
            }
        }
        let wanted = |name: &String| {
            let mut listeners = config.listeners.iter();
            listeners.any(|listener| listener.name == *name && listener.tls.is_some())
        };
        self.by_listener.retain(|name, _| wanted(name));
        let all = self.by_listener.iter();
        let all = all.map(|(name, live)| (name.clone(), Arc::clone(&live.terminator)));
        let before = std::mem::replace(&mut self.terminators, all.collect());
        !same(&before, &self.terminators)
    }
}

fn same(one: &Terminators, other: &Terminators) -> bool {
    let mut both = one.iter().zip(other);
    one.len() == other.len()
        && both.all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1))
}
