//! Sizes worked by hand, limits, and input that no fleet has.

use super::report::{bits, decimal, grouped};
use super::*;

/// 1 M clients, 50 k connections/s, 20 Gbit/s, 40 backends.
const DEMAND: FleetLoad = FleetLoad {
    clients: 1_000_000,
    rate: 50_000,
    requests: 0,
    bandwidth: 20_000_000_000,
    streams: 40,
    backends: 40,
};
const NOTHING: FleetLoad = FleetLoad {
    clients: 0,
    rate: 0,
    requests: 0,
    bandwidth: 0,
    streams: 0,
    backends: 1,
};
const MACHINE: MachineShape = MachineShape {
    cores: 16,
    nic: 25_000_000_000,
    memory: 64 << 30,
    descriptors: 1_048_576,
    ports: 28_232,
    time_wait_s: 60,
    load_percent: 70,
    spare: 1,
};
const TABLE: &str = "\
# A comment.
machine\tLinux 6.18, 2 CPUs
date\t2026-11-28
connection\t117000\tns
request\t24300\tns
spliced\t215000\tµs
copied\t500000
session\t478
socket\t2200
descriptors\t2
";

fn costs() -> Costs {
    Costs::read(TABLE).unwrap()
}

fn of(demand: FleetLoad) -> Sizing {
    size(demand, MACHINE, costs())
}

/// The count of a law, and its use in percent, rounded down.
fn law<'a>(sizing: &'a Sizing, name: &str) -> (u64, f64, &'a str) {
    let law = sizing.laws.iter().find(|law| law.name == name).unwrap();
    (law.count, (law.used * 100.0).floor(), &law.formula)
}

#[test]
fn the_sizes_are_those_worked_by_hand() {
    let sizing = of(DEMAND);
    // 50,000 × 117 µs + 2.5 GB/s × 0.215 s/GB = 6.3875 s of CPU in a second.
    let formula = "(50,000/s × 117 µs + 2.5 GB/s spliced × 0.215 s/GB) / 70% = 9.13";
    assert_eq!(law(&sizing, "cpu"), (10, 28.0, formula));
    let formula = "1,000,000 / ((1,048,576 - 256) / 2) = 1.91";
    assert_eq!(law(&sizing, "descriptors"), (2, 5.0, formula));
    let formula = "20 Gbit/s / (25 Gbit/s × 70%) = 1.14";
    assert_eq!(law(&sizing, "network"), (2, 57.0, formula));
    let formula = "1,000,000 × (478 B + 2 × 2,200 B) / (64 GiB / 2) = 0.142";
    assert_eq!(law(&sizing, "memory"), (1, 7.0, formula));
    let formula = "(1,000,000 + 50,000/s × 60 s) / 40 backends / 28,232 = 3.54";
    assert_eq!(law(&sizing, "ports"), (4, 88.0, formula));
    assert_eq!((sizing.machines, sizing.working), (3, 2));
    assert_eq!((sizing.cores, sizing.addresses), (5, 2));
    assert_eq!((sizing.sessions, sizing.descriptors), (100_000, 200_256));
    // Of 32 cores the load needs 10: more of them would not carry more bits.
    assert_eq!(sizing.binds_first, "network");
}

/// A machine has 64 pipes.
#[test]
fn streams_beyond_the_pipes_are_copied() {
    let cores = |streams| {
        let sizing = of(FleetLoad {
            bandwidth: 16_000_000_000,
            streams,
            ..NOTHING
        });
        let (count, _, formula) = law(&sizing, "cpu");
        (count, formula.to_owned())
    };
    let formula = "(2 GB/s spliced × 0.215 s/GB) / 70% = 0.614";
    assert_eq!(cores(64), (1, formula.to_owned()));
    let formula = "(2 GB/s mixed × 0.219 s/GB) / 70% = 0.627";
    assert_eq!(cores(65), (1, formula.to_owned()));
    let formula = "(2 GB/s mixed × 0.482 s/GB) / 70% = 1.38";
    assert_eq!(cores(1_000), (2, formula.to_owned()));
}

#[test]
fn requests_cost_cpu_alone() {
    let sizing = of(FleetLoad {
        requests: 1_000_000,
        ..NOTHING
    });
    // 24.3 s of CPU in a second, of which a core gives 0.7.
    let formula = "(1,000,000/s × 24.3 µs) / 70% = 34.7";
    assert_eq!(law(&sizing, "cpu"), (35, 72.0, formula));
    // Of 35 cores the third machine would have 3: they are spread evenly.
    assert_eq!((sizing.working, sizing.cores), (3, 12));
    assert_eq!(law(&sizing, "ports").0, 0);
    assert_eq!(sizing.addresses, 1);
}

/// The law that binds is another one for each load.
#[test]
fn each_limit_binds_some_load() {
    let many = FleetLoad {
        backends: 10_000,
        ..NOTHING
    };
    let small = MachineShape {
        memory: 4 << 30,
        ..MACHINE
    };
    let narrow = MachineShape {
        cores: 1,
        ..MACHINE
    };
    let (rate, clients, bandwidth) = (1_000_000, 1_000_000, 60_000_000_000);
    for (name, demand, machine) in [
        ("cpu", FleetLoad { rate, ..many }, MACHINE),
        ("descriptors", FleetLoad { clients, ..many }, narrow),
        ("network", FleetLoad { bandwidth, ..many }, MACHINE),
        ("memory", FleetLoad { clients, ..many }, small),
    ] {
        let sizing = size(demand, machine, costs());
        assert_eq!(sizing.binds_first, name, "{}", table(&sizing));
    }
}

