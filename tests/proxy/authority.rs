//! Certificates of the tests' own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

/// An authority, and what it signs, in the directory of a balancer.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes `NAME.pem` and `NAME.key`, a certificate for some names.
    pub(crate) fn sign(&self, directory: &Path, name: &str, names: &[&str]) {
        self.sign_until(directory, name, names, None);
    }

    /// The same; with a year it has expired then.
    pub(crate) fn sign_until(
        &self,
        directory: &Path,
        name: &str,
        names: &[&str],
        expired: Option<i32>,
    ) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if let Some(year) = expired {
            params.not_after = date_time_ymd(year, 1, 2);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let file = |ending| directory.join(format!("{name}.{ending}"));
        fs::write(file("pem"), certificate.pem()).unwrap();
        write_private(&file("key"), &key.serialize_pem());
    }

    /// The same of a client whose subject has this common name.
    pub(crate) fn sign_client(&self, directory: &Path, name: &str, common_name: &str) {
        let mut params = CertificateParams::new(vec![format!("{name}.test")]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let file = |ending| directory.join(format!("{name}.{ending}"));
        fs::write(file("pem"), certificate.pem()).unwrap();
        write_private(&file("key"), &key.serialize_pem());
    }

    /// Writes `NAME.crl`: it revokes the certificates of some files, and expires with this year.
    pub(crate) fn revoke(&self, directory: &Path, name: &str, revoked: &[&str], year: i32) {
        let revoked = revoked.iter().map(|revoked| RevokedCertParams {
            serial_number: serial(&directory.join(format!("{revoked}.pem"))),
            revocation_time: date_time_ymd(2019, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2019, 1, 2),
            next_update: date_time_ymd(year, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.0).unwrap().pem().unwrap();
        fs::write(directory.join(format!("{name}.crl")), list).unwrap();
    }

    /// A client that trusts it.
    pub(crate) fn client(&self, also: impl FnOnce(&mut ClientConfig)) -> Arc<ClientConfig> {
        self.client_of(&[&TLS13, &TLS12], None, also)
    }

    pub(crate) fn client_of(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        own: Option<&Path>,
        also: impl FnOnce(&mut ClientConfig),
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::from_pem_file(own.with_extension("pem")).unwrap();
                let key = PrivateKeyDer::from_pem_file(own.with_extension("key")).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        also(&mut config);
        Arc::new(config)
    }
}

pub(crate) fn serial(path: &Path) -> SerialNumber {
    let der = CertificateDer::from_pem_file(path).unwrap();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    SerialNumber::from_slice(parsed.raw_serial())
}

pub(crate) fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Authority {
    /// Writes its own certificate to `NAME.pem`.
    pub(crate) fn write(&self, directory: &Path, name: &str) {
        fs::write(directory.join(format!("{name}.pem")), self.0.pem()).unwrap();
    }
}
