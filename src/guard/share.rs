//! A share of a limit of the fleet, as workers read it: it ends by itself.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::fleet_shares::ShareBound;
use crate::sys;

/// What this balancer may take of a limit that holds over several: a share until its lease ends,
/// and no more than a base after that.
///
/// A share and its end are one number, so that none is read with the end of another. The end is by
/// a clock that goes on while the machine sleeps, and it is read whenever the share is asked for: a
/// process that was stopped acts on no share that has ended meanwhile, whatever else it knew.
#[derive(Debug, Default)]
pub(super) struct LeasedShare {
    base: AtomicU32,
    /// The share in the upper half, its end in [`UNIT`]s in the lower one; 0: none.
    leased: AtomicU64,
}

impl LeasedShare {
    /// Sets both. The lease ends by [`sys::boot_time`].
    pub(super) fn set(&self, bound: ShareBound) {
        let ShareBound { share, base, until } = bound;
        let end = u32::try_from(until / UNIT).unwrap_or(u32::MAX);
        let leased = u64::from(share) << 32 | u64::from(end);
        // Who gives back reads what is in use after this: no worker takes by the old one then.
        self.base.store(base, Ordering::SeqCst);
        self.leased.store(leased, Ordering::SeqCst);
    }

    /// What may be taken without a lease.
    pub(super) fn base(&self) -> u32 {
        self.base.load(Ordering::SeqCst)
    }

    /// Whether there may be a lease.
    #[inline]
    pub(super) fn is_leased(&self) -> bool {
        self.leased.load(Ordering::SeqCst) != 0
    }

    /// What may be taken now.
    pub(super) fn now(&self) -> u32 {
        self.at(sys::boot_time())
    }

    fn at(&self, now: u64) -> u32 {
        let leased = self.leased.load(Ordering::SeqCst);
        let [share, end] = [leased >> 32, leased & u64::from(u32::MAX)];
        let base = self.base();
        match now / UNIT < end {
            true => u32::try_from(share).unwrap_or(0).max(base),
            false => base,
        }
    }
}

/// 2^26 ns, some 67 ms: 32 bits of them are nine years. A lease ends this much too early at most.
const UNIT: u64 = 1 << 26;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    #[test]
    fn a_share_ends_by_itself_and_leaves_the_base() {
        let share = LeasedShare::default();
        let set = |base, of, until| {
            share.set(ShareBound {
                share: of,
                base,
                until,
            });
        };
        assert!(!share.is_leased() && share.at(0) == 0);
        set(5, 20, 10 * SECOND);
        assert_eq!(share.at(0), 20);
        assert_eq!(share.at(10 * SECOND - UNIT - 1), 20);
        assert_eq!(share.at(10 * SECOND), 5, "not a moment later");
        assert_eq!(share.at(u64::MAX), 5);
        set(u32::MAX, u32::MAX, u64::MAX);
        assert_eq!(share.at(SECOND), u32::MAX);
        set(3, 3, 0);
        assert_eq!((share.at(0), share.base()), (3, 3));
    }
}
