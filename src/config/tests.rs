//! From text to configuration, mistakes and warnings.

use super::*;

mod docs;
mod live;
mod log;
mod routes;
mod rules;
mod strategies;

const EXAMPLE: &str = include_str!("../../config.ron");
const SMALLEST: &str = r#"(listeners: [(bind: "127.0.0.1:8080", pool: "web")],
    pools: [(name: "web", backends: ["127.0.0.1:9001"])])"#;
const HOST: Host = Host {
    descriptors_max: 1024,
    cpus: NonZeroU32::MIN,
    memory: 24 << 30,
};

fn read(text: &str) -> Result<(Config, Source), ConfigError> {
    parse("f".to_owned(), text.into())
}

fn listener(name: &str) -> Listener {
    Listener {
        name: name.to_owned(),
        ..Listener::at("127.0.0.1:8080".parse().unwrap(), 0)
    }
}

fn backend(name: &str, address: &str) -> Backend {
    Backend {
        name: name.to_owned(),
        ..Backend::at(address.parse().unwrap())
    }
}

/// A configuration with nothing but this.
fn defaults(listener: Listener, backends: Vec<Backend>) -> Config {
    Config {
        access_log: Some(AccessLog {
            to: LogSink::Stdout,
            format: LogFormat::KeyValue,
            ..AccessLog::default()
        }),
        admin: Some(Admin::default()),
        ..Config::of(vec![listener], vec![Pool::of("web", backends)])
    }
}

#[test]
fn the_smallest_configuration_has_every_default() {
    let (config, _) = read(SMALLEST).unwrap();
    let backends = vec![backend("127.0.0.1:9001", "127.0.0.1:9001")];
    assert_eq!(config, defaults(listener("127.0.0.1:8080"), backends));
}

#[test]
fn a_configuration_says_where_it_listens() {
    let admin = "(admin: (http: (bind: \"127.0.0.1:99\", read_token: \"t\")), \
                 metrics: \"127.0.0.2:91\", listeners: [\
                 (bind: \"unix:/a.sock\", pool: \"web\"), (bind: \"[::1]:80\", pool: \"web\"),";
    let (config, _) = read(&SMALLEST.replace("(listeners: [", admin)).unwrap();
    let ats = [
        "127.0.0.1:8080",
        "127.0.0.1:99",
        "127.0.0.2:91",
        "[::1]:80",
        "[::]:80",
        "127.0.0.1:80",
        "127.0.0.1:9001",
    ];
    let found = ats.map(|at| config.listens_on(at.parse().unwrap()));
    assert_eq!(found, [true, true, true, true, false, false, false]);
}

#[test]
fn the_example_says_the_defaults() {
    let (config, source) = read(EXAMPLE).unwrap();
    let backends = vec![
        backend("127.0.0.1:9001", "127.0.0.1:9001"),
        backend("second", "127.0.0.1:9002"),
        backend("127.0.0.1:9003", "127.0.0.1:9003"),
    ];
    assert_eq!(config, defaults(listener("web"), backends));
    assert_eq!(warnings(&config, HOST, Some(&source)), []);
}

