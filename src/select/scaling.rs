//! When a pool brings backends of its reserve in, and when it lets them go again: by the load per
//! backend in rotation, looked at once per second.
//!
//! A load beyond a mark must stay there for the whole window, decisions keep their distance, and
//! nobody is let go whose load would bring the others near the high mark: a steady load leads to a
//! few decisions in one direction, and then to none.

use crate::config::{Predictive, ScaleBy, Scaling, Strategy};
use crate::pool::{AdminState, Backend, Health, Pool};
use crate::time::nanos;

use super::Forecast;

/// Scales one pool.
#[derive(Debug)]
pub struct Scaler {
    settings: Scaling,
    ahead: Option<Ahead>,
    pace: Pace,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// In or out.
    pub action: Action,
    /// Whom it is about, by name.
    pub backends: Vec<String>,
    /// Open connections of the pool, or what they will be: the greater, where it scales by that.
    pub load: f64,
    /// The same over the backends in rotation before.
    pub per_backend: f64,
    /// Backends in rotation after.
    pub in_rotation: u32,
    /// Backends of the reserve that could still be brought in after.
    pub reserve_left: u32,
    /// Why, in one sentence.
    pub reason: String,
}

/// What is done with backends of the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They take their share from now on.
    In,
    /// They keep their sessions and take no more.
    Out,
}

impl Action {
    /// Its name, for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

impl Scaler {
    /// A scaler that has decided nothing yet. `strategy` is the pool's: if it is `predictive`, its
    /// horizon and season hold for the forecast too.
    #[must_use]
    pub fn new(settings: Scaling, strategy: &Strategy) -> Self {
        let ahead = match settings.by {
            ScaleBy::Connections => None,
            ScaleBy::Forecast => Some(Ahead::of(strategy)),
        };
        Self {
            settings,
            ahead,
            pace: Pace::default(),
        }
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &Scaling {
        &self.settings
    }

    /// Goes over to other settings. What was decided is remembered, for the cool-down.
    pub fn follow(&mut self, settings: &Scaling, strategy: &Strategy) {
        let pace = std::mem::take(&mut self.pace);
        let same = self.settings == *settings;
        let ahead = self.ahead.take().filter(|ahead| ahead.is_of(strategy));
        *self = Self::new(settings.clone(), strategy);
        if let Some(ahead) = ahead.filter(|_| self.ahead.is_some()) {
            self.ahead = Some(ahead);
        }
        self.pace = Pace {
            decided_at: pace.decided_at,
            ..if same { pace } else { Pace::default() }
        };
    }

    /// Looks at the pool, once per second, and decides. Who is brought in or let go has to be
    /// [`Standing::standby`](crate::pool::Standing) accordingly by the next look. `now` is in
    /// nanoseconds, monotonic.
    pub fn tick(&mut self, pool: &Pool, now: u64) -> Option<Decision> {
        let open = f64::from(pool.connections.used());
        let load = self.ahead.as_mut().map_or(open, |ahead| ahead.look(open));
        let reserve = || {
            let both = pool.backends.iter().zip(&pool.config.backends);
            both.filter(|(_, config)| config.reserve)
                .map(|(backend, _)| &**backend)
        };
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let in_rotation = pool.backends.iter().filter(|backend| takes_share(backend));
        let scene = Scene {
            load,
            in_rotation: count(in_rotation.count()),
            reserve_in: count(reserve().filter(|backend| takes_share(backend)).count()),
            reserve_waits: count(reserve().filter(|backend| could_come(backend)).count()),
        };
        let (step, reason) = self.pace.tick(&self.settings, &scene, now)?;
        let named = |backend: &Backend| backend.name.clone();
        let (action, backends, in_rotation, reserve_left) = match step {
            Step::In(number) => {
                let mut waiting: Vec<_> = reserve().filter(|backend| could_come(backend)).collect();
                // Who answers helps at once; a machine that is off has to be started first.
                waiting.sort_by_key(|backend| backend.health == Health::Down);
                let backends = waiting.into_iter().take(number as usize);
                let backends: Vec<_> = backends.map(named).collect();
                let (more, left) = (scene.in_rotation + number, scene.reserve_waits - number);
                (Action::In, backends, more, left)
            }
            Step::Out => {
                // Who came last goes first.
                let last = reserve().rfind(|backend| takes_share(backend));
                let backends = last.map(named).into_iter().collect();
                let (fewer, left) = (scene.in_rotation - 1, scene.reserve_waits + 1);
                (Action::Out, backends, fewer, left)
            }
        };
        Some(Decision {
            action,
            backends,
            load,
            per_backend: scene.per_backend(scene.in_rotation),
            in_rotation,
            reserve_left,
            reason,
        })
    }
}

/// Whether it has a part of the pool's load.
fn takes_share(backend: &Backend) -> bool {
    backend.is_in_rotation() && backend.health == Health::Up && !backend.backup
}

/// Whether it would take a share if it were brought in; at once, or when its machine has started.
fn could_come(backend: &Backend) -> bool {
    let is_wanted = backend.admin == AdminState::Ready && backend.weight > 0;
    backend.standby && is_wanted && !backend.backup
}

/// A forecast of open connections.
#[derive(Debug)]
struct Ahead {
    settings: Predictive,
    forecast: Forecast,
}

impl Ahead {
    fn of(strategy: &Strategy) -> Self {
        let settings = settings_of(strategy);
        let horizon = usize::try_from(settings.horizon.as_secs()).unwrap_or(usize::MAX);
        let season = settings.season.map(|season| season.as_secs());
        Self {
            settings,
            forecast: Forecast::new(horizon, season),
        }
    }

