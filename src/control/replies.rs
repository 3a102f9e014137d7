//! Waiting for the answers of workers, without a waker that they would have to touch.

use std::time::Duration;

use crossbeam::channel::{Receiver, TryRecvError};

/// Where the answers of workers arrive.
pub(super) struct Replies<T> {
    receiver: Receiver<T>,
    /// Workers that were asked.
    asked: usize,
    /// Those of them that took no command.
    lost: usize,
}

/// The answers that came in time.
pub(super) struct Answers<T> {
    pub(super) all: Vec<T>,
    /// Workers that were asked.
    pub(super) asked: usize,
    /// Those of them that run and have not answered.
    pub(super) silent: usize,
}

impl<T> Replies<T> {
    /// `receiver`: where workers that were asked answer. Of `asked` workers `lost` took no command.
    pub(super) fn new(receiver: Receiver<T>, asked: usize, lost: usize) -> Self {
        Self {
            receiver,
            asked,
            lost,
        }
    }

    /// The answers of the workers that answer in time. Workers must not touch this thread's wakers,
    /// so it polls for them. One that ends meanwhile has nothing to tell.
    pub(super) async fn gather(self) -> Answers<T> {
        let (mut all, asked) = (Vec::new(), self.asked);
        for _ in 0..ANSWER_POLLS {
            let last = loop {
                match self.receiver.try_recv() {
                    Ok(answer) => all.push(answer),
                    Err(why) => break why,
                }
            };
            // Every worker that took the command has answered or ended.
            if last == TryRecvError::Disconnected {
                let silent = self.lost;
                return Answers { all, asked, silent };
            }
            tokio::time::sleep(ANSWER_POLL).await;
        }
        let silent = asked.saturating_sub(all.len());
        Answers { all, asked, silent }
    }
}

const ANSWER_POLL: Duration = Duration::from_millis(1);
/// Half a second: a worker that takes longer has a loop turn that long.
const ANSWER_POLLS: u32 = 500;