#[test]
fn the_example_names_every_setting_with_its_default() {
    let mut missing = Vec::new();
    for row in reference::rows::<Config>("") {
        let (_, name) = row.path.rsplit_once('.').unwrap_or(("", &row.path));
        let in_words = IN_WORDS.contains(&&*row.path);
        let written = match &row.default {
            Some(list) if list == "[]" => format!("{name}: ["),
            _ if in_words => name.to_owned(),
            Some(default) => format!("{name}: {default}"),
            None => format!("{name}: "),
        };
        if !EXAMPLE.contains(&written) {
            missing.push(format!("{}: {written}", row.path));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Settings whose defaults follow from others, which the example describes in words.
const IN_WORDS: [&str; 4] = [
    "admin.http",
    "pools.strategy.groups.weight",
    "pools.check.interval_down",
    "pools.check.interval_between",
];

#[test]
fn everything_can_be_set() {
    let (config, _) = read(
        r#"Config(
            workers: Some(2), max_connections: 1_000, shutdown_grace: "0s",
            access_log: (to: "/a.log", format: "json"), histogram_log: r"b.hlog",
            defaults: (attempts: 2, timeouts: (
                connect: "1s", idle: "off", session: "1d", peek: "1m",
                server_first: "2s")),
            listeners: [
                (bind: "[::1]:80", pool: "b"),
                Listener(name: "n", bind: "unix:/s", pool: "a", max_connections: 7, attempts: 16,
                    half_close: "end", half_sent: "pass",
                    timeouts: (connect: "250ms", idle: "1h", half_closed: "1m", session: "off",
                        peek: "1ms", proxy_header: "2ms", server_first: "5ms")),
            ],
            pools: [
                (name: "a", backends: [(address: "unix:/b", weight: 0), "localhost:1"]),
                (name: "b", strategy: "round_robin", backends: [
                    Backend(name: "x", address: "[::1]:81", weight: 256, backup: true,
                        max_connections: 9),
                ]),
            ],
        )"#,
    )
    .unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(config.workers, NonZeroU32::new(2));
    assert_eq!(config.max_connections, NonZeroU32::new(1000));
    assert_eq!(config.shutdown_grace, Duration::ZERO);
    let log = config.access_log.unwrap();
    assert_eq!(log.to, LogSink::File("/a.log".into()));
    assert_eq!(log.format, LogFormat::Json);
    assert_eq!(config.histogram_log, PathBuf::from("b.hlog"));
    let inherited = Timeouts {
        connect: seconds(1),
        idle: None,
        half_closed: seconds(30),
        session: Some(seconds(86_400)),
        peek: seconds(60),
        proxy_header: seconds(5),
        server_first: seconds(2),
    };
    let own = Timeouts {
        connect: Duration::from_millis(250),
        idle: Some(seconds(3600)),
        half_closed: seconds(60),
        session: None,
        peek: Duration::from_millis(1),
        proxy_header: Duration::from_millis(2),
        server_first: Duration::from_millis(5),
    };
    let [first, second] = &config.listeners[..] else {
        panic!("{:?}", config.listeners);
    };
    let told = |its: &Listener| (its.name.clone(), its.pool, its.attempts);
    assert_eq!(told(first), ("[::1]:80".to_owned(), 1, 2));
    assert_eq!(first.timeouts, inherited);
    assert_eq!(told(second), ("n".to_owned(), 0, 16));
    assert_eq!(second.timeouts, own);
    let closes = [first.half_close, second.half_close];
    assert_eq!(closes, [HalfClose::Relay, HalfClose::End]);
    let half_sent = [first.half_sent, second.half_sent];
    assert_eq!(half_sent, [HalfSent::Close, HalfSent::Pass]);
    assert_eq!(second.max_connections, NonZeroU32::new(7));
    let a = &config.pools[0].backends;
    assert_eq!((a[0].name.as_str(), a[0].weight), ("unix:/b", 0));
    assert_eq!((a[1].name.as_str(), a[1].weight), ("localhost:1", 1));
    let b = &config.pools[1].backends[0];
    assert_eq!((b.name.as_str(), b.weight), ("x", 256));
    assert_eq!((b.backup, b.max_connections), (true, NonZeroU32::new(9)));
}

#[test]
fn the_access_log_has_short_forms() {
    let log = |log: &str| {
        let text = SMALLEST.replacen('(', &format!("(access_log: {log}, "), 1);
        let (config, _) = read(&text).unwrap();
        config.access_log.map(|log| (log.to, log.format))
    };
    assert_eq!(log("\"off\""), None);
    assert_eq!(log("(to: \"off\")"), None);
    assert_eq!(log("\"-\""), Some((LogSink::Stdout, LogFormat::KeyValue)));
    let file = LogSink::File("a.log".into());
    assert_eq!(log("\"a.log\""), Some((file, LogFormat::KeyValue)));
    let json = Some((LogSink::Stdout, LogFormat::Json));
    assert_eq!(log("(format: \"json\")"), json);
}

#[test]
fn text_may_come_as_editors_leave_it() {
    let marked = format!("\u{feff}{}", SMALLEST.replace('\n', "\r\n"));
    let extended = format!("#![enable(implicit_some)]\n/* a /* b */ */ {SMALLEST} // c");
    for text in [marked, extended] {
        assert_eq!(read(&text).unwrap().0, read(SMALLEST).unwrap().0);
    }
}

#[test]
fn any_port_is_no_clash() {
    let text = r#"(listeners: [(name: "a", bind: "127.0.0.1:0", pool: "web"),
                               (name: "b", bind: "127.0.0.1:0", pool: "web")],
        pools: [(name: "web", backends: ["127.0.0.1:1"])])"#;
    assert_eq!(read(text).unwrap().0.listeners.len(), 2);
}

