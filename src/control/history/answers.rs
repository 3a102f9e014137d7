//! Answers from the history: from its file and from memory, or from memory alone where the disk
//! does not answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, oneshot};

use super::{Shared, is_slow};
use crate::control::aside;
use crate::history::{
    AskError, Asked, EventQuestion, HistoryAnswer, HistoryEvent, HistoryEventQuery, HistoryQuery,
    Question, Store, StoreError, open_beside,
};
use crate::sys;

/// Answers from the history.
#[derive(Clone, Debug)]
pub struct HistoryReader(pub(super) Arc<Shared>);

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum HistoryRefusal {
    /// Others are being answered.
    Busy,
    /// The question, or the store.
    Refused(AskError),
}

impl Shared {
    /// Whether the disk has not answered its thread, or a look, for a while.
    fn is_stuck(&self) -> bool {
        let working = self
            .file
            .as_ref()
            .map(|file| file.state.lock().working_since);
        let looks = self.looks.lock();
        looks.iter().copied().chain(working.flatten()).any(is_slow)
    }

    /// The store in the file, to read from it; `None`: there is no file. An error says why the file
    /// is left out: a disk that does not answer its thread would not answer this one.
    pub(super) fn look(&self, reach: Reach) -> Result<Option<(Store, FileLook<'_>)>, String> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let left_out = |why: &str| {
            let path = file.path.display();
            format!("only what is in memory: the history in {path} {why}")
        };
        if reach == Reach::Memory || self.is_stuck() {
            return Err(left_out("does not answer"));
        }
        if !file.state.lock().is_open {
            return Err(left_out("can't be written, or is not open yet"));
        }
        let began = sys::monotonic();
        self.looks.lock().push(began);
        let look = FileLook { of: self, began };
        match open_beside(&file.path) {
            Ok(store) => Ok(Some((store, look))),
            Err(error) => Err(left_out(&format!("can't be read: {error}"))),
        }
    }

    pub(super) fn history(
        &self,
        query: &HistoryQuery,
        reach: Reach,
    ) -> Result<HistoryAnswer, AskError> {
        let question = Question::new(query, SystemTime::now())?;
        let (file, note) = match self.look(reach) {
            Ok(file) => (file, None),
            Err(note) => (None, Some(note)),
        };
        let mut spans = vec![self.memory.lock().span()?];
        if let Some((store, _)) = &file {
            spans.push(store.span()?);
        }
        let mut asked = Asked::new(question, &spans)?;
        let mut from = 0;
        let mut damage = None;
        if let Some((store, _)) = &file {
            from = self.file_has_until();
            let unreadable = match asked.take(store, 0, from) {
                Err(AskError::Store(StoreError::Corrupt(why))) => Some(why),
                taken => {
                    taken?;
                    let count = asked.unreadable();
                    (count > 0).then(|| format!("{count} samples can't be read"))
                }
            };
            damage = unreadable.and_then(|what| self.tell_unreadable(what));
        }
        drop(file);
        asked.take(&self.memory.lock(), from, u64::MAX)?;
        Ok(HistoryAnswer {
            notes: note.into_iter().chain(damage).collect(),
            ..asked.history()
        })
    }

    /// The end of what is taken from the file. What comes into it meanwhile is in memory too. A
    /// file may have later seconds, of a time when the clock was wrong: those of memory are right.
    pub(super) fn file_has_until(&self) -> u64 {
        let file = self.file.as_ref();
        let copied = file.and_then(|file| file.state.lock().copied);
        let last = self.memory.lock().last();
        // The clock may have been set back since the file's thread has looked.
        let copied = copied.map(|copied| last.map_or(copied, |last| copied.min(last)));
        copied.map_or(0, |copied| copied.saturating_add(1))
    }

    /// Remembers what could not be read of the file, for the status; the note of the answer.
    fn tell_unreadable(&self, what: String) -> Option<String> {
        let file = self.file.as_ref()?;
        let note = file.damage(&what);
        file.state.lock().unreadable = Some(what);
        Some(note)
    }

    fn events(
        &self,
        query: &HistoryEventQuery,
        reach: Reach,
    ) -> Result<Vec<HistoryEvent>, AskError> {
        let question = EventQuestion::new(query, SystemTime::now())?;
        let mut events = self.memory.lock().events(&question)?;
        if let Ok(Some((store, _look))) = self.look(reach) {
            // Of those in both, the file's part ends where that of memory begins.
            let begin = self.memory.lock().first_event()?;
            let older = store.events(&question.before(begin))?;
            events.extend(older);
            events.truncate(question.limit());
        }
        Ok(events.into_iter().map(HistoryEvent::from).collect())
    }
}

/// What a question may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The file and memory.
    All,
    /// Memory alone: the file would be waited for.
    Memory,
}

/// A look into the file is under way, until this is dropped.
pub(super) struct FileLook<'a> {
    of: &'a Shared,
    began: u64,
}

impl Drop for FileLook<'_> {
    fn drop(&mut self) {
        let mut looks = self.of.looks.lock();
        if let Some(place) = looks.iter().position(|began| *began == self.began) {
            looks.swap_remove(place);
        }
    }
}

impl HistoryReader {
    /// One that has nothing, for a balancer that records nothing.
    pub(crate) fn empty() -> Self {
        let shared = Shared::new(None).expect("an empty store in memory needs little of it");
        Self(Arc::new(shared))
    }

    /// What the figures were.
    pub(crate) async fn history(
        &self,
        query: HistoryQuery,
    ) -> Result<HistoryAnswer, HistoryRefusal> {
        self.ask(move |shared, reach| shared.history(&query, reach))
            .await
    }

    /// What happened.
    pub(crate) async fn events(
        &self,
        query: HistoryEventQuery,
    ) -> Result<Vec<HistoryEvent>, HistoryRefusal> {
        self.ask(move |shared, reach| shared.events(&query, reach))
            .await
    }

    /// Asks the file and memory, and memory alone where the disk does not answer.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&Shared, Reach) -> Result<T, AskError> + Clone + Send + 'static,
    ) -> Result<T, HistoryRefusal> {
        let take = |places: &Arc<Semaphore>| {
            let place = Arc::clone(places).try_acquire_owned();
            place.map_err(|_| HistoryRefusal::Busy)
        };
        let ask = |place, reach| {
            let (shared, question) = (Arc::clone(&self.0), question.clone());
            move || {
                let _place = place;
                question(&shared, reach)
            }
        };
        let outcome = |answer: Result<Result<T, AskError>, _>| {
            let answer = answer.map_err(|_: oneshot::error::RecvError| HistoryRefusal::Busy)?;
            answer.map_err(HistoryRefusal::Refused)
        };
        if !self.0.is_stuck() {
            let answer = aside::consult(ask(take(&self.0.places)?, Reach::All));
            if let Ok(answer) = tokio::time::timeout(LOOK_TIME, answer).await {
                return outcome(answer);
            }
        }
        let place = take(&self.0.memory_places)?;
        outcome(aside::compute(ask(place, Reach::Memory)).await)
    }
}

/// How long a question waits for the file: less than the API waits for an answer.
const LOOK_TIME: Duration = Duration::from_secs(3);
