//! Scales a pool: brings backends of its reserve in and takes them out again, by the load per
//! backend in rotation. Decides once per second.
//!
//! A steady load leads to a few decisions in one direction, and then to none: the load must stay
//! beyond a mark for the whole window, a cool-down follows each decision, and no backend goes whose
//! load would bring the others near the high mark.

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

/// What a scaler decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether backends come in or go out.
    pub action: ScalingAction,
    /// The names of these backends.
    pub backends: Vec<String>,
    /// Open connections of the pool; where it scales by forecast, the forecast if that is greater.
    pub load: f64,
    /// `load` divided by the number of backends in rotation before.
    pub per_backend: f64,
    /// Backends in rotation after.
    pub in_rotation: u32,
    /// Backends of the reserve that could still be brought in after.
    pub reserve_left: u32,
    /// Why, in one sentence.
    pub reason: String,
}

/// The two things that a scaler does with backends of the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalingAction {
    /// They join the rotation.
    In,
    /// They keep their sessions and get no more.
    Out,
}

impl ScalingAction {
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
    /// A scaler that has decided nothing yet. `strategy` is the pool's: the forecast takes its
    /// horizon and season if it is `predictive`, otherwise the defaults.
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

    /// The settings that it was made with.
    #[must_use]
    pub fn settings(&self) -> &Scaling {
        &self.settings
    }

    /// Switches to other settings. Remembers the time of the last decision, for the cool-down.
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

    /// Looks at the pool and decides. Call it once per second; `now` is in nanoseconds, monotonic.
    /// The caller must carry a decision out, by [`Standing::standby`](crate::pool::Standing),
    /// before the next call.
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
                // A backend that answers helps at once; a machine that is off must start first.
                waiting.sort_by_key(|backend| backend.health == Health::Down);
                let backends = waiting.into_iter().take(number as usize);
                let backends: Vec<_> = backends.map(named).collect();
                let (more, left) = (scene.in_rotation + number, scene.reserve_waits - number);
                (ScalingAction::In, backends, more, left)
            }
            Step::Out => {
                // The last one in is the first one out.
                let last = reserve().rfind(|backend| takes_share(backend));
                let backends = last.map(named).into_iter().collect();
                let (fewer, left) = (scene.in_rotation - 1, scene.reserve_waits + 1);
                (ScalingAction::Out, backends, fewer, left)
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

/// Whether it takes a share of the pool's load.
fn takes_share(backend: &Backend) -> bool {
    backend.is_in_rotation() && backend.health == Health::Up && !backend.backup
}

/// Whether it would take a share if it came in: at once, or when its machine has started.
fn could_come(backend: &Backend) -> bool {
    let is_enabled = backend.admin == AdminState::Ready && backend.weight > 0;
    backend.standby && is_enabled && !backend.backup
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

    /// Adds this second's connections; returns the greater of these and the forecast.
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
    /// Connections of the whole pool.
    load: f64,
    /// Backends that take a share, those of the reserve among them.
    in_rotation: u32,
    /// Backends of the reserve that take a share.
    reserve_in: u32,
    /// Backends of the reserve that would take a share if they came in.
    reserve_waits: u32,
}

impl Scene {
    /// The load of each of `backends`; the whole load if there are none.
    fn per_backend(&self, backends: u32) -> f64 {
        self.load / f64::from(backends.max(1))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// This many backends come in, at least 1.
    In(u32),
    /// One backend goes out.
    Out,
}

/// Since when the load is beyond a mark, and the time of the last decision; in ns.
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

    /// Brings backends in at once when fewer than `min` are in rotation, because some are down.
    fn missing(&self, settings: &Scaling, scene: &Scene) -> Option<(Step, String)> {
        let missing = settings.min.saturating_sub(scene.in_rotation);
        let number = missing.min(scene.reserve_waits);
        let Scene { in_rotation, .. } = scene;
        let min = settings.min;
        let reason = || format!("{in_rotation} in rotation, and {min} are the least");
        (number > 0).then(|| (Step::In(number), reason()))
    }
}

/// Brings one backend in. If the load is more than twice the high mark, as many as bring it down to
/// the mark.
fn more(settings: &Scaling, scene: &Scene) -> Option<(Step, String)> {
    let each = scene.per_backend(scene.in_rotation);
    let high = f64::from(settings.high.max(1));
    let needed = if each > 2.0 * high {
        ceiling(scene.load / high)
            .saturating_sub(scene.in_rotation)
            .max(1)
    } else {
        1
    };
    let number = needed.min(scene.reserve_waits);
    let reason = || {
        format!(
            "{each:.1} connections per backend, above {} for {}",
            settings.high,
            humantime::format_duration(settings.window)
        )
    };
    (number > 0).then(|| (Step::In(number), reason()))
}

/// Takes one backend out if the others can bear its load.
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

/// Rounds a number up that is not negative.
fn ceiling(number: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number out of range becomes the nearest bound"
    )]
    let whole = number.ceil() as u32;
    whole
}

/// Taking one backend out may bring the load to this part of the high mark.
const BEARABLE: f64 = 0.8;

#[cfg(test)]
mod tests;
