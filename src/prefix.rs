//! Prefixes of IP addresses, as in `10.0.0.0/8`.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An address of which only the first bits count. The others are 0.
///
/// IPv4 addresses that are written as IPv6 ones (`::ffff:10.0.0.0/104`) are IPv4 addresses: a
/// client of a listener on `[::]` has that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    ip: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PrefixError {
    /// It is not written as one.
    #[error("expected an IP address or a prefix, such as \"10.0.0.0/8\" or \"2001:db8::/32\"")]
    Malformed,
    /// Bits are set that do not count.
    #[error("the address has bits beyond the /{}: write `{prefix}`", .prefix.length)]
    Beyond {
        /// Without those bits.
        prefix: Prefix,
    },
}

impl Prefix {
    /// The first bits of an address; `None`: it has not so many.
    #[must_use]
    pub fn new(ip: IpAddr, length: u8) -> Option<Self> {
        let prefix = match ip {
            IpAddr::V4(ip) if length <= 32 => Self {
                ip: Ipv4Addr::from(u32::from(ip) & high_bits(u32::MAX, 32 - length)).into(),
                length,
            },
            IpAddr::V6(ip) if length <= 128 => {
                let spare = u32::from(128 - length);
                let bits = u128::MAX.checked_shl(spare).unwrap_or(0);
                let ip = Ipv6Addr::from(u128::from(ip) & bits);
                match ip.to_ipv4_mapped() {
                    Some(ip) if length >= MAPPED => Self {
                        ip: ip.into(),
                        length: length - MAPPED,
                    },
                    _ => Self {
                        ip: ip.into(),
                        length,
                    },
                }
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(prefix)
    }

    /// Its first address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// How many bits count.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.ip.is_ipv4() && Self::new(ip, self.length) == Some(*self)
    }

    /// Whether all addresses of another prefix are in it.
    #[must_use]
    pub fn covers(&self, other: Self) -> bool {
        self.length <= other.length && self.contains(other.ip)
    }

    /// Whether prefixes of one family have all of its addresses together.
    pub fn are_all_addresses<'a>(all: impl Iterator<Item = &'a Self>) -> bool {
        let mut all: Vec<_> = all.collect();
        all.sort();
        let mut next = Some(0);
        for prefix in all {
            let (bits, first) = match prefix.ip {
                IpAddr::V4(ip) => (32, u32::from(ip).into()),
                IpAddr::V6(ip) => (128, u128::from(ip)),
            };
            let Some(missing) = next else { break };
            if first > missing {
                return false;
            }
            let spare = u32::from(bits - prefix.length);
            let size = 1_u128.checked_shl(spare);
            let end = size.and_then(|size| first.checked_add(size));
            // Behind the last address there is none.
            let end = end.filter(|end| bits == 128 || *end >> 32 == 0);
            next = end.map(|end| end.max(missing));
        }
        next.is_none()
    }

    /// The first and the last 64 bits of its first address.
    #[must_use]
    pub fn halves(&self) -> [u64; 2] {
        let bits = match self.ip {
            IpAddr::V4(ip) => u32::from(ip).into(),
            IpAddr::V6(ip) => u128::from(ip),
        };
        [bits >> 64, bits & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0))
    }

    /// Whether it is one address.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.length == if self.ip.is_ipv4() { 32 } else { 128 }
    }
}

/// `bits` without the last `spare` ones.
fn high_bits(bits: u32, spare: u8) -> u32 {
    bits.checked_shl(spare.into()).unwrap_or(0)
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads an address, or an address, a slash and the number of bits that count.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| PrefixError::Malformed)?;
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Some(all), |length| {
            // `parse` would take a sign.
            let is_number = length.bytes().all(|b| b.is_ascii_digit());
            length.parse().ok().filter(|_| is_number)
        });
        let prefix = length.and_then(|length| Self::new(ip, length));
        let prefix = prefix.ok_or(PrefixError::Malformed)?;
        match prefix.ip == ip.to_canonical() {
            true => Ok(prefix),
            false => Err(PrefixError::Beyond { prefix }),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole() {
            return self.ip.fmt(f);
        }
        write!(f, "{}/{}", self.ip, self.length)
    }
}

/// The bits before an IPv4 address that is written as an IPv6 one (RFC 4291, section 2.5.5.2).
const MAPPED: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let prefix: Prefix = text.parse().unwrap();
        prefix.to_string()
    }

    #[test]
    fn prefixes_are_read_and_written() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "10.1.2.3",
            "2001:db8::/32",
            "::/0",
            "::1",
        ] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown("10.1.2.3/32"), "10.1.2.3");
        assert_eq!(shown("2001:db8::1/128"), "2001:db8::1");
        // An IPv4 client has its IPv4 address, whatever it connects to.
        assert_eq!(shown("::ffff:10.0.0.0/104"), "10.0.0.0/8");
        assert_eq!(shown("::ffff:10.1.2.3"), "10.1.2.3");
    }

    #[test]
    fn other_texts_are_refused() {
        let error = |text: &str| text.parse::<Prefix>().unwrap_err();
        for text in [
            "",
            "x",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "::/+1",
            "::1%1",
        ] {
            assert_eq!(error(text), PrefixError::Malformed, "{text}");
        }
        assert_eq!(
            error("10.1.2.3/8").to_string(),
            "the address has bits beyond the /8: write `10.0.0.0/8`"
        );
        assert_eq!(
            error("2001:db8::1/32").to_string(),
            "the address has bits beyond the /32: write `2001:db8::/32`"
        );
    }

    #[test]
    fn a_prefix_contains_the_addresses_that_begin_like_it() {
        let holds = |prefix: &str, ip: &str| {
            let prefix: Prefix = prefix.parse().unwrap();
            prefix.contains(ip.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("::/0", "1.2.3.4"));
        assert!(holds("2001:db8::/32", "2001:db8:1::") && !holds("2001:db8::/32", "2001:db9::"));
    }
}
