//! Which protocol a client speaks, by the first of its bytes or by its silence.

use super::records::Place;
use super::{BYTES_MAX, Miss, http, mqtt, postgres, rdp};

/// A protocol, or what is known of one that is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TLS: a ClientHello (RFC 8446, section 4.1.2).
    Tls,
    /// A request of HTTP/1 (RFC 9112), or the preface of HTTP/2 (RFC 9113, section 3.4).
    Http,
    /// SSH: the identification string (RFC 4253, section 4.2).
    Ssh,
    /// PostgreSQL: a start-up, an SSL or GSS encryption request, or a cancel request.
    Postgres,
    /// RDP: a connection request (MS-RDPBCGR, section 2.2.1.1).
    Rdp,
    /// MQTT: a CONNECT packet (MQTT 5.0, section 3.1).
    Mqtt,
    /// Another one whose clients speak first, or one that was begun and not finished in time.
    Other,
    /// The client says nothing: its server speaks first, as in SMTP, FTP and MySQL.
    ServerFirst,
}

impl Protocol {
    /// Every protocol, by its name.
    pub const ALL: [(&'static str, Self); 8] = [
        ("tls", Self::Tls),
        ("http", Self::Http),
        ("ssh", Self::Ssh),
        ("postgres", Self::Postgres),
        ("rdp", Self::Rdp),
        ("mqtt", Self::Mqtt),
        ("other", Self::Other),
        ("server_first", Self::ServerFirst),
    ];

    /// The protocol of a client that begins with these bytes; [`Miss::Absent`]: it is none that its
    /// bytes tell.
    pub fn of(first: &[u8]) -> Result<Self, Miss> {
        let first = first.get(..BYTES_MAX).unwrap_or(first);
        let mut incomplete = false;
        for (_, protocol) in Self::ALL {
            match protocol.is_of(first) {
                Ok(()) => return Ok(protocol),
                Err(Miss::Incomplete) => incomplete = true,
                Err(Miss::Absent) => {}
            }
        }
        match incomplete && first.len() < BYTES_MAX {
            true => Err(Miss::Incomplete),
            false => Err(Miss::Absent),
        }
    }

    /// No bytes are of two protocols, once they suffice for one.
    fn is_of(self, first: &[u8]) -> Result<(), Miss> {
        match self {
            Self::Tls => match Place::first(first).byte()? {
                CLIENT_HELLO => Ok(()),
                _ => Err(Miss::Absent),
            },
            // It could be the method of a request too, and suffices before that does.
            Self::Http if first.starts_with(SSH) => Err(Miss::Absent),
            Self::Http => match starts_with(first, HTTP_2) {
                Err(Miss::Absent) => http::is_request(first),
                preface => preface,
            },
            Self::Ssh => starts_with(first, SSH),
            Self::Postgres => postgres::is_start(first),
            Self::Rdp => rdp::is_request(first),
            Self::Mqtt => mqtt::is_connect(first),
            Self::Other | Self::ServerFirst => Err(Miss::Absent),
        }
    }
}

fn starts_with(first: &[u8], start: &[u8]) -> Result<(), Miss> {
    if first.starts_with(start) {
        Ok(())
    } else if start.starts_with(first) {
        Err(Miss::Incomplete)
    } else {
        Err(Miss::Absent)
    }
}

const CLIENT_HELLO: u8 = 1;
const SSH: &[u8] = b"SSH-";
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a client, and how many of them tell its protocol.
    const SAMPLES: [(Protocol, &[u8], usize); 12] = [
        (Protocol::Ssh, b"SSH-GET /a HTTP/1.1\r\nHost: a\r\n", 4),
        (
            Protocol::Tls,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            6,
        ),
        (Protocol::Http, b"GET /a HTTP/1.1\r\nHost: a\r\n", 17),
        (Protocol::Http, b"SEARCH /a HTTP/1.1\r\n", 20),
        (Protocol::Http, HTTP_2, 24),
        (Protocol::Ssh, b"SSH-2.0-OpenSSH_9.9\r\n", 4),
        (Protocol::Postgres, b"\0\0\0\x08\x04\xd2\x16\x2f", 8),
        (
            Protocol::Postgres,
            b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02",
            8,
        ),
        (Protocol::Postgres, b"\0\0\0\x13\0\x03\0\0user\0me\0\0", 8),
        (
            Protocol::Rdp,
            b"\x03\x00\x00\x0b\x06\xe0\x00\x00\x00\x00\x00",
            11,
        ),
        (Protocol::Mqtt, b"\x10\x10\x00\x04MQTT\x05", 9),
        (Protocol::Mqtt, b"\x10\x80\x01\x00\x06MQIsdp\x03", 12),
    ];

    #[test]
    fn each_protocol_is_told_by_its_first_bytes_and_no_sooner() {
        for (protocol, first, end) in SAMPLES {
            for length in 0..=first.len() {
                let told = Protocol::of(&first[..length]);
                let expected = if length < end {
                    Err(Miss::Incomplete)
                } else {
                    Ok(protocol)
                };
                assert_eq!(told, expected, "{protocol:?}, {length} bytes");
            }
        }
    }

    #[test]
    fn other_bytes_are_of_no_protocol() {
        let others: [&[u8]; 8] = [
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
            b"EHLO a.example\r\n",
            b"SSX\r",
            b"\0\0\0\x09\x04\xd2\x16\x2f",
            b"\0\0\0\x10\0\x02\0\0",
            b"\x10\x10\x00\x04MQTX",
            b"\x10\xff\xff\xff\xff",
        ];
        for first in others {
            assert_eq!(Protocol::of(first), Err(Miss::Absent), "{first:?}");
        }
        // A request line that goes on for ever.
        let mut line = b"GET /".to_vec();
        line.resize(BYTES_MAX, b'a');
        assert_eq!(Protocol::of(&line), Err(Miss::Absent));
    }

    #[test]
    fn an_answer_stays_whatever_the_bytes() {
        let mut random = fastrand::Rng::with_seed(3);
        for round in 0..2_000 {
            let mut first = SAMPLES[round % SAMPLES.len()].1.to_vec();
            for _ in 0..random.usize(0..3) {
                let at = random.usize(..first.len());
                first[at] = random.u8(..);
            }
            let told: Vec<_> = (0..=first.len())
                .map(|length| Protocol::of(&first[..length]))
                .skip_while(|told| *told == Err(Miss::Incomplete))
                .collect();
            assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{first:?}");
        }
    }
}
