//! Scenarios: the fleet, its clients, their sessions, and outages.
//!
//! Loads are relative to the capacity of the fleet, so that the same scenario fits every pool.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{ScaleBy, Scaling};
use crate::time::SECOND;

use super::chance::TimeDistribution;
use super::trace::Trace;

/// A scenario; [`Scenario::all`] returns the built-in ones.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Unique among scenarios.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub about: &'static str,
    /// How the speeds of the backends differ from their weights.
    pub fleet: Fleet,
    /// The clients and their sessions.
    pub traffic: ClientTraffic,
    /// One backend leaves and returns; `None`: all stay.
    pub outage: Option<Outage>,
    /// Some backends wait in a reserve; `None`: all are always in.
    pub reserve: Option<Reserve>,
    /// The number of different clients.
    pub clients: u32,
    /// Workers of the balancer, above 0.
    pub workers: u32,
    /// The `max_connections` of a backend of mean weight when the strategy is `first` and the pool
    /// sets none: without it, `first` would use one backend. `None`, for a configured pool: only
    /// what the pool sets.
    pub places: Option<u32>,
    /// The period of the load, if it has one.
    pub season: Option<Duration>,
    /// When the measurement begins, in ns.
    pub warm_up: u64,
    /// When the last client arrives, in ns.
    pub end: u64,
}

/// The speeds of the backends, relative to their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fleet {
    /// As their weights say.
    AsWeights,
    /// As their weights say, but the first backend accepts and resets at once.
    BlackHole,
    /// Every other backend is older and has this speed, relative to 1.
    Generations(f64),
    /// The first backend has this speed, relative to 1.
    OneSlow(f64),
}

/// The clients.
#[derive(Clone, Debug)]
pub enum ClientTraffic {
    /// Random clients.
    Drawn {
        /// The work that they bring.
        load: OfferedLoad,
        /// What each client does.
        sessions: Sessions,
    },
    /// Sessions of an access log.
    Recorded(Arc<Trace>),
}

/// The offered work, relative to the capacity of the fleet. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OfferedLoad {
    /// A constant load.
    Steady(f64),
    /// A base with bursts.
    Bursts {
        /// Between bursts.
        base: f64,
        /// During a burst.
        peak: f64,
        /// From one burst to the next.
        every: f64,
        /// How long each is.
        length: f64,
    },
    /// A sine that begins at its lowest.
    Wave {
        /// The lowest load, at night.
        low: f64,
        /// The highest load, at noon.
        high: f64,
        /// The length of a day.
        day: f64,
    },
}

/// What clients do after they connect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sessions {
    /// The work of the first request, on one core of speed 1.
    pub first: TimeDistribution,
    /// The work of each later request.
    pub next: TimeDistribution,
    /// Seconds from an answer to the next request: exponential, with this mean.
    pub think: f64,
    /// How long a client stays.
    pub lifetime: TimeDistribution,
}

/// An outage of the fourth backend in rotation: it refuses connections, its sessions break, and
/// their clients return within a second. Times are in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When it begins.
    pub from: u64,
    /// When it ends.
    pub until: u64,
    /// How long it takes until workers learn of its begin or its end.
    pub detection: u64,
}

/// The scaling of a pool that does not configure its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Reserve {
    /// How many of ten backends are always in: the first ones.
    pub always: u8,
    /// When the others come in and go out.
    pub scaling: Scaling,
}

impl OfferedLoad {
    /// The load at a time in seconds.
    pub(super) fn at(&self, seconds: f64) -> f64 {
        match *self {
            Self::Steady(load) => load,
            Self::Bursts {
                base,
                peak,
                every,
                length,
            } => {
                let in_burst = seconds % every >= every - length;
                if in_burst { peak } else { base }
            }
            Self::Wave { low, high, day } => {
                let height = 0.5 - 0.5 * (seconds / day * std::f64::consts::TAU).cos();
                low + (high - low) * height
            }
        }
    }

