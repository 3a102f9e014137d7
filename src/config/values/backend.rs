//! A backend in one line, for `--to` and files of backends: an address, then options after commas.

use std::num::NonZeroU32;

use super::ValueError;
use crate::config::Backend;

/// The options that may follow the address.
#[derive(Clone, Copy, Debug)]
enum Extra {
    Weight,
    MaxConnections,
    Backup,
}

/// Reads `ADDR[,weight=N][,max_connections=N][,backup]`. If an option is given twice, the last one
/// counts. A path with a comma can only be written in `config.ron`.
///
/// # Errors
/// The address or an option is invalid.
pub fn backend(text: &str) -> Result<Backend, ValueError> {
    let mut parts = text.split(',');
    let address = parts.next().unwrap_or_default();
    let mut backend = super::backend_at(address)?;
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        let number = |option, value, range| {
            let read = super::number(value, range);
            read.map_err(|error| ValueError::Refused(error.about(option, value)))
        };
        match (super::named("option", name, &EXTRAS)?, value) {
            (Extra::Weight, Some(value)) => {
                let weight = number("weight", value, super::WEIGHT)?;
                backend.weight = u16::try_from(weight).unwrap_or(u16::MAX);
            }
            (Extra::MaxConnections, Some(value)) => {
                let limit = number("max_connections", value, super::CONNECTIONS)?;
                backend.max_connections = NonZeroU32::new(limit);
            }
            (Extra::Backup, None) => backend.backup = true,
            (Extra::Weight | Extra::MaxConnections, None) | (Extra::Backup, Some(_)) => {
                let expected = "weight=N, max_connections=N or backup".to_owned();
                let error = ValueError::Unexpected(expected);
                return Err(ValueError::Refused(error.about("option", part)));
            }
        }
    }
    Ok(backend)
}

const EXTRAS: [(&str, Extra); 3] = [
    ("weight", Extra::Weight),
    ("max_connections", Extra::MaxConnections),
    ("backup", Extra::Backup),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_options() {
        let plain = Backend::at("127.0.0.1:1".parse().unwrap());
        assert_eq!(backend("127.0.0.1:1"), Ok(plain.clone()));
        let full = Backend {
            weight: 0,
            max_connections: NonZeroU32::new(10),
            backup: true,
            ..plain
        };
        let text = "127.0.0.1:1,backup,max_connections=10,weight=0";
        assert_eq!(backend(text), Ok(full));
        let path = backend("unix:/a=b,weight=256").unwrap();
        assert_eq!((path.name.as_str(), path.weight), ("unix:/a=b", 256));
    }

    #[test]
    fn options_that_are_none() {
        let error = |options: &str| {
            let error = backend(&format!("127.0.0.1:1,{options}")).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            error("wieght=1"),
            "invalid option `wieght`, did you mean `weight`?"
        );
        assert_eq!(
            error(""),
            "invalid option ``: expected `weight`, `max_connections` or `backup`"
        );
        assert_eq!(
            error("weight=257"),
            "invalid weight `257`: expected a whole number, 0 to 256"
        );
        assert_eq!(
            error("weight=1,max_connections=off"),
            "invalid max_connections `off`: expected a whole number, 1 to 16777216"
        );
        for bad in ["weight", "max_connections", "backup=true"] {
            let want =
                format!("invalid option `{bad}`: expected weight=N, max_connections=N or backup");
            assert_eq!(error(bad), want);
        }
        let error = backend(",weight=1").unwrap_err().to_string();
        assert!(error.contains("has no port"), "{error}");
    }
}
