//! Tests of both stages: their order, and that one takes nothing where another refuses.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::super::{
    Access, Ban, BannedBy, Held, PeerDenied, PeerStage, Prefixes, Rate, RateRule, SourceRules,
};
use super::*;
use crate::prefix::Prefix;
use crate::time::NEVER;

/// A listener with all kinds of rules.
struct Listener {
    bans: Bans,
    trusted: Trusted,
    access: Option<AccessFilter>,
    rules: Rules,
    sources: Sources,
    gate: Gate,
}

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

/// The last byte of its addresses, and how many bits are free.
fn network((last, bits): (u8, u8)) -> Prefix {
    Prefix::new(ip(last), 32 - bits).unwrap()
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// At most so many connections of a source, and so many of the listener in all at one time.
fn rules(connections: u32, burst: u32) -> Rules {
    Rules {
        source: Some(SourceRules {
            connections: Some(number(connections)),
            rate: None,
            prefix_v4: 32,
            prefix_v6: 64,
            dry_run: false,
            action: Action::Tarpit,
            is_paced: false,
        }),
        listener: Some(RateRule {
            rate: Rate::new(number(1), number(burst)),
            fleet: None,
            dry_run: false,
            action: Action::Drop,
        }),
        global: None,
    }
}

impl Listener {
    fn new(rules: Rules) -> Self {
        let sources = Sources::new(1 << 20);
        Self {
            bans: Bans::new(100),
            trusted: Trusted::default(),
            access: None,
            rules,
            gate: Gate::new(&sources),
            sources,
        }
    }

    fn ban(&self, prefix: Prefix) {
        let ban = Ban::new(prefix, BannedBy::Hand, "".into(), (0, NEVER));
        self.bans.add(ban, 0).unwrap();
    }

    fn deny(&mut self, denied: &[Prefix]) {
        let all = denied.iter().map(|prefix| (*prefix, Access::Deny));
        let own = Arc::new(Prefixes::new(all.collect()).unwrap());
        self.access = Some(AccessFilter::new("a".into(), own, None, Access::Allow));
    }

    fn stage(&self) -> ClientStage<'_> {
        ClientStage {
            bans: &self.bans,
            ban_action: Action::Reset,
            trusted: &self.trusted,
            access: self.access.as_ref(),
            rules: &self.rules,
            gate: &self.gate,
            sources: &self.sources,
        }
    }

    fn admit(&self, client: IpAddr) -> Result<Option<Held>, Denied> {
        self.stage().admit(Some(client), 0).map(|pass| pass.held)
    }

    fn denied(&self, client: IpAddr) -> DeniedBy {
        self.admit(client).unwrap_err().by
    }
}

const CONNECTIONS: DeniedBy = DeniedBy::Limit(Refusal::SourceConnections);
const RATE: DeniedBy = DeniedBy::Limit(Refusal::ListenerRate);

#[test]
fn a_client_is_refused_by_the_first_rule_that_forbids_it() {
    let mut listener = Listener::new(rules(1, 2));
    listener.ban(network((1, 0)));
    listener.deny(&[network((0, 1)), network((2, 1))]);
    // Neither a banned client nor a denied one takes a place or uses up a rate.
    for _ in 0..5 {
        assert_eq!(listener.denied(ip(1)), DeniedBy::Ban);
        assert_eq!(listener.denied(ip(2)), DeniedBy::AccessList);
    }
    assert_eq!(listener.sources.connections(), 0);
    // To ask in advance counts nothing: the counts below are those of the clients.
    let barred = |last| listener.stage().barred(Some(ip(last)), 0);
    assert!(matches!(barred(1), Some(Barred::Ban(_))));
    assert!(matches!(barred(2), Some(Barred::AccessList(_))));
    assert!(barred(4).is_none());
    assert!(matches!(
        listener.stage().barred(None, 0),
        Some(Barred::AccessList(_))
    ));
    let places = [4, 5].map(|last| listener.admit(ip(last)).unwrap().unwrap());
    assert_eq!(listener.denied(ip(4)), CONNECTIONS);
    assert_eq!(listener.denied(ip(6)), RATE);
    // Each is done with as its rule says, and counted once.
    let actions = [1, 2, 4, 6].map(|last| listener.admit(ip(last)).unwrap_err().action);
    let expected = [Action::Reset, Action::Reset, Action::Tarpit, Action::Drop];
    assert_eq!(actions, expected);
    let gate = &listener.gate;
    let limits = Refusal::ALL.map(|rule| gate.refused(rule));
    assert_eq!((gate.banned(), gate.access_denied()), (6, 6));
    assert_eq!((limits, listener.bans.hits()), ([2, 0, 2, 0], 6));
    for place in places {
        gate.release(&listener.sources, place);
    }
}

