//! Why a selection came out as it did: the candidates with their scores, and why each was passed
//! over.
//!
//! It is looked at right after the selection, so that strategies cost the same with it as without.
//! Invariant: it allocates nothing, changes nothing, and looks at [`LOOKS_MAX`] backends at most.

use crate::config::{AdminState, SNI_MEMBER, Strategy};
use crate::pool::{Backend, Pool};

use super::least::Score;
use super::least_connections::Load;
use super::least_time::AnswerTime;
use super::predictive::CapacityUse;
use super::two_tier::Tier;
use super::{Choice, Picker, Plan, Request, Scene, Selector};

/// A selection: what was known of the backends when it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Considered {
    /// Why it came out so; `None`: none was made.
    pub why: Option<Why>,
    /// The name of the strategy; empty where no selection was made.
    pub strategy: &'static str,
    /// What the scores are, of which the lowest wins; `None`: the strategy has none.
    pub score_is: Option<&'static str>,
    /// The number of the selected backend; 0: none was selected.
    pub chosen: u32,
    /// The selected backend, then the best ones, then those that could not be used.
    listed: [Rated; LISTED_MAX],
    /// How many are listed.
    count: u8,
    /// The backends that were looked at and not selected, by [`Rating`].
    pub passed_over: [u16; Rating::ALL.len()],
    /// The backends of the pool.
    pub backends: u16,
    /// Those that were looked at.
    pub looked_at: u16,
}

/// A backend that could have been selected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rated {
    /// Its number.
    pub number: u32,
    /// What the strategy compares by, the lower the better; NaN where it compares by nothing.
    pub score: f32,
    /// Whether it was selected, or why not.
    pub verdict: Rating,
}

/// Why a selection came out as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The strategy selected it.
    Strategy,
    /// The client had it before, and the pool remembers that.
    Remembered,
    /// It failed since its last answer, and clients that are its share still go there.
    FailingShare,
    /// It is a backup, and no other backend could be used.
    Backup,
    /// It is ejected, and no other backend could be used.
    EjectedOnly,
    /// The strategy selected it among those that were not tried.
    Untried,
    /// It is down, and all others were tried.
    DownOnly,
    /// It was tried before, and so were all others.
    TriedAgain,
    /// The client's name leads there.
    Named,
    /// The client asks to cancel what a session there does.
    Cancels,
    /// None was selected: all are full.
    Full,
    /// None was selected: none can be used.
    NoneUsable,
}

/// Whether a backend was selected, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rating {
    /// It was selected.
    Chosen,
    /// The strategy preferred the other.
    Strategy,
    /// Chance did not draw it.
    NotDrawn,
    /// The client had another before.
    Remembered,
    /// It is in another group, or in none of the key's subset.
    Tier,
    /// It has all of the load that `max_load` allows.
    MaxLoad,
    /// It failed since its last answer, and gets no more than its share.
    Failing,
    /// It is in slow start, and gets only a part of its share.
    SlowStart,
    /// It is a backup.
    Backup,
    /// An attempt of this session on it failed, or could not be made.
    Tried,
    /// It has as many connections as it may.
    Full,
    /// The backlog of its Unix socket is full.
    BacklogFull,
    /// It is ejected.
    Ejected,
    /// Its checks fail.
    Down,
    /// The operator drains it.
    Drain,
    /// The operator has it in maintenance.
    Maint,
    /// It waits in the reserve.
    Standby,
    /// Its weight is 0.
    Weightless,
    /// Its host name has no address.
    Unresolved,
}

impl Rating {
    /// All, in the order of their counts.
    pub const ALL: [Self; 19] = [
        Self::Chosen,
        Self::Strategy,
        Self::NotDrawn,
        Self::Remembered,
        Self::Tier,
        Self::MaxLoad,
        Self::Failing,
        Self::SlowStart,
        Self::Backup,
        Self::Tried,
        Self::Full,
        Self::BacklogFull,
        Self::Ejected,
        Self::Down,
        Self::Drain,
        Self::Maint,
        Self::Standby,
        Self::Weightless,
        Self::Unresolved,
    ];

