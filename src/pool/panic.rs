//! Panic mode: a pool with too few usable backends ignores health and ejection, as with Envoy's
//! panic threshold. The few that are left would break under the load of all, and the probes
//! themselves may be wrong.
//!
//! A pool without any usable backend does the same, or refuses clients (`all_down`). A check that
//! judges an answer is believed, unless the configuration says otherwise: such a pool does not
//! panic, and refuses clients when all backends are down.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::address::Address;
use crate::time::nanos;

use super::{Backend, Health, Pool};

/// Where a pool's new sessions go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Nowhere: no backend takes any.
    Refused,
    /// To all backends that are ready: the pool panics.
    Panic,
    /// To backends each of which has failed so often in a row that it would be ejected as one of
    /// several. Workers know it at once: each question looks at it.
    Failing,
    /// To backends that are up, of which one may be ejected.
    #[default]
    Usable,
}

impl Pool {
    /// Where its new sessions go now.
    #[must_use]
    pub fn service(&self) -> Service {
        match self.reachable().next() {
            None => Service::Refused,
            Some(_) if self.panic => Service::Panic,
            Some(_) if self.reachable().all(|one| self.fails(one)) => Service::Failing,
            Some(_) => Service::Usable,
        }
    }

    /// Whether a backend has failed so often in a row that it would be ejected.
    fn fails(&self, backend: &Backend) -> bool {
        let ejection = self.config.ejection.unwrap_or_default();
        backend.tally.failures() >= ejection.failures
    }

    /// How many of its backends are ready, up and not ejected.
    #[must_use]
    pub fn usable(&self) -> usize {
        let usable = |its: &&Arc<Backend>| its.is_ready() && its.is_usable();
        self.backends.iter().filter(usable).count()
    }

    /// Sets the fields that follow from all its backends together: panic, slow start, backlogs.
    pub(super) fn derive_state(&mut self) {
        self.panic = self.should_panic();
        self.rising = self
            .backends
            .iter()
            .any(|backend| backend.slow_start.is_some());
        let is_unix = |backend: &Arc<Backend>| matches!(backend.address, Address::Unix(_));
        self.has_backlogs = self.backends.iter().any(is_unix);
        for backend in &mut self.backends {
            if backend.forced != self.panic {
                // Copies a backend that the pool before uses too.
                Arc::make_mut(backend).forced = self.panic;
            }
        }
    }

    /// Puts its limits in force, for all workers at once, and readmits backends that may no longer
    /// be ejected. Call it once, just before the pool is published in place of `before`.
    pub fn take_effect(&self, before: Option<&Self>) {
        self.connections
            .set_max(ceiling(self.config.max_connections));
        self.queue.set(self.config.queue_in_force());
        if let Some((table, persist)) = self.sticky.as_ref().zip(self.persist.as_ref()) {
            table.set_ttl(nanos(persist.ttl));
        }
        if let Some(before) = before {
            self.exempt_removed(before);
        }
        for (backend, config) in self.backends.iter().zip(&self.config.backends) {
            let tally = &backend.tally;
            tally.connections.set_max(ceiling(config.max_connections));
            tally.bandwidth.set(config.bandwidth.by_way());
            if self.config.ejection.is_some() {
                tally.ejection.include();
            } else {
                tally.ejection.exempt(&self.ejections);
            }
        }
        let max = self.ejections_max();
        self.ejections.set_max(max);
        if max == 0 {
            // The only backend may have been ejected as one of several.
            for backend in &self.backends {
                backend.readmit();
            }
        }
    }

    /// Exempts backends that have left from ejection, also while their last sessions end: the
    /// places of the pool's ejection limit are for its own backends.
    fn exempt_removed(&self, before: &Self) {
        let stays =
            |(one, old): (&Arc<Backend>, &Arc<Backend>)| Arc::ptr_eq(&one.tally, &old.tally);
        let all_stay = self.backends.len() == before.backends.len()
            && self.backends.iter().zip(&before.backends).all(stays);
        if all_stay && before.leaving.is_empty() {
            return;
        }
        let present = self.backends.iter().map(|one| Arc::as_ptr(&one.tally));
        let present: HashSet<_> = present.collect();
        let removed = before.known().map(|(_, backend)| &backend.tally);
        for tally in removed.filter(|tally| !present.contains(&Arc::as_ptr(tally))) {
            tally.ejection.exempt(&self.ejections);
        }
    }

