//! Operations: those that are done at once, and those in progress.

use gristmill_core::Monotonic;
use tokio::sync::oneshot;

use super::act;
use super::batch::Batch;
use super::command::Answer;
use super::job::{Job, Step};
use super::keys::QueueId;
use super::state::State;
use super::sweep::Progress;
use crate::contract::{Operated, Operation, PauseIf, QueueError, ResumeIf};

/// An operation in progress, and who asked for it; nobody, if it began in an earlier process.
struct Running {
    job: Job,
    next: Monotonic,
    answer: Option<Answer<Operated>>,
}

/// All operations in progress.
#[derive(Default)]
pub(crate) struct Operations(Vec<Running>);

impl Operations {
    /// What an earlier opening of the store has left undone.
    pub(crate) fn left_over(state: &State) -> Self {
        let deleting = state.queues.iter().filter(|(_, queue)| queue.deleting).map(|(id, _)| *id);
        let running = |id| Running { job: Job::delete(id), next: Monotonic::default(), answer: None };
        Self(deleting.map(running).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the next step is to be done.
    pub(crate) fn next_step(&self) -> Option<Monotonic> {
        self.0.iter().map(|running| running.next).min()
    }

    /// None of them will be finished.
    pub(crate) fn refuse(&mut self, error: &QueueError) {
        for answer in self.0.drain(..).filter_map(|running| running.answer) {
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// A step of each.
    pub(crate) fn step(
        &mut self,
        state: &mut State,
        batch: &mut Batch<'_>,
        min_numbers: u64,
    ) -> Result<Progress, QueueError> {
        let mut progress = Progress::Finished;
        for mut running in std::mem::take(&mut self.0) {
            let deserted = running.answer.as_ref().is_some_and(oneshot::Sender::is_closed);
            if deserted && !running.job.outlives_its_caller() {
                continue;
            }
            // Each step may use many numbers: the next commit has a fresh reservation.
            if running.next > batch.now.monotonic || state.numbers_left() < min_numbers {
                self.0.push(running);
                continue;
            }
            match running.job.step(state, &mut batch.tx, batch.now)? {
                Step::Finished => {
                    if let Some(answer) = running.answer {
                        batch.answer_on_sync(answer, Ok(running.job.into_result()));
                    }
                }
                Step::More => {
                    progress = Progress::More;
                    self.0.push(running);
                }
                Step::Later(next) => self.0.push(Running { next, ..running }),
            }
        }
        Ok(progress)
    }

    /// Does what is asked, or begins with it.
    pub(crate) fn start(
        &mut self,
        state: &mut State,
        batch: &mut Batch<'_>,
        operation: Operation,
        answer: Answer<Operated>,
    ) -> Result<Progress, QueueError> {
        let mut job = match begin(state, batch, operation) {
            Ok(Begun::Job(job)) => job,
            Ok(Begun::Done(changed)) => {
                batch.answer_on_sync(answer, Ok(Operated { changed, replies: Vec::new() }));
                return Ok(Progress::Finished);
            }
            Err(error) => {
                batch.answer_on_sync(answer, Err(error));
                return Ok(Progress::Finished);
            }
        };
        match job.step(state, &mut batch.tx, batch.now)? {
            // Most operations name a few entries, and are done at once.
            Step::Finished => batch.answer_on_sync(answer, Ok(job.into_result())),
            Step::More => {
                self.0.push(Running { job, next: batch.now.monotonic, answer: Some(answer) });
                return Ok(Progress::More);
            }
            Step::Later(next) => self.0.push(Running { job, next, answer: Some(answer) }),
        }
        Ok(Progress::Finished)
    }
}

/// What an operation is.
enum Begun {
    /// One that goes on in steps.
    Job(Job),
    /// Done, and so many entries were changed.
    Done(u64),
}

/// Reads before it writes: an error has changed nothing.
fn begin(state: &mut State, batch: &mut Batch<'_>, operation: Operation) -> Result<Begun, QueueError> {
    let (tx, now) = (&mut batch.tx, batch.now);
    Ok(match operation {
        Operation::Act(act) => Begun::Job(Job::act(state, act)?),
        Operation::Replay(replay) => Begun::Job(Job::replay(state, replay, now)?),
        Operation::Delete { queue } => {
            let id = state.queue_id(&queue)?;
            state.doom(id)?;
            Begun::Job(Job::delete(id))
        }
        Operation::Pause { queue, reason, only_if } => {
            let id = state.queue_id(&queue)?;
            let met = match only_if {
                PauseIf::Any => true,
                PauseIf::NotPaused => state.queue(id)?.paused.is_none(),
            };
            Begun::Done(set_pause(state, id, met.then_some(Some(reason)))?)
        }
        Operation::Resume { queue, only_if } => {
            let id = state.queue_id(&queue)?;
            let met = match only_if {
                ResumeIf::Any => true,
                ResumeIf::Reason(reason) => state.queue(id)?.paused.as_ref() == Some(&reason),
            };
            Begun::Done(set_pause(state, id, met.then_some(None))?)
        }
        Operation::FreeKey { queue, key } => Begun::Done(act::free_key(state, tx, &queue, &key, now)?),
        Operation::LimitBucket { bucket, max_bytes } => {
            state.buckets.limit(tx, &bucket, max_bytes);
            Begun::Done(0)
        }
    })
}

/// Pauses or resumes a queue, unless the condition for that was not met (`None`); how often: 1 or 0.
fn set_pause(state: &mut State, queue: QueueId, pause: Option<Option<String>>) -> Result<u64, QueueError> {
    let Some(pause) = pause else { return Ok(0) };
    state.queue_mut(queue)?.paused = pause;
    // A pause lets in those who wait to go through this one.
    state.woken.insert(queue);
    Ok(1)
}
