//! When a backend counts as up or down: by numbers of probes in a row, without a clock.

use std::time::Duration;

use crate::config::{Check, Initial};
use crate::pool::Health;

/// The health of a target according to its probes.
///
/// Only `rise` or `fall` probes in a row that contradict the health change it, so a single lost
/// probe does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    health: Health,
    /// Probes in a row that contradicted `health`.
    against: u32,
    judgement: Judgement,
}

/// What `health` is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// The configuration alone; the first probe decides.
    Waiting,
    /// The configuration alone, until a probe agrees or enough probes in a row disagree. Where the
    /// check looks at an answer, the first failed probe is enough: a server that no probe has found
    /// up may have another role.
    Assumed,
    /// Probes.
    Made,
}

/// A verdict to report: another health than before, or `Down` for the first time by probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The health from now on.
    pub to: Health,
    /// No probe had decided it before: the process or the backend is new.
    pub first: bool,
}

impl Verdict {
    /// Before the first probe.
    #[must_use]
    pub fn new(initial: Initial) -> Self {
        let (health, judgement) = match initial {
            Initial::Up => (Health::Up, Judgement::Assumed),
            Initial::Down => (Health::Down, Judgement::Assumed),
            Initial::Probe => (Health::Down, Judgement::Waiting),
        };
        Self {
            health,
            against: 0,
            judgement,
        }
    }

    /// The same health for another check of the same backend, until new probes contradict it; their
    /// count starts at zero.
    #[must_use]
    pub fn handed_over(self) -> Self {
        Self { against: 0, ..self }
    }

    /// Takes a probe's result.
    pub fn on_probe(&mut self, good: bool, check: &Check) -> Option<Turn> {
        let found = if good { Health::Up } else { Health::Down };
        let first = self.judgement != Judgement::Made;
        if found == self.health {
            self.against = 0;
            self.judgement = Judgement::Made;
            let news = first && found == Health::Down;
            return news.then_some(Turn { to: found, first });
        }
        self.against = self.against.saturating_add(1);
        let needed = match self.judgement {
            Judgement::Waiting => 1,
            Judgement::Assumed if found == Health::Down && check.checks_answers() => 1,
            Judgement::Assumed | Judgement::Made => self.needed(check),
        };
        if self.against < needed {
            return None;
        }
        *self = Self {
            health: found,
            against: 0,
            judgement: Judgement::Made,
        };
        Some(Turn { to: found, first })
    }

    /// The health.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Probes in a row that contradicted it.
    #[must_use]
    pub fn against(&self) -> u32 {
        self.against
    }

    /// How many probes in a row change it.
    #[must_use]
    pub fn needed(&self, check: &Check) -> u32 {
        match self.health {
            Health::Up => check.fall,
            Health::Down => check.rise,
        }
    }

