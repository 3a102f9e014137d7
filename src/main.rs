//! The `mahoraga` program (stand-in until the command line lands).
use mahoraga::config::*;
fn main() {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let args: Vec<String> = std::env::args().collect();
    let get = |n: &str| {
        args.windows(2)
            .filter(|w| w[0] == n)
            .map(|w| w[1].clone())
            .collect::<Vec<_>>()
    };
    let backends = get("--to")
        .iter()
        .map(|a| Backend {
            name: a.clone(),
            address: a.parse().unwrap(),
            weight: 1,
        })
        .collect();
    let listeners = get("--from")
        .iter()
        .map(|a| Listener {
            name: a.clone(),
            bind: a.parse().unwrap(),
            pool: 0,
            max_connections: None,
            attempts: 3,
            timeouts: Timeouts::default(),
        })
        .collect();
    let config = Config {
        workers: get("--workers").first().map(|w| w.parse().unwrap()),
        max_connections: get("--max-connections").first().map(|w| w.parse().unwrap()),
        shutdown_grace: SHUTDOWN_GRACE,
        access_log: get("--access-log").first().map(|p| AccessLog {
            to: if p == "-" {
                LogSink::Stdout
            } else {
                LogSink::File(p.into())
            },
            format: LogFormat::KeyValue,
        }),
        histogram_log: "/tmp/m.hlog".into(),
        listeners,
        pools: vec![Pool {
            name: "p".into(),
            strategy: Strategy::RoundRobin,
            backends,
        }],
    };
    if let Err(e) = mahoraga::control::run(&config, || log::info!("ready")) {
        eprintln!("{e}");
        std::process::exit(i32::from(e.exit_code()));
    }
}