    /// The word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Strategy => "strategy",
            Self::NotDrawn => "not_drawn",
            Self::Remembered => "remembered",
            Self::Tier => "tier",
            Self::MaxLoad => "max_load",
            Self::Failing => "failing",
            Self::SlowStart => "slow_start",
            Self::Backup => "backup",
            Self::Tried => "tried",
            Self::Full => "full",
            Self::BacklogFull => "backlog_full",
            Self::Ejected => "ejected",
            Self::Down => "down",
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::Standby => "standby",
            Self::Weightless => "weight_0",
            Self::Unresolved => "unresolved",
        }
    }

    /// Whether the backend could have been selected.
    fn is_open(self) -> bool {
        (self as u8) < Self::Backup as u8
    }
}

impl Considered {
    /// No selection.
    pub const NONE: Self = Self {
        why: None,
        strategy: "",
        score_is: None,
        chosen: 0,
        listed: [Rated {
            number: 0,
            score: f32::NAN,
            verdict: Rating::Strategy,
        }; LISTED_MAX],
        count: 0,
        passed_over: [0; Rating::ALL.len()],
        backends: 0,
        looked_at: 0,
    };

    /// The selected backend, then the best ones, then those that could not be used: up to
    /// [`LISTED_MAX`].
    #[must_use]
    pub fn listed(&self) -> &[Rated] {
        &self.listed[..usize::from(self.count)]
    }

    /// Lists a backend, unless there are so many better ones.
    fn list(&mut self, rated: Rated) {
        let count = usize::from(self.count);
        let is_better = |last: &Rated| count < LISTED_MAX || rated.precedes(last);
        // Of many backends most are not listed.
        if self.listed().last().is_some_and(|last| !is_better(last)) {
            return;
        }
        let place = self.listed().iter().position(|other| rated.precedes(other));
        let place = place.unwrap_or(count);
        let end = count.min(LISTED_MAX - 1);
        self.listed.copy_within(place..end, place + 1);
        self.listed[place] = rated;
        self.count = u8::try_from(end + 1).unwrap_or(u8::MAX);
    }
}

impl Rated {
    /// Whether it is listed before another one that was listed earlier.
    fn precedes(&self, other: &Self) -> bool {
        let rank = |its: &Self| (its.verdict != Rating::Chosen, !its.verdict.is_open());
        rank(self) < rank(other) || rank(self) == rank(other) && self.score < other.score
    }
}

/// How a strategy scores, at one moment.
enum Scorer {
    Nothing,
    Load,
    AnswerTime(AnswerTime),
    CapacityUse,
}

impl Scorer {
    fn of(picker: &Picker, scene: &Scene<'_>, tier: Tier<'_>) -> Self {
        match picker {
            Picker::LeastConnections(_) | Picker::PowerOfTwo(_) => Self::Load,
            Picker::LeastTime(strategy) => Self::AnswerTime(strategy.scorer()),
            Picker::TwoTier(strategy) => match strategy.answer_times(scene, tier) {
                Some(scorer) => Self::AnswerTime(scorer),
                None => Self::Load,
            },
            Picker::Predictive(_) => Self::CapacityUse,
            Picker::RoundRobin(_) | Picker::Hash(_) | Picker::Random(_) | Picker::First(_) => {
                Self::Nothing
            }
        }
    }

    fn score(&self, scene: &Scene<'_>, backend: &Backend) -> f32 {
        let score = match self {
            Self::Nothing => return f32::NAN,
            Self::Load => Load.score(scene, backend),
            Self::AnswerTime(times) => times.score(scene, backend),
            Self::CapacityUse => CapacityUse.score(scene, backend),
        };
        #[expect(clippy::cast_possible_truncation, reason = "a figure to read")]
        let score = score as f32;
        score
    }
}

/// What verdicts depend on beside the backend itself.
struct Judge<'a> {
    scene: Scene<'a>,
    chosen: Option<u16>,
    remembered: bool,
    /// The key's own backend, which the bound on its load kept out.
    bounded: Option<u16>,
    tier: Tier<'a>,
    picker: &'a Picker,
    /// The backend of the client's name, where names select: no other counts.
    named: Option<Option<u16>>,
}

