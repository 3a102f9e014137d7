//! The certificates of a listener, and which of them a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates of a listener, which may be replaced while it runs: handshakes that begin
/// later use the new ones.
#[derive(Debug)]
pub struct Certificates(RwLock<Arc<SelectBy>>);

/// Certificates by the names that they are for.
#[derive(Debug, Default)]
pub struct SelectBy {
    /// In lower case, `*.` before those that stand for all names one level below.
    names: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For clients that ask for no name, or for one that none is for; empty: they are refused.
    others: Vec<Arc<CertifiedKey>>,
}

impl SelectBy {
    /// Adds a certificate for these names. The first one is also for clients that ask for no name.
    pub fn add<'a>(&mut self, names: impl Iterator<Item = &'a str>, key: &Arc<CertifiedKey>) {
        for name in names {
            let known = self.names.entry(name.to_ascii_lowercase()).or_default();
            known.push(Arc::clone(key));
        }
    }

    /// Has clients that ask for no name, or for an unknown one, get this certificate too.
    pub fn add_for_others(&mut self, key: &Arc<CertifiedKey>) {
        self.others.push(Arc::clone(key));
    }

    /// The certificates for a name, the exact one before the wildcard (RFC 9525, section 6.3), and
    /// those for others where there is none.
    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else {
            return &self.others;
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let wild = name.split_once('.').map(|(_, above)| format!("*.{above}"));
        let known = self.names.get(&name);
        let known = known.or_else(|| self.names.get(&wild?));
        known.unwrap_or(&self.others)
    }
}

impl Certificates {
    /// These certificates, until others replace them.
    #[must_use]
    pub fn new(select: SelectBy) -> Self {
        Self(RwLock::new(Arc::new(select)))
    }

    /// Replaces all certificates.
    pub fn replace(&self, select: SelectBy) {
        let new = Arc::new(select);
        let old = std::mem::replace(&mut *self.0.write(), new);
        // The keys are freed here, outside of the lock.
        drop(old);
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let select = Arc::clone(&self.0.read());
        let found = select.of(hello.server_name());
        let fits = |key: &&Arc<CertifiedKey>| {
            let schemes = hello.signature_schemes();
            key.key.choose_scheme(schemes).is_some()
        };
        // Where no key fits the client, rustls says so better than a missing certificate would.
        found.iter().find(fits).or_else(|| found.first()).cloned()
    }
}
