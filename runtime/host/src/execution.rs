//! One call of an instance, whatever it is given: its limits, its end, and what is left of it.

use std::future::{Future as _, poll_fn};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_core::units::format_size;
use gristmill_core::{Outcome, StateUse};
use wasmtime::{Store, UpdateDeadline};

use crate::component::Component;
use crate::invocation::{Invocation, Place, Room};
use crate::ledger::{CpuMeter, Ledger};
use crate::live::Call;
use crate::log::{LogLine, Stream};
use crate::options::Limits;
use crate::outbox::Emit;
use crate::outcome::{self, DeadlinePassed, Failure, Killed};
use crate::replay::Scene;
use crate::reuse::Seat;
use crate::slices::give_way;
use crate::state::State;
use crate::stdio::Stdio;

/// After the time-out, a guest that computes has this long to be interrupted with a backtrace; one that waits in a host
/// call is dropped then.
const GRACE: Duration = Duration::from_millis(2);

/// What an instance is given.
pub(crate) enum Work {
    One(Invocation),
    Batch {
        /// Stands for the batch as a whole.
        stand_in: Box<Invocation>,
        deliveries: Vec<Invocation>,
    },
}

/// What is left of a call.
pub(crate) struct Execution {
    /// An outcome for each verdict, or the one that there is instead.
    pub(crate) outcomes: Result<Vec<Outcome>, Outcome>,
    /// What would be emitted.
    pub(crate) emits: Vec<Emit>,
    /// What was read of the state, and would be written.
    pub(crate) state: StateUse,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) ledger: Ledger,
}

impl Work {
    /// Whose limits count, and from whom ids and hops are derived.
    fn about(&self) -> &Invocation {
        match self {
            Self::One(invocation) => invocation,
            Self::Batch { stand_in, .. } => stand_in,
        }
    }

    pub(crate) fn into_deliveries(self) -> Vec<Invocation> {
        match self {
            Self::One(invocation) => vec![invocation],
            Self::Batch { deliveries, .. } => deliveries,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::One(invocation) => invocation.event.size(),
            Self::Batch { deliveries, .. } => deliveries.iter().map(|delivery| delivery.event.size()).sum(),
        }
    }
}

impl Execution {
    fn failed(outcome: Outcome) -> Self {
        let (emits, state, logs) = (Vec::new(), StateUse::default(), Vec::new());
        Self { outcomes: Err(outcome), emits, state, logs, ledger: Ledger::default() }
    }
}

impl Component {
    /// Gives `work` to the instance of `place`, or to a new one there.
    pub(crate) async fn execute(&self, Place(room): Place, work: Work) -> Execution {
        let stdio = match self.ready().stdio(&work.about().event) {
            Ok(stdio) => stdio,
            Err(error) => {
                return Execution::failed(Outcome::HostError { reason: format!("cannot write the event: {error}") });
            }
        };
        let started = Instant::now();
        let (mut seat, is_kept) = match room {
            Room::Kept(seat) => (seat, true),
            Room::New(admission) => {
                let store = self.store(&work.about().limits, stdio, None);
                (Box::new(Seat::new(store, admission)), self.shelf().is_used())
            }
            Room::Replay(admission, scene) => {
                let store = self.store(&work.about().limits, stdio, Some(scene));
                (Box::new(Seat::new(store, admission)), false)
            }
        };
        let (execution, answered) = self.execute_in(&mut seat, work, started).await;
        // Who did not answer may be in the middle of anything.
        if answered && is_kept {
            seat.count();
            self.shelf().put(seat, self.host().pool());
        }
        execution
    }

