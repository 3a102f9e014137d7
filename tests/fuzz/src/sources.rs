//! The table of sources behind two gates, against a model that keeps a list in order of use.

use std::net::IpAddr;
use std::num::NonZeroU32;

use mahoraga::guard::{Action, Gate, Held, Rate, RateRule, Refusal, Rules, SourceRules, Sources};
use mahoraga::prefix::Prefix;
use mahoraga::time::{MS, SECOND};

use super::input::Input;

/// Any order of connects, ends and times, in a table with room for few sources.
pub fn sources(bytes: &[u8]) {
    let mut input = Input(bytes);
    let room = input.below(6);
    let sources = Sources::new(SOURCE_BYTES * u64::from(room));
    let gates = [Gate::new(&sources), Gate::new(&sources)];
    let limits = [Limits::new(&mut input), Limits::new(&mut input)];
    let global = tokens(&mut input);
    let mut model = Model::new(usize::from(room), limits, global);
    let mut open: Vec<(usize, Held, Place)> = Vec::new();
    while !input.is_empty() {
        let step = input.byte();
        model.pass(u64::from(step >> 4) * STEP);
        if step & 3 == 0 && !open.is_empty() {
            let nth = usize::from(input.byte()) % open.len();
            let (gate, held, place) = open.swap_remove(nth);
            gates[gate].release(&sources, held);
            model.release(gate, place);
        } else {
            let gate = usize::from(step >> 2 & 1);
            let client = (step & 3 != 3).then(|| input.ip());
            let rules = model.rules(gate);
            let pass = gates[gate].admit(&sources, &rules, client, model.now);
            let expected = model.admit(gate, client);
            match (pass, expected) {
                (Ok(pass), Ok(place)) => {
                    assert_eq!(pass.held.is_some(), place.is_some());
                    open.extend(
                        pass.held
                            .zip(place)
                            .map(|(held, place)| (gate, held, place)),
                    );
                }
                (pass, expected) => assert_eq!(pass.err(), expected.err()),
            }
        }
        model.compare(&sources, &gates);
    }
    for (gate, held, place) in open {
        gates[gate].release(&sources, held);
        model.release(gate, place);
    }
    model.compare(&sources, &gates);
    assert_eq!(sources.connections(), 0);
}

/// What a listener allows.
#[derive(Clone, Copy)]
struct Limits {
    source: Option<SourceRules>,
    /// Of each source.
    tokens: Option<Tokens>,
    /// Of the listener.
    listener: Option<Tokens>,
}

impl Limits {
    fn new(input: &mut Input<'_>) -> Self {
        let (connections, tokens) = (u32::from(input.below(4)), tokens(input));
        let prefix_v4 = [32, 24, 8, 0][usize::from(input.below(4))];
        let prefix_v6 = [64, 128, 56, 0][usize::from(input.below(4))];
        let source = SourceRules {
            is_paced: false,
            connections: NonZeroU32::new(connections),
            rate: tokens.map(|its| its.rate()),
            prefix_v4,
            prefix_v6,
            dry_run: false,
            action: Action::Reset,
        };
        Self {
            source: (input.below(8) > 0).then_some(source),
            tokens,
            listener: self::tokens(input),
        }
    }
}

/// A bucket that counts in ns: a token takes `interval`.
#[derive(Clone, Copy)]
struct Tokens {
    per_second: u32,
    burst: u32,
    left: u64,
}

fn tokens(input: &mut Input<'_>) -> Option<Tokens> {
    let (per_second, burst) = (
        u32::from(input.below(9)) * 100,
        u32::from(input.below(4)) + 1,
    );
    let full = Tokens {
        per_second: per_second.max(1),
        burst,
        left: 0,
    };
    (per_second > 0).then_some(full.filled())
}

impl Tokens {
    fn rate(self) -> Rate {
        let number = |number| NonZeroU32::new(number).expect("above 0");
        Rate::new(number(self.per_second), number(self.burst))
    }

    fn rule(self) -> RateRule {
        RateRule {
            rate: self.rate(),
            fleet: None,
            dry_run: false,
            action: Action::Reset,
        }
    }

    fn interval(self) -> u64 {
        SECOND / u64::from(self.per_second)
    }

    fn filled(self) -> Self {
        Self {
            left: self.interval() * u64::from(self.burst),
            ..self
        }
    }

    fn is_full(self) -> bool {
        self.left == self.filled().left
    }

    fn pass(&mut self, time: u64) {
        self.left = self.filled().left.min(self.left + time);
    }

    fn has_one(self) -> bool {
        self.left >= self.interval()
    }

    fn take(&mut self) {
        self.left -= self.interval();
    }
}

/// What is counted of one source, or of those that found no room.
#[derive(Clone, Copy)]
struct Count {
    tokens: Option<Tokens>,
    connections: u32,
}

impl Count {
    fn is_spent(&self) -> bool {
        self.connections == 0 && self.tokens.is_none_or(Tokens::is_full)
    }
}

type Key = (usize, Prefix);

/// Where an admitted connection is counted; `None`: among those without room.
type Place = Option<Key>;

struct Model {
    now: u64,
    room: usize,
    limits: [Limits; 2],
    listeners: [Option<Tokens>; 2],
    global: Option<Tokens>,
    /// Without connections; the least recently used one first.
    listed: Vec<(Key, Count)>,
    /// With connections.
    pinned: Vec<(Key, Count)>,
    overflow: [Count; 2],
    overflowed: u64,
}

