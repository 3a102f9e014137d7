//! The answers that a configuration needs before it takes effect.

use crate::config::Config;

use super::question::Question;
use super::{Discoveries, QuestionState};

/// Questions of a configuration that may have no answer yet.
#[derive(Debug)]
pub(in crate::control) struct Awaited(Vec<Question>);

impl Discoveries {
    /// Begins to ask what a configuration asks that may take effect, so that the answers are there
    /// when it does. To be followed by [`Self::end_prepared`].
    pub(in crate::control) fn prepare(&mut self, config: &Config) -> Awaited {
        let all: Vec<_> = Question::all(config).into_iter().collect();
        for question in &all {
            self.ask(question, config);
        }
        Awaited(all)
    }

    /// Whether each question has had an answer, a failure included. Those that have are not looked
    /// at again.
    pub(in crate::control) fn has_answers(&mut self, to: &mut Awaited, config: &Config) -> bool {
        while let Some(question) = to.0.last() {
            // Another change may have ended it meanwhile.
            self.ask(question, config);
            let followed = self.followed.get(question);
            if !followed
                .map(|its| &its.state)
                .is_some_and(QuestionState::is_known)
            {
                return false;
            }
            to.0.pop();
        }
        true
    }

    /// Ends what was prepared and is not followed.
    pub(in crate::control) fn end_prepared(&mut self) {
        let hosts = &self.hosts;
        self.followed.retain(|question, followed| {
            let is_host = matches!(question, Question::Addresses(name) if hosts.contains_key(name));
            is_host || !followed.asked_by.is_empty()
        });
    }

    fn ask(&mut self, question: &Question, config: &Config) {
        if !self.followed.contains_key(question) {
            let followed = self.begin(question, question.resolvers(config), None);
            self.followed.insert(question.clone(), followed);
        }
    }
}
