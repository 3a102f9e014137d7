//! The rules of scaling one by one, and under loads of any shape.

use std::time::Duration;

use fastrand::Rng;

use super::*;
use crate::config;
use crate::pool::{Ended, Standing};
use crate::time::SECOND;

fn settings() -> Scaling {
    Scaling {
        high: 100,
        low: 40,
        window: Duration::from_secs(10),
        cool_down: Duration::from_secs(30),
        min: 2,
        ..Scaling::default()
    }
}

/// A pool as the scaler sees it: some backends that are always there, some of the reserve.
#[derive(Clone, Copy, Debug)]
struct Fleet {
    always: u32,
    inside: u32,
    waits: u32,
}

impl Fleet {
    fn new(always: u32, reserve: u32) -> Self {
        Self {
            always,
            inside: 0,
            waits: reserve,
        }
    }

    fn in_rotation(&self) -> u32 {
        self.always + self.inside
    }

    fn scene(&self, load: f64) -> Scene {
        Scene {
            load,
            in_rotation: self.in_rotation(),
            reserve_in: self.inside,
            reserve_waits: self.waits,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::In(number) => {
                self.inside += number;
                self.waits -= number;
            }
            Step::Out => {
                self.inside -= 1;
                self.waits += 1;
            }
        }
    }
}

/// Every second's load in turn; the decisions with the second of each.
fn decisions(
    settings: &Scaling,
    fleet: &mut Fleet,
    loads: impl IntoIterator<Item = f64>,
) -> Vec<(u64, Step)> {
    let mut pace = Pace::default();
    let mut made = Vec::new();
    for (second, load) in (0..).zip(loads) {
        let scene = fleet.scene(load);
        if let Some((step, _)) = pace.tick(settings, &scene, second * SECOND) {
            fleet.take(step);
            made.push((second, step));
        }
        assert!(fleet.in_rotation() >= settings.min || fleet.waits == 0);
    }
    made
}

fn steady(load: f64, seconds: usize) -> impl Iterator<Item = f64> {
    std::iter::repeat_n(load, seconds)
}

#[test]
fn one_comes_after_the_window_and_the_next_after_the_cool_down() {
    let mut fleet = Fleet::new(2, 5);
    let made = decisions(&settings(), &mut fleet, steady(350.0, 200));
    assert_eq!(made, [(10, Step::In(1)), (40, Step::In(1))]);
}

#[test]
fn a_load_beyond_twice_the_mark_brings_in_as_many_as_are_needed() {
    let mut fleet = Fleet::new(2, 9);
    let made = decisions(&settings(), &mut fleet, steady(701.0, 200));
    assert_eq!(made, [(10, Step::In(6))]);
    let mut fleet = Fleet::new(2, 3);
    let made = decisions(&settings(), &mut fleet, steady(701.0, 200));
    assert_eq!(made, [(10, Step::In(3))]);
}

#[test]
fn one_goes_at_a_time_and_never_below_the_least() {
    let mut fleet = Fleet {
        always: 1,
        inside: 4,
        waits: 0,
    };
    let made = decisions(&settings(), &mut fleet, steady(10.0, 400));
    assert_eq!(made, [(10, Step::Out), (40, Step::Out), (70, Step::Out)]);
    assert_eq!(fleet.in_rotation(), 2);
}

#[test]
fn no_backend_goes_out_whose_load_the_others_cannot_bear() {
    // Low is half of high: 49 each would be 98 each.
    let settings = Scaling {
        low: 50,
        min: 1,
        ..settings()
    };
    let fleet = Fleet {
        always: 1,
        inside: 1,
        waits: 0,
    };
    assert_eq!(
        decisions(&settings, &mut fleet.clone(), steady(98.0, 400)),
        []
    );
    let made = decisions(&settings, &mut fleet.clone(), steady(80.0, 400));
    assert_eq!(made, [(10, Step::Out)]);
}

