//! Which addresses this machine has, of those that were asked for. They may come and go while the
//! process runs, as the address that two machines share does (VRRP).

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use super::origin::{datagrams_to, probe_address};

/// Whether this machine has an address. Nothing waits for anything, and nothing is sent: the list
/// of all addresses might (rtnetlink(7)). Where no descriptor is left the answer is no.
#[must_use]
pub fn is_own_address(to: &SocketAddr) -> bool {
    LookUp::default().look_up(to).unwrap_or(false)
}

/// The same for a thread that may open no file: what [`read_bind_rules`] found stands for it.
#[must_use]
pub fn is_own_host(ip: IpAddr) -> bool {
    let look_up = LookUp {
        binds_others: OnceCell::from(BINDS_OTHERS.load(Ordering::Relaxed)),
    };
    look_up.look_up(&SocketAddr::new(ip, 0)).unwrap_or(false)
}

/// Reads whether sockets may be bound to addresses that this machine does not have. Call it again
/// from time to time, as that may change.
pub fn read_bind_rules() {
    BINDS_OTHERS.store(binds_others(), Ordering::Relaxed);
}

/// Whether sockets may be bound to addresses of others, as it was last read.
static BINDS_OTHERS: AtomicBool = AtomicBool::new(false);

/// Which addresses this machine has, of those that were asked for in the last round.
#[derive(Debug, Default)]
pub struct OwnAddresses(RefCell<Known>);

/// What was found.
#[derive(Debug, Default)]
struct Known {
    /// With port 0.
    by_address: BTreeMap<SocketAddr, Answer>,
    round: u64,
    /// Addresses that were looked up for the first time in this round.
    new: usize,
    /// The last one that was looked up again.
    last: Option<SocketAddr>,
    has_changed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    is_own: bool,
    /// When it was asked for.
    round: u64,
}

impl OwnAddresses {
    /// Whether this machine has an address. Where no descriptor is left the last answer stays.
    #[must_use]
    pub fn has(&self, to: &SocketAddr) -> bool {
        let look_up = LookUp::default();
        self.0.borrow_mut().is_own(to, |to| look_up.look_up(to))
    }

    /// All addresses of a configuration were asked for: others are forgotten.
    pub fn end_round(&self) {
        self.0.borrow_mut().end_round();
    }

    /// Looks some addresses up again, in turn. `true`: an answer has changed since the last call.
    /// Call it each second.
    #[must_use]
    pub fn look_again(&self) -> bool {
        let look_up = LookUp::default();
        self.0.borrow_mut().look_again(|to| look_up.look_up(to))
    }
}

impl Known {
    /// An answer `no` is kept until the next look: there may be thousands. An operator who has
    /// removed an address need not wait for that.
    fn is_own(&mut self, to: &SocketAddr, look_up: impl Fn(&SocketAddr) -> Option<bool>) -> bool {
        let mut to = *to;
        to.set_port(0);
        let round = self.round;
        match self.by_address.get_mut(&to) {
            Some(known) => {
                known.round = round;
                known.is_own && self.ask(&to, look_up)
            }
            None => {
                // Thousands at once would take long: the next seconds look the others up.
                let is_due = self.new < LOOKS_MAX;
                self.new += 1;
                let is_own = is_due && look_up(&to).unwrap_or(false);
                self.by_address.insert(to, Answer { is_own, round });
                is_own
            }
        }
    }

    fn end_round(&mut self) {
        let round = self.round;
        self.by_address.retain(|_, answer| answer.round == round);
        (self.round, self.new) = (round + 1, 0);
    }

    fn look_again(&mut self, look_up: impl Fn(&SocketAddr) -> Option<bool>) -> bool {
        let looks = (self.by_address.len() / TURN_SECONDS).clamp(LOOKS, LOOKS_MAX);
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let some = self.by_address.range((from, Bound::Unbounded));
        let some: Vec<_> = some.take(looks).map(|(address, _)| *address).collect();
        // After the last of all the next turn begins with the first.
        self.last = some.get(looks - 1).copied();
        for address in &some {
            self.ask(address, &look_up);
        }
        std::mem::take(&mut self.has_changed)
    }

    /// Looks a known address up again.
    fn ask(&mut self, to: &SocketAddr, look_up: impl Fn(&SocketAddr) -> Option<bool>) -> bool {
        let Some(known) = self.by_address.get_mut(to) else {
            return false;
        };
        let is_own = look_up(to).unwrap_or(known.is_own);
        self.has_changed |= known.is_own != is_own;
        known.is_own = is_own;
        is_own
    }
}

