//! Flags, and the configurations that they are.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::Parser;

use super::*;
use crate::cli::{Cli, Task};
use crate::config::{
    AccessLog, Admin, Backend, Check, Hash, HttpProbe, Listener, LogSink, Persist, Pool, Probe,
    SHUTDOWN_GRACE, SourceLimits, Timeouts,
};
use crate::guard::Access;
use crate::peek::Field;

fn config(flags: &str) -> Result<Config, ProxyError> {
    let arguments = ["mahoraga", "proxy"]
        .into_iter()
        .chain(flags.split_whitespace());
    let Task::Proxy(args) = Cli::try_parse_from(arguments).unwrap().command else {
        panic!("another subcommand than proxy");
    };
    proxy_config(&args)
}

#[test]
fn the_defaults_are_those_of_the_file() {
    let flags = config("--from 127.0.0.1:8080 --to 127.0.0.1:9001").unwrap();
    let auto =
        config("--from 127.0.0.1:8080 --to 127.0.0.1:9001 --workers auto --max-connections auto");
    assert_eq!(auto.as_ref(), Ok(&flags));
    let text = "(listeners: [(bind: \"127.0.0.1:8080\", pool: \"default\")], \
                pools: [(name: \"default\", backends: [\"127.0.0.1:9001\"])], \
                access_log: \"off\")";
    let (file, _) = config::parse("f".to_owned(), text.into()).unwrap();
    assert_eq!(flags, file);
    assert_eq!(flags.shutdown_grace, SHUTDOWN_GRACE);
}

fn http_check() -> Check {
    Check {
        probe: Probe::Http(HttpProbe::default()),
        ..Check::default()
    }
}

#[test]
fn allow_and_deny_together_leave_a_warning_until_they_cover_all() {
    let warning = |flags: &str| {
        let arguments = format!("mahoraga proxy --from [::1]:1 --to unix:/a {flags}");
        let cli = Cli::try_parse_from(arguments.split_whitespace()).unwrap();
        let Task::Proxy(args) = cli.command else {
            panic!("another subcommand than proxy");
        };
        let others = proxy_config(&args).unwrap().access_lists[0].others;
        (others, others_warning(&args).map(|its| its.sentence))
    };
    let both = "--allow 10.0.0.0/8 --deny 10.6.0.0/16";
    let sentence = |missing: &str| {
        let sentence = format!(
            "clients in none of the prefixes may connect: add {missing} to let in only those \
             of --allow"
        );
        (Some(Access::Allow), Some(sentence))
    };
    assert_eq!(warning(both), sentence("--deny 0.0.0.0/0 --deny ::/0"));
    assert_eq!(
        warning(&format!("{both} --deny 0.0.0.0/0")),
        sentence("--deny ::/0")
    );
    let whole = format!("{both} --deny 0.0.0.0/0 --deny ::/0");
    assert_eq!(warning(&whole), (Some(Access::Allow), None));
    assert_eq!(warning("--allow 10.0.0.0/8"), (Some(Access::Deny), None));
    assert_eq!(warning("--deny 10.0.0.0/8"), (Some(Access::Allow), None));
}

#[test]
fn limits_of_a_source_are_a_group() {
    let limits = |flags: &str| {
        let config = config(&format!("--from [::]:80 --to unix:/b {flags}")).unwrap();
        config.listeners[0].source_limits
    };
    let both = SourceLimits {
        connections: NonZeroU32::new(20),
        rate: NonZeroU32::new(50),
        ..SourceLimits::default()
    };
    let rate = SourceLimits {
        connections: None,
        ..both
    };
    assert_eq!(
        limits("--source-rate 50 --source-connections 20"),
        Some(both)
    );
    assert_eq!(
        limits("--source-rate 50 --source-connections off"),
        Some(rate)
    );
    assert_eq!(limits("--source-rate off"), None);
    let error = config("--from unix:/a --to unix:/b --source-rate 5").unwrap_err();
    let sentence = "clients of a Unix socket have no address: leave it out";
    assert!(error.to_string().contains(sentence), "{error}");
}