#[test]
fn mistakes_beyond_fifty_are_counted() {
    let wrong = "(bind: 1, pool: \"web\"),".repeat(60);
    let text = format!("(listeners: [{wrong}], pools: [(name: \"web\", backends: [\"a.:x\"])])");
    let error = read(&text).unwrap_err();
    assert!(matches!(&error, ConfigError::Mistakes(mistakes) if mistakes.len() == 51));
    let more = "11 more mistakes follow from here on\n";
    assert!(error.to_string().contains(more), "{error}");
}

#[test]
fn trusted_networks_are_bounded() {
    let read = |count: u16| {
        let all = (0..count).map(|n| format!("\"10.0.{}.{}\",", n >> 8, n & 0xff));
        let trusted = format!("(trusted: [{}], ", all.collect::<String>());
        read(&SMALLEST.replacen("(", &trusted, 1))
    };
    assert_eq!(read(10_000).unwrap().0.trusted.len(), 10_000);
    let error = read(10_001).unwrap_err().to_string();
    let expected = "f:1:11: 10001 prefixes are too many: at most 10000";
    assert!(
        error.starts_with(expected) && error.len() < 1_000,
        "{error}"
    );
}

#[test]
fn sentences_are_bounded_and_harmless() {
    let text = format!("(histogram_log: \"\u{1b}[31m{}/\")", "x".repeat(5000));
    let message = read(&text).unwrap_err().to_string();
    assert!(!message.contains('\u{1b}'));
    assert!(message.lines().all(|line| line.chars().count() < 500));
}

#[test]
fn descriptors_are_counted_per_worker() {
    let workers = |n| NonZeroU32::new(n).unwrap();
    assert_eq!(descriptors_needed(1000, workers(1)), 2256);
    assert_eq!(descriptors_needed(1000, workers(3)), 2 * 334 + 256);
    assert_eq!(
        descriptors_needed(u32::MAX, workers(1)),
        2 * u64::from(u32::MAX) + 256
    );
}

/// The warnings, with `f:line:column`, when the text replaces a part of the smallest file.
fn warned(from: &str, to: &str) -> Vec<String> {
    warned_on(HOST, from, to)
}

fn warned_on(host: Host, from: &str, to: &str) -> Vec<String> {
    assert!(SMALLEST.contains(from));
    let (config, source) = read(&SMALLEST.replacen(from, to, 1)).unwrap();
    let warnings = warnings(&config, host, Some(&source));
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    warnings
        .iter()
        .map(|warning| first_line(warning.to_string()))
        .collect()
}

#[test]
fn more_memory_than_there_is_is_warned_of() {
    assert_eq!(warned("(", "(memory: \"24GiB\", "), [""; 0]);
    let want = "f:1:10: warning: memory: 100GiB of buffers and pipes are more than the process may \
                use, 24GiB: the kernel would end it before they are used up";
    assert_eq!(warned("(", "(memory: \"100GiB\", "), [want]);
}

#[test]
fn a_small_descriptor_limit_is_warned_of() {
    assert_eq!(warned("(", "(max_connections: 384, "), [""; 0]);
    let want = "f:1:19: warning: max_connections: 385 connections need 1026 descriptors for each \
                worker, and the hard limit (ulimit -Hn) is 1024";
    assert_eq!(warned("(", "(max_connections: 385, "), [want]);
    let cpus = NonZeroU32::new(2).unwrap();
    let two = warned_on(
        Host { cpus, ..HOST },
        "(",
        "(workers: 2, max_connections: 385, ",
    );
    assert_eq!(two, [""; 0]);
    let want = want.replace("f:1:19", "f:1:32");
    assert_eq!(warned("(bind", "(max_connections: 385, bind"), [want]);
}

#[test]
fn a_missing_idle_timeout_is_warned_of_where_it_is_set() {
    let sentence = "warning: without an idle timeout, a peer that vanishes holds its session";
    let own = warned("(bind", "(timeouts: (idle: \"off\"), bind");
    assert_eq!(own, [format!("f:1:32: {sentence}")]);
    let inherited = "(defaults: (timeouts: (idle: \"off\")), listeners: [\
                     (bind: \"127.0.0.1:1\", pool: \"web\"),";
    let inherited = warned("(listeners: [", inherited);
    assert_eq!(inherited, [format!("f:1:30: {sentence}")]);
}

