//! Hellos of TLS, against rustls' acceptor and the crate `tls-parser`.

use mahoraga::peek::client_hello::{ClientHello, each_offer};
use mahoraga::peek::{Miss, Name};
use rustls::server::Acceptor;
use tls_parser::{SNIType, TlsExtension, TlsMessage, TlsMessageHandshake};

/// A hello that others read has the same name and protocols for us: the bytes as they are, and as
/// what follows the head of a message, so that its length and the records are right.
pub fn hellos(bytes: &[u8]) {
    compare(bytes);
    if let Some(body) = bytes.get(HEADS..) {
        compare(&in_records(body));
    }
}

fn in_records(body: &[u8]) -> Vec<u8> {
    let [.., high, middle, low] = body.len().to_be_bytes();
    let message = [&[1, high, middle, low], body].concat();
    let mut records = Vec::new();
    for fragment in message.chunks(50 + body.len() % 1_000) {
        let [.., high, low] = fragment.len().to_be_bytes();
        records.extend_from_slice(&[22, 3, 1, high, low]);
        records.extend_from_slice(fragment);
    }
    records
}

fn compare(bytes: &[u8]) {
    let ours = ClientHello::parse(bytes);
    match (rustls(bytes), &ours) {
        // To rustls addresses are no names.
        (Rustls::Accepted(name, protocols), Ok(hello)) => {
            let is_same = name.is_none_or(|name| hello.server_name == Some(*name));
            assert!(is_same, "{hello:?}");
            assert_offers(bytes, &protocols);
        }
        // rustls takes the first of several names, and skips what follows.
        (Rustls::Accepted(..), Err(miss)) => {
            assert!(*miss == Miss::Absent && has_odd_names(bytes), "{miss:?}");
        }
        // It waits for the end of the record in which the message ends.
        (Rustls::Incomplete, Ok(_)) => assert!(message(bytes).is_none()),
        // It checks more.
        (Rustls::Refused, _) | (Rustls::Incomplete, Err(_)) => {}
    }
    if let (Ok(hello), Some(message)) = (&ours, message(bytes))
        && let Some(protocols) = compare_with_tls_parser(hello, &message)
    {
        assert_offers(bytes, &protocols);
    }
}

/// These protocols, in this order.
fn assert_offers(bytes: &[u8], protocols: &[Vec<u8>]) {
    let mut offers = Vec::new();
    let walked = each_offer(bytes, |name| offers.push(name.to_vec()));
    assert_eq!((walked, &*offers), (Ok(()), protocols));
}

enum Rustls {
    /// The name, and the protocols.
    Accepted(Option<Box<Name>>, Vec<Vec<u8>>),
    Incomplete,
    Refused,
}

fn rustls(mut bytes: &[u8]) -> Rustls {
    let mut acceptor = Acceptor::default();
    // It reads a limited amount at once.
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Rustls::Refused;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let name = hello.server_name();
                let alpn = hello.alpn().into_iter().flatten();
                let name = name.and_then(|name| Name::read(name.bytes()));
                return Rustls::Accepted(name.map(Box::new), alpn.map(<[u8]>::to_vec).collect());
            }
            Err(_) => return Rustls::Refused,
        }
    }
    Rustls::Incomplete
}

/// All bytes of the records that hold the first message; `None`: not all of these have come.
fn message(mut records: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let (header, rest) = records.split_first_chunk::<5>()?;
        let length = u16::from_be_bytes([header[3], header[4]]);
        let (fragment, after) = rest.split_at_checked(length.into())?;
        message.extend_from_slice(fragment);
        if let [_, high, middle, low, ..] = *message {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if message.len() >= 4 + length {
                message.truncate(4 + length);
                return Some(message);
            }
        }
        records = after;
    }
}

/// The protocols that it reads, if it reads all extensions.
fn compare_with_tls_parser(ours: &ClientHello, message: &[u8]) -> Option<Vec<Vec<u8>>> {
    let parsed = tls_parser::parse_tls_message_handshake(message);
    let Ok((_, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(theirs)))) = parsed else {
        panic!("it reads no hello in {message:?}");
    };
    assert_eq!(
        theirs.session_id.unwrap_or_default(),
        ours.session_id.as_bytes()
    );
    let extensions = theirs.ext.unwrap_or_default();
    // It stops at an extension that it finds malformed: we look into few of them.
    let Ok(([], extensions)) = tls_parser::parse_tls_client_hello_extensions(extensions) else {
        return None;
    };
    let (mut names, mut alpn) = (Vec::new(), Vec::new());
    for extension in &extensions {
        if let TlsExtension::SNI(all) = extension {
            let hosts = all.iter().filter(|name| name.0 == SNIType::HostName);
            names.extend(hosts.map(|name| Name::read(name.1.iter().copied())));
        } else if let TlsExtension::ALPN(all) = extension {
            alpn.extend(all.iter().map(|name| name.to_vec()));
        }
    }
    let our_name: Vec<_> = ours.server_name.iter().map(|name| Some(*name)).collect();
    assert_eq!(names, our_name);
    Some(alpn)
}

/// Whether the hello has an extension for names that does not hold one name alone.
fn has_odd_names(bytes: &[u8]) -> bool {
    let Some(message) = message(bytes) else {
        return false;
    };
    let mut windows = message.windows(9);
    windows.any(|window| {
        let two = |at: usize| usize::from(u16::from_be_bytes([window[at], window[at + 1]]));
        // The extension's type and length, the list's length, the name's type and length.
        two(0) == 0 && two(2) == two(4) + 2 && two(7) + 3 != two(4)
    })
}

/// Of a record, and of the message in it.
const HEADS: usize = 9;
