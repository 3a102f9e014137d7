//! Tests of [`super`].

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::*;
use crate::control::remote::{chain, roots};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A list of so many certificates, made in a year.
fn list(authority: &Authority, revoked: u64, year: i32) -> rcgen::CertificateRevocationList {
    let revoked = (1..=revoked).map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(year, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(authority).unwrap()
}

/// A directory with the certificates of authorities in `ca.pem`.
struct Files(PathBuf);

impl Files {
    fn new(test: &str, authorities: &[&Authority]) -> Self {
        let name = format!("mahoraga-revoked-{test}-{}", std::process::id());
        let files = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&files.0).unwrap();
        let all: String = authorities.iter().map(|its| its.pem()).collect();
        fs::write(files.0.join("ca.pem"), all).unwrap();
        files
    }

    fn read(&self, bytes: &[u8]) -> Result<RevocationLists, String> {
        let (ca, crl) = (self.0.join("ca.pem"), self.0.join("x.crl"));
        fs::write(&crl, bytes).unwrap();
        let chain = chain(&ca).unwrap();
        let roots = Arc::new(roots(&ca, &chain).unwrap());
        let known = AuthoritiesIn {
            path: &ca,
            chain: &chain,
        };
        let read = read(&crl, &roots, Some(known));
        read.map_err(|why| why.replace(&format!("{}/", self.0.display()), ""))
    }

    fn fault(&self, bytes: &[u8]) -> String {
        self.read(bytes).unwrap_err()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn lists_follow_each_other_in_either_encoding_and_the_newest_counts() {
    let [a, b] = ["a", "b"].map(authority);
    let files = Files::new("encodings", &[&a, &b]);
    let lists = [list(&a, 1, 2021), list(&b, 2, 2022), list(&a, 3, 2023)];
    let pem: String = lists.iter().map(|its| its.pem().unwrap()).collect();
    let der: Vec<u8> = lists.iter().flat_map(|its| its.der().to_vec()).collect();
    for bytes in [pem.as_bytes(), &der] {
        let read = files.read(bytes).unwrap();
        let shown = read.shown.iter();
        let shown: Vec<_> = shown.map(|its| (&*its.issuer, its.revoked)).collect();
        assert_eq!(shown, [("CN=a", 3), ("CN=b", 2), ("CN=a", 1)]);
        assert_eq!(read.shown[0].expires, 4_102_444_800);
        assert_eq!(read.all[0], *lists[2].der());
    }
}

#[test]
fn a_file_that_is_of_no_use_is_named_with_what_to_do() {
    let [a, b, other] = ["a", "b", "a"].map(authority);
    let files = Files::new("faults", &[&a, &b]);
    let pem = |authority| list(authority, 1, 2021).pem().unwrap();
    let (of_a, of_b) = (pem(&a), pem(&b));
    let cut = of_a.replace("-----END X509 CRL-----", "");
    let mut der = list(&a, 1, 2021).der().to_vec();
    der.push(7);
    for (bytes, why) in [
        (
            "nothing".as_bytes(),
            "it holds no revocation list: expected PEM (X509 CRL) or DER",
        ),
        (
            a.pem().as_bytes(),
            "it holds no revocation list: expected PEM (X509 CRL) or DER",
        ),
        (cut.as_bytes(), "its PEM is cut off: an END line is missing"),
        (&der, "what follows its last revocation list is none"),
        (
            format!("{of_a}-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n").as_bytes(),
            "revocation list 2 in it can't be read",
        ),
        (
            V1.as_bytes(),
            "its revocation list is of version 1: expected version 2, which `openssl ca -gencrl` \
             writes once its configuration has `crlnumber`",
        ),
        (
            of_b.as_bytes(),
            "it has no list of the authority `CN=a` in ca.pem, whose certificates would all be \
             refused: add one",
        ),
        (
            (pem(&other) + &of_b).as_bytes(),
            "its list of `CN=a` is not signed by the key of that authority in ca.pem",
        ),
    ] {
        assert_eq!(files.fault(bytes), format!("cannot use x.crl: {why}"));
    }
    let long = vec![b' '; (4 << 20) + 1];
    assert_eq!(
        files.fault(&long),
        "cannot use x.crl: it is too long: expected at most 4 MiB"
    );
}

/// A list of version 1, as `openssl ca -gencrl` makes without `crlnumber`.
const V1: &str = "\
-----BEGIN X509 CRL-----
MIGSMDswCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCdjEXDTI2MTEyODE2NTMwOVoY
DzIxMjYxMTA0MTY1MzA5WjAKBggqhkjOPQQDAgNHADBEAiAxJOSkhXRWtbffK8nR
/ozoFCBGCMhSyHBkt+63M8N4wAIgSln898O8eLtAZPpma+QpJJNs52LvViLBwVnu
PAZAbjc=
-----END X509 CRL-----
";
