//! Tests of the scenario: the same seed gives the same outcome, and crowds are as they say.

use super::*;

fn crowd<'a>(outcome: &'a AbuseOutcome, name: &str) -> &'a CrowdOutcome {
    outcome
        .crowds
        .iter()
        .find(|its| its.name == name)
        .unwrap_or_else(|| panic!("no crowd is called {name}"))
}

fn under(source: SourceLimits) -> AbuseOutcome {
    run(&Protection::of(Some(source), None), 1)
}

#[test]
fn the_same_seed_has_the_same_outcome() {
    let limits = Protection::of(Some(source(Some(100), Some((10, 50)))), None);
    let run = |seed| json(&[run(&limits, seed)]);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn limits_meet_the_same_clients() {
    let without = run(&Protection::of(None, None), 1);
    let tight = under(source(Some(1), Some((1, 1))));
    for (one, other) in without.crowds.iter().zip(&tight.crowds) {
        assert_eq!(one.connections, other.connections, "{}", one.name);
        assert_eq!((one.refused, one.clients_refused), (0, 0));
        // No /64 of its /48 comes twice within a minute.
        let passes = other.name == "rotates_48";
        assert_eq!(other.refused > 0, !passes, "{}", other.name);
        assert!(other.open_max <= one.open_max);
    }
    let refused: u64 = tight.crowds.iter().map(|its| its.refused).sum();
    let reasons = tight.refused_by.iter().map(|its| its.connections);
    assert_eq!(reasons.sum::<u64>(), refused);
}

#[test]
fn crowds_come_as_they_say() {
    let outcome = run(&Protection::of(None, None), 1);
    for (name, per_second) in [
        ("homes", 100),
        ("nat", 50),
        ("flood", 2_000),
        ("holder", 20),
        ("rotates_48", 500),
    ] {
        let (found, expected) = (crowd(&outcome, name).connections, 120 * per_second);
        assert!(found.abs_diff(expected) < expected / 10, "{name} {found}");
    }
    // Those of the last three minutes.
    let held = crowd(&outcome, "holder").open_max;
    assert!((2_500..3_600).contains(&held), "{held}");
}

/// One source each, whatever comes: exactly as many as the limits say.
#[test]
fn a_source_gets_what_its_limits_say() {
    let outcome = under(source(Some(100), Some((10, 50))));
    assert_eq!(crowd(&outcome, "holder").open_max, 100);
    let flood = crowd(&outcome, "flood");
    let passed = flood.connections - flood.refused;
    assert!(passed.abs_diff(120 * 10) <= 1, "{passed}");
    assert_eq!(crowd(&outcome, "homes").refused, 0);
}

#[test]
fn a_configuration_names_limits_of_its_own() {
    let text = r#"(
        rate_limit: (rate: 100),
        listeners: [
            (name: "a", bind: "127.0.0.1:1", pool: "p", source_limits: (rate: 5, dry_run: true)),
            (name: "b", bind: "127.0.0.1:2", pool: "p"),
        ],
        pools: [(name: "p", backends: ["127.0.0.1:3"])],
    )"#;
    let (config, _) = crate::config::parse("config.ron".into(), text.into()).unwrap();
    let own = Protection::configured(&config);
    let names: Vec<_> = own.iter().map(|limits| &*limits.name).collect();
    assert_eq!(names, ["listener a", "listener b"]);
    let outcome = run(&own[0], 1);
    assert!(crowd(&outcome, "flood").refused > 0, "as if in force");
    let without = crate::config::parse(
        "config.ron".into(),
        text.replace("rate_limit: (rate: 100),", "").into(),
    );
    let own = Protection::configured(&without.unwrap().0);
    assert_eq!(own.len(), 1);
}

#[test]
fn a_table_marks_the_limits_of_the_configuration() {
    let outcomes = [
        run(&Protection::of(None, None), 1),
        under(source(Some(100), None)),
    ];
    let text = table(&outcomes, 1);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("abuse: "), "{text}");
    assert_eq!(lines[1], "120 s, seed 1");
    assert!(lines[2].starts_with("  limits  "), "{text}");
    assert!(lines[3].starts_with("* no limits  "), "{text}");
    assert!(lines[4].starts_with("  connections 100  "), "{text}");
    assert!(lines[4].contains("  100 open  "), "{text}");
    assert_eq!(lines[5], "* the limits of the configuration");
}

/// What passes is what comes before the first ban, and between two of them.
#[test]
fn a_source_that_keeps_breaking_limits_is_banned() {
    let limits = Protection::of(Some(source(Some(1_500), Some((100, 500)))), None);
    let without = run(&limits, 1);
    let with = run(&limits.banning(BanAfter::default()), 1);
    assert!(
        with.limits.ends_with(", ban after 10/10s for 1m"),
        "{}",
        with.limits
    );
    let passed = |outcome: &AbuseOutcome, name: &str| {
        let its = crowd(outcome, name);
        its.connections - its.refused
    };
    let flood = [&without, &with].map(|outcome| passed(outcome, "flood"));
    assert!(flood[1] < flood[0] / 5, "{flood:?}");
    let holder = [&without, &with].map(|outcome| crowd(outcome, "holder").open_max);
    assert!(holder[1] <= holder[0], "{holder:?}");
    for good in ["homes", "nat", "homes_v6", "phones_v6"] {
        assert_eq!(crowd(&with, good).refused, 0, "{good}");
    }
    let refused: u64 = with.crowds.iter().map(|its| its.refused).sum();
    let reasons = with.refused_by.iter().map(|its| its.connections);
    assert_eq!(reasons.sum::<u64>(), refused);
    assert!(with.refused_by.last().unwrap().connections > 0);
}
