//! The text of a configuration.

use std::num::NonZeroU32;
use std::path::Path;

use mahoraga::config::{self, Config, ConfigError, Host, LogSink};

/// A valid configuration is written and read again as the same one; a mistake has a sentence and a
/// place.
pub fn configuration(bytes: &[u8]) {
    match config::parse("config.ron".into(), bytes.to_vec()) {
        Ok((config, source)) => {
            let _ = config::warnings(&config, HOST, Some(&source));
            assert_holds(&config);
        }
        Err(ConfigError::Mistakes(all)) => {
            assert!(!all.is_empty());
            assert!(all.iter().all(|mistake| !mistake.sentence.is_empty()));
        }
        Err(ConfigError::Unreadable { why, .. }) => panic!("nothing was to be opened: {why}"),
    }
}

fn assert_holds(config: &Config) {
    assert!(!config.listeners.is_empty());
    for listener in &config.listeners {
        assert!(listener.pool < config.pools.len());
    }
    if is_file_of_a_reserved_name(config) {
        return;
    }
    let text = config.to_ron();
    let again = config::parse("again.ron".into(), text.clone().into_bytes());
    match again {
        Ok((again, _)) => assert_eq!(again, *config, "{text}"),
        Err(error) => panic!("{error}\nin {text}"),
    }
}

/// [`Config::to_ron`] says that it cannot write these.
fn is_file_of_a_reserved_name(config: &Config) -> bool {
    let is_reserved = |path: &Path| path == Path::new("-") || path == Path::new("off");
    let logs = config.access_log.iter().map(|log| &log.to);
    logs.chain([])
        .any(|to| matches!(to, LogSink::File(path) if is_reserved(path)))
}

const HOST: Host = Host {
    descriptors_max: 1 << 20,
    cpus: NonZeroU32::MIN,
    memory: 1 << 30,
};