/// Asks the machine.
#[derive(Default)]
struct LookUp {
    binds_others: OnceCell<bool>,
}

impl LookUp {
    /// `None`: there is no descriptor or memory to find out.
    fn look_up(&self, to: &SocketAddr) -> Option<bool> {
        let lacks = |error: &io::Error| {
            let lack = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
            error.raw_os_error().is_some_and(|its| lack.contains(&its))
        };
        // A connection to an own address begins there.
        match datagrams_to(to).and_then(|socket| socket.local_addr()) {
            Ok(near) if near.as_socket().is_some_and(|near| near.ip() == to.ip()) => {
                return Some(true);
            }
            Err(error) if lacks(&error) => return None,
            Ok(_) | Err(_) => {}
        }
        // Or at the first address of its network (a secondary one), or at another (a local route).
        if *self.binds_others.get_or_init(binds_others) {
            return Some(false);
        }
        match probe_address(to.ip()) {
            Ok(()) => Some(true),
            Err(error) if lacks(&error) => None,
            Err(_) => Some(false),
        }
    }
}

/// Whether sockets may be bound to addresses that this machine does not have (ip(7),
/// ip_nonlocal_bind).
fn binds_others() -> bool {
    let is_on = |family: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/{family}/ip_nonlocal_bind"));
        text.is_ok_and(|text| text.trim() != "0")
    };
    is_on("ipv4") || is_on("ipv6")
}

/// In how many seconds all addresses are looked up again, unless there are very many.
const TURN_SECONDS: usize = 16;
/// Addresses that are looked up again in a second, at least: about a millisecond.
const LOOKS: usize = 128;
/// The same, and addresses of one round that are looked up at once, at most.
const LOOKS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_machine_knows_its_own_addresses() {
        let is_own = |to: &str| is_own_address(&to.parse().unwrap());
        assert!(is_own("127.0.0.1:1"));
        assert!(!is_own("192.0.2.1:1"));
        assert!(is_own("127.9.9.9:1"), "by its local route");
        read_bind_rules();
        let is_own = |to: &str| is_own_host(to.parse().unwrap());
        assert!(is_own("127.0.0.1") && is_own("127.9.9.9") && !is_own("192.0.2.1"));
    }

    fn address(n: u16) -> SocketAddr {
        let [high, low] = n.to_be_bytes();
        SocketAddr::from(([10, 0, high, low], n))
    }

    #[test]
    fn only_addresses_of_the_last_round_are_kept() {
        let mut known = Known::default();
        let asked = Cell::new(0);
        let look_up = |_: &SocketAddr| {
            asked.set(asked.get() + 1);
            Some(false)
        };
        let all = 3 * u16::try_from(LOOKS_MAX).unwrap();
        (0..all).for_each(|n| assert!(!known.is_own(&address(n), look_up)));
        assert_eq!(asked.get(), LOOKS_MAX, "large work is cut into pieces");
        known.end_round();
        assert_eq!(known.by_address.len(), 3 * LOOKS_MAX);
        // All are looked up within the time of a turn.
        asked.set(0);
        for _ in 0..=TURN_SECONDS {
            known.look_again(look_up);
        }
        assert!(asked.get() >= 3 * LOOKS_MAX, "{}", asked.get());
        (0..10).for_each(|n| assert!(!known.is_own(&address(n), look_up)));
        known.end_round();
        assert_eq!(known.by_address.len(), 10);
        // Other ports of an address are the same question.
        let mut other = address(3);
        other.set_port(999);
        assert!(!known.is_own(&other, |_| panic!("it is known")));
    }

    #[test]
    fn an_address_that_comes_or_goes_is_noticed() {
        let mut known = Known::default();
        let last = u16::try_from(3 * LOOKS).unwrap();
        let no = |_: &SocketAddr| Some(false);
        for n in 0..=last {
            assert!(!known.is_own(&address(n), no));
        }
        assert!((0..8).all(|_| !known.look_again(no)));
        let looks = Cell::new(0);
        let has_last = |to: &SocketAddr| {
            looks.set(looks.get() + 1);
            Some(*to == SocketAddr::new(address(last).ip(), 0))
        };
        let noticed = (1..=8).find(|_| known.look_again(has_last));
        assert!(noticed.is_some_and(|turns| looks.get() <= turns * LOOKS));
        assert!(
            known.is_own(&address(last), |_| None),
            "the last answer stays"
        );
        // It is gone: that is seen at once, and reported at the next look.
        assert!(!known.is_own(&address(last), no));
        assert!(known.look_again(no));
        assert!(!known.look_again(no));
    }
}