    /// Also says whether the guest has returned and let go of the event.
    async fn execute_in(&self, seat: &mut Seat, work: Work, started: Instant) -> (Execution, bool) {
        let limits = work.about().limits.clone();
        let bytes_in = work.bytes();
        let listed = self.host().live().list(self.identity(), work.about(), started);
        let deadline = started.checked_add(limits.timeout);
        seat.store.data_mut().begin(work.about(), deadline, Arc::clone(listed.call()));
        self.set_limits(&mut seat.store, &limits);

        let mut meter = CpuMeter::new(self.is_quick());
        let result = {
            // Boxed: everything around it is moved from function to function, and this is by far the largest part.
            let mut call = Box::pin(self.call(seat, work));
            tokio::select! {
                biased;
                result = poll_fn(|cx| meter.measure(|| call.as_mut().poll(cx))) => result,
                () = tokio::time::sleep(limits.timeout.saturating_add(GRACE)) => Err(Failure::Waited),
                () = stop(listed.call()) => Err(Failure::KilledWaiting),
            }
        };
        self.note_quick(meter.is_quick());
        // Asked only where there is an answer: without one, the engine makes an error, which may hold a backtrace.
        let counts = self.host().options().count_fuel;
        let fuel = if counts { seat.store.get_fuel().ok().map(|left| u64::MAX - left) } else { None };
        let state = seat.store.data_mut();
        let answered = result.is_ok() && !state.keeps_event;
        let outcomes = match result {
            Ok(outcomes) => Ok(outcomes.into_iter().map(|outcome| within(outcome, &limits)).collect()),
            Err(failure) => Err(outcome::of_failure(&failure, limits.timeout, &state.log.lock().stderr_tail())),
        };
        let outcomes = match (state.outbox.take_looping(), outcomes) {
            (_, Err(Outcome::HostError { reason })) => Err(Outcome::HostError { reason }),
            (Some(reason), _) => Err(Outcome::Loop { reason }),
            (None, outcomes) => outcomes,
        };
        let (bytes_read, bytes_written) = state.overlay.bytes();
        let (http_sent, http_received) = state.http.end();
        let returned: &[Outcome] = outcomes.as_deref().unwrap_or_default();
        let bytes_returned: u64 = returned.iter().map(result_bytes).sum();
        let ledger = Ledger {
            wall: started.elapsed(),
            cpu: meter.cpu(),
            peak_memory: state.memory.peak(),
            host_calls: state.calls.calls(),
            host_time: state.calls.time(),
            bytes_in: bytes_in.saturating_add(bytes_read).saturating_add(http_received),
            bytes_out: bytes_returned
                .saturating_add(state.outbox.bytes())
                .saturating_add(bytes_written)
                .saturating_add(http_sent),
            http_sent,
            http_received,
            fuel,
        };
        let mut log = state.log.lock();
        // Nothing of it is emitted: it may at least be read.
        if let Some(output) = &state.output {
            log.write(Stream::Stdout, &output.take().bytes);
        }
        let logs = log.finish();
        drop(log);
        let (emits, state) = (state.outbox.take_emits(), state.overlay.take_use());
        (Execution { outcomes, emits, state, logs, ledger }, answered)
    }

    async fn call(&self, seat: &mut Seat, work: Work) -> Result<Vec<Outcome>, Failure> {
        let Seat { bound, store, .. } = seat;
        let bound = match bound {
            Some(bound) => bound,
            None => bound.insert(self.ready().bind(store).await?),
        };
        bound.call(store, work).await
    }

    fn store(&self, limits: &Limits, stdio: Stdio, scene: Option<Arc<Scene>>) -> Store<State> {
        let state = State::new(Arc::clone(self.identity()), limits, stdio, scene);
        let mut store = Store::new(self.platform().engine(), state);
        store.limiter(|state| &mut state.memory);
        store.call_hook(|mut store, hook| {
            store.data_mut().calls.note(hook);
            Ok(())
        });
        store.epoch_deadline_callback(|mut store| {
            let state = store.data_mut();
            state.calls.note_tick();
            if state.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(DeadlinePassed.into());
            }
            if state.is_killed() {
                return Err(Killed.into());
            }
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(give_way())))
        });
        store
    }

    fn set_limits(&self, store: &mut Store<State>, limits: &Limits) {
        // A time slice begins: with the deadline of a new store, which is long past, it would end with the first instruction.
        store.set_epoch_deadline(1);
        store.set_hostcall_fuel(usize::try_from(limits.max_call_bytes).unwrap_or(usize::MAX));
        store.set_max_component_handles(limits.max_handles);
        if self.host().options().count_fuel {
            // It is counted, not limited; an engine that counts has it.
            let _ = store.set_fuel(u64::MAX);
        }
    }
}

/// Waits until a person has ended the call and the guest, if it computes, had the time to be interrupted.
async fn stop(call: &Call) {
    call.killed().await;
    tokio::time::sleep(GRACE).await;
}

fn result_bytes(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Ack { result: Some(result) } => result.len() as u64,
        _ => 0,
    }
}

/// The outcome, unless it is too large.
fn within(outcome: Outcome, limits: &Limits) -> Outcome {
    let (size, max) = (result_bytes(&outcome), limits.max_result_bytes);
    if size <= max {
        return outcome;
    }
    let reason = format!("its result has {}; `max-result-bytes` is {}", format_size(size), format_size(max));
    Outcome::OverLimit { reason }
}
