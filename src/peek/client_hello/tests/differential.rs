//! This parser against rustls', on hellos with random changes.

use std::net::IpAddr;

use rustls::server::Acceptor;

use super::*;
use crate::peek::tests::mutate;

#[test]
fn rustls_reads_the_same_server_name() {
    let mut random = fastrand::Rng::with_seed(MUTATIONS);
    let (mut named, mut unnamed, mut incomplete, mut refused) = (0, 0, 0, 0);
    let mut lenient = 0;
    for round in 0..MUTATIONS {
        let capture = &CAPTURES[usize::try_from(round).expect("a small number") % CAPTURES.len()];
        let first = changed(capture, &mut random);
        let ours = ClientHello::parse(&first);
        match rustls(&first) {
            Rustls::Named(name) => {
                named += 1;
                let read = Name::read(name.bytes()).expect("a name in the DNS");
                match ours.map(|hello| hello.server_name) {
                    Ok(ours) => assert_eq!(ours, Some(read), "{first:?}"),
                    // rustls skips everything after a name of another type, even if its length is
                    // wrong.
                    Err(miss) => {
                        assert_eq!(miss, Miss::Absent, "{first:?}");
                        assert!(has_more_names(&first, name.as_bytes()), "{first:?}");
                        lenient += 1;
                    }
                }
            }
            // To rustls addresses are no names, and it may allow what breaks a rule there.
            Rustls::Unnamed => {
                unnamed += 1;
                let hello = ours.unwrap_or_else(|miss| panic!("{miss:?}: {first:?}"));
                assert!(hello.server_name.is_none_or(is_address), "{first:?}");
            }
            Rustls::Incomplete => {
                incomplete += 1;
                // rustls waits for the end of the record in which the message ends.
                assert!(ours.is_err() || is_cut_in_a_record(&first), "{first:?}");
            }
            Rustls::Refused => refused += 1,
        }
    }
    // Without some of each nothing was compared.
    for count in [named, unnamed, incomplete, refused] {
        let counts = [named, unnamed, incomplete, refused, lenient];
        assert!(count > MUTATIONS / 100 && lenient < count, "{counts:?}");
    }
}

/// rustls' result for a client's bytes.
enum Rustls {
    Named(String),
    Unnamed,
    Incomplete,
    Refused,
}

fn rustls(first: &[u8]) -> Rustls {
    let mut acceptor = Acceptor::default();
    let mut rest = first;
    // It reads a limited amount at once; a hello that does not end there is read on.
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Rustls::Refused;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return match accepted.client_hello().server_name() {
                    Some(name) => Rustls::Named(name.to_owned()),
                    None => Rustls::Unnamed,
                };
            }
            Err(_) => return Rustls::Refused,
        }
    }
    Rustls::Incomplete
}

/// A message with small changes, in records of some length, truncated at times.
fn changed(capture: &Capture, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut message = message_of(capture.bytes);
    match random.u8(0..4) {
        0 => {}
        1 => mutate(&mut message, random),
        // Changes the name, its lengths and the bytes around it.
        2 => {
            if let Some(name) = capture.name {
                let mut windows = message.windows(name.len());
                let at = windows.position(|window| window.eq_ignore_ascii_case(name.as_bytes()));
                let at = at.expect("the name") - 9 + random.usize(0..name.len() + 11);
                // The name may be the last of the message.
                let at = at.min(message.len() - 1);
                message[at] = *random.choice(b"\0\x01.-_aZ09:*\x7f\xff").expect("a byte");
            }
        }
        _ => {
            let at = random.usize(0..message.len());
            message[at] ^= 1 << random.u8(0..8);
        }
    }
    let length = random.usize(1..=message.len().max(1));
    let mut first = in_records(&message, length);
    if random.u8(0..8) == 0 {
        mutate(&mut first, random);
    }
    first
}

fn has_more_names(records: &[u8], name: &[u8]) -> bool {
    let message = message_of(records);
    let entry = name_of_type(0, name);
    let mut windows = message.windows(2 + entry.len());
    windows.any(|window| {
        let length = usize::from(u16::from_be_bytes([window[0], window[1]]));
        window[2..].eq_ignore_ascii_case(&entry) && length > entry.len()
    })
}

fn is_cut_in_a_record(mut records: &[u8]) -> bool {
    while let [_, _, _, high, low, after @ ..] = records {
        let length = u16::from_be_bytes([*high, *low]).into();
        let Some(later) = after.get(length..) else {
            return true;
        };
        records = later;
    }
    false
}

fn is_address(name: Name) -> bool {
    let name = str::from_utf8(name.as_bytes()).expect("ASCII");
    name.parse::<IpAddr>().is_ok()
}

const MUTATIONS: u64 = 20_000;