impl Selector {
    /// Takes note of what was known of the backends when a request was answered so, which was just
    /// now: the counts are still those of the selection.
    pub fn explain(&self, request: &Request<'_>, choice: Choice, into: &mut Considered) {
        let pool = &*self.plan.pool;
        let chosen = match choice {
            Choice::Backend(index) => Some(index),
            Choice::Full | Choice::Unavailable => None,
        };
        let scene = Scene::new(pool, request);
        let backend = chosen.map(|index| scene.backend(index));
        let picker = &self.ranks[usize::from(backend.is_some_and(|one| one.backup))];
        let mut order = [0; Tier::ORDER_MAX];
        let members = self.plan.members.as_ref();
        let judge = Judge {
            scene,
            chosen,
            remembered: self.remembered,
            bounded: bounded(picker, chosen, &scene),
            tier: tier(picker, &scene, chosen, &mut order),
            picker,
            named: members.map(|members| members.place(request.keys)),
        };
        let scorer = Scorer::of(picker, &scene, judge.tier);
        *into = Considered {
            why: Some(judge.why(choice)),
            strategy: self.plan.terms.strategy,
            score_is: self.plan.terms.score_is,
            chosen: backend.map_or(0, |backend| backend.number),
            backends: u16::try_from(pool.backends.len()).unwrap_or(u16::MAX),
            ..Considered::NONE
        };
        let all = pool.backends.len();
        // Of a pool that is too large those are looked at that follow on the selected one.
        let first = chosen.map_or(0, usize::from);
        let first = if all > LOOKS_MAX { first } else { 0 };
        for place in (first..all).chain(0..first).take(LOOKS_MAX) {
            let Ok(index) = u16::try_from(place) else {
                break;
            };
            let backend = scene.backend(index);
            let verdict = judge.verdict(index, backend);
            into.passed_over[verdict as usize] += u16::from(verdict != Rating::Chosen);
            into.looked_at += 1;
            into.list(Rated {
                number: backend.number,
                score: scorer.score(&scene, backend),
                verdict,
            });
        }
    }

    /// What a selection would come out as, without making it: nothing changes by it.
    #[must_use]
    pub fn preview(&self, request: &Request<'_>) -> Considered {
        let mut copy = self.clone();
        let scene = Scene::new(&self.plan.pool, request);
        let memory = self.plan.memory.as_ref();
        let known = memory.and_then(|memory| memory.look(request));
        let known = known.filter(|index| scene.is_worth_keeping(*index));
        let known = known.filter(|_| !self.plan.pool.is_full());
        copy.remembered = known.is_some();
        let choice = match (known, &self.plan.members) {
            (_, Some(members)) => members.choose(&scene),
            (Some(known), None) => Choice::Backend(known),
            (None, None) => super::choose(&scene, &self.plan, &mut copy.ranks, &mut copy.rng),
        };
        let mut considered = Considered::NONE;
        copy.explain(request, choice, &mut considered);
        considered
    }
}

impl Judge<'_> {
    fn why(&self, choice: Choice) -> Why {
        let index = match choice {
            Choice::Backend(index) => index,
            Choice::Full => return Why::Full,
            Choice::Unavailable => return Why::NoneUsable,
        };
        let tried = self.scene.request.tried;
        let backend = self.scene.backend(index);
        if self.named.is_some() {
            Why::Named
        } else if tried.contains(&index) {
            Why::TriedAgain
        } else if self.remembered {
            Why::Remembered
        } else if !backend.is_in_rotation() {
            Why::DownOnly
        } else if backend.is_shut_out() {
            Why::EjectedOnly
        } else if backend.backup {
            Why::Backup
        } else if self.scene.is_failing(index) {
            Why::FailingShare
        } else if tried.is_empty() {
            Why::Strategy
        } else {
            Why::Untried
        }
    }

    fn verdict(&self, index: u16, backend: &Backend) -> Rating {
        let now = self.scene.request.now;
        if self.chosen == Some(index) {
            Rating::Chosen
        } else if !backend.is_in_rotation() {
            out_of_rotation(backend)
        } else if self.named.is_some_and(|named| named != Some(index)) {
            Rating::Strategy
        } else if self.scene.request.tried.contains(&index) {
            Rating::Tried
        } else if backend.is_shut_out() {
            Rating::Ejected
        } else if backend.is_backlog_full(now) {
            Rating::BacklogFull
        } else if backend.is_full(now) || self.chosen.is_none() {
            // Or its pool is.
            Rating::Full
        } else if backend.backup
            && !self
                .chosen
                .is_some_and(|one| self.scene.backend(one).backup)
        {
            Rating::Backup
        } else if self.remembered {
            Rating::Remembered
        } else if self.bounded == Some(index) {
            Rating::MaxLoad
        } else if self.tier.leaves_out(index, backend) {
            Rating::Tier
        } else if self.scene.is_failing(index) {
            Rating::Failing
        } else if backend.percent(now) < 100 {
            Rating::SlowStart
        } else if is_left_to_chance(self.picker, index) {
            Rating::NotDrawn
        } else {
            Rating::Strategy
        }
    }
}

