//! What happens, told to those who watch and to the operational log.

use crate::admin::{
    self,
    model::{Event, EventKind},
};

/// Where events go.
#[derive(Clone, Debug)]
pub(super) struct Events(admin::Events);

/// How an event is told in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// The log has it already.
    Quiet,
    /// As it should be.
    Info,
    /// Somebody should look.
    Warn,
    /// What was asked for could not be done.
    Error,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Subject<'a> {
    pub(super) pool: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
}

impl<'a> Subject<'a> {
    pub(super) fn pool(pool: &'a str) -> Self {
        Self {
            pool: Some(pool),
            backend: None,
        }
    }

    pub(super) fn backend(pool: &'a str, backend: &'a str) -> Self {
        Self {
            pool: Some(pool),
            backend: Some(backend),
        }
    }
}

impl Events {
    pub(super) fn new(watchers: &admin::Events) -> Self {
        Self(watchers.clone())
    }

    /// Tells of something. `kind` is for programs, `message` a sentence for people.
    pub(super) fn tell(
        &self,
        weight: Weight,
        kind: EventKind,
        about: Subject<'_>,
        message: String,
    ) {
        match weight {
            Weight::Quiet => {}
            Weight::Info => log::info!("{message}"),
            Weight::Warn => log::warn!("{message}"),
            Weight::Error => log::error!("{message}"),
        }
        self.0.tell(Event {
            kind,
            pool: about.pool.map(str::to_owned),
            backend: about.backend.map(str::to_owned),
            message,
            ..Event::default()
        });
    }
}
