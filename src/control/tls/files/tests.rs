//! Tests of [`super`].

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::config::{CertificateFiles, TlsPolicy};

/// A directory with `a.pem`, `a.key` and those of `b`.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let name = format!("mahoraga-files-{test}-{}", std::process::id());
        let files = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&files.0).unwrap();
        for name in ["a", "b"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![format!("{name}.test")]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            files.write(&format!("{name}.pem"), &certificate.pem());
            files.write(&format!("{name}.key"), &key.serialize_pem());
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The setting, and what is wrong, without the directory.
    fn fault(&self, certificate: &str, key: &str) -> (String, String) {
        let files = [certificate, key].map(|name| self.0.join(name));
        let Unfit { setting, why } = pair(&files[0], &files[1]).unwrap_err();
        (setting, why.replace(&format!("{}/", self.0.display()), ""))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_that_is_of_no_use_is_named_with_what_to_do() {
    let files = Files::new("named");
    files.write("v1.pem", V1);
    files.write("locked.key", LOCKED);
    files.write("odd.key", ODD);
    files.write("cut.key", "-----BEGIN PRIVATE KEY-----\nMAA=\n");
    for (certificate, key, setting, why) in [
        (
            "a.pem",
            "b.key",
            "key",
            "cannot use b.key: it is not the key of the certificate in a.pem",
        ),
        (
            "v1.pem",
            "a.key",
            "certificate",
            "cannot use v1.pem: its certificate is of X.509 version 1, which has no names: \
             expected version 3",
        ),
        (
            "a.pem",
            "locked.key",
            "key",
            "cannot use locked.key: the key has a passphrase: write it without one by `openssl \
             pkey -in locked.key -out NEW.key`, and keep that file private",
        ),
        (
            "a.pem",
            "odd.key",
            "key",
            "cannot use odd.key: it is no key that Mahoraga can use: expected RSA of 2048 to 4096 \
             bits, ECDSA by P-256 or P-384, or Ed25519",
        ),
        (
            "a.pem",
            "cut.key",
            "key",
            "cannot use cut.key: its PEM is cut off: an END line is missing",
        ),
        (
            "a.pem",
            "a.pem",
            "key",
            "cannot use a.pem: it holds no private key in PEM",
        ),
        (
            "a.key",
            "a.key",
            "certificate",
            "cannot use a.key: it holds no certificate in PEM",
        ),
        (
            "none.pem",
            "a.key",
            "certificate",
            "cannot use none.pem: No such file or directory (os error 2)",
        ),
    ] {
        let found = files.fault(certificate, key);
        assert_eq!(found, (setting.to_owned(), why.to_owned()));
    }
    let open = files.0.join("a.key");
    fs::set_permissions(open, fs::Permissions::from_mode(0o604)).unwrap();
    let why = "cannot use a.key: anybody may read it: run `chmod o= a.key`";
    assert_eq!(
        files.fault("a.pem", "a.key"),
        ("key".to_owned(), why.to_owned())
    );
}

#[test]
fn the_setting_of_a_file_is_named_by_its_place() {
    let files = Files::new("place");
    let served = |name: &str, key: &str| ServedFiles {
        certificate: files.0.join(name),
        key: files.0.join(key),
        ocsp: None,
    };
    let pair = |name: &str, key: &str| CertificateFiles {
        certificate: files.0.join(name),
        key: files.0.join(key),
    };
    let settings = Tls {
        certificates: vec![served("a.pem", "a.key"), served("b.pem", "a.key")],
        unknown_name: UnknownName::First,
        policy: TlsPolicy::Modern,
        alpn: Vec::new(),
        clients: None,
        handshake: Duration::from_secs(1),
    };
    let fault = of_listener(&settings).unwrap_err();
    assert_eq!(fault.setting, "certificates[1].key");
    let pool = |verify, certificate| BackendTls {
        sni: None,
        alpn: Vec::new(),
        verify,
        crl: None,
        certificate,
        policy: TlsPolicy::Modern,
        ..BackendTls::default()
    };
    let settings = pool(Verify::File(files.0.join("a.key")), None);
    assert_eq!(of_pool(&settings).unwrap_err().setting, "verify");
    let settings = pool(Verify::Off, Some(pair("b.key", "b.key")));
    let fault = of_pool(&settings).unwrap_err();
    assert_eq!(fault.setting, "certificate.certificate");
}

/// A certificate of version 1, as `openssl x509 -req` makes without extensions.
const V1: &str = "-----BEGIN CERTIFICATE-----
MIIBFTCBvQIUXtfirNzddUAUYGbq2AH0DPjcMGwwCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCdjEwIBcNMjYxMTI4MTQyMjI0WhgPMjEwOTAxMDcxNDIyMjRaMA0xCzAJ
BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtFl0R2/5spoJqq8j
I2q9tN7FpypPIWNw6pu8Et9G7xbSRE0GbR4Rv2Hd3vmf5crrZ8lX5U0E7bHlMpOh
NByfuDAKBggqhkjOPQQDAgNHADBEAiBF76M2i2X60+51rgKHYGSOpX/OiUmBjq6U
TCgc/0Z/XAIgNU7zxxePIvSLUVmNOs9o2fD23eu3I5hoqp/5yJXMGDQ=
-----END CERTIFICATE-----
";
const LOCKED: &str =
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
/// As a key of a curve that is not known.
const ODD: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
