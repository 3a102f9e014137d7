//! Leaving and joining again: the balancer says that it is not ready, so that its clients go to
//! another one, and takes no new ones once they do. The process and its sessions go on.
//!
//! What keeps clients away is outside: keepalived, which reads the track file, or what asks
//! `/readyz`. So this looks at what they have done: whether the listeners' addresses are still on
//! an interface of this machine.

use std::collections::BTreeSet;
use std::future::pending;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::address::Address;
use crate::admin::Author;
use crate::admin::model::{EventKind, Stage};
use crate::config::{Config, values};
use crate::sys;
use crate::wording::plural;

use super::aside;
use super::audit::Entry;
use super::balancer::Balancer;
use super::events::{Severity, Subject};

/// Whether the balancer leaves, and how far it has come.
#[derive(Default)]
pub(super) enum Leaving {
    /// It is not leaving.
    #[default]
    Not,
    /// It still takes the clients that reach it.
    Waiting(Pin<Box<dyn Future<Output = Departure>>>),
    /// It takes no new clients. These addresses, which another machine was to take over, were still
    /// here then.
    Left(Vec<IpAddr>),
}

/// Why a balancer that leaves takes no more clients.
pub(super) enum Departure {
    /// No address of a listener is on an interface any more.
    Moved,
    /// The time is over; these addresses are still here.
    Waited(Duration, Vec<IpAddr>),
}

impl Leaving {
    /// What others see of this stage.
    pub(super) fn stage(&self, own: Stage) -> Stage {
        match (own, self) {
            (Stage::Stopping, _) | (_, Self::Not) => own,
            (_, Self::Waiting(_)) => Stage::Leaving,
            (_, Self::Left(_)) => Stage::Left,
        }
    }

    /// Waits until new clients are to be refused. The future can be dropped without loss.
    pub(super) async fn departure(&mut self) -> Departure {
        match self {
            Self::Waiting(departure) => departure.await,
            Self::Not | Self::Left(_) => pending().await,
        }
    }
}

impl Balancer {
    /// Whether connections are taken, for others.
    pub(super) fn shown_stage(&self) -> Stage {
        self.leaving.stage(self.stage)
    }

    /// The addresses that were to move, and were still here when the balancer left.
    pub(super) fn still_here(&self) -> Vec<IpAddr> {
        match &self.leaving {
            Leaving::Left(still) => still.clone(),
            Leaving::Not | Leaving::Waiting(_) => Vec::new(),
        }
    }

    /// Begins to leave, or goes on with another time to wait.
    pub(super) fn leave(&mut self, wait: Duration, author: Author) -> Result<Stage, String> {
        if self.stage == Stage::Stopping {
            return self.note_move(("leave", author), Err("the balancer is stopping"));
        }
        let wait_text = values::written(wait);
        if !matches!(self.leaving, Leaving::Left(_)) {
            let addresses = movable(&self.in_force.config);
            let is_new = matches!(self.leaving, Leaving::Not);
            self.leaving = Leaving::Waiting(Box::pin(departure(addresses, wait)));
            if is_new {
                let message = format!(
                    "leaving {author}: not ready from now on; new clients are taken until the \
                     addresses of listeners have moved, for {wait_text} at most"
                );
                self.announce_move(EventKind::Leaving, message);
            }
        }
        self.note_move(("leave", author), Ok(()))
    }

    /// Takes part again.
    pub(super) fn join(&mut self, author: Author) -> Result<Stage, String> {
        if self.stage == Stage::Stopping {
            return self.note_move(("join", author), Err("the balancer is stopping"));
        }
        match std::mem::take(&mut self.leaving) {
            Leaving::Not => return self.note_move(("join", author), Ok(())),
            Leaving::Waiting(_) => {}
            Leaving::Left(_) => self.workers.refuse_new_clients(false),
        }
        let message = format!("joined {author}: new clients are taken");
        self.announce_move(EventKind::Joined, message);
        self.note_move(("join", author), Ok(()))
    }

