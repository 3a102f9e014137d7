//! What goes wrong with discovery, in sentences for the log, the events and the status.

use crate::admin::model::EventKind;
use crate::config::Backend;
use crate::control::events::{Events, Severity, Subject};

use super::question::Question;
use super::{Discoveries, QuestionState};

impl QuestionState {
    /// What went wrong at the last look, if anything did.
    pub(super) fn problem(&self, subject: &str) -> Option<String> {
        let error = self.error.as_ref()?;
        let kept = if self.is_kept {
            "; keeping the last known addresses"
        } else {
            ""
        };
        Some(format!("{subject}: {error}{kept}"))
    }

    /// Reports that looks begin to fail, or fail otherwise than before, or succeed again.
    pub(super) fn report(&self, events: &Events, subject: &str, asked_by: &[String]) {
        let about = asked_by.first().map(|pool| Subject::pool(pool));
        let (severity, kind, message) = match self.problem(subject) {
            Some(problem) => (Severity::Warn, EventKind::DiscoveryFailed, problem),
            None => (
                Severity::Info,
                EventKind::DiscoveryRestored,
                format!("{subject} works again"),
            ),
        };
        events.tell_one_of_many(severity, kind, about.unwrap_or_default(), message);
    }
}

impl Discoveries {
    /// What goes wrong now: at most so many sentences, and how many more there are.
    #[must_use]
    pub(in crate::control) fn problems(&self, at_most: usize) -> (Vec<String>, usize) {
        let mut failing = self
            .followed
            .iter()
            .filter(|(_, its)| its.state.error.is_some());
        let first = failing.by_ref().take(at_most);
        let first = first.filter_map(|(question, its)| {
            let is_host = self.is_host(question);
            its.state
                .problem(&subject(is_host, question, &its.asked_by))
        });
        let mut sentences: Vec<_> = first.collect();
        let mut left_out = self.left_out.messages().chain(self.staying.messages());
        let left = at_most - sentences.len();
        sentences.extend(left_out.by_ref().take(left));
        (sentences, failing.count() + left_out.count())
    }

    /// Why a backend of a pool has no address yet.
    #[must_use]
    pub(in crate::control) fn why_unresolved(&self, pool: &str, backend: &Backend) -> String {
        let error = backend
            .host
            .as_deref()
            .and_then(|host| self.host_error(host));
        let why = error.or_else(|| self.left_out.sentence(pool, &backend.name));
        why.unwrap_or_else(|| "its host name was not looked up yet".to_owned())
    }

    fn is_host(&self, question: &Question) -> bool {
        match question {
            Question::Addresses(name) => self.hosts.contains_key(name),
            Question::Services(_)
            | Question::File(_)
            | Question::Etcd(_)
            | Question::Consul(_)
            | Question::Kubernetes(_) => false,
        }
    }
}

/// What a question is about: a host name of backends, or the pools that ask it, or itself where
/// none does yet.
pub(super) fn subject(is_host: bool, question: &Question, asked_by: &[String]) -> String {
    let itself = || match question {
        Question::Addresses(name) => format!("host name `{name}`"),
        Question::Services(name) => format!("service records of `{name}`"),
        Question::File(path) => format!("file `{}`", path.display()),
        Question::Etcd(source) => format!("etcd, `{}`", source.prefix),
        Question::Consul(source) => format!("Consul, `{}`", source.service),
        Question::Kubernetes(source) => {
            format!("Kubernetes, `{}/{}`", source.namespace, source.service)
        }
    };
    match asked_by {
        [pool] if !is_host => format!("discovery of pool `{pool}`"),
        [first, rest @ ..] if !is_host => {
            format!("discovery of pool `{first}` and {} more", rest.len())
        }
        _ => itself(),
    }
}
