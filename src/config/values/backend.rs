//! A backend in one line, for `--to` and files of backends: an address, then options after commas.

use std::num::NonZeroU32;

use thiserror::Error;

use super::ValueError;
use crate::config::Backend;

/// Why a line is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BackendError {
    /// The address, or what should be an option.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The value of an option.
    #[error("{option}: {error}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong with its value.
        error: ValueError,
    },
}

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
/// [`BackendError`]
pub fn backend(text: &str) -> Result<Backend, BackendError> {
    let mut parts = text.split(',');
    let address = parts.next().unwrap_or_default();
    let mut backend = super::backend_at(address)?;
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        let number = |option, value, range| {
            super::number(value, range).map_err(|error| BackendError::Option { option, error })
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
                let value = part.to_owned();
                let wanted = "written as weight=N, max_connections=N or backup".to_owned();
                return Err(ValueError::Not { value, wanted }.into());
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
            "no option is called `wieght`, did you mean `weight`?"
        );
        assert_eq!(
            error(""),
            "no option is called ``: expected `weight`, `max_connections` or `backup`"
        );
        assert_eq!(
            error("weight=257"),
            "weight: `257` is out of range: expected 0 to 256"
        );
        assert_eq!(
            error("weight=1,max_connections=off"),
            "max_connections: `off` is not a whole number"
        );
        for bad in ["weight", "max_connections", "backup=true"] {
            let want = format!("`{bad}` is not written as weight=N, max_connections=N or backup");
            assert_eq!(error(bad), want);
        }
        let error = backend(",weight=1").unwrap_err().to_string();
        assert!(error.contains("has no port"), "{error}");
    }
}
