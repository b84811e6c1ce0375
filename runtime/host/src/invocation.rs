//! One event through one fresh instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_core::{Event, Outcome, StateReader, StateUse, Timestamp};
use tracing::debug;
use wasmtime::{Store, UpdateDeadline};

use crate::component::Component;
use crate::log::{LogLine, Stream};
use crate::options::Limits;
use crate::outbox::{Emit, Parent};
use crate::outcome::{self, DeadlinePassed, Failure};
use crate::state::State;
use crate::stdio::Stdio;

/// After the time-out, a guest that computes has this long to be interrupted with a backtrace; one that waits in a host
/// call is dropped then.
const GRACE: Duration = Duration::from_millis(2);
/// What a guest may make the host allocate in one call, if its memory is smaller.
const MIN_HOSTCALL_BYTES: usize = 16 << 20;

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
    /// From having a free instance to the outcome.
    pub duration: Duration,
    /// Bytes of all memories and tables at the end, which is when they are largest.
    pub peak_memory: u64,
}

impl Component {
    /// Handles one event in a fresh instance. Waits while the pool is full; that does not count as the handler's time.
    /// Dropping the future stops the handler; nothing of it remains.
    pub async fn handle(&self, invocation: Invocation) -> Report {
        // Held until the store is gone: the slots that it stands for are then free.
        let permit = self.host().pool().acquire_many(self.permits()).await;
        if permit.is_err() {
            return Report::host_error("the pool of instances is closed");
        }
        // Boxed: a store and a component's bindings are large.
        let report = Box::pin(self.run(invocation)).await;
        debug!(handler = %self.name(), outcome = %report.outcome.kind(), duration = ?report.duration, "handled");
        report
    }

    async fn run(&self, invocation: Invocation) -> Report {
        let stdio = match self.ready().stdio(&invocation.event) {
            Ok(stdio) => stdio,
            Err(error) => return Report::host_error(&format!("cannot write the event: {error}")),
        };
        let started = Instant::now();
        let limits = invocation.limits.clone();
        let mut store = self.store(&invocation, started, stdio);
        let call = self.ready().call(&mut store, invocation);
        let result = tokio::time::timeout(limits.timeout.saturating_add(GRACE), call).await;
        let duration = started.elapsed();

        let mut state = store.into_data();
        let outcome = match result.unwrap_or(Err(Failure::Waited)) {
            Ok(outcome) => outcome,
            Err(failure) => outcome::of_failure(&failure, limits.timeout, &state.log.lock().stderr_tail()),
        };
        let outcome = match (state.outbox.take_looping(), outcome) {
            (_, Outcome::HostError { reason }) => Outcome::HostError { reason },
            (Some(reason), _) => Outcome::Loop { reason },
            (None, outcome) => outcome,
        };
        let (emits, used) = match outcome {
            Outcome::Ack { .. } => (state.outbox.into_emits(), state.overlay.into_use()),
            _ => (Vec::new(), StateUse::default()),
        };
        let mut log = state.log.lock();
        // Nothing of it is emitted: it may at least be read.
        if let Some(output) = state.output {
            log.write(Stream::Stdout, &output.take().bytes);
        }
        let (logs, peak_memory) = (log.finish(), state.memory.peak());
        Report { outcome, emits, state: used, logs, duration, peak_memory }
    }

    fn store(&self, invocation: &Invocation, started: Instant, stdio: Stdio) -> Store<State> {
        let limits = &invocation.limits;
        let deadline = started.checked_add(limits.timeout);
        let parent = Parent { delivery_id: invocation.delivery_id.clone(), hops: invocation.event.hops() };
        let reader = invocation.state.clone();
        let state = State::new(Arc::clone(self.identity()), parent, reader, limits, (deadline, stdio));
        let mut store = Store::new(self.host().engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(usize::try_from(limits.memory).unwrap_or(usize::MAX).max(MIN_HOSTCALL_BYTES));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(DeadlinePassed.into());
            }
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store
    }
}

impl Report {
    fn host_error(reason: &str) -> Self {
        let outcome = Outcome::HostError { reason: reason.to_owned() };
        let (emits, logs) = (Vec::new(), Vec::new());
        Self { outcome, emits, state: StateUse::default(), logs, duration: Duration::ZERO, peak_memory: 0 }
    }
}