#[test]
fn every_flag_arrives() {
    let got = config(
        "--from [::1]:80 --from unix:/a --to unix:/b,weight=2,max_connections=5 \
         --to localhost:81,backup --strategy hash --key sni --max-load 1.25 \
         --persist http_cookie(a) --persist-ttl 1h --peek-timeout 1m --server-first-timeout 2s \
         --workers 2 --max-connections 7 --attempts 1 --connect-timeout 1s --idle-timeout off \
         --half-closed-timeout 2s --session-timeout 1h --shutdown-grace 0s --access-log a.log \
         --log-format json --histogram-log b.hlog --check http --admin unix:/run/a.sock",
    )
    .unwrap();
    let timeouts = Timeouts {
        connect: Duration::from_secs(1),
        idle: None,
        half_closed: Duration::from_secs(2),
        session: Some(Duration::from_secs(3600)),
        peek: Duration::from_secs(60),
        server_first: Duration::from_secs(2),
        ..Timeouts::default()
    };
    let plain = config("--from [::1]:80 --to unix:/b").unwrap().listeners;
    let listener = |bind: &str| Listener {
        name: bind.to_owned(),
        bind: bind.parse().unwrap(),
        attempts: 1,
        timeouts,
        ..plain[0].clone()
    };
    let backend = |to: &str| Backend::written(to.parse().unwrap());
    let first = Backend {
        weight: 2,
        max_connections: NonZeroU32::new(5),
        ..backend("unix:/b")
    };
    let second = Backend {
        backup: true,
        ..backend("localhost:81")
    };
    let strategy = Strategy::Hash(Hash {
        key: Key::Peeked(Field::Sni),
        max_load: Some(125),
    });
    let persist = Persist {
        key: Key::Peeked(Field::HttpCookie("a".to_owned())),
        ttl: Duration::from_secs(3600),
        clients_max: Persist::default().clients_max,
    };
    let pool = Pool {
        strategy,
        persist: Some(persist),
        check: Some(http_check()),
        ..Pool::of(NAME, vec![first, second])
    };
    let want = Config {
        workers: NonZeroU32::new(2),
        max_connections: NonZeroU32::new(7),
        shutdown_grace: Duration::ZERO,
        access_log: Some(AccessLog {
            to: LogSink::File("a.log".into()),
            format: LogFormat::Json,
            ..AccessLog::default()
        }),
        histogram_log: "b.hlog".into(),
        admin: Some(Admin {
            socket: Some("/run/a.sock".into()),
            required: true,
            ..Admin::default()
        }),
        ..Config::of(vec![listener("[::1]:80"), listener("unix:/a")], vec![pool])
    };
    assert_eq!(got, want);
}

fn pool(flags: &str) -> Result<Pool, ProxyError> {
    let flags = format!("--from unix:/a --to unix:/b {flags}");
    config(&flags).map(|mut config| config.pools.remove(0).into_owned())
}

#[test]
fn a_check_is_a_word_or_a_group_as_in_a_file() {
    let check = |text: &str| {
        let flags = ["--from", "unix:/a", "--to", "unix:/b", "--check", text];
        let arguments = ["mahoraga", "proxy"].into_iter().chain(flags);
        let Task::Proxy(args) = Cli::try_parse_from(arguments).unwrap().command else {
            panic!("another subcommand than proxy");
        };
        proxy_config(&args).unwrap().pools[0].check.clone()
    };
    assert_eq!(check("off"), None);
    assert_eq!(check("tcp"), Some(Check::default()));
    let probe = |text: &str| check(text).map(|check| check.probe);
    for text in [
        "(type: \"http\", path: \"/up\")",
        "(type: \"http\",\npath: \"/up\") // up",
    ] {
        assert!(matches!(probe(text), Some(Probe::Http(request)) if request.path == "/up"));
    }
}

#[test]
fn every_strategy_has_its_defaults() {
    for (name, default) in Strategy::all() {
        let flags = pool(&format!("--strategy {name}")).unwrap();
        let text = format!(
            "(listeners: [(bind: \"unix:/a\", pool: \"default\")], pools: \
             [(name: \"default\", strategy: \"{name}\", backends: [\"unix:/b\"])])"
        );
        let (file, _) = config::parse("f".to_owned(), text.into()).unwrap();
        assert_eq!(flags, *file.pools[0]);
        assert_eq!(flags.strategy, default);
    }
}

#[test]
fn keys_go_where_the_strategy_has_them() {
    let key = Key::Peeked(Field::RdpCookie);
    let tiers = pool("--strategy two_tier --key rdp_cookie").unwrap();
    assert_eq!(tiers.strategy.key(), Some(&key));
    let hash = pool("--strategy hash --max-load off").unwrap();
    assert_eq!(hash.strategy.key(), Some(&Key::default()));
    let sticky = pool("--strategy sticky_round_robin --key rdp_cookie --persist-ttl 1s");
    let persist = Persist {
        key,
        ttl: Duration::from_secs(1),
        ..Persist::default()
    };
    assert_eq!(sticky.unwrap().persists(), Some(&persist));
    let persist = pool("--persist source_ip").unwrap().persist;
    assert_eq!(persist, Some(Persist::default()));
}

