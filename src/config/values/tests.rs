//! Values, right and wrong.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::config::LogFormat;

#[test]
fn durations_need_a_unit() {
    let read = |text: &str| duration(text, DEADLINE);
    assert_eq!(read("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(read("5s"), Ok(Duration::from_secs(5)));
    assert_eq!(read("10m"), Ok(Duration::from_secs(600)));
    assert_eq!(read("1h"), Ok(Duration::from_secs(3600)));
    assert_eq!(read("30d"), Ok(Duration::from_secs(2_592_000)));
    let error = |text: &str| read(text).unwrap_err().to_string();
    assert_eq!(
        error("5"),
        "expected a duration, 1ms to 30d: write 5ms, 5s, 5m or 5h"
    );
    for bad in ["", "s", "-1s", "1.5s", "5 s", "5sec", "1h30m", "５s"] {
        let want = "expected a duration, 1ms to 30d: \
                    write a whole number with ms, s, m, h or d, such as 5s";
        assert_eq!(error(bad), want, "{bad}");
    }
    for bad in [
        "0s",
        "31d",
        "99999999999999999999s",
        "18446744073709551615d",
    ] {
        assert_eq!(error(bad), "expected a duration, 1ms to 30d", "{bad}");
    }
    let halves = duration("1500ms", HORIZON).unwrap_err().to_string();
    assert_eq!(halves, "expected a duration, 1s to 10m, in whole seconds");
    assert_eq!(written(Duration::ZERO), "0s");
    assert_eq!(duration("0s", GRACE), Ok(Duration::ZERO));
    assert_eq!(duration_or_off("off", DEADLINE), Ok(None));
    for text in ["1ms", "1500ms", "90s", "10m", "36h", "30d"] {
        assert_eq!(written(read(text).unwrap()), text);
    }
    assert_eq!(written(Duration::from_secs(7200)), "2h");
}

#[test]
fn numbers_may_be_left_open() {
    let read = |text: &str| codec::number::<NonZeroU32>(WORKERS).or("auto").flag(text);
    assert_eq!(read("auto"), Ok(None));
    assert_eq!(read("1024"), Ok(NonZeroU32::new(1024)));
    let error = |text: &str| read(text).unwrap_err().to_string();
    for bad in [
        "0",
        "1025",
        "-1",
        "99999999999999999999",
        "",
        "-",
        "+1",
        "1.5",
        "Auto",
        "1_000",
    ] {
        let want = "expected a whole number, 1 to 1024, or auto";
        assert_eq!(error(bad), want, "{bad}");
    }
}

#[test]
fn words_have_neighbours() {
    assert_eq!(strategy("round_robin"), Ok(Strategy::RoundRobin));
    let error = |name| strategy(name).unwrap_err().to_string();
    let want = "invalid strategy `roundrobin`, did you mean `round_robin`?";
    assert_eq!(error("roundrobin"), want);
    let names = Strategy::all().map(|(name, _)| format!("`{name}`"));
    let (last, others) = names.split_last().unwrap();
    let want = format!(
        "invalid strategy `x`: expected {} or {last}",
        others.join(", ")
    );
    assert_eq!(error("x"), want);
    for (theirs, ours) in [
        ("rr", "round_robin"),
        ("ROUND_ROBIN", "round_robin"),
        ("roundrobin", "round_robin"),
        ("leastconn", "least_connections"),
        ("least_conn", "least_connections"),
        ("LEAST_REQUEST", "least_connections"),
        ("ip_hash", "hash"),
        ("source", "hash"),
        ("maglev", "hash"),
        ("ketama", "hash"),
        ("p2c", "power_of_two"),
        ("random_2", "power_of_two"),
        ("random(2)", "power_of_two"),
        ("random two", "power_of_two"),
        ("ewma", "least_time"),
        ("peak-ewma", "least_time"),
    ] {
        let want = format!("invalid strategy `{theirs}`, did you mean `{ours}`?");
        assert_eq!(error(theirs), want);
    }
    for (theirs, ours) in foreign::entries(foreign::STRATEGIES) {
        assert!(strategy(ours).is_ok(), "{ours}");
        for name in theirs.split(' ') {
            assert_eq!(foreign::strategy(name), Some(ours));
        }
    }
    let error = named("log format", "xml", &LogFormat::ALL)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "invalid log format `xml`: expected `key_value` or `json`"
    );
}

#[test]
fn levels_of_the_operational_log() {
    let read = |name: &str| log_level(OsStr::new(name)).map_err(|error| error.to_string());
    assert_eq!(read("debug"), Ok(LevelFilter::Debug));
    assert_eq!(read("INFO"), Ok(LevelFilter::Info));
    assert_eq!(read("off"), Ok(LevelFilter::Off));
    let want = "invalid level `Inof`, did you mean `info`?";
    assert_eq!(read("Inof"), Err(want.to_owned()));
    for other in ["", "mahoraga=debug", "4"] {
        let want =
            format!("invalid level `{other}`: expected `error`, `warn`, `info`, `debug` or `off`");
        assert_eq!(read(other), Err(want));
    }
}

#[test]
fn sinks() {
    assert_eq!(log_sink("-"), Some(LogSink::Stdout));
    assert_eq!(log_sink("./off"), Some(LogSink::File("./off".into())));
    assert_eq!(log_sink("syslog.1"), Some(LogSink::File("syslog.1".into())));
    for text in ["syslog", "syslog:a", "journald", "journald:/run/b"] {
        let sink = log_sink(text).unwrap();
        assert!(sink.socket().is_some());
        assert_eq!(sink.to_string(), text);
    }
    assert_eq!(log_sink("syslog:/dev/log"), log_sink("syslog"));
    let long = format!("syslog:/{}", "x".repeat(107));
    for bad in ["logs/", "", "syslog:", "journald:/run/", &long] {
        assert_eq!(log_sink(bad), None);
    }
}

#[test]
fn origins_are_those_that_browsers_send() {
    for (text, want) in [
        ("https://lb.example.com", "https://lb.example.com"),
        ("HTTPS://LB.example.com:8443", "https://lb.example.com:8443"),
        ("http://[::1]:80", "http://[::1]:80"),
    ] {
        assert_eq!(origin(text).as_deref(), Some(want));
    }
    for bad in [
        "lb.example.com",
        "https://",
        "https://lb.example.com/",
        "https://lb.example.com/x",
        "https://me@lb.example.com",
        "https://lb.example.com:",
        "ftp://lb.example.com",
        "null",
        "*",
    ] {
        assert_eq!(origin(bad), None, "{bad}");
    }
}

#[test]
fn a_flag_is_answered_without_the_quotes_of_a_file() {
    let settings = crate::config::all_settings();
    for (setting, text, want) in [
        (
            "listeners.source_limits.rate",
            "5/s",
            "expected a whole number, 1 to 1000000, or off",
        ),
        (
            "listeners.source_limits.rate",
            "10 per second",
            "expected a whole number, 1 to 1000000, or off",
        ),
        (
            "shutdown_grace",
            "5",
            "expected a duration, 0s to 1d: write 5ms, 5s, 5m or 5h",
        ),
        (
            "listeners.ban",
            "3",
            "expected off or a group such as '(after: 10, within: \"10s\", for: \"1m\")'",
        ),
        (
            "listeners.ban",
            "(after: \"3\")",
            "invalid `after` `\"3\"`: expected a whole number, 1 to 1000000: write 3",
        ),
        (
            "pools.persist.key",
            "http_cookie",
            "invalid key `http_cookie`: expected http_cookie(NAME), a name of up to 128 letters, \
             digits and !",
        ),
    ] {
        let row = settings.iter().find(|row| row.path == setting).unwrap();
        let error = (row.read)(text).unwrap_err().to_string();
        assert!(error.starts_with(want), "{setting} {text}: {error}");
    }
    let error = strategy_of("least_time,decay=5s").unwrap_err().of_flag();
    let want = "expected a name or a group such as '(name: \"hash\", key: \"sni\")': \
                write '(name: \"least_time\", decay: \"5s\")'";
    assert_eq!(error.to_string(), want);
}

#[test]
fn names_are_short_and_printable() {
    assert_eq!(name("web 1"), Ok("web 1".into()));
    for bad in ["", "a\nb", &"a".repeat(65)] {
        let error = name(bad).unwrap_err().about("name", bad);
        let want = "expected 1 to 64 characters, and no control character";
        assert_eq!(error, format!("invalid name `{bad}`: {want}"));
    }
}

#[test]
fn a_backend_has_an_address_that_a_server_can_have() {
    let error = |text: &str| backend_at(text).unwrap_err().to_string();
    for (text, rest) in [
        (
            "0.0.0.0:9",
            "the unspecified address; write 127.0.0.1:9 for this machine",
        ),
        (
            "[::]:9",
            "the unspecified address; write [::1]:9 for this machine",
        ),
        ("[::ffff:224.0.0.1]:9", "a multicast address"),
        ("255.255.255.255:9", "the broadcast address"),
        ("[fe80::1]:9", "a link-local address without a zone"),
    ] {
        let want =
            format!("invalid address `{text}`: expected the address of a server, not {rest}");
        assert_eq!(error(text), want);
    }
    let want = "`9` has no host: write 127.0.0.1:9 for this machine";
    assert_eq!(error("9"), want);
    for text in ["240.0.0.1:9", "[fe80::1%2]:9", "db:9", "unix:/a"] {
        assert!(backend_at(text).is_ok(), "{text}");
    }
}
