//! Valid and invalid lines.

use super::*;

/// As the balancer writes them: the second session began first.
const KEY_VALUE: &str = "\
time=2026-03-01T10:00:05.500Z session=0-1 listener=web client=192.0.2.1:4000 backend=a pool=web \
strategy=round_robin attempts=1 connect_us=500 first_byte_us=20500 total_us=500000 bytes_up=100 \
bytes_down=2000 worker=0 reason=done
time=2026-03-01T10:00:06.000Z session=0-2 listener=\"my web\" client=[2001:db8::1]:4001 \
backend=\"b = \\\"1\\\"\" pool=web strategy=round_robin attempts=1 connect_us=1000 \
first_byte_us=4000 total_us=2000000 bytes_up=1 bytes_down=2 worker=1 reason=done
";

const JSON: &str = "\
{\"time\":\"2026-03-01T10:00:05.500Z\",\"session\":\"0-1\",\"client\":\"192.0.2.1:4000\",\
\"backend\":\"a\",\"attempts\":1,\"connect_us\":500,\"first_byte_us\":20500,\"total_us\":500000,\
\"bytes_up\":100,\"bytes_down\":2000}
{\"time\":\"2026-03-01T10:00:06.000Z\",\"client\":\"[2001:db8::1]:4001\",\
\"backend\":\"b = \\\"1\\\"\",\"connect_us\":1000,\"first_byte_us\":4000,\"total_us\":2000000,\
\"bytes_up\":1,\"bytes_down\":2}
";

fn read(log: &str) -> Trace {
    Trace::read(log.as_bytes()).unwrap()
}

#[test]
fn both_formats_say_the_same() {
    for log in [KEY_VALUE, JSON] {
        let trace = read(log);
        assert_eq!(trace.skipped, Skipped::default());
        assert_eq!((trace.len(), trace.clients()), (2, 2));
        let first = Recorded {
            at: 0,
            lifetime: 2_000_000,
            work: 3_000,
            bytes: 3,
            client: 1,
            port: 4001,
            backend: Some(1),
        };
        let second = Recorded {
            at: 1_000_000,
            lifetime: 500_000,
            work: 20_000,
            bytes: 2_100,
            client: 0,
            port: 4000,
            backend: Some(0),
        };
        assert_eq!(trace.sessions, [first, second]);
        assert_eq!(trace.backends(), ["a", "b = \"1\""]);
        assert_eq!(trace.address(1), "2001:db8::1".parse().ok());
        assert_eq!(trace.end(), 1_000_000_001);
    }
}

#[test]
fn unreadable_lines_are_reported() {
    let bad = |line: &str| read(line).skipped.first.first().map(|(_, why)| *why);
    let neither = Some("it is neither JSON nor key=value pairs");
    for line in ["x", "{", "{}x", "[1]", "a=\"b", "a=1 b", "="] {
        let why = bad(line);
        assert!(why == neither || why == Some("it has no time"), "{line}");
    }
    assert_eq!(bad("x"), neither);
    assert_eq!(bad("\n  \n"), None);
    assert_eq!(bad("time=yesterday"), Some("it has no time"));
    let time = "time=2026-03-01T10:00:05Z";
    assert_eq!(bad(time), Some("it has no total_us"));
    let total = |total: &str| bad(&format!("{time} total_us={total}"));
    assert_eq!(total("-1"), Some("it has no total_us"));
    assert_eq!(total("99999999999999999999"), Some("it has no total_us"));
    assert_eq!(total("1"), Some("its session was never connected"));
    let answer = format!("{time} total_us=1 connect_us=1 first_byte_us=-");
    assert_eq!(bad(&answer), Some("its backend never answered"));
    let early = "time=1970-01-01T00:00:00Z total_us=1 connect_us=1 first_byte_us=1";
    assert_eq!(bad(early), Some("it began before 1970"));
    let log = [b"\xff\n".as_slice(), KEY_VALUE.as_bytes()].concat();
    let trace = Trace::read(&log[..]).unwrap();
    let want = vec![(1, "it is not UTF-8")];
    assert_eq!((trace.len(), trace.skipped.first), (2, want));
}

#[test]
fn the_first_bad_lines_are_reported_and_all_are_counted() {
    let trace = read(&["x\n".repeat(5), KEY_VALUE.to_owned()].concat());
    assert_eq!((trace.len(), trace.skipped.lines), (2, 5));
    let lines: Vec<_> = trace.skipped.first.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 2, 3]);
}

#[test]
fn long_lines_are_left_out_whole() {
    let long = format!("time={}\n{KEY_VALUE}", "9".repeat(200_000));
    let trace = read(&long);
    assert_eq!(trace.len(), 2);
    assert_eq!(trace.skipped.first, [(1, "it is longer than 64 KiB")]);
}

#[test]
fn a_trace_ends_after_a_year() {
    let far = KEY_VALUE.replacen("2026", "2036", 1);
    let trace = read(&far);
    assert_eq!((trace.len(), trace.skipped.lines), (1, 1));
}

#[test]
fn a_unix_socket_is_one_client() {
    let log = KEY_VALUE
        .replace("192.0.2.1:4000", "-")
        .replace("[2001:db8::1]:4001", "unix");
    let trace = read(&log);
    assert_eq!((trace.len(), trace.clients()), (2, 1));
    assert_eq!(trace.address(0), None);
}

/// Any line is either read or counted.
#[test]
fn any_bytes_are_a_trace() {
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..2_000 {
        let mut log = KEY_VALUE.as_bytes().to_vec();
        for _ in 0..rng.usize(1..8) {
            let at = rng.usize(0..log.len());
            log[at] = rng.u8(..);
        }
        let trace = Trace::read(&log[..]).unwrap();
        assert!(trace.len() <= 2 + log.iter().filter(|&&b| b == b'\n').count());
    }
}