/// So that one address can be seen before a list refuses any.
#[test]
fn a_list_in_a_dry_run_lets_clients_in_and_names_itself() {
    let mut listener = Listener::new(rules(1, 9));
    listener.deny(&[network((2, 1))]);
    let list = listener.access.take().unwrap();
    listener.access = Some(list.counting(Arc::default(), true));
    let pass = |last| listener.stage().admit(Some(ip(last)), 0).unwrap();
    let (denied, other) = (pass(2), pass(4));
    assert_eq!(denied.dry_run, Some(DeniedBy::AccessList));
    assert_eq!(other.dry_run, None);
    let gate = &listener.gate;
    assert_eq!((gate.access_dry_run(), gate.access_denied()), (1, 0));
    // A limit still refuses it.
    assert_eq!(listener.denied(ip(2)), CONNECTIONS);
    // Of two dry runs the first rule counts.
    listener.rules.source = listener.rules.source.map(|rules| SourceRules {
        dry_run: true,
        ..rules
    });
    let pass = |last| listener.stage().admit(Some(ip(last)), 0).unwrap();
    assert_eq!(pass(2).dry_run, Some(DeniedBy::AccessList));
    assert_eq!(pass(4).dry_run, Some(CONNECTIONS));
    for place in [denied.held, other.held].into_iter().flatten() {
        gate.release(&listener.sources, place);
    }
}

#[test]
fn trust_concerns_bans_only() {
    let mut listener = Listener::new(rules(1, 9));
    listener.ban(network((0, 3)));
    listener.trusted = Trusted::new(&[network((4, 1))]);
    listener.deny(&[network((5, 0))]);
    assert!(listener.admit(ip(4)).is_ok());
    assert_eq!(listener.denied(ip(4)), CONNECTIONS);
    assert_eq!(listener.denied(ip(5)), DeniedBy::AccessList);
    assert_eq!(listener.denied(ip(6)), DeniedBy::Ban);
    assert_eq!(listener.bans.hits(), 1);
}

#[test]
fn a_rule_that_looks_at_addresses_needs_them() {
    let mut listener = Listener::new(Rules::default());
    assert!(!listener.stage().needs_address());
    assert_eq!(listener.admit(ip(1)), Ok(None));
    listener.rules = Rules {
        source: None,
        ..rules(1, 1)
    };
    assert!(!listener.stage().needs_address());
    // As from a Unix socket.
    assert!(listener.stage().admit(None, 0).is_ok());
    let refused = listener.stage().admit(None, 0).unwrap_err();
    assert_eq!(refused.by, RATE);
    listener.rules = rules(1, 1);
    assert!(listener.stage().needs_address());
    listener.rules = Rules::default();
    listener.ban(network((1, 0)));
    assert!(listener.stage().needs_address());
    listener.bans.lift(network((1, 0)));
    listener.deny(&[]);
    assert!(listener.stage().needs_address());
}

