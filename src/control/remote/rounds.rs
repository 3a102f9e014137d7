//! Rounds that follow what a server has: each lists it and waits for changes, until something
//! fails or it is to be listed again.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::{Counted, Endpoints, RemoteCounts, RemoteError, Step, jittered};
use crate::config::bounded;

/// What a round may use.
pub(in crate::control) struct Round<'a, T> {
    /// Takes what has happened.
    pub(in crate::control) steps: &'a mpsc::Sender<Step<T>>,
    /// Notified when all is to be listed again.
    pub(in crate::control) again: &'a Notify,
    /// Failures since something last went well.
    failures: &'a mut usize,
}

impl<T> Round<'_, T> {
    /// Something has gone well: the next failure is the first one.
    pub(in crate::control) fn went_well(&mut self) {
        *self.failures = 0;
    }
}

/// What is followed.
pub(in crate::control) trait Rounds<T>: Send {
    /// The word for the kind of server, in the log.
    const KIND: &'static str;

    /// The servers that are asked.
    fn endpoints(&mut self) -> &mut Endpoints;

    /// Lists what there is, and follows its changes. It ends well when it is to be listed again.
    fn round(
        &mut self,
        round: Round<'_, T>,
    ) -> impl Future<Output = Result<(), RemoteError>> + Send;
}

/// Does one round after the other, and sends what happens, until there is no receiver. After a
/// notification it lists again.
pub(in crate::control) async fn follow<T: Send, R: Rounds<T>>(
    mut rounds: R,
    steps: mpsc::Sender<Step<T>>,
    again: Arc<Notify>,
) {
    let counts = Arc::clone(rounds.endpoints().counts());
    let pace = rounds.endpoints().pace();
    let _followed = Counted::new(&counts, |counts| &counts.followed);
    let mut failures = 0_usize;
    loop {
        let began = Instant::now();
        let round = Round {
            steps: &steps,
            again: &again,
            failures: &mut failures,
        };
        let outcome = rounds.round(round).await;
        if steps.is_closed() {
            return;
        }
        let Err(error) = outcome else {
            // A server that forgets all the time is not listed all the time.
            let early = pace.retry_min.saturating_sub(began.elapsed());
            tokio::time::sleep(jittered(early / 2)).await;
            continue;
        };
        failures += 1;
        RemoteCounts::add(&counts.failures, 1);
        let endpoints = rounds.endpoints();
        let why = bounded(format!("{}: {error}", endpoints.current()));
        log::debug!("{}: {why}", R::KIND);
        endpoints.turn();
        let rounds = failures / endpoints.count();
        let pause = match rounds {
            // Another endpoint may be well.
            0 => pace.retry_min / 10,
            rounds => pace.backed_off(rounds),
        };
        let pause = jittered(pause);
        if rounds > 0 && steps.send(Step::Failed(why, pause)).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = again.notified() => {}
        }
    }
}
