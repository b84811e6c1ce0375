//! One event through one instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_core::units::format_size;
use gristmill_core::{Event, Outcome, StateReader, StateUse, Timestamp};
use tracing::debug;
use wasmtime::{Store, UpdateDeadline};

use crate::component::Component;
use crate::ledger::{Ledger, Metered};
use crate::live::Call;
use crate::log::{LogLine, Stream};
use crate::options::Limits;
use crate::outbox::Emit;
use crate::outcome::{self, DeadlinePassed, Failure, Killed};
use crate::pool::Admission;
use crate::reuse::Seat;
use crate::state::State;
use crate::stdio::Stdio;

/// After the time-out, a guest that computes has this long to be interrupted with a backtrace; one that waits in a host
/// call is dropped then.
const GRACE: Duration = Duration::from_millis(2);

/// A delivery to be handled.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The entry's id: the same for every attempt at this event in this queue.
    pub delivery_id: String,
    /// The queue's name.
    pub queue: String,
    /// 1 for the first.
    pub attempt: u32,
    /// `None`: no limit.
    pub max_attempts: Option<u32>,
    /// When the event entered the queue.
    pub enqueued_at: Timestamp,
    /// The event.
    pub event: Arc<Event>,
    /// The state that it reads. `None`: there is nothing in it.
    pub state: Option<Arc<dyn StateReader>>,
    /// What the handler may use.
    pub limits: Limits,
}

/// What became of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The verdict, or why there is none. Text in it is the guest's: escape it before a person reads it.
    pub outcome: Outcome,
    /// What is to be published; empty unless the outcome is an ack.
    pub emits: Vec<Emit>,
    /// What was read of the state and is to be written to it; empty unless the outcome is an ack.
    pub state: StateUse,
    /// What was logged, whatever the outcome.
    pub logs: Vec<LogLine>,
    /// What it cost.
    pub ledger: Ledger,
}

/// Room for one invocation of one component.
pub struct Place(Room);

enum Room {
    /// For a new instance.
    New(Admission),
    /// An instance that is there.
    Kept(Box<Seat>),
}

impl Component {
    /// Handles one event. Waits for [room](Self::admit); that does not count as the handler's time. Dropping the future
    /// stops the handler; nothing of it remains.
    pub async fn handle(&self, invocation: Invocation) -> Report {
        let place = self.admit(&invocation.limits).await;
        self.handle_in(place, invocation).await
    }

    /// Waits for room for one invocation under `limits`: places in the pool, and memory.
    pub async fn admit(&self, limits: &Limits) -> Place {
        if let Some(seat) = self.shelf().take() {
            return Place(Room::Kept(seat));
        }
        let make_room = || self.host().shelves().make_room();
        Place(Room::New(self.host().pool().admit(self.permits(), limits.memory, make_room).await))
    }

    /// Handles one event in a place that [`admit`](Self::admit) gave for the same limits.
    pub async fn handle_in(&self, Place(room): Place, invocation: Invocation) -> Report {
        let stdio = match self.ready().stdio(&invocation.event) {
            Ok(stdio) => stdio,
            Err(error) => return Report::host_error(&format!("cannot write the event: {error}")),
        };
        let started = Instant::now();
        let mut seat = match room {
            Room::Kept(seat) => seat,
            // Boxed: a store is large.
            Room::New(admission) => Box::new(Seat::new(self.store(&invocation.limits, stdio), admission)),
        };
        let (report, answered) = Box::pin(self.run(&mut seat, invocation, started)).await;
        // Who did not answer may be in the middle of anything.
        if answered && self.shelf().is_used() {
            seat.count();
            self.shelf().put(seat, self.host().pool());
        }
        debug!(handler = %self.name(), outcome = %report.outcome.kind(), duration = ?report.ledger.wall, "handled");
        report
    }

