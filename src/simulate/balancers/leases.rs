//! A limit of the whole fleet, divided by leases, with the production code of
//! [`crate::fleet_shares`].
//!
//! Connections of the fleet are limited; what each balancer would take changes from stage to stage.
//! Requests to etcd are answered a tenth of a second later. A connection lasts for 20 s on average,
//! so a balancer gives back its share as its connections end.

mod keeper;

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::chance::{float, share};
use super::FleetScenario;
use crate::fleet_shares::{Answer, Ask, Demand, FleetMember};
use crate::time::{MS, SECOND};
use keeper::Keeper;

/// What balancers want of the limit, and what fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitStage {
    /// All want as much, and a fifth more than there is.
    AllWant,
    /// One wants six tenths of the limit, the others next to nothing.
    OneIsBusy,
    /// The same, and etcd answers no balancer.
    EtcdIsAway,
    /// All want as much again, and one balancer dies.
    OneDies,
}

/// What a stage of 60 s came to. Shares are of the limit, 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitOutcome {
    /// The stage.
    pub stage: LimitStage,
    /// What the balancers that live would take together.
    pub wanted: f64,
    /// What they have taken at its end.
    pub taken: f64,
    /// The most that they were allowed to take together, at any moment: never above 1.
    pub most: f64,
    /// When they had nine tenths of what they have at its end, in s; 0: from the beginning.
    pub settled_s: f64,
    /// Requests to etcd in a second, of all balancers.
    pub requests_per_s: f64,
}

impl LimitStage {
    const ALL: [Self; 4] = [
        Self::AllWant,
        Self::OneIsBusy,
        Self::EtcdIsAway,
        Self::OneDies,
    ];

    /// What a table calls it.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::AllWant => "all want more than there is",
            Self::OneIsBusy => "one wants 60%, others little",
            Self::EtcdIsAway => "the same without etcd",
            Self::OneDies => "one dies, all others want more",
        }
    }
}

/// Runs the stages one after the other; empty where there are more than 16 balancers.
pub(super) fn run(settings: &FleetScenario) -> Vec<LimitOutcome> {
    if settings.balancers > BALANCERS_MAX {
        return Vec::new();
    }
    let mut fleet = LeasedFleet::new(settings.balancers);
    LimitStage::ALL.map(|stage| fleet.run(stage)).into()
}

struct LeasedFleet {
    now: u64,
    limit: u32,
    keeper: Keeper,
    members: Vec<Leased>,
}

/// A balancer.
struct Leased {
    member: FleetMember,
    used: u32,
    is_dead: bool,
    /// What it has asked, when, and the answer that is on its way.
    asked: Option<(Ask, u64, Answer)>,
}

impl LeasedFleet {
    fn new(balancers: u32) -> Self {
        let members = (0..balancers).map(|number| {
            let name = format!("lb-{number}");
            Leased {
                member: FleetMember::new(&name, "1", SECOND),
                used: 0,
                is_dead: false,
                asked: None,
            }
        });
        Self {
            now: SECOND,
            limit: balancers.saturating_mul(PART),
            keeper: Keeper::default(),
            members: members.collect(),
        }
    }

    fn run(&mut self, stage: LimitStage) -> LimitOutcome {
        self.keeper.is_away = stage == LimitStage::EtcdIsAway;
        if stage == LimitStage::OneDies
            && let Some(last) = self.members.last_mut()
        {
            last.is_dead = true;
        }
        let wants = self.wants(stage);
        let (asked, mut most) = (self.keeper.asked, 0);
        let mut course = Vec::new();
        for _ in 0..STAGE / TURN {
            self.turn(&wants);
            most = most.max(self.allowed());
            course.push(self.taken());
            self.now += TURN;
        }
        let taken = self.taken();
        let near = |then: &&u64| (**then).abs_diff(taken) * 10 <= taken;
        let settled = course.iter().rev().take_while(near).count() as u64;
        let limit = u64::from(self.limit);
        LimitOutcome {
            stage,
            wanted: share(wants.iter().map(|want| u64::from(*want)).sum(), limit),
            taken: share(taken, limit),
            most: share(most, limit),
            settled_s: float((course.len() as u64 - settled) * TURN) / float(SECOND),
            requests_per_s: share(self.keeper.asked - asked, STAGE / SECOND),
        }
    }

    /// What each would take.
    fn wants(&self, stage: LimitStage) -> Vec<u32> {
        let living = self.members.iter().filter(|its| !its.is_dead).count();
        let living = u32::try_from(living).unwrap_or(u32::MAX);
        let even = (self.limit / living.max(1)).saturating_mul(6) / 5;
        let members = self.members.iter().enumerate();
        let want = |(nth, its): (usize, &Leased)| match stage {
            _ if its.is_dead => 0,
            LimitStage::AllWant | LimitStage::OneDies => even,
            LimitStage::OneIsBusy | LimitStage::EtcdIsAway if nth == 0 => self.limit / 10 * 6,
            LimitStage::OneIsBusy | LimitStage::EtcdIsAway => PART / 20,
        };
        members.map(want).collect()
    }

    /// What happens in a tenth of a second.
    fn turn(&mut self, wants: &[u32]) {
        let now = self.now;
        self.keeper.end_leases(now);
        let limit = self.limit;
        for (nth, its) in self.members.iter_mut().enumerate() {
            if its.is_dead {
                continue;
            }
            if let Some((ask, at, answer)) = its.asked.take() {
                its.member.answered(ask, answer, at, now);
            }
            let want = wants[nth];
            let demand = Demand {
                limit,
                used: its.used,
                want: want.max(its.used),
            };
            let demands = BTreeMap::from([(LIMIT.to_owned(), demand)]);
            its.member.plan(&demands, now);
            let allowed = its.member.bound(LIMIT).at(now);
            // Connections end at their own pace; new ones begin where there is room.
            let left = its.used - its.used.div_ceil(ENDS_IN_TURNS).min(its.used);
            its.used = left.max(want.min(allowed));
            let demands = BTreeMap::from([(
                LIMIT.to_owned(),
                Demand {
                    used: its.used,
                    ..demand
                },
            )]);
            if let Some(ask) = its.member.ask(&demands, now) {
                let (name, instance) = its.member.identity();
                let answer = self.keeper.answer(&ask, (name, instance), now);
                its.asked = Some((ask, now, answer));
            }
        }
    }

    /// What the living may take together.
    fn allowed(&self) -> u64 {
        let living = self.members.iter().filter(|its| !its.is_dead);
        let allowed = living.map(|its| {
            let allowed = its.member.bound(LIMIT).at(self.now);
            u64::from(allowed.max(its.used))
        });
        allowed.sum()
    }

    fn taken(&self) -> u64 {
        let living = self.members.iter().filter(|its| !its.is_dead);
        living.map(|its| u64::from(its.used)).sum()
    }
}

/// The name of the limit.
const LIMIT: &str = "connections";
/// Of the limit, for each balancer.
const PART: u32 = 1_000;
/// The most balancers: each reads the shares of all, each second.
const BALANCERS_MAX: u32 = 16;
const TURN: u64 = 100 * MS;
const STAGE: u64 = 60 * SECOND;
/// Turns in which a connection lasts on average.
const ENDS_IN_TURNS: u32 = 200;
