//! Values from the bytes of an input. Without bytes all values are 0.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mahoraga::prefix::Prefix;

/// The bytes that are left.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Below `end`, which is above 0.
    pub fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    /// An address of which few bits differ, so that prefixes and sources meet.
    pub fn ip(&mut self) -> IpAddr {
        let [kind, high, low, last] = [(); 4].map(|()| self.byte());
        let v4 = Ipv4Addr::new(10, high & 0x81, low & 0x81, last & 0x83);
        let mut v6 = [0; 16];
        (v6[0], v6[6], v6[7]) = (0x20, high & 0x81, low & 0x81);
        (v6[8], v6[15]) = (kind & 0x80, last);
        match kind % 8 {
            0..3 => v4.into(),
            3 => v4.to_ipv6_mapped().into(),
            // The last address of all: ranges have nothing behind it.
            4 if last == 0 => Ipv4Addr::BROADCAST.into(),
            4 => [u8::MAX; 16].into(),
            _ => Ipv6Addr::from(v6).into(),
        }
    }

    /// The first bits of such an address.
    pub fn prefix(&mut self) -> Prefix {
        let (ip, length) = (self.ip(), self.byte());
        let lengths = if ip.is_ipv4() { 33 } else { 129 };
        Prefix::new(ip, length % lengths).expect("a length that fits")
    }
}