impl Model {
    fn new(room: usize, limits: [Limits; 2], global: Option<Tokens>) -> Self {
        let empty = |limits: Limits| Count {
            tokens: limits.tokens,
            connections: 0,
        };
        Self {
            now: SECOND,
            room,
            limits,
            listeners: limits.map(|its| its.listener),
            global,
            listed: Vec::new(),
            pinned: Vec::new(),
            overflow: limits.map(empty),
            overflowed: 0,
        }
    }

    fn rules(&self, gate: usize) -> Rules {
        Rules {
            source: self.limits[gate].source,
            listener: self.limits[gate].listener.map(Tokens::rule),
            global: self.global.map(Tokens::rule),
        }
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        let counts = self.listed.iter_mut().chain(&mut self.pinned);
        let counts = counts.map(|(_, count)| count).chain(&mut self.overflow);
        let of_sources = counts.flat_map(|count| &mut count.tokens);
        let of_all = self
            .listeners
            .iter_mut()
            .chain([&mut self.global])
            .flatten();
        of_sources
            .chain(of_all)
            .for_each(|tokens| tokens.pass(time));
    }

    /// What the connection is counted by, if it is.
    fn admit(&mut self, gate: usize, client: Option<IpAddr>) -> Result<Option<Place>, Refusal> {
        let Some(source) = self.limits[gate].source else {
            self.take_rates(gate)?;
            return Ok(None);
        };
        let key = client.map(|ip| {
            let ip = ip.to_canonical();
            let length = match ip {
                IpAddr::V4(_) => source.prefix_v4,
                IpAddr::V6(_) => source.prefix_v6,
            };
            (gate, Prefix::new(ip, length).expect("a length that fits"))
        });
        let is_counted = source.connections.is_some();
        if let Some(key) = key {
            if let Some(at) = self.pinned.iter().position(|its| its.0 == key) {
                let mut count = self.pinned[at].1;
                self.take(gate, &mut count)?;
                self.pinned[at].1 = count;
                return Ok(Some(Some(key)));
            }
            if let Some((mut count, is_known)) = self.entry(gate, key) {
                let taken = self.take(gate, &mut count);
                match &taken {
                    Ok(()) if is_counted => self.pinned.push((key, count)),
                    Err(_) if !is_known => self.listed.insert(0, (key, count)),
                    _ => self.listed.push((key, count)),
                }
                return taken.map(|()| is_counted.then_some(Some(key)));
            }
            self.overflowed += 1;
        }
        let mut count = self.overflow[gate];
        self.take(gate, &mut count)?;
        self.overflow[gate] = count;
        Ok(is_counted.then_some(None))
    }

    /// Takes the entry of a source out of the list, or makes one if there is room.
    fn entry(&mut self, gate: usize, key: Key) -> Option<(Count, bool)> {
        if let Some(at) = self.listed.iter().position(|its| its.0 == key) {
            return Some((self.listed.remove(at).1, true));
        }
        let is_full = self.listed.len() + self.pinned.len() == self.room;
        let is_spent = self.listed.first().is_some_and(|its| its.1.is_spent());
        if is_full && self.listed.is_empty() {
            return None;
        }
        if is_full || is_spent {
            self.listed.remove(0);
        }
        let count = Count {
            tokens: self.limits[gate].tokens,
            connections: 0,
        };
        Some((count, false))
    }

    fn take(&mut self, gate: usize, count: &mut Count) -> Result<(), Refusal> {
        let source = self.limits[gate].source.expect("limits of sources");
        let is_full = |max: NonZeroU32| count.connections >= max.get();
        if source.connections.is_some_and(is_full) {
            return Err(Refusal::SourceConnections);
        }
        if count.tokens.is_some_and(|tokens| !tokens.has_one()) {
            return Err(Refusal::SourceRate);
        }
        self.take_rates(gate)?;
        count.tokens.iter_mut().for_each(Tokens::take);
        count.connections += u32::from(source.connections.is_some());
        Ok(())
    }

    fn take_rates(&mut self, gate: usize) -> Result<(), Refusal> {
        let is_empty = |tokens: &Option<Tokens>| tokens.is_some_and(|tokens| !tokens.has_one());
        if is_empty(&self.listeners[gate]) {
            return Err(Refusal::ListenerRate);
        }
        if is_empty(&self.global) {
            return Err(Refusal::GlobalRate);
        }
        self.listeners[gate].iter_mut().for_each(Tokens::take);
        self.global.iter_mut().for_each(Tokens::take);
        Ok(())
    }

    fn release(&mut self, gate: usize, place: Place) {
        let Some(key) = place else {
            self.overflow[gate].connections -= 1;
            return;
        };
        let at = self
            .pinned
            .iter()
            .position(|its| its.0 == key)
            .expect("a pinned source");
        self.pinned[at].1.connections -= 1;
        if self.pinned[at].1.connections == 0 {
            let entry = self.pinned.remove(at);
            self.listed.push(entry);
        }
    }

    fn compare(&self, sources: &Sources, gates: &[Gate; 2]) {
        assert_eq!(sources.len(), self.listed.len() + self.pinned.len());
        assert!(sources.len() <= self.room);
        let connections = self.pinned.iter().map(|its| u64::from(its.1.connections));
        assert_eq!(sources.connections(), connections.sum::<u64>());
        assert_eq!(sources.overflowed(), self.overflowed);
        let overflow = self.overflow.map(|count| count.connections);
        assert_eq!(
            [0, 1].map(|gate: usize| gates[gate].overflow_connections()),
            overflow
        );
    }
}

/// What a source takes in the table.
const SOURCE_BYTES: u64 = 92;
/// The least time between two operations, unless there is none, in ns.
const STEP: u64 = MS;
