//! The certificates of a listener, and which of them a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::UnixTime;
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
    names: HashMap<String, Vec<Arc<Served>>>,
    /// For clients that ask for no name, or for one that none is for; empty: they are refused.
    others: Vec<Arc<Served>>,
}

/// A certificate with its key, and what is stapled to it.
#[derive(Debug)]
pub struct Served {
    bare: Arc<CertifiedKey>,
    /// The same with an answer, until it expires, in seconds since 1970.
    stapled: Option<(Arc<CertifiedKey>, u64)>,
}

/// The answer of an authority about a certificate (OCSP; RFC 6960), which handshakes carry (RFC
/// 6066, section 8; RFC 8446, section 4.4.2.1).
#[derive(Debug)]
pub struct Staple {
    /// In DER.
    pub answer: Vec<u8>,
    /// When it expires, in seconds since 1970. It is sent no longer.
    pub until: i64,
}

impl Served {
    /// A certificate, with this answer about it.
    #[must_use]
    pub fn new(key: CertifiedKey, staple: Option<Staple>) -> Self {
        let stapled = staple.map(|staple| {
            let mut key = key.clone();
            key.ocsp = Some(staple.answer);
            (Arc::new(key), u64::try_from(staple.until).unwrap_or(0))
        });
        Self {
            bare: Arc::new(key),
            stapled,
        }
    }

    fn at(&self, now: UnixTime) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, until)) if now.as_secs() < *until => stapled,
            Some(_) | None => &self.bare,
        }
    }
}

impl SelectBy {
    /// Adds a certificate for these names. The first one is also for clients that ask for no name.
    pub fn add<'a>(&mut self, names: impl Iterator<Item = &'a str>, key: &Arc<Served>) {
        for name in names {
            let known = self.names.entry(name.to_ascii_lowercase()).or_default();
            known.push(Arc::clone(key));
        }
    }

    /// Has clients that ask for no name, or for an unknown one, get this certificate too.
    pub fn add_for_others(&mut self, key: &Arc<Served>) {
        self.others.push(Arc::clone(key));
    }

    /// The certificates for a name, the exact one before the wildcard (RFC 9525, section 6.3), and
    /// those for others where there is none.
    fn of(&self, name: Option<&str>) -> &[Arc<Served>] {
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

    /// Whether a client gets one that asks for this name.
    #[must_use]
    pub fn has(&self, name: Option<&str>) -> bool {
        !self.0.read().of(name).is_empty()
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
        let fits = |served: &&Arc<Served>| {
            let schemes = hello.signature_schemes();
            served.bare.key.choose_scheme(schemes).is_some()
        };
        // Where no key fits the client, rustls says so better than a missing certificate would.
        let found = found.iter().find(fits).or_else(|| found.first())?;
        Some(Arc::clone(found.at(UnixTime::now())))
    }
}
