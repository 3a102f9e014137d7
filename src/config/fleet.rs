//! What several balancers share, and how: by etcd, or among themselves.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::codec::{
    Codec, duration, group_if_given, groups, name, parsed, path, required, spelled, truth,
};
use super::etcd::Etcd;
use super::reader::{At, Reader};
use super::table::{Shape, defaults, settings};
use super::values::{self, MINUTE, SECOND, between};

settings! {
    /// What several balancers share, by etcd, among themselves, or both.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FleetSettings: Shape {
        /// The keys of an etcd cluster that have it: `bans/PREFIX` and `states/POOL/BACKEND`.
        pub etcd: Option<Etcd> = None => group_if_given();
        /// The balancers that tell each other their bans and sticky clients, without etcd.
        pub peers: Option<PeerSettings> = None => group_if_given();
        /// Whether this balancer shares its own bans, by hand and by rules, with the others.
        pub share_bans: bool = true => truth();
        /// The name of this balancer among them, for its shares of limits: each has another. Auto:
        /// that of the machine.
        pub name: Option<String> = None => name().or("auto");
        /// How long a share of a limit may be acted on without a word from etcd.
        pub lease: Duration = Duration::from_secs(10) => duration(between(2 * SECOND, 5 * MINUTE));
    }
}

settings! {
    /// Balancers that tell each other their bans and sticky clients, by TLS with certificates on
    /// both sides.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PeerSettings: Shape {
        /// The address that this balancer takes connections of the others at.
        pub listen: SocketAddr = UNBOUND
            => required(parsed(
                "an address such as \"10.0.0.1:7946\" or \"[::]:7946\"",
                values::peers_listen,
                ToString::to_string,
            ));
        /// The balancers, 1 to 8. The one that `certificate` names is this balancer itself, so all
        /// can have one list.
        pub members: Vec<PeerMember> = Vec::new() => required(members());
        /// The PEM file of the certificate that this balancer shows to the others, with those
        /// between it and its authority.
        pub certificate: PathBuf = PathBuf::new() => required(path());
        /// The PEM file of the private key of `certificate`.
        pub key: PathBuf = PathBuf::new() => required(path());
        /// The PEM file of the authorities that the certificates of the others are verified by.
        pub ca: PathBuf = PathBuf::new() => required(path());
    }
}

settings! {
    /// A balancer of the fleet.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PeerMember {
        /// A name of its certificate (a DNS name under subjectAltName).
        pub name: String = String::new() => required(spelled(
            "a name of its certificate such as \"lb-2.example.org\"",
            values::discovered_name,
            String::clone,
        ));
        /// Where it listens: an IP or a name, and a port.
        pub address: String = String::new() => required(spelled(
            "an address such as \"10.0.0.2:7946\" or \"lb-2.example.org:7946\"",
            values::peer_address,
            String::clone,
        ));
    }
}

defaults!(FleetSettings);

fn members() -> Codec<Vec<PeerMember>> {
    let mut codec = groups();
    codec.facts.expected = "a list of groups such as [(name: \"lb-2.example.org\", address: \
                            \"10.0.0.2:7946\")]"
        .to_owned();
    codec
}

impl Shape for FleetSettings {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let is_given = |name| at.value.field(name).is_some();
        if at.is_group() && !is_given("etcd") && !is_given("peers") {
            let sentence = "fleet: expected `etcd`, `peers` or both";
            reader.mistake(&at.value.start(), sentence.to_owned());
        }
    }
}

impl Shape for PeerSettings {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        if at.value.field("members").is_none() {
            return;
        }
        if !(1..=MEMBERS_MAX).contains(&self.members.len()) {
            let sentence = format!("expected 1 to {MEMBERS_MAX} balancers");
            reader.wrong(at, "members", sentence);
        }
        for what in [
            |member: &PeerMember| member.name.to_ascii_lowercase(),
            |member: &PeerMember| member.address.clone(),
        ] {
            let mut seen = BTreeSet::new();
            let mut all = self.members.iter().map(what).filter(|its| !its.is_empty());
            if let Some(twice) = all.find(|its| !seen.insert(its.clone())) {
                reader.wrong(at, "members", format!("`{twice}` is there twice"));
            }
        }
    }
}

impl PeerSettings {
    /// The files that it names, each with the name of its setting.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        [
            ("certificate", &self.certificate),
            ("key", &self.key),
            ("ca", &self.ca),
        ]
        .into_iter()
    }
}

impl FleetSettings {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let etcd = self.etcd.iter().flat_map(Etcd::files);
        let peers = self.peers.iter().flat_map(PeerSettings::files);
        etcd.chain(peers).map(|(_, path)| path)
    }
}

/// The value of an address that is not given.
const UNBOUND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Balancers of a fleet: each sends to each other.
const MEMBERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// What is wrong with a fleet, in words.
    fn mistake(fleet: &str) -> String {
        let text = format!(
            "(fleet: {fleet}, listeners: [(bind: \"127.0.0.1:1\", pool: \"a\")], \
             pools: [(name: \"a\", backends: [\"127.0.0.1:2\"])])"
        );
        match parse("f".to_owned(), text.into()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    fn peers(listen: &str, members: &str) -> String {
        let files = "certificate: \"c\", key: \"k\", ca: \"a\"";
        mistake(&format!(
            "(peers: (listen: \"{listen}\", members: [{members}], {files}))"
        ))
    }

    fn member(name: &str, address: &str) -> String {
        format!("(name: \"{name}\", address: \"{address}\"), ")
    }

    #[test]
    fn a_fleet_is_shared_by_etcd_or_among_peers() {
        let told = mistake("(share_bans: false)");
        assert!(
            told.contains("fleet: expected `etcd`, `peers` or both"),
            "{told}"
        );
        let told = mistake("(peers: (listen: \"[::]:1\"))");
        assert!(told.contains("missing field `members`"), "{told}");
        let two = member("lb-1.test", "10.0.0.1:1") + &member("lb-2.test", "lb-2.test:1");
        assert_eq!(peers("[::]:7946", &two), "");
    }

    #[test]
    fn members_are_few_and_each_is_there_once() {
        let one = member("lb-1.test", "10.0.0.1:1");
        let nine: String = (0..9)
            .map(|n| member(&format!("lb-{n}.test"), &format!("10.0.0.{n}:1")))
            .collect();
        for (listen, members, why) in [
            (
                "10.0.0.1:0",
                &*one,
                "invalid port `0` of `10.0.0.1:0`: expected 1 to 65535",
            ),
            ("unix:/p", &one, "is not an address of TCP"),
            ("[::]:1", "", "members: expected 1 to 8 balancers"),
            ("[::]:1", &nine, "members: expected 1 to 8 balancers"),
            (
                "[::]:1",
                &one.repeat(2),
                "members: `lb-1.test` is there twice",
            ),
            (
                "[::]:1",
                &(one.clone() + &member("lb-2.test", "10.0.0.1:1")),
                "members: `10.0.0.1:1` is there twice",
            ),
            (
                "[::]:1",
                &member("10.0.0.1", "10.0.0.1:1"),
                "a name of its certificate",
            ),
            (
                "[::]:1",
                &member("lb-1.test", "10.0.0.1"),
                "an address such as",
            ),
            (
                "[::]:1",
                &member("lb-1.test", "0.0.0.0:1"),
                "an address such as",
            ),
            (
                "[::]:1",
                &member("lb-1.test", "10.0.0.1:0"),
                "an address such as",
            ),
        ] {
            let told = peers(listen, members);
            assert!(told.contains(why), "{why}: {told}");
        }
    }
}
