//! The TLS of listeners' clients.
//!
//! Each listener keeps the keys of its tickets over all configurations, so that its clients resume,
//! until it asks for other certificates of clients.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{ClientCertificate, Config, Tls};
use crate::tls::{Certificates, SelectBy, ServerSettings, Terminate, Terminator, TlsServer};

use super::expiry::Shown;
use super::files::{ListenerFiles, Unfit, of_listener};
use super::owners::TlsOwner;

/// The TLS of a listener.
#[derive(Debug)]
pub(super) struct ListenerTls {
    certificates: Arc<Certificates>,
    server: Arc<TlsServer>,
    pub(super) terminator: Arc<Terminator>,
}

fn server_settings(
    files: &ListenerFiles,
    settings: &Tls,
    certificates: &Arc<Certificates>,
) -> ServerSettings {
    ServerSettings {
        certificates: Arc::clone(certificates),
        policy: settings.policy.policy(),
        protocols: settings.alpn.clone(),
        clients: files.clients.clone(),
    }
}

impl TlsOwner for ListenerTls {
    type Settings = Tls;
    type Files = ListenerFiles;

    const OWNER: &'static str = "listener";

    fn of_config(config: &Config) -> impl Iterator<Item = (&str, Option<&Tls>)> {
        let all = config.listeners.iter();
        all.map(|listener| (&*listener.name, listener.tls.as_ref()))
    }

    fn paths(settings: &Tls) -> Vec<&PathBuf> {
        settings.files().collect()
    }

    fn read(settings: &Tls) -> Result<ListenerFiles, Unfit> {
        let files = of_listener(settings)?;
        let probe = Arc::new(Certificates::new(SelectBy::default()));
        let made = TlsServer::new(&server_settings(&files, settings, &probe), None);
        made.map_err(|error| Unfit::together(&error))?;
        Ok(files)
    }

    fn clients(settings: &Tls) -> Option<&'static str> {
        Some(match settings.clients.as_ref().map(|its| its.certificate) {
            Some(ClientCertificate::Required) => "required",
            Some(ClientCertificate::Optional) => "optional",
            None => "off",
        })
    }

    fn shown(files: &ListenerFiles) -> &Shown {
        &files.shown
    }

    fn new(
        mut files: ListenerFiles,
        settings: &Tls,
        before: Option<&Self>,
    ) -> Result<Self, rustls::Error> {
        let certificates = Arc::new(Certificates::new(std::mem::take(&mut files.select)));
        let made = server_settings(&files, settings, &certificates);
        let server = before.map(|before| &*before.server);
        let server = Arc::new(TlsServer::new(&made, server)?);
        let counts = before.map(|before| Arc::clone(&before.terminator.counts));
        let terminator = Terminator {
            begins: Arc::clone(&server) as Arc<dyn Terminate>,
            counts: counts.unwrap_or_default(),
        };
        Ok(Self {
            certificates,
            server,
            terminator: Arc::new(terminator),
        })
    }

    /// Other authorities of clients, or revocation lists, need another server.
    fn replace(&self, files: ListenerFiles) -> Result<(), ListenerFiles> {
        if files.clients.is_some() {
            return Err(files);
        }
        self.certificates.replace(files.select);
        Ok(())
    }
}