    fn is_of(&self, strategy: &Strategy) -> bool {
        self.settings == settings_of(strategy)
    }

    /// The greater of what is and what will be.
    fn look(&mut self, open: f64) -> f64 {
        self.forecast.push(open);
        open.max(self.forecast.ahead())
    }
}

fn settings_of(strategy: &Strategy) -> Predictive {
    let own = if let Strategy::Predictive(settings) = strategy {
        Some(*settings)
    } else {
        None
    };
    own.unwrap_or_default()
}

/// A pool at one moment.
#[derive(Clone, Copy, Debug)]
struct Scene {
    /// Connections in all.
    load: f64,
    /// Backends that take a share, those of the reserve among them.
    in_rotation: u32,
    /// Of the reserve, those that take a share.
    reserve_in: u32,
    /// Of the reserve, those that would if they were brought in.
    reserve_waits: u32,
}

impl Scene {
    /// The load of each of so many; without anybody, all of it.
    fn per_backend(&self, backends: u32) -> f64 {
        self.load / f64::from(backends.max(1))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// So many come in, 1 at least.
    In(u32),
    /// One goes.
    Out,
}

/// Since when the load is beyond a mark, and when something was decided last; in ns.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    high_since: Option<u64>,
    low_since: Option<u64>,
    decided_at: Option<u64>,
}

impl Pace {
    fn tick(&mut self, settings: &Scaling, scene: &Scene, now: u64) -> Option<(Step, String)> {
        let each = scene.per_backend(scene.in_rotation);
        let since = |is_beyond: bool, before: Option<u64>| is_beyond.then(|| before.unwrap_or(now));
        self.high_since = since(each > f64::from(settings.high), self.high_since);
        self.low_since = since(each < f64::from(settings.low), self.low_since);
        let (step, reason) = self.missing(settings, scene).or_else(|| {
            let cool_down = nanos(settings.cool_down);
            let cools = |at: u64| now.saturating_sub(at) < cool_down;
            if self.decided_at.is_some_and(cools) {
                return None;
            }
            let window = nanos(settings.window);
            let lasts =
                |since: Option<u64>| since.is_some_and(|at| now.saturating_sub(at) >= window);
            if lasts(self.high_since) {
                more(settings, scene)
            } else if lasts(self.low_since) {
                fewer(settings, scene)
            } else {
                None
            }
        })?;
        *self = Self {
            decided_at: Some(now),
            ..Self::default()
        };
        Some((step, reason))
    }

    /// Fewer than there have to be, as some are down: nothing is waited for.
    fn missing(&self, settings: &Scaling, scene: &Scene) -> Option<(Step, String)> {
        let missing = settings.min.saturating_sub(scene.in_rotation);
        let number = missing.min(scene.reserve_waits);
        let Scene { in_rotation, .. } = scene;
        let min = settings.min;
        let reason = || format!("{in_rotation} in rotation, and {min} are the least");
        (number > 0).then(|| (Step::In(number), reason()))
    }
}

/// One comes in, or as many as bring the load down to the high mark if it is more than twice that.
fn more(settings: &Scaling, scene: &Scene) -> Option<(Step, String)> {
    let each = scene.per_backend(scene.in_rotation);
    let high = f64::from(settings.high.max(1));
    let wanted = if each > 2.0 * high {
        ceiling(scene.load / high)
            .saturating_sub(scene.in_rotation)
            .max(1)
    } else {
        1
    };
    let number = wanted.min(scene.reserve_waits);
    let reason = || {
        format!(
            "{each:.1} connections per backend, above {} for {}",
            settings.high,
            humantime::format_duration(settings.window)
        )
    };
    (number > 0).then(|| (Step::In(number), reason()))
}

/// One goes, if the others can bear it.
fn fewer(settings: &Scaling, scene: &Scene) -> Option<(Step, String)> {
    let left = scene.in_rotation.saturating_sub(1);
    let bearable = f64::from(settings.high) * BEARABLE;
    let goes =
        scene.reserve_in > 0 && left >= settings.min.max(1) && scene.per_backend(left) <= bearable;
    let reason = || {
        format!(
            "{:.1} connections per backend, below {} for {}",
            scene.per_backend(scene.in_rotation),
            settings.low,
            humantime::format_duration(settings.window)
        )
    };
    goes.then(|| (Step::Out, reason()))
}

/// The whole number that is not below; a load per mark is never negative.
fn ceiling(number: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is out of range becomes the nearest"
    )]
    let whole = number.ceil() as u32;
    whole
}

/// How near to the high mark the load may come by letting one go.
const BEARABLE: f64 = 0.8;

#[cfg(test)]
mod tests;