#[test]
fn flags_that_do_not_go_together() {
    let error = |flags: &str| pool(flags).unwrap_err().to_string();
    let unix = "--from unix:/l --to unix:/a --connect-timeout 1s --allow ::1";
    assert_eq!(
        config(unix).unwrap_err().to_string(),
        "--allow: clients of a Unix socket have no address: leave it out"
    );
    assert_eq!(
        error("--strategy random --key sni"),
        "--key: the strategy `random` has no such setting: \
         it belongs to `sticky_round_robin`, `hash` and `two_tier`"
    );
    assert_eq!(
        error("--max-load 1.25"),
        "--max-load: the strategy `round_robin` has no such setting: it belongs to `hash`"
    );
    assert_eq!(
        error("--strategy sticky_round_robin --persist sni"),
        "--persist: `sticky_round_robin` persists already: use `round_robin` with persist"
    );
    assert_eq!(
        error("--strategy sticky_round_robin --key source_ip_port"),
        "--key: `source_ip_port` is another with each connection: \
         no client would be known again"
    );
    assert_eq!(
        error("--persist-ttl 1h"),
        "--persist-ttl has no effect alone: add --persist, or --strategy sticky_round_robin"
    );
}

#[test]
fn any_port_is_given_as_often_as_wanted() {
    let config = config("--from 127.0.0.1:0 --from 127.0.0.1:0 --to unix:/b").unwrap();
    let names: Vec<_> = config.listeners.iter().map(|found| &found.name).collect();
    assert_eq!(names, ["127.0.0.1:0", "127.0.0.1:0#2"]);
}

#[test]
fn routes_have_pools_of_their_own() {
    let flags = config(
        "--from 127.0.0.1:8080 --from 127.0.0.1:8081 --to 127.0.0.1:9001 --strategy random \
         --route sni:*.a.example=127.0.0.1:9002 --route protocol:ssh=127.0.0.1:9003,weight=2 \
         --route sni:*.a.example=unix:/b --route sni:~a{1}=?[.]b=refuse",
    );
    let listener = |port| {
        format!(
            "(bind: \"127.0.0.1:{port}\", pool: \"default\", routes: [\
             (sni: [\"*.a.example\"], pool: \"sni:*.a.example\"), \
             (protocol: [\"ssh\"], pool: \"protocol:ssh\"), \
             (sni: [\"~a{{1}}=?[.]b\"], pool: \"refuse\")])"
        )
    };
    let pool = |name: &str, backends: &str| {
        format!("(name: \"{name}\", strategy: \"random\", backends: [{backends}])")
    };
    let text = format!(
        "(listeners: [{}, {}], pools: [{}, {}, {}], access_log: \"off\")",
        listener(8080),
        listener(8081),
        pool("default", "\"127.0.0.1:9001\""),
        pool("sni:*.a.example", "\"127.0.0.1:9002\", \"unix:/b\""),
        pool("protocol:ssh", "(address: \"127.0.0.1:9003\", weight: 2)"),
    );
    let (file, _) = config::parse("f".to_owned(), text.into()).unwrap();
    assert_eq!(flags, Ok(file));
}

#[test]
fn a_route_that_is_wrong_names_its_flag() {
    let error = |route: &str| {
        let flags = format!("--from 127.0.0.1:1 --to 127.0.0.1:2 --route {route}");
        config(&flags).unwrap_err().to_string()
    };
    let told = error("protocol:sch=127.0.0.1:3");
    assert_eq!(
        told,
        "--route: invalid item of `protocol` `sch`, did you mean `ssh`?"
    );
    let told = error("protocol:https=127.0.0.1:3");
    assert!(told.ends_with("did you mean `tls`?"), "{told}");
    let told = error("sni:*=127.0.0.1:3");
    assert!(told.starts_with("--route: "), "{told}");
    let long = format!("sni:{}.example=127.0.0.1:3", "a".repeat(60));
    let flags = format!("--from 127.0.0.1:1 --to 127.0.0.1:2 --route {long}");
    assert_eq!(config(&flags).unwrap().pools[1].name, "route 1");
    for wrong in [
        "sni=127.0.0.1:3",
        "sni:a.example",
        "host:a=127.0.0.1:3",
        "sni:a=b",
        "sni:a=tls:b:3",
    ] {
        let arguments = [
            "mahoraga", "proxy", "--from", "[::1]:1", "--to", "unix:/a", "--route",
        ];
        let arguments = arguments.into_iter().chain([wrong]);
        let error = Cli::try_parse_from(arguments).unwrap_err().to_string();
        assert_eq!(
            error.contains("`tls:` is for --to alone"),
            wrong.contains("tls:"),
            "{error}"
        );
    }
    let arguments = [
        "mahoraga", "proxy", "--from", "[::1]:1", "--to", "unix:/a", "--route",
    ];
    let arguments = arguments
        .into_iter()
        .chain(["client:10.0.0.0/8=127.0.0.1:3"]);
    let told = Cli::try_parse_from(arguments).unwrap_err().to_string();
    let want = "the condition `client` needs a configuration file: expected sni:NAME=ADDR";
    assert!(told.contains(want), "{told}");
}