#[test]
fn a_window_must_be_whole() {
    let settings = settings();
    // Above the mark but for one second of each ten.
    let loads = (0..600).map(|second| if second % 10 == 9 { 150.0 } else { 350.0 });
    assert_eq!(decisions(&settings, &mut Fleet::new(2, 5), loads), []);
    let fleet = Fleet {
        always: 2,
        inside: 3,
        waits: 0,
    };
    let loads = (0..600).map(|second| if second % 10 == 9 { 300.0 } else { 10.0 });
    assert_eq!(decisions(&settings, &mut fleet.clone(), loads), []);
}

#[test]
fn what_is_missing_comes_at_once() {
    let mut pace = Pace::default();
    let mut fleet = Fleet::new(2, 5);
    fleet.always = 0;
    let (step, reason) = pace.tick(&settings(), &fleet.scene(1.0), 0).unwrap();
    assert_eq!(step, Step::In(2));
    assert_eq!(reason, "0 in rotation, and 2 are the least");
    // The cool-down applies again after the emergency.
    fleet.take(step);
    fleet.always = 1;
    assert_eq!(pace.tick(&settings(), &fleet.scene(0.0), 20 * SECOND), None);
    fleet.always = 0;
    fleet.inside = 1;
    let step = pace.tick(&settings(), &fleet.scene(0.0), 21 * SECOND);
    assert_eq!(step.unwrap().0, Step::In(1));
}

/// Under any load the decisions keep the distance of the cool-down.
#[test]
fn decisions_keep_their_distance_under_any_load() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let settings = Scaling {
            high: rng.u32(10..200),
            window: Duration::from_secs(rng.u64(1..30)),
            cool_down: Duration::from_secs(rng.u64(0..60)),
            min: rng.u32(1..4),
            ..settings()
        };
        let settings = Scaling {
            low: rng.u32(0..=settings.high / 2),
            ..settings
        };
        let mut fleet = Fleet::new(settings.min, rng.u32(0..12));
        let period = rng.f64() * 300.0 + 2.0;
        let (mean, swing, noise) = (rng.f64() * 1_000.0, rng.f64(), rng.f64());
        let mut at = 0.0;
        let loads = std::iter::repeat_with(|| {
            at += 1.0;
            let wave = 1.0 + swing * (at / period * std::f64::consts::TAU).sin();
            (mean * wave * (1.0 + noise * (rng.f64() - 0.5))).max(0.0)
        });
        let made = decisions(&settings, &mut fleet, loads.take(3_000));
        let distance = settings.cool_down.max(settings.window).as_secs();
        for pair in made.windows(2) {
            assert!(
                pair[1].0 - pair[0].0 >= distance,
                "{seed} {settings:?} {made:?}"
            );
        }
    }
}

/// A constant load leads in one direction, and to an end. So does a noisy one, while the noise is
/// less than the distance of the marks.
#[test]
fn a_load_that_stays_leads_in_one_direction() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let settings = settings();
        let mut fleet = Fleet {
            always: 2,
            inside: rng.u32(0..10),
            waits: rng.u32(0..10),
        };
        let noise = if seed % 2 == 0 { rng.f64() * 0.2 } else { 0.0 };
        let load = rng.f64() * 2_000.0;
        let loads = std::iter::repeat_with(|| load * (1.0 + noise * (rng.f64() - 0.5)));
        let made = decisions(&settings, &mut fleet, loads.take(2_000));
        let ins = made.iter().filter(|(_, step)| matches!(step, Step::In(_)));
        let ins = ins.count();
        assert!(ins == 0 || ins == made.len(), "{seed} {load} {made:?}");
        // Noise may move a load that is near a mark across it at any time.
        let early = |(second, _): &(u64, Step)| *second < 1_000;
        assert!(noise > 0.0 || made.iter().all(early), "{made:?}");
    }
}

