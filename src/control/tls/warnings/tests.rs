//! Tests of [`super`].

use std::fs;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, date_time_ymd};

use super::*;
use crate::config::{ServedFiles, TlsPolicy, UnknownName};

/// A certificate in PEM for these names, which ended in 2021 or ends late.
fn certificate(names: &[&str], key: &KeyPair, is_over: bool) -> String {
    let names = names.iter().map(ToString::to_string);
    let mut params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
    if is_over {
        params.not_after = date_time_ymd(2021, 1, 2);
    }
    params.self_signed(key).unwrap().pem()
}

#[test]
fn certificates_that_clients_refuse_or_never_get_are_named() {
    let name = format!("mahoraga-warned-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).unwrap();
    let key = KeyPair::generate().unwrap();
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let texts = [
        ("whole", certificate(&["a.test", "b.test"], &key, false)),
        ("nameless", certificate(&[], &key, false)),
        ("again", certificate(&["c.test", "B.test"], &key, false)),
        // Another kind of key for the same name is for other clients.
        ("p384", certificate(&["a.test"], &other, false)),
        ("old", certificate(&["old.test"], &key, true)),
        (
            "chain",
            certificate(&["d.test"], &key, false) + &certificate(&[], &other, true),
        ),
        ("broken", "none".to_owned()),
    ];
    let files = texts.map(|(name, text)| {
        let certificate = dir.join(name);
        fs::write(&certificate, text).unwrap();
        ServedFiles {
            certificate,
            key: PathBuf::new(),
            ocsp: None,
        }
    });
    let tls = Tls {
        certificates: files.to_vec(),
        unknown_name: UnknownName::First,
        policy: TlsPolicy::Modern,
        alpn: Vec::new(),
        clients: None,
        handshake: std::time::Duration::from_secs(1),
    };
    let mut found = Vec::new();
    of_listener("t", &tls, SystemTime::now(), &mut found);
    fs::remove_dir_all(&dir).unwrap();
    let said = found.into_iter().map(|(at, sentence)| {
        let sentence = sentence.replace(&format!("{}/", dir.display()), "");
        format!("{at}: {sentence}")
    });
    let expected = [
        "t.certificates[1].certificate: the certificate in nameless has no names \
         (subjectAltName): clients refuse it, and none gets it by the name that it asks for",
        "t.certificates[2].certificate: the certificates in whole and in again are both for \
         b.test, with the same kind of key: clients get the first",
        "t.certificates[5].certificate: certificate 2 in chain, which is between the first one \
         and its authority, has expired",
    ];
    assert_eq!(said.collect::<Vec<_>>(), expected);
}
