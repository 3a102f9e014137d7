//! The TLS of pools' backends.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{BackendTls, Config};
use crate::tls::{Originate, Originator, TlsClient};

use super::expiry::Shown;
use super::files::{PoolFiles, Unfit, of_pool};
use super::owners::TlsOwner;

/// The TLS of a pool's backends.
#[derive(Debug)]
pub(super) struct PoolTls {
    pub(super) client: Arc<TlsClient>,
    pub(super) originator: Arc<Originator>,
}

impl TlsOwner for PoolTls {
    type Settings = BackendTls;
    type Files = PoolFiles;

    const OWNER: &'static str = "pool";

    fn of_config(config: &Config) -> impl Iterator<Item = (&str, Option<&BackendTls>)> {
        let all = config.pools.iter();
        all.map(|pool| (&*pool.name, pool.tls.as_ref()))
    }

    fn paths(settings: &BackendTls) -> Vec<&PathBuf> {
        settings.files().collect()
    }

    fn read(settings: &BackendTls) -> Result<PoolFiles, Unfit> {
        let files = of_pool(settings)?;
        let made = files.settings.config();
        made.map_err(|error| Unfit::together(&error))?;
        Ok(files)
    }

    fn shown(files: &PoolFiles) -> &Shown {
        &files.shown
    }

    fn new(files: PoolFiles, _: &BackendTls, before: Option<&Self>) -> Result<Self, rustls::Error> {
        let client = Arc::new(TlsClient::new(&files.settings)?);
        let counts = before.map(|before| Arc::clone(&before.originator.counts));
        let originator = Originator {
            begins: Arc::clone(&client) as Arc<dyn Originate>,
            counts: counts.unwrap_or_default(),
            refused: before.map_or_else(Arc::default, |before| {
                Arc::clone(&before.originator.refused)
            }),
        };
        Ok(Self {
            client,
            originator: Arc::new(originator),
        })
    }

    fn replace(&self, files: PoolFiles) -> Result<(), PoolFiles> {
        self.client.replace(&files.settings).map_err(|_| files)
    }
}
