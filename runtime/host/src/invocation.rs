//! One event through one instance.

use std::sync::Arc;

use gristmill_core::{Event, Outcome, StateReader, StateUse, Timestamp};
use tracing::debug;

use crate::component::Component;
use crate::configuration::Configuration;
use crate::execution::{Execution, Work};
use crate::interfaces::batch::wrong_length;
use crate::ledger::Ledger;
use crate::log::LogLine;
use crate::options::Limits;
use crate::outbox::Emit;
use crate::pool::Admission;
use crate::replay::Scene;
use crate::reuse::Seat;

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
    /// What the handler is configured with.
    pub configuration: Configuration,
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
pub struct Place(pub(crate) Room);

pub(crate) enum Room {
    /// For a new instance.
    New(Admission),
    /// For a new instance, which is not kept.
    Replay(Admission, Arc<Scene>),
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
        Place(Room::New(self.admission(limits).await))
    }

    /// Room for a new instance.
    pub(crate) async fn admission(&self, limits: &Limits) -> Admission {
        let make_room = || self.host().shelves().make_room();
        self.host().pool().admit(self.permits(), limits.memory, make_room).await
    }

    /// Handles one event in a place that [`admit`](Self::admit) gave for the same limits.
    pub async fn handle_in(&self, place: Place, invocation: Invocation) -> Report {
        let Execution { outcomes, emits, state, logs, ledger } = self.execute(place, Work::One(invocation)).await;
        let outcome = match outcomes {
            Ok(mut outcomes) => match (outcomes.pop(), outcomes.len()) {
                (Some(only), 0) => only,
                (last, before) => wrong_length(1, before + usize::from(last.is_some())),
            },
            Err(outcome) => outcome,
        };
        let (emits, state) = match outcome {
            Outcome::Ack { .. } => (emits, state),
            _ => (Vec::new(), StateUse::default()),
        };
        debug!(handler = %self.name(), outcome = %outcome.kind(), duration = ?ledger.wall, "handled");
        Report { outcome, emits, state, logs, ledger }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").finish()
    }
}