#[test]
fn proxies_are_asked_for_trust_and_unfinished_headers_alone() {
    let listener = Listener::new(rules(1, 9));
    let peers = PeerStage::new(&[network((0, 2))], false, 2);
    // Ban and list are about clients: the proxy has an address that both name.
    listener.ban(network((1, 0)));
    let admit = |ip| admit_peer(&peers, ip);
    assert_eq!([ip(1), ip(3)].map(admit), [Ok(()), Ok(())]);
    assert_eq!(admit(ip(1)), Err(PeerDenied::Crowded));
    assert_eq!(admit(ip(4)), Err(PeerDenied::Untrusted));
    assert_eq!(admit("::1".parse().unwrap()), Err(PeerDenied::Untrusted));
    assert!(!peers.trusts(None), "of a Unix socket");
    assert_eq!(
        (listener.bans.hits(), listener.sources.connections()),
        (0, 0)
    );
    // One header names a banned client; the other connection breaks.
    peers.finish();
    assert_eq!(listener.denied(ip(1)), DeniedBy::Ban);
    peers.finish();
    assert_eq!(peers.unfinished(), 0);
    assert_eq!(admit("::ffff:10.0.0.1".parse().unwrap()), Ok(()));
    for (max, of, expected) in [(8, 3, [3, 3, 2]), (2, 3, [1, 1, 1]), (9, 1, [9, 9, 9])] {
        let stage = PeerStage::new(&[], false, max);
        let shares = [0, 1, 2].map(|worker| stage.unfinished_share(worker, of));
        assert_eq!(shares, expected, "{max} of {of}");
    }
    // Other rules have the same counts.
    let later = peers.with(&[], true);
    assert!(later.trusts(None) && !later.trusts(Some(ip(1))) && later.begin());
    assert_eq!((peers.unfinished(), later.begin()), (2, false));
    later.count_refused(PeerDenied::Late, || "first".to_owned());
    peers.count_refused(PeerDenied::Late, || "second".to_owned());
    assert_eq!(peers.refused(PeerDenied::Late), 2);
    assert_eq!(peers.take_last().as_deref(), Some("first"));
    assert_eq!(later.take_last(), None);
}

/// A proxy's own connection is none of a client's: access list, limits of sources and bans are not
/// asked, and the rates of all clients together are.
#[test]
fn the_own_connection_of_a_proxy_is_bound_by_rates_alone() {
    let mut listener = Listener::new(rules(1, 9));
    listener.ban(network((1, 0)));
    listener.deny(&[network((0, 4))]);
    assert!((0..5).all(|_| listener.stage().admit_own(0).is_ok()));
    assert_eq!(listener.sources.connections(), 0);
    let refused = (0..9).filter_map(|_| listener.stage().admit_own(0).err());
    let by: Vec<_> = refused.map(|its| its.by).collect();
    assert_eq!(by, [RATE; 5]);
}

/// Admits a peer whose header has not come whole.
fn admit_peer(peers: &PeerStage, ip: IpAddr) -> Result<(), PeerDenied> {
    if !peers.trusts(Some(ip)) {
        return Err(PeerDenied::Untrusted);
    }
    match peers.begin() {
        true => Ok(()),
        false => Err(PeerDenied::Crowded),
    }
}

/// The rules as they are documented, by looking at each of them for each client.
struct Model {
    banned: Vec<Prefix>,
    trusted: Vec<Prefix>,
    denied: Vec<Prefix>,
    proxies: Vec<Prefix>,
    connections: u32,
    tokens: u32,
    unfinished_max: u32,
    open: HashMap<IpAddr, u32>,
}

impl Model {
    fn new(rng: &mut fastrand::Rng) -> Self {
        let mut some = |most: usize| -> Vec<Prefix> {
            let count = rng.usize(..=most);
            let all = (0..count).map(|_| network((rng.u8(..16), rng.u8(..3))));
            all.collect()
        };
        Self {
            banned: some(3),
            trusted: some(2),
            denied: some(3),
            proxies: some(3),
            connections: rng.u32(1..4),
            tokens: rng.u32(1..40),
            unfinished_max: rng.u32(..4),
            open: HashMap::new(),
        }
    }