/// Why a backend is out of rotation.
fn out_of_rotation(backend: &Backend) -> Rating {
    match backend.admin {
        AdminState::Maint => Rating::Maint,
        AdminState::Drain => Rating::Drain,
        AdminState::Ready if backend.standby => Rating::Standby,
        AdminState::Ready if !backend.is_resolved() => Rating::Unresolved,
        AdminState::Ready if backend.weight == 0 => Rating::Weightless,
        AdminState::Ready => Rating::Down,
    }
}

/// The key's own backend, if only the bound on its load can have kept it out.
fn bounded(picker: &Picker, chosen: Option<u16>, scene: &Scene<'_>) -> Option<u16> {
    let Picker::Hash(hash) = picker else {
        return None;
    };
    let own = hash.bounded(scene.request.keys.select)?;
    (chosen != Some(own) && scene.is_open(own)).then_some(own)
}

/// Whether a backend that was not selected was not even drawn.
fn is_left_to_chance(picker: &Picker, index: u16) -> bool {
    match picker {
        Picker::Random(_) => true,
        Picker::PowerOfTwo(strategy) => !strategy.has_drawn(index),
        Picker::RoundRobin(_)
        | Picker::Hash(_)
        | Picker::LeastConnections(_)
        | Picker::LeastTime(_)
        | Picker::First(_)
        | Picker::TwoTier(_)
        | Picker::Predictive(_) => false,
    }
}

/// The tier of the selected backend. In a large pool it takes too long to find.
fn tier<'a>(
    picker: &Picker,
    scene: &Scene<'a>,
    chosen: Option<u16>,
    order: &'a mut [u16; Tier::ORDER_MAX],
) -> Tier<'a> {
    match (picker, chosen) {
        (Picker::TwoTier(strategy), Some(index)) if scene.pool.backends.len() <= LOOKS_MAX => {
            strategy.tier(
                scene.request.keys.select,
                (index, scene.backend(index)),
                order,
            )
        }
        _ => Tier::All,
    }
}

/// The names of what a plan selects by. They are the same for all its selections, so that none
/// looks them up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    strategy: &'static str,
    score_is: Option<&'static str>,
    keys: [Option<&'static str>; 2],
}

impl Terms {
    /// `named`: clients select their backends by name.
    pub(super) fn of(pool: &Pool, named: bool) -> Self {
        if named {
            return Self {
                strategy: SNI_MEMBER,
                score_is: None,
                keys: [Some(SNI_MEMBER), None],
            };
        }
        let persist = pool.persist.as_ref().map(|persist| &persist.key);
        Self {
            strategy: pool.strategy.name(),
            score_is: score_is(&pool.strategy),
            keys: [pool.strategy.key(), persist].map(|key| key.map(|key| key.name())),
        }
    }
}

impl Plan {
    /// The names of what the strategy selects by and of what clients are remembered by; `None`:
    /// the pool needs no such key.
    #[must_use]
    pub fn key_names(&self) -> [Option<&'static str>; 2] {
        self.terms.keys
    }
}

/// What the scores of a strategy are; `None`: it has none.
fn score_is(strategy: &Strategy) -> Option<&'static str> {
    match strategy {
        Strategy::LeastConnections | Strategy::PowerOfTwo => Some("connections per unit of weight"),
        Strategy::LeastTime(_) => Some("expected µs to an answer, per unit of weight"),
        Strategy::TwoTier(settings) => Some(match settings.then {
            crate::config::SecondTier::LeastTime(_) => {
                "expected µs to an answer, per unit of weight"
            }
            crate::config::SecondTier::LeastConnections | crate::config::SecondTier::PowerOfTwo => {
                "connections per unit of weight"
            }
        }),
        Strategy::Predictive(_) => Some("part of its capacity in use soon, with this client"),
        Strategy::RoundRobin
        | Strategy::StickyRoundRobin(_)
        | Strategy::Hash(_)
        | Strategy::Random
        | Strategy::First => None,
    }
}

/// Backends that an explanation lists at most.
pub const LISTED_MAX: usize = 8;
/// Backends that an explanation looks at, at most. A look takes some 20 ns: 200 of them made a
/// connection 4 to 7 % dearer.
pub const LOOKS_MAX: usize = 64;
