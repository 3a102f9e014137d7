//! Which addresses this machine has, of those that were asked for. They may come and go while the
//! process runs, as the address that two machines share does (VRRP).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::Bound;

use parking_lot::Mutex;

use super::origin::{datagrams_to, probe_address};

/// Whether this machine has an address. Nothing waits for anything, and nothing is sent: the list
/// of all addresses might (rtnetlink(7)). Where no descriptor is left, the last answer stays.
#[must_use]
pub fn is_own_address(to: &SocketAddr) -> bool {
    KNOWN.lock().is_own(to, look_up)
}

/// Whether this machine has any of the addresses that were asked for.
#[must_use]
pub fn has_own_addresses() -> bool {
    KNOWN.lock().own > 0
}

/// Looks some of these addresses up again, in turn. `true`: an answer has changed since the last
/// call. Call it again and again.
pub fn read_own_addresses() -> bool {
    KNOWN.lock().look_again(look_up)
}

/// What was found.
struct Known {
    by_address: BTreeMap<SocketAddr, bool>,
    /// How many of them this machine has.
    own: usize,
    /// The last one that was looked up again.
    last: Option<SocketAddr>,
    has_changed: bool,
}

impl Known {
    const fn new() -> Self {
        Self {
            by_address: BTreeMap::new(),
            own: 0,
            last: None,
            has_changed: false,
        }
    }

    /// An answer `no` is kept until the next look: there may be thousands. An operator who has
    /// removed an address need not wait for that.
    fn is_own(&mut self, to: &SocketAddr, look_up: impl Fn(&SocketAddr) -> Option<bool>) -> bool {
        match self.by_address.get(to) {
            Some(false) => false,
            Some(true) => self.ask(to, look_up),
            None => {
                if self.by_address.len() == KNOWN_MAX {
                    *self = Self::new();
                }
                let is_own = look_up(to).unwrap_or(false);
                self.by_address.insert(*to, is_own);
                self.own += usize::from(is_own);
                is_own
            }
        }
    }

    fn look_again(&mut self, look_up: impl Fn(&SocketAddr) -> Option<bool>) -> bool {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let some = self.by_address.range((from, Bound::Unbounded));
        let some: Vec<_> = some.take(LOOKS).map(|(address, _)| *address).collect();
        // After the last of all the next turn begins with the first.
        self.last = some.get(LOOKS - 1).copied();
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
        let is_own = look_up(to).unwrap_or(*known);
        if *known != is_own {
            *known = is_own;
            self.has_changed = true;
            self.own = if is_own { self.own + 1 } else { self.own - 1 };
        }
        is_own
    }
}

/// `None`: there is no descriptor or memory to find out.
fn look_up(to: &SocketAddr) -> Option<bool> {
    let lacks = |error: &io::Error| {
        let lack = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
        error.raw_os_error().is_some_and(|its| lack.contains(&its))
    };
    // A connection to an own address begins there.
    match datagrams_to(to).and_then(|socket| socket.local_addr()) {
        Ok(near) if near.as_socket().is_some_and(|near| near.ip() == to.ip()) => return Some(true),
        Err(error) if lacks(&error) => return None,
        Ok(_) | Err(_) => {}
    }
    // Or at the first address of its network (a secondary one), or at any other (a local route).
    if binds_others() {
        return Some(false);
    }
    match probe_address(to.ip()) {
        Ok(()) => Some(true),
        Err(error) if lacks(&error) => None,
        Err(_) => Some(false),
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

static KNOWN: Mutex<Known> = Mutex::new(Known::new());
/// Addresses that are looked up again at a time: about a millisecond.
const LOOKS: usize = 128;
/// Addresses that are kept: more than the backends of a large configuration.
const KNOWN_MAX: usize = 65_536;

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
    }

    #[test]
    fn an_address_that_comes_or_goes_is_noticed() {
        let mut known = Known::new();
        let address = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        let last = u16::try_from(3 * LOOKS).unwrap();
        let no = |_: &SocketAddr| Some(false);
        for n in 0..=last {
            assert!(!known.is_own(&address(n), no));
        }
        assert!((0..8).all(|_| !known.look_again(no)));
        let looks = Cell::new(0);
        let has_last = |to: &SocketAddr| {
            looks.set(looks.get() + 1);
            Some(to.port() == last)
        };
        let noticed = (1..=8).find(|_| known.look_again(has_last));
        assert!(noticed.is_some_and(|turns| looks.get() <= turns * LOOKS));
        assert!(
            known.is_own(&address(last), |_| None),
            "the last answer stays"
        );
        assert_eq!(known.own, 1);
        // It is gone: that is seen at once, and reported at the next look.
        assert!(!known.is_own(&address(last), no));
        assert!(known.look_again(no));
        assert!(!known.look_again(no));
        assert_eq!(known.own, 0);
    }
}
