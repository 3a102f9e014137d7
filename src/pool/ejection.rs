//! Ejection: a backend that fails too often in a row gets no more sessions, from that failure on.
//! Also known as outlier detection (Envoy) or passive health check (nginx).
//!
//! The state of a backend is one atomic that all workers share. The number of ejected backends of a
//! pool is a [`Limit`]. Only the thread that changes the state takes or releases the place in the
//! limit, so that each place is released exactly once, whatever other threads do at the same time.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::guard::Limit;

use super::Backend;

/// Why a backend is ejected. It decides what ends the ejection early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Connects to it failed. A connect that succeeds ends the ejection.
    Unreached,
    /// It accepts connections and fails their sessions. A connect that succeeds proves nothing.
    Failed,
    /// It answers much later than the others. An answer proves nothing.
    Slow,
}

/// The ejection state of one backend.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// One of the numbers below. Sequentially consistent, as doorbells are: a thread that is about
    /// to sleep sees what was set before a bell that did not ring.
    state: AtomicU8,
    /// How many times it was ejected. Changes after `state`.
    times: AtomicU32,
}

impl Ejection {
    pub(super) fn is_ejected(&self) -> bool {
        self.cause().is_some()
    }

    /// Why it is ejected; `None`: it is not ejected.
    pub(super) fn cause(&self) -> Option<Cause> {
        cause(self.state.load(Ordering::SeqCst))
    }

    /// Ejects it if `places` has one left. Returns whether this call did.
    pub(super) fn eject(&self, cause: Cause, places: &Limit) -> bool {
        if self.state.load(Ordering::SeqCst) != ADMITTED || !places.try_acquire() {
            return false;
        }
        let ejected = self.change(ADMITTED, number(cause));
        if ejected {
            self.times.fetch_add(1, Ordering::SeqCst);
        } else {
            places.release();
        }
        ejected
    }

    /// How many times it was ejected. Shows, unlike the state, that it was readmitted and ejected
    /// again since the last look.
    pub(super) fn times(&self) -> u32 {
        self.times.load(Ordering::SeqCst)
    }

    /// A connect to it failed: an ejection for failed sessions becomes one for failed connects.
    pub(super) fn on_unreached(&self) {
        self.change(number(Cause::Failed), number(Cause::Unreached));
    }

    /// Ends its ejection. Returns whether this call did.
    pub(super) fn readmit(&self, places: &Limit) -> bool {
        let admit = |state| cause(state).map(|_| ADMITTED);
        let order = Ordering::SeqCst;
        let readmitted = self.state.fetch_update(order, order, admit).is_ok();
        if readmitted {
            places.release();
        }
        readmitted
    }

    /// Ends its ejection and prevents further ones until [`Self::include`], because sessions that
    /// outlive its membership in the pool may fail too.
    pub(super) fn exempt(&self, places: &Limit) {
        if cause(self.state.swap(EXEMPT, Ordering::SeqCst)).is_some() {
            places.release();
        }
    }

    /// Allows it to be ejected again.
    pub(super) fn include(&self) {
        self.change(EXEMPT, ADMITTED);
    }

    fn change(&self, from: u8, to: u8) -> bool {
        let order = Ordering::SeqCst;
        self.state.compare_exchange(from, to, order, order).is_ok()
    }
}

impl Backend {
    /// It reset or closed a session by its own act alone. Ejects it, for all workers at once, after
    /// too many failures in a row; returns whether this one did.
    pub fn on_failed(&self) -> bool {
        self.fail(Cause::Failed)
    }

    /// A connect to it failed. Ejects it as [`Self::on_failed`] does.
    pub fn on_unreached(&self) -> bool {
        self.tally.on_unreached();
        self.fail(Cause::Unreached)
    }

    /// A connect to it failed that began at its client's own address. What failed may be the way
    /// between those two, or the backend's firewall: in a row, failures of one client count once.
    pub fn on_unreached_by(&self, client: IpAddr) -> bool {
        self.tally.is_another_unreached(client) && self.on_unreached()
    }

    fn fail(&self, cause: Cause) -> bool {
        self.tally.on_failed() >= self.failures_max && self.eject(cause)
    }

    /// Ejects it. `false`: it is ejected already, the maximum of backends is ejected, or its pool
    /// ejects none.
    pub fn eject(&self, cause: Cause) -> bool {
        self.tally.ejection.eject(cause, &self.ejections)
    }