#[test]
fn a_long_idle_timeout_is_warned_of() {
    let sentence = |held| {
        format!(
            "f:1:32: warning: a peer that vanishes holds its session for {held}: \
             the default idle timeout is 10m"
        )
    };
    assert_eq!(warned("(bind", "(timeouts: (idle: \"1h\"), bind"), [""; 0]);
    let long = warned("(bind", "(timeouts: (idle: \"3601s\"), bind");
    assert_eq!(long, [sentence("3601s")]);
    let long = warned("(bind", "(timeouts: (idle: \"120m\"), bind");
    assert_eq!(long, [sentence("2h")]);
}

#[test]
fn more_workers_than_cpus_are_warned_of() {
    assert_eq!(warned("(", "(workers: 1, "), [""; 0]);
    let want = "f:1:11: warning: workers: 3 would take turns: the process may use 1 CPU";
    assert_eq!(warned("(", "(workers: 3, "), [want]);
    let cpus = NonZeroU32::new(2).unwrap();
    let two = warned_on(Host { cpus, ..HOST }, "(", "(workers: 3, ");
    let want = "f:1:11: warning: workers: 3 would take turns: the process may use 2 CPUs";
    assert_eq!(two, [want]);
}

#[test]
fn a_missing_directory_of_the_histogram_log_is_warned_of() {
    let log = |log: &str| warned("(", &format!("(histogram_log: {log}, "));
    let want = |directory| {
        format!(
            "f:1:17: warning: the directory of the histogram log, `{directory}`, does not exist"
        )
    };
    assert_eq!(log("\"/nowhere/a\""), [want("/nowhere")]);
    assert_eq!(log("\"nowhere/at/all/a\""), [want("nowhere/at/all")]);
    // A file is no directory.
    assert_eq!(log("\"Cargo.toml/a\""), [want("Cargo.toml")]);
    for right in ["\"a.log\"", "\"./a.log\"", "\"/a.log\"", "\"src/a.log\""] {
        assert_eq!(log(right), [""; 0], "{right}");
    }
    // A start reports these, and fails.
    assert_eq!(warned("(", "(access_log: \"/nowhere/a.log\", "), [""; 0]);
}

#[test]
fn unused_pools_are_warned_of() {
    let unused = warned(
        "[(name",
        "[(name: \"b\", backends: [\"127.0.0.1:1\"]), (name",
    );
    assert_eq!(unused, ["f:2:20: warning: no listener uses the pool `b`"]);
}