    /// How many backends may be ejected: at least one of several, never the only one.
    fn ejections_max(&self) -> u32 {
        let Some(ejection) = &self.config.ejection else {
            return 0;
        };
        let ready = self.backends.iter().filter(|backend| backend.is_ready());
        let ready = u64::try_from(ready.count()).unwrap_or(u64::MAX);
        let max = match ready {
            0 | 1 => 0,
            several => (several * u64::from(ejection.share.min(100)) / 100).max(1),
        };
        u32::try_from(max).unwrap_or(u32::MAX)
    }

    pub(super) fn should_panic(&self) -> bool {
        // If none may be ejected, those that are will be readmitted by `take_effect`.
        let heeds_ejections = self.ejections_max() > 0;
        let usable = |backend: &&Arc<Backend>| {
            backend.health == Health::Up && !(heeds_ejections && backend.tally.is_ejected())
        };
        let ready = self.backends.iter().filter(|backend| backend.is_ready());
        let (backups, candidates): (Vec<_>, Vec<_>) = ready.partition(|backend| backend.backup);
        let all = candidates.len();
        match candidates.into_iter().filter(usable).count() {
            // Backups take over.
            0 if backups.iter().any(usable) => false,
            0 if all == 0 && backups.is_empty() => false,
            0 => self.config.fails_open(),
            usable => usable * 100 < all * usize::from(self.config.panics_below()),
        }
    }
}

