//! Queries and bodies of the admin API.

use mahoraga::admin::model::{AccessQuestion, BanFilter, Removal, Watching};
use mahoraga::config::{AccessEdits, Backend, Changeable, Config, Listener, NewBan, Patch, Pool};
use mahoraga::worker::SessionFilter;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is read is written and read again as the same; what is refused has a sentence.
pub fn requests(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 11 {
        0 => patch::<Backend>(bytes),
        1 => patch::<Pool>(bytes),
        2 => patch::<Listener>(bytes),
        3 => patch::<Config>(bytes),
        4 => patch::<AccessEdits>(bytes),
        5 => backend(bytes),
        6 => query::<SessionFilter>(bytes),
        7 => query::<AccessQuestion>(bytes),
        8 => patch::<NewBan>(bytes),
        9 => query::<BanFilter>(bytes),
        _ => {
            query::<Removal>(bytes);
            query::<Watching>(bytes);
        }
    }
}

fn patch<G: Changeable>(bytes: &[u8]) {
    match Patch::<G>::read(bytes) {
        Ok(patch) => {
            let json = patch.json();
            let written = serde_json::to_vec(&json).expect("JSON");
            let again =
                Patch::<G>::read(&written).unwrap_or_else(|error| panic!("{json}: {error}"));
            assert_eq!(again.json(), json);
            assert!(patch.words().all(|(name, _)| !name.is_empty()));
        }
        Err(error) => assert_ne!(error.to_string(), ""),
    }
}

fn backend(bytes: &[u8]) {
    match Backend::read(bytes) {
        Ok(backend) => {
            let json = backend.json();
            let written = serde_json::to_vec(&json).expect("JSON");
            let again = Backend::read(&written).unwrap_or_else(|error| panic!("{json}: {error}"));
            assert_eq!(again, backend, "{json}");
        }
        Err(error) => assert_ne!(error.to_string(), ""),
    }
}

fn query<T>(bytes: &[u8])
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    match serde_urlencoded::from_bytes::<T>(bytes) {
        Ok(query) => {
            let text = serde_urlencoded::to_string(&query).expect("a query");
            let again = serde_urlencoded::from_str::<T>(&text);
            assert_eq!(
                again.expect("a query that was read before"),
                query,
                "{text}"
            );
        }
        Err(error) => assert_ne!(error.to_string(), ""),
    }
}
