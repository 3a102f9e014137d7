//! The keys of a client: hashes of what the pool's strategy and its persistence look at.

use std::net::{IpAddr, SocketAddr};

use crate::config::Key;
use crate::hash;
use crate::peek::proxy_protocol::CheckedTlvs;
use crate::peek::{Field, FirstBytes, Miss, Name, Peeked};

use super::Plan;

/// A client's keys, as hashes; 0 where the pool does not need one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// What the strategy selects by.
    pub select: u64,
    /// What the client is remembered by.
    pub persist: u64,
    /// Its address, which it is remembered by until it shows the key of `persist`.
    pub source: u64,
}

/// The result of looking at a client's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Its keys, and how many of them had to be replaced by its address.
    Known(Keys, u8),
    /// More bytes are needed.
    Incomplete,
    /// Its name leads to no backend: it is refused.
    Nowhere,
}

impl Looked {
    /// The keys; none while they are not known.
    #[must_use]
    pub fn keys(self) -> Keys {
        match self {
            Self::Known(keys, _) => keys,
            Self::Incomplete | Self::Nowhere => Keys::default(),
        }
    }
}

impl Plan {
    /// Whether selection, or what backends are told first, needs a client's first bytes.
    #[must_use]
    pub fn peeks(&self) -> bool {
        let needs = |key: Option<&Key>| match key {
            Some(Key::Peeked(field)) => field.is_in_bytes(),
            Some(Key::SourceIp { .. } | Key::SourceIpPort) | None => false,
        };
        self.reads_hello
            || self.is_of_members()
            || needs(self.pool.strategy.key())
            || needs(self.persist_key())
    }

    /// Whether selection needs a client's address.
    #[must_use]
    pub fn needs_source(&self) -> bool {
        self.pool.strategy.key().is_some() || self.persist_key().is_some()
    }

    /// The keys of a client with these first bytes.
    #[must_use]
    pub fn look(&self, client: Option<SocketAddr>, first: &FirstBytes<'_>) -> Looked {
        if self.reads_hello && first.server_name() == Err(Miss::Incomplete) {
            return Looked::Incomplete;
        }
        match &self.members {
            Some(members) => members.look(first.server_name()),
            None => self.find(client, |field| first.key(field)),
        }
    }

    /// The keys of a client that would name this host, as a TLS server name or in HTTP, and send
    /// this target of a request, behind a proxy's header with these TLVs. Its address stands for
    /// what none of them tells.
    #[must_use]
    pub fn keys_of(
        &self,
        client: SocketAddr,
        (host, target): (Option<&str>, Option<&str>),
        tlvs: CheckedTlvs<'_>,
    ) -> Keys {
        if let Some(members) = &self.members {
            let name = host.and_then(|host| Name::read(host.bytes()));
            return members.look(name.as_ref().ok_or(Miss::Absent)).keys();
        }
        // A server name and the host of a request are one key.
        let names_host = host.is_some() || target.is_some_and(|target| !target.starts_with('/'));
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
            target.unwrap_or("/"),
            host.unwrap_or_default()
        );
        let request = FirstBytes::new(request.as_bytes(), true);
        let found = self.find(Some(client), |field| match field {
            Field::Sni | Field::HttpHost if names_host => request.key(&Field::HttpHost),
            Field::HttpPath if target.is_some() => request.key(field),
            Field::ProxyTlv(_) => FirstBytes::none().behind(tlvs).key(field),
            Field::Sni
            | Field::HttpHost
            | Field::HttpPath
            | Field::TlsSessionId
            | Field::HttpCookie(_)
            | Field::RdpCookie
            | Field::MqttClientId
            | Field::PostgresUser
            | Field::PostgresDatabase
            | Field::TlsClientCn
            | Field::TlsClientFingerprint => Peeked::Absent,
        });
        found.keys()
    }

    /// The keys of a client, whose first bytes have what `peek` finds.
    fn find(&self, client: Option<SocketAddr>, peek: impl Fn(&Field) -> Peeked) -> Looked {
        let source = source(client, &Key::default());
        let mut missed = 0;
        let mut look = |key: Option<&Key>| match key {
            None => Some(0),
            Some(Key::Peeked(field)) => match peek(field) {
                Peeked::Found(hash) => Some(hash),
                Peeked::Absent => {
                    missed += 1;
                    Some(source)
                }
                Peeked::Incomplete => None,
            },
            Some(key) => Some(self::source(client, key)),
        };
        match (look(self.pool.strategy.key()), look(self.persist_key())) {
            (Some(select), Some(persist)) => Looked::Known(
                Keys {
                    select,
                    persist,
                    source,
                },
                missed,
            ),
            _ => Looked::Incomplete,
        }
    }

    /// The keys of a client without its first bytes, behind a proxy's header with these TLVs: its
    /// address replaces keys that need them.
    #[must_use]
    pub fn keys_without_bytes(&self, client: Option<SocketAddr>, tlvs: CheckedTlvs<'_>) -> Keys {
        if !self.needs_source() {
            return Keys::default();
        }
        self.look(client, &FirstBytes::none().behind(tlvs)).keys()
    }

    /// Converts keys from the plan `old` to this one. Where the pool's key has changed, the
    /// client's address replaces it, because first bytes are looked at only once.
    #[must_use]
    pub fn take_over(
        &self,
        keys: Keys,
        old: &Self,
        (client, tlvs): (Option<SocketAddr>, CheckedTlvs<'_>),
    ) -> Keys {
        let mut taken = self.keys_without_bytes(client, tlvs);
        let has_same_key = match (&self.members, &old.members) {
            (None, None) => self.pool.strategy.key() == old.pool.strategy.key(),
            (Some(members), Some(old)) => members.read_alike(old),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if has_same_key {
            taken.select = keys.select;
        }
        if self.persist_key() == old.persist_key() {
            taken.persist = keys.persist;
        }
        taken
    }

    pub(super) fn persist_key(&self) -> Option<&Key> {
        self.pool.persist.as_ref().map(|persist| &persist.key)
    }
}

/// The hash of a client's key, or of its address where its first bytes lack it; `None`: more of
/// them are needed. All clients without an address have the same.
#[must_use]
pub fn hash_of(key: &Key, client: Option<IpAddr>, first: &FirstBytes<'_>) -> Option<u64> {
    let client = client.map(|ip| SocketAddr::new(ip, 0));
    let Key::Peeked(field) = key else {
        return Some(source(client, key));
    };
    match first.key(field) {
        Peeked::Found(hash) => Some(hash),
        Peeked::Absent => Some(source(client, &Key::default())),
        Peeked::Incomplete => None,
    }
}

/// The hash of a client's address. All clients of a Unix socket have the same, 0.
fn source(client: Option<SocketAddr>, key: &Key) -> u64 {
    let Some(client) = client else { return 0 };
    let (v4, v6, port) = match *key {
        Key::SourceIp { v4, v6 } => (v4, v6, None),
        Key::SourceIpPort => (32, 128, Some(client.port())),
        Key::Peeked(_) => return 0,
    };
    let mut bytes = [0; 18];
    let length = match client.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(v4.min(32)))
                .unwrap_or(0);
            bytes[..4].copy_from_slice(&(ip.to_bits() & mask).to_be_bytes());
            4
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(v6.min(128)))
                .unwrap_or(0);
            bytes[..16].copy_from_slice(&(ip.to_bits() & mask).to_be_bytes());
            16
        }
    };
    let Some(port) = port else {
        return hash::of(&bytes[..length]);
    };
    bytes[length..length + 2].copy_from_slice(&port.to_be_bytes());
    hash::of(&bytes[..length + 2])
}