    /// From now on the kernel drops the first segment of each new client: it tries again a second
    /// later, and reaches whichever balancer has the address by then.
    pub(super) fn on_departure(&mut self, departure: &Departure) {
        let still = match departure {
            Departure::Moved => &[][..],
            Departure::Waited(_, still) => still,
        };
        let roams = |ip: &&IpAddr| does_roam(&self.in_force.config, **ip);
        self.leaving = Leaving::Left(still.iter().filter(roams).copied().collect());
        self.workers.refuse_new_clients(true);
        let here = match departure {
            Departure::Moved => "no address of a listener is on this machine".to_owned(),
            Departure::Waited(_, still) => match &still[..] {
                [] => "no listener has an address that moves".to_owned(),
                [one] => format!("{one} is still on this machine"),
                [one, rest @ ..] => format!(
                    "{one} and {} are still on this machine",
                    plural(rest.len() as u64, "other address")
                ),
            },
        };
        let after = match departure {
            Departure::Moved => String::new(),
            Departure::Waited(wait, _) => format!(" after {}", values::written(*wait)),
        };
        let sessions = plural(self.workers.sessions(), "session");
        let message =
            format!("left{after}: no new clients are taken; {here}; {sessions} may go on");
        self.announce_move(EventKind::Left, message);
    }

    fn announce_move(&self, kind: EventKind, message: String) {
        let subject = Subject::default();
        self.events.tell(Severity::Info, kind, subject, message);
    }

    /// Puts the request into the audit log, and answers with the stage.
    fn note_move(
        &self,
        (action, author): (&str, Author),
        outcome: Result<(), &str>,
    ) -> Result<Stage, String> {
        let stage = self.shown_stage();
        let outcome = outcome.map_err(str::to_owned);
        self.audit.record(&Entry {
            author,
            action,
            target: "balancer",
            old: None,
            new: Some(json!({ "stage": stage })),
            outcome: outcome.clone().map(|()| self.publisher.version()),
        });
        outcome.map(|()| stage)
    }
}

/// The addresses of listeners that another machine may take over.
fn movable(config: &Config) -> BTreeSet<IpAddr> {
    let addresses = config.listeners.iter().filter_map(|its| match its.bind {
        Address::Tcp(to) => Some(to.ip().to_canonical()),
        Address::Unix(_) => None,
    });
    addresses
        .filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
        .collect()
}

/// Whether a listener takes an address that comes and goes (`freebind`): with ECMP it stays.
fn does_roam(config: &Config, ip: IpAddr) -> bool {
    config.listeners.iter().any(|its| match its.bind {
        Address::Tcp(to) => its.freebind && to.ip().to_canonical() == ip,
        Address::Unix(_) => false,
    })
}

/// Waits until no interface has one of these addresses, for `wait` at most. Without an address it
/// is over when the time is.
async fn departure(addresses: BTreeSet<IpAddr>, wait: Duration) -> Departure {
    let mut still: Vec<IpAddr> = addresses.iter().copied().collect();
    let until = Instant::now() + wait;
    let moved = async {
        // Clients that have not heard of the move yet still come here, where a local route stays.
        let mut gone_since = None;
        loop {
            if let Ok(Ok(all)) = aside::read(sys::interface_addresses).await {
                let all: BTreeSet<_> = all.iter().map(IpAddr::to_canonical).collect();
                still = addresses.intersection(&all).copied().collect();
                let is_gone = still.is_empty() && !addresses.is_empty();
                let since = *gone_since.get_or_insert_with(Instant::now);
                if is_gone && since.elapsed() >= SETTLE_TIME {
                    return;
                }
                gone_since = gone_since.filter(|_| is_gone);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    match tokio::time::timeout_at(until, moved).await {
        Ok(()) => Departure::Moved,
        Err(_) => Departure::Waited(wait, still),
    }
}

/// From one look at the interfaces to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long addresses are gone until they have moved: clients learn of it within that time.
const SETTLE_TIME: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(all: &[&str]) -> BTreeSet<IpAddr> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn it_is_over_once_no_interface_has_an_address() {
        let wait = Duration::from_secs(600);
        let gone = departure(addresses(&["192.0.2.1", "2001:db8::1"]), wait).await;
        assert!(matches!(gone, Departure::Moved));
        let here = addresses(&["127.0.0.1", "192.0.2.1"]);
        let brief = Duration::from_millis(1);
        let Departure::Waited(_, still) = departure(here, brief).await else {
            panic!("127.0.0.1 is here");
        };
        assert!(still.contains(&"127.0.0.1".parse().unwrap()), "{still:?}");
        let none = departure(BTreeSet::new(), brief).await;
        assert!(matches!(none, Departure::Waited(_, still) if still.is_empty()));
    }

    #[test]
    fn a_stop_shows_after_a_leave_too() {
        let stages = [Stage::Starting, Stage::Ready, Stage::Stopping];
        let left = stages.map(|stage| Leaving::Left(Vec::new()).stage(stage));
        assert_eq!(left, [Stage::Left, Stage::Left, Stage::Stopping]);
        assert_eq!(stages.map(|stage| Leaving::Not.stage(stage)), stages);
    }
}