fn ceiling(max: Option<NonZeroU32>) -> u32 {
    max.map_or(u32::MAX, NonZeroU32::get)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::config::{self, AdminState, AllDown, Check, Ejection, Expect, Probe};
    use crate::pool::{Cause, Health, Standing, Tally};

    /// A pool of `count` backends, named b0, b1, ...
    fn config(count: u16) -> config::Pool {
        let backend = |number: u16| config::Backend {
            name: format!("b{number}"),
            ..config::Backend::at(format!("127.0.0.1:{}", 9_000 + number).parse().unwrap())
        };
        config::Pool::of("p", (0..count).map(backend).collect())
    }

    /// A check that judges the role of a backend.
    fn judging() -> Check {
        Check {
            probe: Probe::SendExpect {
                send: b"INFO replication\r\n".to_vec(),
                expect: Expect::Bytes(b"role:master".to_vec()),
            },
            ..Check::default()
        }
    }

    fn standing(health: Health) -> Standing {
        Standing {
            health,
            ..Standing::default()
        }
    }

    /// A pool whose first `down` backends are down.
    fn with_down(config: &config::Pool, down: usize) -> Pool {
        publish(config, None, |backend| {
            let number = config.backends.iter().position(|one| one == backend);
            let is_down = number.is_some_and(|number| number < down);
            standing(if is_down { Health::Down } else { Health::Up })
        })
    }

    /// The pool that is published after another one.
    fn publish(
        config: &config::Pool,
        before: Option<&Pool>,
        standing: impl Fn(&config::Backend) -> Standing,
    ) -> Pool {
        let pool = Pool::build(config, before, standing);
        pool.take_effect(before);
        pool
    }

    fn in_rotation(pool: &Pool) -> usize {
        let backends = pool.backends.iter();
        backends.filter(|backend| backend.is_in_rotation()).count()
    }

    fn fail(backend: &Backend, times: u32) -> bool {
        (0..times).any(|_| backend.on_failed())
    }

    #[test]
    fn below_half_all_are_balanced_over() {
        let config = config(10);
        let rotating = |down| in_rotation(&with_down(&config, down));
        assert_eq!([0, 1, 5].map(rotating), [10, 9, 5]);
        assert_eq!([6, 9, 10].map(rotating), [10, 10, 10]);
    }

    #[test]
    fn a_pool_fails_whose_backends_all_fail() {
        for count in [1, 2, 4] {
            let pool = with_down(&config(count), 0);
            for backend in &pool.backends {
                assert_eq!(pool.service(), Service::Usable);
                assert!((0..6).filter(|_| backend.on_unreached()).count() <= 1);
            }
            assert_eq!(pool.service(), Service::Failing, "{count}");
            pool.backends[usize::from(count) - 1].tally.on_sound();
            assert_eq!(pool.service(), Service::Usable, "{count}");
        }
    }

    #[test]
    fn the_threshold_can_be_set_and_zero_is_never() {
        let mut config = config(10);
        config.panic_below = Some(80);
        assert_eq!(in_rotation(&with_down(&config, 2)), 8);
        assert_eq!(in_rotation(&with_down(&config, 3)), 10);
        config.panic_below = Some(0);
        assert_eq!(in_rotation(&with_down(&config, 9)), 1);
        assert_eq!(in_rotation(&with_down(&config, 10)), 10);
        config.all_down = Some(AllDown::Closed);
        let closed = with_down(&config, 10);
        assert!(in_rotation(&closed) == 0 && !closed.panic);
    }

    #[test]
    fn a_check_that_judges_answers_is_believed() {
        let mut config = config(3);
        config.check = Some(judging());
        let rotating = |config: &_, down| in_rotation(&with_down(config, down));
        assert_eq!(
            [0, 1, 2, 3].map(|down| rotating(&config, down)),
            [3, 2, 1, 0]
        );
        // Each setting overrides its own default.
        config.panic_below = Some(50);
        assert_eq!([1, 2, 3].map(|down| rotating(&config, down)), [2, 3, 0]);
        config.panic_below = None;
        config.all_down = Some(AllDown::Open);
        assert_eq!([1, 2, 3].map(|down| rotating(&config, down)), [2, 1, 3]);
        // A check that only connects is not believed.
        config.all_down = None;
        config.check = Some(Check::default());
        assert_eq!([1, 2, 3].map(|down| rotating(&config, down)), [2, 3, 3]);
        config.check.as_mut().unwrap().tls = config::CheckTls::On;
        assert_eq!([1, 2, 3].map(|down| rotating(&config, down)), [2, 3, 3]);
    }

    /// The primary is ejected because its sessions failed, and the check says that the others are
    /// no primaries: clients go to the primary.
    #[test]
    fn the_only_one_that_is_up_is_taken_though_it_is_ejected() {
        let mut config = config(3);
        config.check = Some(judging());
        let pool = with_down(&config, 2);
        assert!(fail(&pool.backends[2], 5) && pool.backends[2].tally.is_ejected());
        let reached =
            |pool: &Pool| -> Vec<_> { pool.reachable().map(|one| one.name.clone()).collect() };
        assert_eq!(reached(&pool), ["b2"]);
        let known = |backend: &config::Backend| {
            standing(match &*backend.name {
                "b2" => Health::Up,
                _ => Health::Down,
            })
        };
        let next = publish(&config, Some(&pool), known);
        assert!(!next.panic && next.backends[2].tally.is_ejected());
        assert_eq!(reached(&next), ["b2"]);
        config.all_down = Some(AllDown::Closed);
        assert!(reached(&publish(&config, Some(&next), known)).is_empty());
    }

    /// Random pools: a pool panics for all its backends at once, and only as configured.
    #[test]
    fn panic_is_what_was_configured() {
        for seed in 0..2_000 {
            let mut rng = Rng::with_seed(seed);
            let mut config = config(rng.u16(1..9));
            config.panic_below = [None, Some(0), Some(30), Some(100)][rng.usize(0..4)];
            config.all_down = [None, Some(AllDown::Open), Some(AllDown::Closed)][rng.usize(0..3)];
            config.check = [None, Some(Check::default()), Some(judging())][rng.usize(0..3)].clone();
            for backend in &mut config.backends {
                backend.backup = rng.u8(..) < 60;
                backend.weight = rng.u16(0..3);
                backend.reserve = rng.u8(..) < 40;
                if rng.u8(..) < 60 {
                    backend.state = [AdminState::Drain, AdminState::Maint][rng.usize(0..2)];
                }
            }
            let states: Vec<_> = config.backends.iter().map(|_| rng.bool()).collect();
            let known = |backend: &config::Backend| {
                let number = config.backends.iter().position(|one| one == backend);
                Standing {
                    standby: backend.reserve,
                    ..standing(if states[number.unwrap()] {
                        Health::Up
                    } else {
                        Health::Down
                    })
                }
            };
            let before = publish(&config, None, known);
            for backend in &before.backends {
                if rng.u8(..) < 100 {
                    backend.eject(Cause::Failed);
                }
            }
            check(&publish(&config, Some(&before), known));
        }
    }

    fn check(pool: &Pool) {
        let usable =
            |backend: &Backend| backend.health == Health::Up && !backend.tally.is_ejected();
        let of = |backup: bool| {
            let ready = pool.backends.iter().filter(|backend| backend.is_ready());
            let mine: Vec<_> = ready.filter(|backend| backend.backup == backup).collect();
            let left = mine.iter().filter(|backend| usable(backend)).count();
            (mine.len(), left)
        };
        let ((mains, left), (backups, backups_left)) = (of(false), of(true));
        let believed = pool.config.check == Some(judging());
        let least = pool
            .config
            .panic_below
            .unwrap_or(if believed { 0 } else { 50 });
        let below = left * 100 < mains * usize::from(least);
        let expected = match (left + backups_left, pool.config.all_down) {
            (0, Some(AllDown::Open)) => mains + backups > 0,
            (0, Some(AllDown::Closed)) => false,
            (0, None) => !believed && mains + backups > 0,
            _ => left > 0 && below,
        };
        assert_eq!(pool.panic, expected, "{pool:?}");
        assert!(pool.backends.iter().all(|one| one.forced == pool.panic));
        let reachable =
            |backend: &&Arc<Backend>| backend.is_in_rotation() && !backend.is_shut_out();
        let reached = pool.backends.iter().filter(reachable).count();
        let expected = if pool.panic {
            mains + backups
        } else {
            left + backups_left
        };
        assert_eq!(reached, expected, "{pool:?}");
        // A backend that is down is reached only in panic; an ejected one when no other is up.
        let met: Vec<_> = pool.reachable().collect();
        assert!(pool.panic || met.iter().all(|one| one.health == Health::Up));
        let up = |one: &&Arc<Backend>| one.is_ready() && one.health == Health::Up;
        let is_closed = pool.config.all_down == Some(AllDown::Closed);
        let no_other_is_usable = left + backups_left == 0 && !is_closed;
        let ups = pool.backends.iter().filter(up).count();
        assert!(
            !no_other_is_usable || pool.panic || met.len() == ups,
            "{pool:?}"
        );
        let ejected = pool.backends.iter().filter(|one| one.tally.is_ejected());
        assert_eq!(pool.ejections.used() as usize, ejected.count());
        let bound = match mains + backups {
            0 | 1 => 0,
            several => (several / 2).max(1),
        };
        assert_eq!(pool.ejections.max() as usize, bound);
        assert!(pool.ejections.used() <= pool.ejections.max());
    }

    #[test]
    fn the_last_failure_in_a_row_ejects_and_an_answer_does_not_readmit() {
        let pool = Pool::new(&config(4));
        let one = &pool.backends[1];
        assert!(!fail(one, 4));
        one.tally.on_sound();
        assert!(!fail(one, 4) && !one.tally.is_ejected());
        assert!(
            one.on_failed() && one.tally.is_ejected(),
            "the fifth in a row"
        );
        assert!(!fail(one, 10), "it is ejected already");
        one.tally.on_sound();
        assert!(one.tally.is_ejected() && one.tally.failures() == 0);
        assert!(!fail(one, 10) && one.readmit() && !one.readmit());
        assert!(!fail(one, 4) && one.on_failed(), "the count starts at 0");
    }

    #[test]
    fn a_session_that_was_served_ends_an_ejection_unless_it_is_for_being_slow() {
        for (cause, ends) in [
            (Cause::Unreached, true),
            (Cause::Failed, true),
            (Cause::Slow, false),
        ] {
            let pool = Pool::new(&config(4));
            let one = &pool.backends[1];
            assert!(!one.on_trial_passed() && one.eject(cause));
            assert_eq!(one.on_trial_passed(), ends);
            assert_eq!(one.tally.is_ejected(), !ends);
            assert_eq!(pool.ejections.used(), u32::from(!ends));
        }
    }

    #[test]
    fn no_more_than_the_share_are_ejected_and_one_of_several_always_may() {
        let ejected = |count, share| {
            let mut config = config(count);
            let ejection = Ejection {
                share,
                ..Ejection::default()
            };
            config.ejection = Some(ejection);
            let pool = Pool::new(&config);
            let failed = pool.backends.iter().filter(|backend| fail(backend, 5));
            failed.count()
        };
        assert_eq!(
            [1, 2, 3, 5, 10].map(|count| ejected(count, 50)),
            [0, 1, 1, 2, 5]
        );
        assert_eq!([1, 2, 10].map(|count| ejected(count, 0)), [0, 1, 1]);
        assert_eq!([1, 2, 10].map(|count| ejected(count, 100)), [0, 2, 10]);
    }

    #[test]
    fn a_backend_that_found_no_place_is_ejected_by_its_next_failure() {
        let pool = Pool::new(&config(2));
        assert!(fail(&pool.backends[0], 5) && !fail(&pool.backends[1], 5));
        assert!(pool.backends[0].readmit());
        assert!(pool.backends[1].on_failed());
    }

    /// Pools change while backends are ejected: no place is lost.
    #[test]
    fn a_place_is_released_when_a_backend_leaves_or_ejection_is_switched_off() {
        let up = |_: &config::Backend| Standing::default();
        let whole = config(4);
        let first = Pool::new(&whole);
        assert!(fail(&first.backends[0], 5) && fail(&first.backends[3], 5));
        assert!(first.backends[3].try_acquire(0));
        let second = publish(&config(3), Some(&first), up);
        assert_eq!(second.ejections.used(), 1);
        assert!(second.backends[0].tally.is_ejected());
        // A session of the backend that left ends by another failure.
        assert!(!fail(&first.backends[3], 5) && !first.backends[3].readmit());
        assert_eq!(second.ejections.used(), 1);
        // It comes back while its session lasts.
        let third = publish(&whole, Some(&second), up);
        assert!(
            fail(&third.backends[3], 1),
            "its failures were not forgotten"
        );
        assert_eq!(third.ejections.used(), 2);
        let never = config::Pool {
            ejection: None,
            ..whole
        };
        let fourth = publish(&never, Some(&third), up);
        assert_eq!(fourth.ejections.used(), 0);
        assert!(!fail(&fourth.backends[0], 50) && !fail(&third.backends[0], 50));
    }

    #[test]
    fn the_only_backend_left_is_readmitted() {
        let first = Pool::new(&config(2));
        assert!(fail(&first.backends[0], 5));
        let alone = publish(&config(1), Some(&first), |_| Standing::default());
        assert!(!alone.backends[0].tally.is_ejected() && alone.ejections.used() == 0);
    }

    #[test]
    fn places_of_the_pool_are_exact_and_none_is_half_taken() {
        let mut config = config(2);
        config.max_connections = NonZeroU32::new(3);
        config.backends[0].max_connections = NonZeroU32::new(1);
        let pool = Pool::new(&config);
        let [one, two] = [0, 1].map(|index: usize| &pool.backends[index]);
        assert!(one.try_acquire(0) && !one.try_acquire(0));
        assert!(two.try_acquire(0) && two.try_acquire(0));
        assert!(pool.is_full() && !two.try_acquire(0));
        let used = |tally: &Tally| (tally.connections.used(), tally.waiting());
        assert_eq!([used(&one.tally), used(&two.tally)], [(1, 1), (2, 2)]);
        one.release(super::super::Ended::unanswered());
        assert!(!pool.is_full() && two.try_acquire(0) && pool.connections.used() == 3);
    }
}