/// A limit holds at its number, and takes one more beyond it.
#[test]
fn a_limit_ends_where_it_says() {
    let ports = |clients| {
        let sizing = of(FleetLoad { clients, ..NOTHING });
        (law(&sizing, "ports").0, sizing.addresses)
    };
    assert_eq!(ports(28_232), (1, 1));
    assert_eq!(ports(28_233), (2, 2));
    let cores = |clients| {
        let demand = FleetLoad {
            clients,
            backends: 1_000,
            ..NOTHING
        };
        of(demand).cores
    };
    assert_eq!(cores(524_160), 1);
    assert_eq!(cores(524_161), 2);
}

/// One machine at least, and no division by zero.
#[test]
fn zeros_have_an_answer() {
    let sizing = of(NOTHING);
    assert_eq!((sizing.machines, sizing.working), (2, 1));
    assert_eq!((sizing.cores, sizing.addresses), (1, 1));
    assert_eq!((sizing.sessions, sizing.descriptors), (0, 256));
    assert_eq!(law(&sizing, "cpu").2, "(0) / 70% = 0");
    let zero = MachineShape {
        cores: 0,
        nic: 0,
        memory: 0,
        descriptors: 0,
        ports: 0,
        time_wait_s: 0,
        load_percent: 0,
        spare: 0,
    };
    let demand = FleetLoad {
        backends: 0,
        ..DEMAND
    };
    let sizing = size(demand, zero, costs());
    assert!(sizing.laws.iter().all(|law| law.used.is_finite()));
    assert!(sizing.machines > 1_000_000);
}

#[test]
fn absurd_loads_stop_at_the_largest_number() {
    let sizing = of(FleetLoad {
        clients: u64::MAX,
        rate: u64::MAX,
        requests: u64::MAX,
        bandwidth: u64::MAX,
        streams: u64::MAX,
        backends: 1,
    });
    assert!(sizing.machines > 1 << 40);
    assert!(sizing.laws.iter().all(|law| law.used.is_finite()));
    assert!(!table(&sizing).is_empty());
}

#[test]
fn a_session_takes_as_many_descriptors_as_the_limit_of_a_worker_expects() {
    let costs = Costs::measured().unwrap();
    let sessions = u64::from(crate::control::capacity::sessions_per_worker(20_000));
    let taken = sessions * costs.session_descriptors + DESCRIPTORS_RESERVED;
    assert_eq!(taken, 20_000);
}

#[test]
fn a_broken_table_is_refused() {
    let without = |row: &str| {
        let lines = TABLE.lines().filter(|line| !line.starts_with(row));
        Costs::read(&lines.collect::<Vec<_>>().join("\n")).unwrap_err()
    };
    assert_eq!(without("date"), CostsError::Missing("date"));
    assert_eq!(without("socket"), CostsError::Missing("socket"));
    let with = |line: &str| Costs::read(&format!("{TABLE}{line}\n")).unwrap_err();
    assert_eq!(with("nothing"), CostsError::Line(11));
    assert_eq!(with("turbo\t1"), CostsError::Unknown("turbo".to_owned()));
    for bad in [
        "request\t0",
        "request\t-1",
        "request\t1.5",
        "request\t10000001",
    ] {
        let want = "invalid request: expected a whole number from 1 to 10000000";
        assert_eq!(with(bad).to_string(), want);
    }
}

#[test]
fn numbers_have_three_digits() {
    let tenths = |number| decimal(number, 10);
    let shown = [0, 1, 64, 95, 640, 999, 12_340, 123_456].map(tenths);
    let want = ["0", "0.1", "6.4", "9.5", "64", "99.9", "1,234", "12,346"];
    assert_eq!(shown, want);
    assert_eq!(decimal(1, 1_000_000), "below 0.001");
    assert_eq!(decimal(640, 10), "64");
    assert_eq!(
        [0, 999, 1_000, 1_234_567].map(grouped),
        ["0", "999", "1,000", "1,234,567"]
    );
    let shown = [0, 999, 1_500, 20_000_000_000].map(bits);
    assert_eq!(shown, ["0 bit/s", "999 bit/s", "1.5 kbit/s", "20 Gbit/s"]);
}

#[test]
fn the_text_has_the_answer_and_the_formulas() {
    let want = "\
machines     3: 2 at work, 1 spare
cores        5 of each machine's 16
addresses    2 of each machine towards backends; towards clients 1 by ECMP, 2 by VRRP
descriptors  200,256 of each worker's 1,048,576, for 100,000 sessions
binds first  network as the load grows

";
    let text = table(&of(DEMAND));
    assert!(text.starts_with(want), "{text}");
    let row = "ports        (1,000,000 + 50,000/s × 60 s) / 40 backends / 28,232 = 3.54";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("  4 addresses   89%\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&json(&of(DEMAND))).unwrap();
    assert_eq!(json["machines"], 3);
    assert_eq!(json["laws"][0]["unit"], "core");
    assert_eq!(json["demand"]["rate"], 50_000);
    assert_eq!(json["costs"]["connection_ns"], 117_000);
}