/// Five backends with 10 connections each: one that is always there, four of the reserve.
fn pool(by: ScaleBy) -> (Pool, Scaler) {
    let backend = |port: u16| config::Backend {
        reserve: port > 1,
        ..config::Backend::at(crate::address::Address::Tcp(([127, 0, 0, 1], port).into()))
    };
    let scaling = Scaling {
        by,
        high: 20,
        low: 10,
        window: Duration::from_secs(1),
        cool_down: Duration::from_secs(5),
        min: 1,
        webhook: None,
    };
    let config = config::Pool::of("web", (1..=5).map(backend).collect());
    let standing = |backend: &config::Backend| Standing {
        standby: backend.reserve,
        ..Standing::default()
    };
    let pool = Pool::build(&config, None, standing);
    pool.take_effect(None);
    let scaler = Scaler::new(scaling, &pool.strategy);
    (pool, scaler)
}

#[test]
fn backends_come_in_order_and_go_in_reverse() {
    let (pool, mut scaler) = pool(ScaleBy::Connections);
    // Down or in maintenance: it cannot be used.
    let mut pool = pool.with(|backend| {
        if backend.name == "127.0.0.1:2" {
            backend.health = Health::Down;
        }
        if backend.name == "127.0.0.1:4" {
            backend.admin = AdminState::Maint;
        }
    });
    for _ in 0..50 {
        assert!(pool.backends[0].try_acquire(0));
    }
    assert_eq!(scaler.tick(&pool, 0), None);
    let decision = scaler.tick(&pool, SECOND).unwrap();
    let want = Decision {
        action: ScalingAction::In,
        backends: vec!["127.0.0.1:3".to_owned(), "127.0.0.1:5".to_owned()],
        load: 50.0,
        per_backend: 50.0,
        in_rotation: 3,
        reserve_left: 1,
        reason: "50.0 connections per backend, above 20 for 1s".to_owned(),
    };
    assert_eq!(decision, want);
    pool = pool.with(|backend| backend.standby &= !decision.backends.contains(&backend.name));
    for _ in 0..45 {
        pool.backends[0].release(Ended::default());
    }
    let mut at = SECOND;
    let decision = std::iter::repeat_with(|| {
        at += SECOND;
        scaler.tick(&pool, at)
    });
    let decision = decision.take(60).find_map(|decision| decision).unwrap();
    assert_eq!(at, 6 * SECOND);
    assert_eq!(decision.action, ScalingAction::Out);
    assert_eq!(decision.backends, ["127.0.0.1:5"]);
    assert_eq!((decision.in_rotation, decision.reserve_left), (2, 2));
    assert_eq!(
        decision.reason,
        "1.7 connections per backend, below 10 for 1s"
    );
}

#[test]
fn a_forecast_brings_them_in_sooner() {
    let first = |by| {
        let (pool, mut scaler) = pool(by);
        (1..200).find(|second| {
            // One more every other second.
            if second % 2 == 0 {
                assert!(pool.backends[0].try_acquire(0));
            }
            scaler.tick(&pool, second * SECOND).is_some()
        })
    };
    let (counting, looking_ahead) = (first(ScaleBy::Connections), first(ScaleBy::Forecast));
    assert!(looking_ahead < counting, "{looking_ahead:?} {counting:?}");
}

#[test]
fn other_settings_keep_the_cool_down() {
    let (pool, mut scaler) = pool(ScaleBy::Connections);
    for _ in 0..30 {
        assert!(pool.backends[0].try_acquire(0));
    }
    assert_eq!(scaler.tick(&pool, 0), None);
    let one = scaler.tick(&pool, SECOND).unwrap();
    let pool = pool.with(|backend| backend.standby &= !one.backends.contains(&backend.name));
    let lower = Scaling {
        high: 14,
        low: 1,
        ..scaler.settings().clone()
    };
    scaler.follow(&lower, &Strategy::default());
    let decided = (2..60).find(|second| scaler.tick(&pool, second * SECOND).is_some());
    assert_eq!(decided, Some(6));
}
