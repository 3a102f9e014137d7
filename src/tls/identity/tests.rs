//! What certificates say, odd ones too.

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType, SerialNumber,
};

use super::*;

/// The identity of a certificate with this subject and these names.
fn identity(subject: DistinguishedName, names: Vec<SanType>) -> ClientIdentity {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = subject;
    params.subject_alt_names = names;
    params.serial_number = Some(SerialNumber::from_slice(&[0xab, 0x01]));
    let key = KeyPair::generate().unwrap();
    ClientIdentity::of(params.self_signed(&key).unwrap().der())
}

fn subject(parts: impl IntoIterator<Item = (DnType, DnValue)>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    parts
        .into_iter()
        .for_each(|(kind, value)| name.push(kind, value));
    name
}

fn text(value: &str) -> DnValue {
    DnValue::Utf8String(value.to_owned())
}

fn ia5(value: &str) -> Ia5String {
    Ia5String::try_from(value.to_owned()).unwrap()
}

/// A certificate with one common name.
fn named(name: &str) -> ClientIdentity {
    identity(subject([(DnType::CommonName, text(name))]), Vec::new())
}

#[test]
fn a_certificate_says_who_its_client_is() {
    let names = vec![
        SanType::DnsName(ia5("a.example")),
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
        SanType::IpAddress("2001:db8::1".parse().unwrap()),
        SanType::Rfc822Name(ia5("a@b.example")),
        SanType::URI(ia5("spiffe://b.example/a")),
    ];
    let parts = [
        (DnType::CountryName, text("CH")),
        (DnType::OrganizationName, text("Ex, Inc. ")),
        (DnType::CommonName, text("#robot+7")),
    ];
    let its = identity(subject(parts), names);
    assert_eq!(&*its.subject, "CN=\\#robot\\+7,O=Ex\\, Inc.\\ ,C=CH");
    assert_eq!(its.common_name.as_deref(), Some("#robot+7"));
    let want = "DNS:a.example,IP:10.0.0.1,IP:2001:db8::1,email:a@b.example,\
                URI:spiffe://b.example/a";
    assert_eq!(its.names_text(), want);
    assert_eq!(&*its.serial, "AB01");
    // That of nothing is well known; the rest of such a certificate is too.
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(
        ClientIdentity::of(&[]),
        ClientIdentity {
            fingerprint: empty.into(),
            ..ClientIdentity::default()
        }
    );
}

#[test]
fn odd_subjects_are_one_line_and_no_other_name() {
    let its = named("a\nreason=x\0b");
    assert_eq!(&*its.subject, "CN=a\\0Areason=x\\00b");
    assert_eq!(its.common_name, None, "readers may stop at the NUL");
    assert_eq!(&*named("\u{85}").subject, "CN=\\C2\\85");
    assert_eq!(named("").common_name, None);
    assert_eq!(named("é").common_name.as_deref(), Some("é"));
    let utf_16 = DnValue::BmpString("Zoë".try_into().unwrap());
    let its = identity(subject([(DnType::CommonName, utf_16)]), Vec::new());
    assert_eq!(its.common_name.as_deref(), Some("Zoë"));
    let odd = DnValue::TeletexString("x".try_into().unwrap());
    let own = DnType::CustomDnType(vec![1, 2, 3]);
    let parts = [(DnType::CommonName, odd), (own, text("y"))];
    let its = identity(subject(parts), Vec::new());
    assert_eq!(&*its.subject, "1.2.3=#0c0179,CN=#140178");
    assert_eq!(its.common_name, None);
}

#[test]
fn names_are_bounded() {
    let its = named(&"é".repeat(200));
    assert_eq!(its.common_name, None, "400 bytes");
    assert_eq!(its.subject.len(), SUBJECT_MAX);
    assert!(its.subject.ends_with("é..."), "{}", its.subject);
    let many = |length: usize, count: usize| {
        let name = |i| SanType::DnsName(ia5(&format!("{i:0length$}")));
        identity(subject([]), (0..count).map(name).collect()).names
    };
    assert_eq!(many(2, 40).len(), NAMES_MAX);
    assert_eq!(many(246, 10).len(), 4);
    assert_eq!(many(300, 3).len(), 0);
    let several = ["a,DNS:b", "a b", "a\nb", ""].map(|its| SanType::DnsName(ia5(its)));
    assert_eq!(identity(subject([]), several.into()).names.len(), 0);
}
