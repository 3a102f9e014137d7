//! Which certificates of peers are accepted: by authorities, and by the lists of what those have
//! revoked.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertRevocationListError, Error, RootCertStore};

use super::provider;

/// Authorities, and what they have revoked.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Their certificates.
    pub roots: Arc<RootCertStore>,
    /// Their lists of revoked certificates (RFC 5280, section 5). Empty: revocation is not checked.
    /// Else each certificate between the peer's and its authority's needs one that has not expired,
    /// and the first one of an issuer counts.
    pub revocation_lists: Arc<[CertificateRevocationListDer<'static>]>,
}

impl Authorities {
    /// These, without revocation lists.
    #[must_use]
    pub fn new(roots: RootCertStore) -> Self {
        Self {
            roots: Arc::new(roots),
            revocation_lists: Arc::new([]),
        }
    }
}

impl PartialEq for Authorities {
    /// By what the files held: their paths say nothing about that.
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.roots.roots, &other.roots.roots);
        ours == theirs && self.revocation_lists == other.revocation_lists
    }
}

/// Which certificates of clients are accepted.
#[derive(Clone, Debug)]
pub struct ClientTrust {
    authorities: Authorities,
    required: bool,
    /// Made once: long revocation lists take their time.
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientTrust {
    /// Those of these authorities. `required`: each client needs one. May take long.
    ///
    /// # Errors
    /// There is no authority, or a revocation list can't be used.
    pub fn new(authorities: Authorities, required: bool) -> Result<Self, Error> {
        let (roots, provider) = (Arc::clone(&authorities.roots), Arc::new(provider()));
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let builder = builder.with_crls(authorities.revocation_lists.iter().cloned());
        let builder = builder.enforce_revocation_expiration();
        let builder = match required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        Ok(Self {
            verifier: builder.build().map_err(unbuilt)?,
            authorities,
            required,
        })
    }

    /// Whether each client needs one.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }
}

impl PartialEq for ClientTrust {
    fn eq(&self, other: &Self) -> bool {
        self.required == other.required && self.authorities == other.authorities
    }
}

/// Which certificates of backends are accepted.
#[derive(Clone, Debug)]
pub struct ServerTrust(Arc<WebPkiServerVerifier>);

impl ServerTrust {
    /// Those of these authorities. May take long.
    ///
    /// # Errors
    /// There is no authority, or a revocation list can't be used.
    pub fn new(authorities: &Authorities) -> Result<Self, Error> {
        let (roots, provider) = (Arc::clone(&authorities.roots), Arc::new(provider()));
        let builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
        let builder = builder.with_crls(authorities.revocation_lists.iter().cloned());
        let built = builder.enforce_revocation_expiration().build();
        built.map(Self).map_err(unbuilt)
    }

    pub(super) fn verifier(&self) -> Arc<WebPkiServerVerifier> {
        Arc::clone(&self.0)
    }
}

/// Why no certificate can be verified by a revocation list, in words that go on after its name.
#[must_use]
pub fn list_fault(
    list: &CertificateRevocationListDer<'static>,
    roots: &Arc<RootCertStore>,
) -> Option<&'static str> {
    let authorities = Authorities {
        roots: Arc::clone(roots),
        revocation_lists: Arc::new([list.clone()]),
    };
    ClientTrust::new(authorities, true).err().map(|error| {
        let Error::InvalidCertRevocationList(error) = error else {
            return "can't be used with these authorities";
        };
        words(&error)
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors, for which there are general words"
)]
fn words(error: &CertRevocationListError) -> &'static str {
    match error {
        CertRevocationListError::UnsupportedDeltaCrl => {
            "is a delta of another list: expected the whole list"
        }
        CertRevocationListError::UnsupportedIndirectCrl => {
            "is of other issuers' certificates: expected a list of each issuer"
        }
        CertRevocationListError::UnsupportedCriticalExtension => {
            "has a critical extension that Mahoraga does not know"
        }
        _ => "can't be read as a list of version 2 with `nextUpdate` and extensions (RFC 5280)",
    }
}

fn unbuilt(error: VerifierBuilderError) -> Error {
    if let VerifierBuilderError::InvalidCrl(error) = error {
        return Error::InvalidCertRevocationList(error);
    }
    Error::General(error.to_string())
}