#[test]
fn rules_that_ban_no_source_are_warned_of() {
    let warned = |listener: &str, top: &str, pool: &str| {
        let text = format!(
            "({top} listeners: [(bind: \"127.0.0.1:1\", pool: \"p\", ban: (after: 3), {listener})],
            pools: [(name: \"p\", backends: [\"127.0.0.1:2\"], {pool})])"
        );
        let (config, source) = read(&text).unwrap();
        let all = warnings(&config, HOST, Some(&source));
        all.iter()
            .any(|one| one.to_string().contains("bans no one"))
    };
    let list = |dry_run| {
        format!("access_lists: [(name: \"a\", deny: [\"10.0.0.0/8\"], dry_run: {dry_run})],")
    };
    let hash = "strategy: (name: \"hash\", key: \"sni\")";
    let persist = "persist: (key: \"sni\")";
    let own = "access_list: \"a\"";
    for (listener, top, pool) in [
        ("", String::new(), ""),
        ("source_limits: (rate: 1, dry_run: true)", String::new(), ""),
        // They say what a source is.
        (
            "source_limits: (prefix_v4: 24), bandwidth: (source: (up: \"1MB/s\"))",
            String::new(),
            "",
        ),
        (own, list(true), ""),
        ("half_sent: \"pass\"", String::new(), hash),
    ] {
        assert!(warned(listener, &top, pool), "{listener} {top} {pool}");
    }
    for (listener, top, pool) in [
        ("source_limits: (rate: 1)", String::new(), ""),
        ("source_limits: (connections: 1)", String::new(), ""),
        (own, list(false), ""),
        ("", String::new(), hash),
        ("", String::new(), persist),
    ] {
        assert!(!warned(listener, &top, pool), "{listener} {top} {pool}");
    }
}

/// Marsaglia's xorshift64.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

/// Reads and shows the text; errors are fine, panics are not.
fn survive(bytes: Vec<u8>) {
    match parse("f".to_owned(), bytes) {
        Ok((config, source)) => drop(format!("{:?}", warnings(&config, HOST, Some(&source)))),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn every_prefix_is_survived() {
    let dense = r##"Config(workers: Some(2), defaults: (timeouts: (idle: "é\"")), /* x */
        listeners: [
        (bind: "unix:/é", pool: r#"w"#, name: 'n'), {"a": 1}, b"\xff"], pools: [("x", 1..2)])"##;
    // Cuts within comments add nothing, so comment lines are left out.
    let lines = EXAMPLE.lines();
    let bare: Vec<_> = lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    for text in [dense, &bare.join("\n")] {
        for end in 0..=text.len() {
            survive(text.as_bytes()[..end].to_vec());
        }
    }
}

#[test]
fn every_mutation_is_survived() {
    // A digit less makes a host name of an address to listen on; nothing here asks a resolver.
    let text = EXAMPLE.replace("127.0.0.1:", "unix:/");
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let telling = b"()[]{}:,\"'/*#\\-.0aNrb\xff\x00\n";
    for _ in 0..1000 {
        let mut bytes = text.clone().into_bytes();
        let at = random(&mut state) % bytes.len();
        match random(&mut state) % 3 {
            0 => drop(bytes.remove(at)),
            1 => bytes[at] = telling[random(&mut state) % telling.len()],
            _ => bytes.insert(at, telling[random(&mut state) % telling.len()]),
        }
        survive(bytes);
    }
}

/// A file may be one long line, and each mistake is shown with its line. As many mistakes as
/// backends may not take time by the square of their number.
#[test]
fn of_many_mistakes_the_first_are_shown() {
    let many = |item: &dyn Fn(usize) -> String| (0..20_000).map(item).collect::<String>();
    let groups = format!(
        "strategy: (name: \"two_tier\", first: \"weight\", groups: [{}]), ",
        many(&|i| format!("(name: \"g{i}\"),"))
    );
    for (setting, backends, first, more) in [
        (
            "",
            many(&|_| "(address: \"nowhere\", weight: 999),".to_owned()),
            "address: `nowhere` has no port",
            39_950,
        ),
        (
            "",
            many(&|i| format!("(name: \"a\", address: \"unix:/{i}\", weight: 999),\n")),
            "invalid `weight` `999`: expected a whole number, 0 to 256",
            39_949,
        ),
        (
            "",
            many(&|_| "\"unix:/b\",\n".to_owned()),
            "the address `unix:/b` is listed twice in the pool",
            19_949,
        ),
        (
            "",
            many(&|i| format!("(name: \"{i}\", address: \"unix:/b\"),\n")),
            "two backends of the pool, `0` and `1`, are at the address `unix:/b`",
            19_949,
        ),
        (
            &groups,
            many(&|i| format!("(address: \"unix:/{i}\", group: \"unheard-of\"),\n")),
            "group: there is no group called `unheard-of`",
            19_950,
        ),
    ] {
        let text = format!(
            "(listeners: [(bind: \"unix:/a\", pool: \"p\")], pools: [(name: \"p\", \
             {setting}backends: [{backends}])])"
        );
        let Err(ConfigError::Mistakes(mistakes)) = read(&text) else {
            panic!("it is accepted, or can't be read");
        };
        assert_eq!(mistakes.len(), 51);
        let sentence = &mistakes[0].sentence;
        assert!(sentence.starts_with(first), "{sentence}");
        let last = &mistakes[50].sentence;
        assert_eq!(*last, format!("{more} more mistakes follow from here on"));
    }
}

/// The settings whose change takes a restart, as a part of a sentence: what help says of them.
pub(crate) fn waits_for_a_start() -> String {
    let rows = all_settings().into_iter().filter(|row| row.waits);
    let paths: Vec<String> = rows.map(|row| row.path).collect();
    let is_inside = |path: &str| {
        paths
            .iter()
            .any(|other| path.starts_with(&format!("{other}.")))
    };
    let outer: Vec<&str> = paths
        .iter()
        .map(String::as_str)
        .filter(|path| !is_inside(path))
        .collect();
    match &outer[..] {
        [others @ .., last] if !others.is_empty() => {
            format!("{} and {last}", others.join(", "))
        }
        all => all.concat(),
    }
}