    /// The highest load.
    pub(super) fn peak(&self) -> f64 {
        match *self {
            Self::Steady(load) => load,
            Self::Bursts { base, peak, .. } => base.max(peak),
            Self::Wave { low, high, .. } => low.max(high),
        }
    }
}

impl Sessions {
    /// The mean work of a session, in seconds of one core of speed 1.
    pub(super) fn work(&self) -> f64 {
        // Exponential times of thinking spread requests evenly over a lifetime.
        self.first.mean() + self.next.mean() * self.lifetime.mean() / self.think
    }
}

impl Scenario {
    /// The built-in scenarios.
    #[must_use]
    pub fn all() -> [Self; 9] {
        [
            Self::equal(),
            Self::slow_backend(),
            Self::black_hole(),
            Self::heavy_tail(),
            Self::busy_sessions(),
            Self::burst(),
            Self::daily_wave(),
            Self::leave_and_return(),
            Self::day_with_reserve(),
        ]
    }

    /// The built-in scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all()
            .into_iter()
            .find(|scenario| scenario.name == name)
    }

    /// Equal backends at 80% of what they can do.
    #[must_use]
    pub fn equal() -> Self {
        Self {
            name: "equal",
            about: "equal backends, steady traffic at 80% of what they can do",
            fleet: Fleet::AsWeights,
            traffic: ClientTraffic::Drawn {
                load: OfferedLoad::Steady(0.8),
                sessions: SHORT,
            },
            outage: None,
            reserve: None,
            clients: CLIENTS,
            workers: WORKERS,
            places: Some(128),
            season: None,
            warm_up: 10 * SECOND,
            end: 50 * SECOND,
        }
    }

    /// One backend is three times slower.
    #[must_use]
    pub fn slow_backend() -> Self {
        Self {
            name: "slow_backend",
            about: "one backend is three times slower, and the pool's weights don't say so",
            fleet: Fleet::OneSlow(1.0 / 3.0),
            traffic: ClientTraffic::Drawn {
                load: OfferedLoad::Steady(0.7),
                sessions: SHORT,
            },
            ..Self::equal()
        }
    }

    /// One backend accepts and resets.
    #[must_use]
    pub fn black_hole() -> Self {
        Self {
            name: "black_hole",
            about: "one backend accepts and resets at once, and is not ejected",
            fleet: Fleet::BlackHole,
            traffic: ClientTraffic::Drawn {
                load: OfferedLoad::Steady(0.7),
                sessions: SHORT,
            },
            ..Self::equal()
        }
    }

    /// Few sessions and requests are much larger than the rest.
    #[must_use]
    pub fn heavy_tail() -> Self {
        let sessions = Sessions {
            first: TimeDistribution::Pareto {
                shape: 1.3,
                min: 0.006,
                max: 3.0,
            },
            next: TimeDistribution::Pareto {
                shape: 1.3,
                min: 0.003,
                max: 1.5,
            },
            think: 2.0,
            lifetime: TimeDistribution::Pareto {
                shape: 1.2,
                min: 0.5,
                max: 120.0,
            },
        };
        Self {
            name: "heavy_tail",
            about: "few sessions and few requests are hundreds of times larger than the rest",
            traffic: ClientTraffic::Drawn {
                load: OfferedLoad::Steady(0.75),
                sessions,
            },
            places: Some(256),
            ..Self::equal()
        }
    }

    /// Sessions that work all the time.
    #[must_use]
    pub fn busy_sessions() -> Self {
        let sessions = Sessions {
            first: TimeDistribution::Exponential { mean: 0.002 },
            next: TimeDistribution::Exponential { mean: 0.05 },
            think: 1.0,
            lifetime: TimeDistribution::Exponential { mean: 60.0 },
        };
        Self {
            name: "busy_sessions",
            about: "long sessions that work all the time, as those of a database's clients; their \
                    first request is nothing; every other machine is older",
            fleet: Fleet::Generations(0.6),
            traffic: ClientTraffic::Drawn {
                load: OfferedLoad::Steady(0.7),
                sessions,
            },
            places: Some(128),
            warm_up: 120 * SECOND,
            end: 360 * SECOND,
            ..Self::equal()
        }
    }

    /// Reconnect storms on top of long sessions.
    #[must_use]
    pub fn burst() -> Self {
        Self {
            name: "burst",
            about: "long, mostly idle sessions; each minute ten times as many come for 10 s; \
                    every other machine is older",
            fleet: Fleet::Generations(0.6),
            traffic: ClientTraffic::Drawn {
                load: OfferedLoad::Bursts {
                    base: 0.09,
                    peak: 0.9,
                    every: 60.0,
                    length: 10.0,
                },
                sessions: LONG,
            },
            places: Some(2_500),
            warm_up: 180 * SECOND,
            end: 480 * SECOND,
            ..Self::equal()
        }
    }

    /// Days of 300 seconds.
    #[must_use]
    pub fn daily_wave() -> Self {
        Self {
            name: "daily_wave",
            about: "arrivals follow the day, of 300 s; sessions last for minutes, so counts of \
                    connections lag behind the load; every other machine is older",
            fleet: Fleet::Generations(0.6),
            traffic: ClientTraffic::Drawn {
                load: OfferedLoad::Wave {
                    low: 0.1,
                    high: 0.85,
                    day: 300.0,
                },
                sessions: LONG,
            },
            places: Some(2_500),
            season: Some(Duration::from_secs(300)),
            warm_up: 300 * SECOND,
            end: 1_500 * SECOND,
            ..Self::equal()
        }
    }

    /// One backend leaves for 40 s.
    #[must_use]
    pub fn leave_and_return() -> Self {
        Self {
            name: "leave_and_return",
            about: "one backend leaves and returns after 40 s; workers get to know 4 s later",
            traffic: ClientTraffic::Drawn {
                load: OfferedLoad::Steady(0.7),
                sessions: SHORT,
            },
            outage: Some(Outage {
                from: 30 * SECOND,
                until: 70 * SECOND,
                detection: 4 * SECOND,
            }),
            end: 100 * SECOND,
            ..Self::equal()
        }
    }

    /// Days of 300 seconds, and three backends of ten at night.
    #[must_use]
    pub fn day_with_reserve() -> Self {
        let scaling = Scaling {
            by: ScaleBy::Forecast,
            high: 50,
            low: 25,
            window: Duration::from_secs(5),
            cool_down: Duration::from_secs(10),
            min: 3,
            webhook: None,
        };
        Self {
            name: "day_with_reserve",
            about: "short sessions follow the day, of 300 s, at 10% to 55% of what all backends \
                    can do; seven of ten are a reserve that comes and goes with the load",
            traffic: ClientTraffic::Drawn {
                load: OfferedLoad::Wave {
                    low: 0.1,
                    high: 0.55,
                    day: 300.0,
                },
                sessions: SHORT,
            },
            reserve: Some(Reserve { always: 3, scaling }),
            season: Some(Duration::from_secs(300)),
            end: 610 * SECOND,
            ..Self::equal()
        }
    }

    /// The sessions of an access log.
    #[must_use]
    pub fn replay(trace: Arc<Trace>) -> Self {
        Self {
            name: "trace",
            about: "the sessions of an access log",
            clients: trace.clients(),
            end: trace.end(),
            traffic: ClientTraffic::Recorded(trace),
            warm_up: 0,
            ..Self::equal()
        }
    }
}

/// Short sessions: a page and what belongs to it.
const SHORT: Sessions = Sessions {
    first: TimeDistribution::Exponential { mean: 0.030 },
    next: TimeDistribution::Exponential { mean: 0.010 },
    think: 0.5,
    lifetime: TimeDistribution::Exponential { mean: 1.0 },
};
/// Long sessions whose work comes with their first request: a login, a page, a reconnect.
const LONG: Sessions = Sessions {
    first: TimeDistribution::Exponential { mean: 0.25 },
    next: TimeDistribution::Exponential { mean: 0.005 },
    think: 20.0,
    lifetime: TimeDistribution::Exponential { mean: 90.0 },
};
const CLIENTS: u32 = 5_000;
const WORKERS: u32 = 2;