    /// It served a session that began while it was ejected. Ends the ejection, unless that is for
    /// being slow; returns whether this session did.
    pub fn on_trial_passed(&self) -> bool {
        let slow = self.tally.ejected_for() == Some(Cause::Slow);
        !slow && self.readmit()
    }

    /// Ends its ejection and sets its failures to 0. `false`: it was not ejected.
    pub fn readmit(&self) -> bool {
        if !self.tally.is_ejected() {
            return false;
        }
        // Before the readmission, so that a session which fails at this moment does not count
        // together with the old failures and eject it again.
        self.tally.on_sound();
        self.tally.ejection.readmit(&self.ejections)
    }
}

fn number(cause: Cause) -> u8 {
    match cause {
        Cause::Unreached => UNREACHED,
        Cause::Failed => FAILED,
        Cause::Slow => SLOW,
    }
}

fn cause(state: u8) -> Option<Cause> {
    match state {
        UNREACHED => Some(Cause::Unreached),
        FAILED => Some(Cause::Failed),
        SLOW => Some(Cause::Slow),
        _ => None,
    }
}

const ADMITTED: u8 = 0;
const EXEMPT: u8 = 1;
const UNREACHED: u8 = 2;
const FAILED: u8 = 3;
const SLOW: u8 = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;

    #[test]
    fn a_place_is_taken_and_given_back_once() {
        let (places, one) = (Limit::new(5), Ejection::default());
        assert!(one.eject(Cause::Failed, &places) && !one.eject(Cause::Failed, &places));
        assert!(one.is_ejected());
        assert_eq!(places.used(), 1);
        assert!(one.readmit(&places) && !one.readmit(&places));
        assert_eq!(places.used(), 0);
    }

    #[test]
    fn an_exempt_backend_releases_its_place_and_takes_no_other() {
        let (places, one) = (Limit::new(5), Ejection::default());
        assert!(one.eject(Cause::Failed, &places));
        one.exempt(&places);
        one.exempt(&places);
        assert!(!one.eject(Cause::Failed, &places) && !one.readmit(&places) && !one.is_ejected());
        assert_eq!(places.used(), 0);
        one.include();
        one.include();
        assert!(one.eject(Cause::Failed, &places));
    }

    #[test]
    fn no_more_are_ejected_than_there_are_places() {
        let (places, all) = (Limit::new(2), [0; 4].map(|_| Ejection::default()));
        assert_eq!(
            all.iter()
                .filter(|one| one.eject(Cause::Failed, &places))
                .count(),
            2
        );
        assert!(all[0].readmit(&places));
        assert!(all[3].eject(Cause::Failed, &places));
    }

    #[test]
    fn only_an_ejection_for_failed_sessions_changes_its_cause() {
        let places = Limit::new(5);
        for (before, after) in [
            (Cause::Failed, Cause::Unreached),
            (Cause::Unreached, Cause::Unreached),
            (Cause::Slow, Cause::Slow),
        ] {
            let one = Ejection::default();
            one.on_unreached();
            assert_eq!(one.cause(), None);
            assert!(one.eject(before, &places));
            assert_eq!(one.cause(), Some(before));
            one.on_unreached();
            assert_eq!(one.cause(), Some(after));
        }
    }

    /// Workers eject while the control thread readmits, exempts and includes again.
    #[test]
    fn is_exact_over_threads() {
        let (places, all) = (Limit::new(2), [0; 3].map(|_| Ejection::default()));
        let most = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for turn in 0..20_000 {
                        all[turn % 3].eject(Cause::Failed, &places);
                        let ejected = all.iter().filter(|one| one.is_ejected()).count();
                        most.fetch_max(u32::try_from(ejected).unwrap(), Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                for turn in 0..20_000 {
                    let one = &all[turn % 3];
                    one.readmit(&places);
                    if turn % 5 == 0 {
                        one.exempt(&places);
                        one.include();
                    }
                }
            });
        });
        let ejected = all.iter().filter(|one| one.is_ejected()).count();
        assert_eq!(places.used() as usize, ejected);
        // Three looks one after the other may see one that has gone since.
        assert!(most.into_inner() <= 3 && ejected <= 2);
        all.iter().for_each(|one| one.exempt(&places));
        assert_eq!(places.used(), 0);
    }
}
