//! Connection requests as clients send them, and broken ones.

use super::*;
use crate::peek::tests::{assert_from, found};
use crate::peek::{Field, Peeked};

#[test]
fn the_cookie_is_found_when_all_of_the_request_has_come() {
    // The example of MS-RDPBCGR, section 4.1.1.
    let first = b"\x03\x00\x00\x2c\x27\xe0\x00\x00\x00\x00\x00Cookie: mstshash=eltons\r\n\
                  \x01\x00\x08\x00\x00\x00\x00\x00";
    assert_eq!(
        first,
        &request(b"Cookie: mstshash=eltons\r\n", NEGOTIATION)[..]
    );
    assert_from(first.len(), found(b"eltons"), &Field::RdpCookie, first);
    let mut more = first.to_vec();
    more.extend_from_slice(b"\x03\x00\x00\x00Cookie: mstshash=another\r\n");
    assert_from(first.len(), found(b"eltons"), &Field::RdpCookie, &more);
}

#[test]
fn what_a_cookie_line_says() {
    let cases: [(&[u8], Option<&[u8]>); 13] = [
        (b"Cookie: mstshash=a\r\n", Some(b"a")),
        (b"Cookie: mstshash=DOMAIN\\u v\r\n", Some(b"DOMAIN\\u v")),
        (
            b"Cookie: msts=3640205228.15629.0000\r\n",
            Some(b"3640205228.15629.0000"),
        ),
        (b"cookie:mstshash=a\r\n", Some(b"a")),
        (b"Cookie: mstshash=a\r\nCookie: mstshash=b\r\n", Some(b"a")),
        (b"Cookie: mstshash=\r\n", None),
        (b"Cookie: mstshash=a\0\r\n", None),
        (b"Cookie: mstshash=a\n", None),
        (b"Cookie: mstshash=a", None),
        (b"Cookie: another=a\r\n", None),
        (b"tsv://MS Terminal Services Plugin.1.Sessions\r\n", None),
        (b"", None),
        (b"\r\n", None),
    ];
    for (line, value) in cases {
        let first = request(line, NEGOTIATION);
        assert_eq!(cookie(&first), value.ok_or(Miss::Absent), "{line:?}");
    }
    assert_eq!(cookie(&request(b"", b"")), Err(Miss::Absent));
}

#[test]
fn a_broken_request_is_absent_at_its_first_broken_byte() {
    let good = request(b"Cookie: mstshash=eltons\r\n", NEGOTIATION);
    for (at, byte) in [
        // Another version, a reserved byte; too long; too short, too long for the indicator.
        (0, 2),
        (1, 1),
        (2, 2),
        (3, 10),
        (3, 0x2d),
        // Another length, another kind of message.
        (4, 0x26),
        (5, 0xd0),
    ] {
        let mut first = good.clone();
        first[at] = byte;
        // A length is checked once both its bytes, or the length and the indicator, have come.
        let end = match (at, byte) {
            (2, _) => 4,
            (3, 0x2d) => 5,
            _ => at + 1,
        };
        assert_from(end, Peeked::Absent, &Field::RdpCookie, &first);
    }
}

#[test]
fn the_longest_request_is_read() {
    let cookie_line = |length| [b"Cookie: mstshash=", &*vec![b'a'; length], b"\r\n"].concat();
    let longest = REQUEST_MAX - FIXED - cookie_line(0).len();
    let first = request(&cookie_line(longest), b"");
    assert_eq!(cookie(&first).map(<[u8]>::len), Ok(longest));
    let mut first = request(&cookie_line(longest + 1), b"");
    assert_eq!(cookie(&first), Err(Miss::Absent));
    // Also when the indicator is given the reserved value that fits.
    first[4] = 255;
    assert_eq!(cookie(&first), Err(Miss::Absent));
}

/// With the right lengths, where they fit.
fn request(line: &[u8], after: &[u8]) -> Vec<u8> {
    let length = FIXED + line.len() + after.len();
    let [high, low] = u16::try_from(length)
        .expect("a short request")
        .to_be_bytes();
    let indicator = u8::try_from(length - INDICATED_AFTER).unwrap_or(0);
    let fixed = [3, 0, high, low, indicator, 0xe0, 0, 0, 0, 0, 0];
    [&fixed, line, after].concat()
}

/// RDP Negotiation Request (MS-RDPBCGR, section 2.2.1.1.1).
const NEGOTIATION: &[u8] = b"\x01\x00\x08\x00\x00\x00\x00\x00";
