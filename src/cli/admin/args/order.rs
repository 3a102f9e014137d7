//! Arguments in the order in which people write them, put into the order that clap reads.

use std::ffi::OsString;

use crate::cli::args::deadline;

/// The arguments with `--wait 5s` as `--wait=5s`: otherwise the duration would be a backend, as in
/// `--wait app-1`.
pub(in crate::cli) fn with_joined_wait(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for argument in arguments {
        let duration = argument.to_str().filter(|text| deadline(text).is_ok());
        match (joined.last_mut(), duration) {
            (Some(wait), Some(duration)) if wait == "--wait" => {
                wait.push("=");
                wait.push(duration);
            }
            _ => joined.push(argument),
        }
    }
    joined
}

/// The arguments with the options of a client behind its command: `--admin PATH status` finds the
/// same balancer as `status --admin PATH`.
pub(in crate::cli) fn with_options_behind(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut moved = 0;
    while let Some(option) = arguments.get(1 + moved).and_then(|one| one.to_str()) {
        let (name, value) = option.split_once('=').unzip();
        moved += match (name.unwrap_or(option), value) {
            ("--json", None) | ("--admin" | "--token-file", Some(_)) => 1,
            ("--admin" | "--token-file", None) => 2,
            _ => break,
        };
    }
    // Without a command they stay: the error is about them.
    if moved == 0 || 1 + moved >= arguments.len() {
        return arguments;
    }
    let options: Vec<_> = arguments.drain(1..=moved).collect();
    let end = arguments.iter().position(|one| one == "--");
    let end = end.unwrap_or(arguments.len());
    arguments.splice(end..end, options);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_behind_wait_is_how_long_to_wait() {
        let joined = |arguments: &[&str]| {
            let joined = with_joined_wait(arguments.iter().map(OsString::from));
            joined.join("+".as_ref()).into_string().unwrap()
        };
        assert_eq!(joined(&["drain", "a", "--wait", "5s"]), "drain+a+--wait=5s");
        assert_eq!(joined(&["--wait", "off", "a", "5s"]), "--wait=off+a+5s");
        let behind = |arguments: &[&str]| {
            let behind = with_options_behind(arguments.iter().map(OsString::from).collect());
            behind.join(" ".as_ref()).into_string().unwrap()
        };
        for (given, read) in [
            ("m --admin a status", "m status --admin a"),
            ("m --admin=a --json status", "m status --admin=a --json"),
            (
                "m --token-file f drain x -- y",
                "m drain x --token-file f -- y",
            ),
            ("m status --admin a", "m status --admin a"),
            ("m --admin a", "m --admin a"),
            ("m --admin", "m --admin"),
            ("m --help", "m --help"),
        ] {
            let words: Vec<_> = given.split(' ').collect();
            assert_eq!(behind(&words), read);
        }
        for as_it_is in [["--wait", "app-1", "5s"], ["--wait=1s", "5s", "a"]] {
            assert_eq!(joined(&as_it_is), as_it_is.join("+"));
        }
    }
}