    fn listener(&self) -> Listener {
        let mut listener = Listener::new(rules(self.connections, self.tokens));
        self.banned.iter().for_each(|prefix| listener.ban(*prefix));
        listener.trusted = Trusted::new(&self.trusted);
        listener.deny(&self.denied);
        listener
    }

    fn peer(&self, proxy: IpAddr, unfinished: usize) -> Result<(), PeerDenied> {
        if !is_in(&self.proxies, proxy) {
            return Err(PeerDenied::Untrusted);
        }
        match unfinished < self.unfinished_max as usize {
            true => Ok(()),
            false => Err(PeerDenied::Crowded),
        }
    }

    fn client(&mut self, client: IpAddr) -> Result<(), DeniedBy> {
        let open = self.open.entry(client).or_default();
        if is_in(&self.banned, client) && !is_in(&self.trusted, client) {
            return Err(DeniedBy::Ban);
        }
        if is_in(&self.denied, client) {
            return Err(DeniedBy::AccessList);
        }
        if *open == self.connections {
            return Err(CONNECTIONS);
        }
        if self.tokens == 0 {
            return Err(RATE);
        }
        (*open, self.tokens) = (*open + 1, self.tokens - 1);
        Ok(())
    }
}

fn is_in(prefixes: &[Prefix], ip: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(ip))
}

/// Any rules, and any order of connects, headers and ends: clients of their own, and those that
/// proxies name, are refused by the same rule, and nothing is left at the end.
#[test]
fn stages_do_what_their_rules_say_in_their_order() {
    let mut rng = fastrand::Rng::with_seed(1_108);
    let mut seen = HashMap::new();
    for _ in 0..300 {
        let mut model = Model::new(&mut rng);
        let listener = model.listener();
        let peers = PeerStage::new(&model.proxies, false, model.unfinished_max);
        let (mut open, mut headers) = (Vec::<(IpAddr, Held)>::new(), Vec::<IpAddr>::new());
        for _ in 0..60 {
            let client = ip(rng.u8(..16));
            let named = match rng.u8(..8) {
                // It connects by itself: its address is asked about at once.
                0..3 => Some(client),
                // By a proxy, which the client is another address than.
                3..6 => {
                    let proxy = ip(rng.u8(..16));
                    let admitted = admit_peer(&peers, proxy);
                    assert_eq!(admitted, model.peer(proxy, headers.len()));
                    headers.extend(admitted.ok().map(|()| client));
                    None
                }
                6 if !headers.is_empty() => {
                    peers.finish();
                    // Its connection may break in the middle of the header.
                    let named = headers.swap_remove(rng.usize(..headers.len()));
                    rng.bool().then_some(named)
                }
                _ if !open.is_empty() => {
                    let (client, held) = open.swap_remove(rng.usize(..open.len()));
                    listener.gate.release(&listener.sources, held);
                    *model.open.get_mut(&client).unwrap() -= 1;
                    None
                }
                _ => None,
            };
            if let Some(client) = named {
                let admitted = listener.admit(client);
                let expected = model.client(client);
                assert_eq!(admitted.as_ref().err().map(|its| its.by), expected.err());
                *seen.entry(format!("{expected:?}")).or_insert(0) += 1;
                open.extend(admitted.ok().flatten().map(|held| (client, held)));
            }
            assert_eq!(listener.sources.connections(), open.len() as u64);
            assert_eq!(peers.unfinished() as usize, headers.len());
        }
        for (_, held) in open {
            listener.gate.release(&listener.sources, held);
        }
        assert_eq!(listener.sources.connections(), 0);
    }
    // Each outcome was seen often.
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert!(seen.values().all(|times| *times > 50), "{seen:?}");
}
