//! Revocation lists (RFC 5280, section 5), as they are read from a file.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::admin::model::RevocationListStatus;
use crate::control::remote::{contents, pem_fault, unfit};
use crate::tls::{list_fault, provider, subject_text};

/// The authorities of a file.
#[derive(Clone, Copy)]
pub(super) struct AuthoritiesIn<'a> {
    pub(super) path: &'a Path,
    pub(super) chain: &'a [CertificateDer<'static>],
}

/// The revocation lists of a file.
#[derive(Debug, Default)]
pub(super) struct RevocationLists {
    /// The newest one first: it counts where an issuer has several.
    pub(super) all: Vec<CertificateRevocationListDer<'static>>,
    pub(super) shown: Vec<RevocationListStatus>,
}

/// A list, and what it says.
struct List<'a> {
    der: &'a CertificateRevocationListDer<'static>,
    says: CertificateRevocationList<'a>,
    issuer: Box<str>,
}

/// Reads the lists of a file, for certificates that these authorities verify. Those of a file must
/// have a list each, as all whom one without a list verifies would be refused. May take long.
pub(super) fn read(
    path: &Path,
    roots: &Arc<RootCertStore>,
    authorities: Option<AuthoritiesIn<'_>>,
) -> Result<RevocationLists, String> {
    let ders = ders(path)?;
    let mut lists = lists(path, &ders)?;
    for (place, list) in lists.iter().enumerate() {
        let is_old = list.says.version().is_none();
        let fault = is_old
            .then_some(OLD)
            .or_else(|| list_fault(list.der, roots));
        if let Some(fault) = fault {
            return Err(unfit(
                path,
                &format!("{} {fault}", which(place, lists.len())),
            ));
        }
    }
    if let Some(authorities) = authorities {
        each_has_its_list(authorities, &lists).map_err(|why| unfit(path, &why))?;
    }
    lists.sort_by_key(|list| std::cmp::Reverse(list.says.last_update()));
    Ok(RevocationLists {
        all: lists.iter().map(|list| list.der.clone()).collect(),
        shown: lists.iter().map(|list| list.shown(path)).collect(),
    })
}

/// What is shown of the lists in a file, fit for use or not. May take long.
pub(super) fn shown(path: &Path) -> Result<Vec<RevocationListStatus>, String> {
    let ders = ders(path)?;
    let lists = lists(path, &ders)?;
    Ok(lists.iter().map(|list| list.shown(path)).collect())
}

/// The lists of a file in PEM or DER, where they may follow each other too.
fn ders(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let bytes = contents(path)?;
    let mut all = Vec::new();
    if bytes.windows(PEM.len()).any(|its| its == PEM) {
        for list in CertificateRevocationListDer::pem_slice_iter(&bytes) {
            all.push(list.map_err(|error| unfit(path, &pem_fault(&error)))?);
        }
    } else {
        let mut rest = &*bytes;
        while let Ok((after, list)) = CertificateRevocationList::from_der(rest) {
            all.push(list.as_raw().to_vec().into());
            rest = after;
        }
        if !rest.is_empty() && !all.is_empty() {
            return Err(unfit(
                path,
                &"what follows its last revocation list is none",
            ));
        }
    }
    match all.is_empty() {
        true => Err(unfit(
            path,
            &"it holds no revocation list: expected PEM (X509 CRL) or DER",
        )),
        false => Ok(all),
    }
}

fn lists<'a>(
    path: &Path,
    ders: &'a [CertificateRevocationListDer<'static>],
) -> Result<Vec<List<'a>>, String> {
    let all = ders.iter().enumerate().map(|(place, der)| {
        let says = CertificateRevocationList::from_der(der);
        let (_, says) = says.map_err(|_| {
            let why = format!("{} can't be read", which(place, ders.len()));
            unfit(path, &why)
        })?;
        let issuer = subject_text(says.issuer());
        Ok(List { der, says, issuer })
    });
    all.collect()
}

/// A list by its place among so many.
fn which(place: usize, count: usize) -> String {
    match count {
        1 => "its revocation list".to_owned(),
        _ => format!("revocation list {} in it", place + 1),
    }
}

/// Whether each authority has a list, which it has signed.
fn each_has_its_list(authorities: AuthoritiesIn<'_>, lists: &[List<'_>]) -> Result<(), String> {
    let path = authorities.path.display();
    let parsed = authorities.chain.iter();
    let parsed = parsed.filter_map(|its| X509Certificate::from_der(its).ok());
    let parsed: Vec<_> = parsed.map(|(_, its)| its).collect();
    let issuer_of = |list: &List<'_>, its: &X509Certificate<'_>| {
        list.says.issuer().as_raw() == its.subject().as_raw()
    };
    for list in lists {
        let mut known = parsed.iter().filter(|its| issuer_of(list, its)).peekable();
        if known.peek().is_some() && !known.any(|its| list.is_signed_by(its)) {
            let issuer = &list.issuer;
            return Err(format!(
                "its list of `{issuer}` is not signed by the key of that authority in {path}"
            ));
        }
    }
    for authority in &parsed {
        if !lists.iter().any(|list| issuer_of(list, authority)) {
            let name = subject_text(authority.subject());
            return Err(format!(
                "it has no list of the authority `{name}` in {path}, whose certificates would all \
                 be refused: add one"
            ));
        }
    }
    Ok(())
}

impl List<'_> {
    fn is_signed_by(&self, authority: &X509Certificate<'_>) -> bool {
        let algorithms = provider().signature_verification_algorithms.all;
        let key = &authority.public_key().subject_public_key.data;
        let (signed, signature) = (&self.says.tbs_cert_list, &self.says.signature_value.data);
        algorithms.iter().any(|algorithm| {
            let verified = algorithm.verify_signature(key, signed.as_ref(), signature);
            verified.is_ok()
        })
    }

    fn shown(&self, path: &Path) -> RevocationListStatus {
        let next = self.says.next_update();
        RevocationListStatus {
            file: path.display().to_string(),
            issuer: self.issuer.to_string(),
            revoked: self.says.tbs_cert_list.revoked_certificates.len(),
            expires: next.map_or(i64::MAX, |next| next.timestamp()),
        }
    }
}

const PEM: &[u8] = b"-----BEGIN ";
/// A list of version 1 has no version.
const OLD: &str = "is of version 1: expected version 2, which `openssl ca -gencrl` writes once its \
                   configuration has `crlnumber`";

#[cfg(test)]
mod tests;