    /// From one probe's start to the next one's, without jitter.
    #[must_use]
    pub fn interval(&self, check: &Check) -> Duration {
        let special = match self.health {
            Health::Up | Health::Down if self.against > 0 => check.interval_between,
            Health::Up => None,
            Health::Down => check.interval_down,
        };
        special.unwrap_or(check.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Expect, Probe};

    fn check() -> Check {
        Check {
            interval: Duration::from_secs(2),
            interval_down: Some(Duration::from_secs(10)),
            interval_between: Some(Duration::from_secs(1)),
            ..Check::default()
        }
    }

    /// The turns that these probes make, each `+` or `-`.
    fn feed(verdict: &mut Verdict, probes: &str) -> Vec<Option<Turn>> {
        let check = check();
        let probes = probes.bytes();
        probes
            .map(|probe| verdict.on_probe(probe == b'+', &check))
            .collect()
    }

    fn turn(to: Health, first: bool) -> Option<Turn> {
        Some(Turn { to, first })
    }

    #[test]
    fn falls_after_three_in_a_row_and_rises_after_two() {
        let mut verdict = Verdict::new(Initial::Up);
        let turns = feed(&mut verdict, "+---");
        assert_eq!(turns, [None, None, None, turn(Health::Down, false)]);
        assert_eq!(
            feed(&mut verdict, "-++"),
            [None, None, turn(Health::Up, false)]
        );
    }

    #[test]
    fn one_lost_probe_of_three_never_changes_the_state() {
        let mut verdict = Verdict::new(Initial::Up);
        for pattern in ["++-", "+-+", "-++", "-+-", "--+"] {
            let turns = feed(&mut verdict, &pattern.repeat(50));
            assert!(turns.iter().all(Option::is_none), "{pattern}");
            feed(&mut verdict, "+");
        }
        feed(&mut verdict, "---");
        let turns = feed(&mut verdict, &"--+".repeat(50));
        assert!(turns.iter().all(Option::is_none));
        assert_eq!(verdict.health(), Health::Down);
    }

    #[test]
    fn the_initial_health_is_configured() {
        let mut up = Verdict::new(Initial::Up);
        assert_eq!(up.health(), Health::Up);
        assert_eq!(feed(&mut up, "---")[2], turn(Health::Down, true));

        let mut down = Verdict::new(Initial::Down);
        assert_eq!(down.health(), Health::Down);
        assert_eq!(feed(&mut down, "++"), [None, turn(Health::Up, true)]);

        let mut probe = Verdict::new(Initial::Probe);
        assert_eq!(probe.health(), Health::Down);
        assert_eq!(feed(&mut probe, "+"), [turn(Health::Up, true)]);
    }

    #[test]
    fn the_first_answer_decides_where_the_check_looks_at_it() {
        let asks_for_the_role = Check {
            probe: Probe::SendExpect {
                send: Vec::new(),
                expect: Expect::Bytes(b"role:master".to_vec()),
            },
            ..check()
        };
        let mut verdict = Verdict::new(Initial::Up);
        assert_eq!(
            verdict.on_probe(false, &asks_for_the_role),
            turn(Health::Down, true)
        );
        // A server that was found up has a whole run of failures.
        let mut verdict = Verdict::new(Initial::Up);
        assert_eq!(verdict.on_probe(true, &asks_for_the_role), None);
        let failures = [false; 3].map(|good| verdict.on_probe(good, &asks_for_the_role));
        assert_eq!(failures, [None, None, turn(Health::Down, false)]);
    }

    #[test]
    fn a_backend_that_is_down_from_the_start_is_reported_once() {
        for initial in [Initial::Down, Initial::Probe] {
            let mut verdict = Verdict::new(initial);
            let turns = feed(&mut verdict, "--++");
            let up = turn(Health::Up, false);
            assert_eq!(turns, [turn(Health::Down, true), None, None, up]);
        }
    }

    #[test]
    fn the_interval_follows_the_state() {
        let check = check();
        let mut verdict = Verdict::new(Initial::Up);
        let secs = |verdict: &Verdict| verdict.interval(&check).as_secs();
        assert_eq!(secs(&verdict), 2);
        feed(&mut verdict, "-");
        assert_eq!(secs(&verdict), 1);
        feed(&mut verdict, "--");
        assert_eq!(secs(&verdict), 10);
        feed(&mut verdict, "+");
        assert_eq!(secs(&verdict), 1);
        feed(&mut verdict, "+");
        assert_eq!(secs(&verdict), 2);
        assert_eq!(verdict.interval(&Check::default()).as_secs(), 2);
    }

    #[test]
    fn health_survives_another_check() {
        let mut verdict = Verdict::new(Initial::Up);
        feed(&mut verdict, "---+");
        let mut next = verdict.handed_over();
        assert_eq!((next.health(), next.against()), (Health::Down, 0));
        assert_eq!(feed(&mut next, "++"), [None, turn(Health::Up, false)]);
    }
}