    /// Also says whether the guest returned.
    async fn run(&self, seat: &mut Seat, invocation: Invocation, started: Instant) -> (Report, bool) {
        let limits = invocation.limits.clone();
        let event_bytes = invocation.event.size();
        let deadline = started.checked_add(limits.timeout);
        let listed = self.host().live().list(self.identity(), &invocation, started);
        seat.store.data_mut().begin(&invocation, deadline, Arc::clone(listed.call()));
        seat.store.set_epoch_deadline(1);
        self.set_limits(&mut seat.store, &limits);

        let mut call = Metered::new(Box::pin(self.call(seat, invocation)));
        let result = tokio::select! {
            biased;
            result = &mut call => result,
            () = tokio::time::sleep(limits.timeout.saturating_add(GRACE)) => Err(Failure::Waited),
            () = stop(listed.call()) => Err(Failure::KilledWaiting),
        };
        let cpu = call.cpu();
        drop(call);
        let answered = result.is_ok();
        let fuel = seat.store.get_fuel().ok().map(|left| u64::MAX - left);
        let state = seat.store.data_mut();
        let outcome = match result {
            Ok(outcome) => within(outcome, &limits),
            Err(failure) => outcome::of_failure(&failure, limits.timeout, &state.log.lock().stderr_tail()),
        };
        let outcome = match (state.outbox.take_looping(), outcome) {
            (_, Outcome::HostError { reason }) => Outcome::HostError { reason },
            (Some(reason), _) => Outcome::Loop { reason },
            (None, outcome) => outcome,
        };
        let (bytes_read, bytes_written) = state.overlay.bytes();
        let result_bytes = match &outcome {
            Outcome::Ack { result: Some(result) } => result.len() as u64,
            _ => 0,
        };
        let ledger = Ledger {
            wall: started.elapsed(),
            cpu,
            peak_memory: state.memory.peak(),
            host_calls: state.calls.calls(),
            host_time: state.calls.time(),
            bytes_in: event_bytes.saturating_add(bytes_read),
            bytes_out: result_bytes.saturating_add(state.outbox.bytes()).saturating_add(bytes_written),
            fuel,
        };
        let (emits, used) = match outcome {
            Outcome::Ack { .. } => (state.outbox.take_emits(), state.overlay.take_use()),
            _ => (Vec::new(), StateUse::default()),
        };
        let mut log = state.log.lock();
        // Nothing of it is emitted: it may at least be read.
        if let Some(output) = &state.output {
            log.write(Stream::Stdout, &output.take().bytes);
        }
        let logs = log.finish();
        (Report { outcome, emits, state: used, logs, ledger }, answered)
    }

    async fn call(&self, seat: &mut Seat, invocation: Invocation) -> Result<Outcome, Failure> {
        let Seat { bound, store, .. } = seat;
        let bound = match bound {
            Some(bound) => bound,
            None => bound.insert(self.ready().bind(store).await?),
        };
        bound.call(store, invocation).await
    }

    fn store(&self, limits: &Limits, stdio: Stdio) -> Store<State> {
        let state = State::new(Arc::clone(self.identity()), limits, stdio);
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
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store
    }

    fn set_limits(&self, store: &mut Store<State>, limits: &Limits) {
        store.set_hostcall_fuel(usize::try_from(limits.max_call_bytes).unwrap_or(usize::MAX));
        store.set_max_component_handles(limits.max_handles);
        if self.host().options().count_fuel {
            // It is counted, not limited; an engine that counts has it.
            let _ = store.set_fuel(u64::MAX);
        }
    }
}

/// Waits until a person has ended the invocation and the guest, if it computes, had the time to be interrupted.
async fn stop(call: &Call) {
    call.killed().await;
    tokio::time::sleep(GRACE).await;
}

/// The outcome, unless it is too large.
fn within(outcome: Outcome, limits: &Limits) -> Outcome {
    match outcome {
        Outcome::Ack { result: Some(result) } if result.len() as u64 > limits.max_result_bytes => {
            let (size, max) = (format_size(result.len() as u64), format_size(limits.max_result_bytes));
            Outcome::OverLimit { reason: format!("its result has {size}; `max-result-bytes` is {max}") }
        }
        outcome => outcome,
    }
}

impl Report {
    fn host_error(reason: &str) -> Self {
        let outcome = Outcome::HostError { reason: reason.to_owned() };
        let (emits, logs) = (Vec::new(), Vec::new());
        Self { outcome, emits, state: StateUse::default(), logs, ledger: Ledger::default() }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").finish()
    }
}
