//! The answer of an authority about a certificate (OCSP; RFC 6960), as it is read from a file.
//!
//! It is checked that it is an answer, about this certificate, that this is good, and for how long.
//! Who has signed it is not: clients verify that.

use std::path::Path;

use x509_parser::asn1_rs::{Any, Class, Tag};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::control::remote::{contents, unfit};
use crate::tls::Staple;

/// Reads the answer about a certificate. May take long.
pub(super) fn read(path: &Path, certificate: &[u8]) -> Result<Staple, String> {
    let answer = contents(path)?;
    let parsed = X509Certificate::from_der(certificate);
    let (_, parsed) = parsed.map_err(|_| unfit(path, &"its certificate can't be read"))?;
    let until = valid_until(&answer, parsed.raw_serial()).map_err(|why| unfit(path, &why))?;
    Ok(Staple { answer, until })
}

/// Until when an answer is good for the certificate with this serial number, in seconds since 1970.
fn valid_until(answer: &[u8], serial: &[u8]) -> Result<i64, &'static str> {
    let mut answers = answers(answer).ok_or(MALFORMED)??;
    while !answers.is_empty() {
        let about = about(&mut answers).ok_or(MALFORMED)?;
        if about.serial == serial {
            return match about.status {
                GOOD => about.next_update.ok_or(ENDLESS),
                REVOKED => Err("it says that the certificate is revoked: use another one"),
                _ => Err("it says that the authority does not know the certificate"),
            };
        }
    }
    Err("it is about another certificate")
}

/// What an answer says of a certificate.
struct About<'a> {
    serial: &'a [u8],
    status: u32,
    next_update: Option<i64>,
}

/// The answers about single certificates. `None`: it is malformed.
fn answers(mut all: &[u8]) -> Option<Result<&[u8], &'static str>> {
    let mut response = enter(&mut all, Tag::Sequence)?;
    if !all.is_empty() {
        return None;
    }
    let status = enter(&mut response, Tag::Enumerated)?;
    if status != SUCCESSFUL {
        return Some(Err("it is an error of the responder: ask again"));
    }
    let mut bytes = tagged(&mut response, 0)?;
    let mut bytes = enter(&mut bytes, Tag::Sequence)?;
    if enter(&mut bytes, Tag::Oid)? != BASIC {
        return None;
    }
    let mut basic = enter(&mut bytes, Tag::OctetString)?;
    let mut basic = enter(&mut basic, Tag::Sequence)?;
    let mut data = enter(&mut basic, Tag::Sequence)?;
    // The signature's algorithm and the signature follow.
    enter(&mut basic, Tag::Sequence)?;
    enter(&mut basic, Tag::BitString)?;
    // The version, which is left out where it is 1, and the responder, in one of two ways.
    let _ = tagged(&mut data, 0);
    tagged(&mut data, 1).or_else(|| tagged(&mut data, 2))?;
    time(&mut data)?;
    Some(Ok(enter(&mut data, Tag::Sequence)?))
}

/// The next answer about a single certificate.
fn about<'a>(answers: &mut &'a [u8]) -> Option<About<'a>> {
    let mut single = enter(answers, Tag::Sequence)?;
    let mut id = enter(&mut single, Tag::Sequence)?;
    // How its issuer is hashed, and the hashes of the issuer's name and key.
    enter(&mut id, Tag::Sequence)?;
    enter(&mut id, Tag::OctetString)?;
    enter(&mut id, Tag::OctetString)?;
    let serial = enter(&mut id, Tag::Integer)?;
    let status = next(&mut single)?;
    time(&mut single)?;
    let next_update = match tagged(&mut single, 0) {
        None => None,
        Some(mut at) => Some(time(&mut at)?),
    };
    let is_status = status.class() == Class::ContextSpecific;
    is_status.then(|| About {
        serial,
        status: status.tag().0,
        next_update,
    })
}

fn next<'a>(from: &mut &'a [u8]) -> Option<Any<'a>> {
    let (rest, any) = Any::from_der(from).ok()?;
    *from = rest;
    Some(any)
}

/// What the next value holds, which has this type.
fn enter<'a>(from: &mut &'a [u8], tag: Tag) -> Option<&'a [u8]> {
    of_class(from, Class::Universal, tag)
}

/// What the next value holds, which has this tag of its context; else it is not taken.
fn tagged<'a>(from: &mut &'a [u8], tag: u32) -> Option<&'a [u8]> {
    of_class(from, Class::ContextSpecific, Tag(tag))
}

fn of_class<'a>(from: &mut &'a [u8], class: Class, tag: Tag) -> Option<&'a [u8]> {
    let mut after = *from;
    let any = next(&mut after)?;
    if any.class() != class || any.tag() != tag {
        return None;
    }
    *from = after;
    Some(any.data)
}

fn time(from: &mut &[u8]) -> Option<i64> {
    let (rest, time) = ASN1Time::from_der(from).ok()?;
    *from = rest;
    Some(time.timestamp())
}

const MALFORMED: &str =
    "it is no answer by OCSP in DER (RFC 6960), as `openssl ocsp -respout` writes it";
const ENDLESS: &str = "it has no `nextUpdate`, so that nothing says how long it is good for";
/// Of a response (RFC 6960, section 4.2.1).
const SUCCESSFUL: &[u8] = &[0];
/// Of a certificate.
const GOOD: u32 = 0;
const REVOKED: u32 = 1;
/// The kind of response that there is: 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

#[cfg(test)]
mod tests;
