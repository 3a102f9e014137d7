//! The CONNECT of an MQTT client, read but not answered (MQTT 3.1; 3.1.1 and 5.0, section 3.1).
//!
//! It is read up to the client id: what follows (a will, a password) may be longer than a look.

use std::str;

use super::Miss;

/// What a client says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MqttConnect<'a> {
    /// The version of the protocol.
    pub version: MqttVersion,
    /// What brokers know its session by; empty where the broker is to choose one.
    pub client_id: &'a str,
}

/// The versions of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// 3.1: `MQIsdp`, level 3.
    V3,
    /// 3.1.1: level 4.
    V311,
    /// 5.0.
    V5,
}

impl<'a> MqttConnect<'a> {
    /// Reads the packet that all these bytes of a client begin with.
    pub fn parse(first: &'a [u8]) -> Result<Self, Miss> {
        let (version, mut packet) = head(first)?;
        let flags = packet.byte()?;
        if flags & RESERVED != 0 && version != MqttVersion::V3 {
            return Err(Miss::Absent);
        }
        packet.take(KEEP_ALIVE)?;
        if version == MqttVersion::V5 {
            let properties = packet.number()?;
            packet.take(properties)?;
        }
        let id = packet.string()?;
        let client_id = str::from_utf8(id).map_err(|_| Miss::Absent)?;
        // "MUST NOT include an encoding of the null character U+0000".
        if client_id.contains('\0') {
            return Err(Miss::Absent);
        }
        Ok(Self { version, client_id })
    }
}

/// Whether it is a CONNECT, by all that comes before its flags.
pub fn is_connect(first: &[u8]) -> Result<(), Miss> {
    head(first).map(|_| ())
}

/// The version, and what follows it.
fn head(first: &[u8]) -> Result<(MqttVersion, Part<'_>), Miss> {
    let mut packet = Part {
        bytes: first,
        left: 1 + LENGTH_BYTES_MAX,
    };
    if packet.byte()? != CONNECT {
        return Err(Miss::Absent);
    }
    packet.left = packet.number()?;
    let version = packet.version()?;
    Ok((version, packet))
}

/// Bytes of which some may not have come yet. A read past the end of the packet is
/// [`Miss::Absent`].
struct Part<'a> {
    bytes: &'a [u8],
    /// How many bytes the packet still has.
    left: usize,
}

impl<'a> Part<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Miss> {
        self.left = self.left.checked_sub(count).ok_or(Miss::Absent)?;
        let (taken, after) = self.bytes.split_at_checked(count).ok_or(Miss::Incomplete)?;
        self.bytes = after;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Miss> {
        self.take(1)?.first().copied().ok_or(Miss::Incomplete)
    }

    /// A variable byte integer (MQTT 5.0, section 1.5.5): seven bits in each byte, the lowest
    /// first.
    fn number(&mut self) -> Result<usize, Miss> {
        let mut number = 0;
        for place in 0..LENGTH_BYTES_MAX {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Miss::Absent)
    }

    /// Bytes whose length is in two bytes.
    fn string(&mut self) -> Result<&'a [u8], Miss> {
        let length = usize::from(self.byte()?) << 8 | usize::from(self.byte()?);
        self.take(length)
    }

    /// The name of the protocol and its level, each byte of which is checked as soon as it has
    /// come.
    fn version(&mut self) -> Result<MqttVersion, Miss> {
        let is_old = match [self.byte()?, self.byte()?] {
            [0, 4] => false,
            [0, 6] => true,
            _ => return Err(Miss::Absent),
        };
        for expected in if is_old { &b"MQIsdp"[..] } else { b"MQTT" } {
            if self.byte()? != *expected {
                return Err(Miss::Absent);
            }
        }
        // Bridges between brokers set the highest bit of the old levels.
        match (is_old, self.byte()?) {
            (true, 3 | 0x83) => Ok(MqttVersion::V3),
            (false, 4 | 0x84) => Ok(MqttVersion::V311),
            (false, 5) => Ok(MqttVersion::V5),
            _ => Err(Miss::Absent),
        }
    }
}

