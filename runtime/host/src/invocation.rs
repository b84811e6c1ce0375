//! One event through one fresh instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_core::{Event, Outcome, Timestamp};
use tracing::debug;
use wasmtime::{Store, UpdateDeadline};

use crate::bindings::types;
use crate::component::Component;
use crate::log::LogLine;
use crate::options::Limits;
use crate::outbox::{Emit, Parent};
use crate::outcome::{self, DeadlinePassed, Failure};
use crate::state::State;

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
        let started = Instant::now();
        let limits = invocation.limits.clone();
        let mut store = self.store(&invocation, started);
        let delivery = delivery(invocation);
        let call = tokio::time::timeout(limits.timeout.saturating_add(GRACE), self.call(&mut store, delivery));
        let result = call.await.unwrap_or(Err(Failure::Waited));
        let duration = started.elapsed();

        let mut state = store.into_data();
        let outcome = match &result {
            Ok(_) => None,
            Err(failure) => {
                let stderr = state.log.lock().stderr_tail();
                Some(outcome::of_failure(failure, limits.timeout, &stderr))
            }
        };
        let outcome = match (state.outbox.take_looping(), outcome, result) {
            (_, Some(Outcome::HostError { reason }), _) => Outcome::HostError { reason },
            (Some(reason), ..) => Outcome::Loop { reason },
            (None, Some(outcome), _) => outcome,
            (None, None, Ok(verdict)) => outcome::of_verdict(verdict),
            (None, None, Err(_)) => Outcome::HostError { reason: "no outcome".to_owned() },
        };
        let emits = match outcome {
            Outcome::Ack { .. } => state.outbox.into_emits(),
            _ => Vec::new(),
        };
        let logs = state.log.lock().finish();
        Report { outcome, emits, logs, duration, peak_memory: state.memory.peak() }
    }

    fn store(&self, invocation: &Invocation, started: Instant) -> Store<State> {
        let limits = &invocation.limits;
        let deadline = started.checked_add(limits.timeout);
        let parent = Parent { delivery_id: invocation.delivery_id.clone(), hops: invocation.event.hops() };
        let state = State::new(Arc::clone(self.identity()), parent, limits, deadline);
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

    async fn call(&self, store: &mut Store<State>, delivery: types::Delivery) -> Result<types::Verdict, Failure> {
        let instance = self.pre().instantiate_async(&mut *store).await.map_err(Failure::Instantiate)?;
        instance.gristmill_events_handler().call_handle(store, &delivery).await.map_err(Failure::Call)
    }
}

impl Report {
    fn host_error(reason: &str) -> Self {
        let outcome = Outcome::HostError { reason: reason.to_owned() };
        Self { outcome, emits: Vec::new(), logs: Vec::new(), duration: Duration::ZERO, peak_memory: 0 }
    }
}

fn delivery(invocation: Invocation) -> types::Delivery {
    types::Delivery {
        id: invocation.delivery_id,
        queue: invocation.queue,
        attempt: invocation.attempt,
        max_attempts: invocation.max_attempts,
        enqueued_at: invocation.enqueued_at.to_string(),
        event: event(Arc::unwrap_or_clone(invocation.event)),
    }
}

fn event(event: Event) -> types::Event {
    let data = match event.text() {
        Some(text) => Some(types::Payload::Text(text.to_owned())),
        None => event.data.map(|bytes| types::Payload::Binary(bytes.into())),
    };
    types::Event {
        id: event.id,
        source: event.source,
        type_: event.ty,
        subject: event.subject,
        time: event.time,
        datacontenttype: event.datacontenttype,
        dataschema: event.dataschema,
        extensions: event.extensions.into_iter().collect(),
        data,
    }
}
