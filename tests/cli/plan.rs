//! `mahoraga plan` as a user meets it.

use super::{run, stderr, stdout};

const EXAMPLE: [&str; 9] = [
    "plan",
    "--clients",
    "1M",
    "--rate",
    "50k",
    "--bandwidth",
    "20G",
    "--backends",
    "40",
];

/// The costs are measured again now and then, so their figures are not looked at.
#[test]
fn a_load_has_a_size() {
    let output = run(&EXAMPLE);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let text = stdout(&output);
    for part in [
        "machines     ",
        "1,000,000 / ((1,048,576 - 256) / 2) = 1.91",
        "20 Gbit/s / (25 Gbit/s × 70%) = 1.14",
        "(1,000,000 + 50,000/s × 60 s) / 40 backends / 28,232 = 3.54",
        "by loadtest/capacity.sh",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    let json = run(&[&EXAMPLE[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["demand"]["clients"], 1_000_000);
    assert_eq!(json["laws"].as_array().unwrap().len(), 5);
    let settings = "--cores 1 --nic 1T --memory 1024GiB --descriptors 20000 --ports 64511 \
                    --time-wait 1s --load 100 --spare 0";
    let settings: Vec<_> = settings.split_whitespace().collect();
    let output = run(&[&EXAMPLE[..], &settings].concat());
    let text = stdout(&output);
    assert!(
        text.contains("machines     102, none of them spare"),
        "{text}"
    );
    assert!(
        text.contains("1,000,000 / ((20,000 - 256) / 2) = 101"),
        "{text}"
    );
}

#[test]
fn input_that_is_none_is_refused() {
    for (arguments, want) in [
        (
            "--backends 4",
            "error: the following required arguments were not provided:",
        ),
        (
            "--clients 1M",
            "error: the following required arguments were not provided:",
        ),
        (
            "--clients 0 --backends 4",
            "error: invalid value '0' for '--clients <N>': expected a whole number such as 500, \
             50k or 2M, 1 to 1G",
        ),
        (
            "--clients 99999999999999999999T --backends 4",
            "error: invalid value '99999999999999999999T' for '--clients <N>': expected a whole \
             number such as 500, 50k or 2M, 1 to 1G",
        ),
        (
            "--bandwidth 20GB --backends 4",
            "error: invalid value '20GB' for '--bandwidth <BITS>': expected a whole number such \
             as 500, 50k or 2M, 1 to 1000T",
        ),
        (
            "--bandwidth 20G --backends 4",
            "error: --bandwidth: expected --clients or --streams beside it, as more than 64 \
             streams cost several times the CPU",
        ),
        (
            "--rate 1.5k --backends 4",
            "error: invalid value '1.5k' for '--rate <N>': expected a whole number such as 500, \
             50k or 2M, 1 to 1G",
        ),
        (
            "--rate 1k --backends 0",
            "error: invalid value '0' for '--backends <N>': expected a whole number such as 500, \
             50k or 2M, 1 to 65536",
        ),
        (
            "--rate 1k --backends 4 --load 101",
            "error: invalid value '101' for '--load <PERCENT>': expected a whole number such as \
             500, 50k or 2M, 1 to 100",
        ),
        (
            "--rate 1k --backends 4 --time-wait 1500ms",
            "error: invalid value '1500ms' for '--time-wait <DURATION>': expected a duration, 0s \
             to 10m, in whole seconds",
        ),
    ] {
        let arguments = [
            &["plan"],
            &arguments.split_whitespace().collect::<Vec<_>>()[..],
        ]
        .concat();
        let output = run(&arguments);
        assert_eq!(stderr(&output).lines().next(), Some(want));
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""));
    }
}