/// The type of the packet, and its flags, which are 0.
const CONNECT: u8 = 0x10;
const LENGTH_BYTES_MAX: usize = 4;
/// A flag that "MUST" be 0 from 3.1.1 on.
const RESERVED: u8 = 1;
const KEEP_ALIVE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use MqttVersion::{V3, V5, V311};

    /// With the length, which has as few bytes as it can.
    fn packet(rest: &[u8]) -> Vec<u8> {
        let mut length = Vec::new();
        let mut left = rest.len();
        loop {
            let low = u8::try_from(left & 0x7f).expect("seven bits");
            left >>= 7;
            length.push(if left == 0 { low } else { low | 0x80 });
            if left == 0 {
                break;
            }
        }
        [&[CONNECT], &length[..], rest].concat()
    }

    fn string(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).expect("a short string");
        [&length.to_be_bytes(), bytes].concat()
    }

    fn connect(name: &[u8], level: u8, properties: &[u8], id: &[u8]) -> Vec<u8> {
        let name = string(name);
        // With a user's name behind the client id.
        let rest = [
            &name[..],
            &[level, 0x82, 0, 60],
            properties,
            &string(id),
            &string(b"ann"),
        ];
        packet(&rest.concat())
    }

    #[test]
    fn the_client_id_is_found_once_it_has_come() {
        let long = "a".repeat(300);
        for (name, level, properties, version) in [
            (&b"MQIsdp"[..], 3, &b""[..], V3),
            (b"MQIsdp", 0x83, b"", V3),
            (b"MQTT", 4, b"", V311),
            (b"MQTT", 0x84, b"", V311),
            (b"MQTT", 5, b"\0", V5),
            (b"MQTT", 5, b"\x05\x11\0\0\0\x0a", V5),
            (b"MQTT", 5, &[&[0x80, 1], &[0x26; 128][..]].concat(), V5),
        ] {
            for client_id in ["", "a", "sensor-17", "b\u{fc}ro/4", &long] {
                let first = connect(name, level, properties, client_id.as_bytes());
                let end = first.len() - string(b"ann").len();
                for length in 0..=first.len() {
                    let expected = if length < end {
                        Err(Miss::Incomplete)
                    } else {
                        Ok(MqttConnect { version, client_id })
                    };
                    let parsed = MqttConnect::parse(&first[..length]);
                    assert_eq!(parsed, expected, "{length} bytes of {first:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_connect_is_absent_at_its_first_broken_byte() {
        let good = connect(b"MQTT", 4, b"", b"id");
        let with = |at: usize, byte| {
            let mut first = good.clone();
            first[at] = byte;
            first
        };
        for (first, end) in [
            (with(0, 0x11), 1),
            (with(0, 0x20), 1),
            // The packet ends within its head, within its id.
            (with(1, 1), 3),
            (with(1, 13), 14),
            (vec![CONNECT, 0x80, 0x80, 0x80, 0x80, 1], 5),
            (with(3, 5), 4),
            (with(4, b'm'), 5),
            (with(8, 3), 9),
            (with(8, 0x85), 9),
            (with(9, 1), 10),
            (with(12, 0xff), 14),
            (connect(b"MQTT", 4, b"", b"a\0b"), 17),
            (connect(b"MQTT", 4, b"", b"a\xfcb"), 17),
            (connect(b"MQTT", 5, b"\x7f", b"id"), 13),
            (connect(b"MQTT", 5, b"\x80\x80\x80\x80", b"id"), 16),
            (connect(b"MQTX", 4, b"", b"id"), 8),
        ] {
            for length in 0..=first.len() {
                let expected = if length < end {
                    Miss::Incomplete
                } else {
                    Miss::Absent
                };
                let parsed = MqttConnect::parse(&first[..length]);
                assert_eq!(parsed, Err(expected), "{length} bytes of {first:?}");
            }
        }
    }
}
