//! What happens, told to those who watch and to the operational log.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::SystemTime;

use tokio::sync::broadcast;

use crate::admin::model::Event;

/// Where events go. Clones tell the same watchers.
#[derive(Clone, Debug)]
pub(super) struct Events {
    watchers: broadcast::Sender<Event>,
    number: Rc<RefCell<u64>>,
}

/// How an event is told in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
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
    pub(super) fn new(watchers: broadcast::Sender<Event>) -> Self {
        Self {
            watchers,
            number: Rc::default(),
        }
    }

    /// Tells of something. `kind` is a word for programs, `message` a sentence for people.
    pub(super) fn tell(&self, weight: Weight, kind: &str, about: Subject<'_>, message: String) {
        match weight {
            Weight::Info => log::info!("{message}"),
            Weight::Warn => log::warn!("{message}"),
            Weight::Error => log::error!("{message}"),
        }
        *self.number.borrow_mut() += 1;
        // Nobody may be watching.
        let _ = self.watchers.send(Event {
            number: *self.number.borrow(),
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            kind: kind.to_owned(),
            pool: about.pool.map(str::to_owned),
            backend: about.backend.map(str::to_owned),
            message,
        });
    }
}
