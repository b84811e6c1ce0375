//! The embedded engine: the transitions of an entry's life, over a store.
//!
//! ```text
//! Engine (handle) ──commands──► Writer (thread) ──commits──► Store ◄──syncs── Syncer (thread)
//!    │                             ▲ opened, and opened again, by the Supervisor
//!    └──────────────reads on snapshots──────────────────────────┘
//! ```
//!
//! **Invariants.** One writer owns all state, and every write is part of one atomic commit. What can be refused is asked
//! before anything is changed. Answers that promise durability leave only after the sync that covers them. After a
//! failed commit or sync the store is dropped and opened anew. Nothing reads over keys that were consumed: every line of
//! entries has a persisted cursor. Nothing here knows about Wasm or HTTP.
//!
//! | modules | noun |
//! | --- | --- |
//! | `keys`, `records`, `entry`, `event`, `due`, `ids` | what is stored, byte for byte |
//! | `store`, `memory`, `rocks`, `chunk` | where it is stored |
//! | `discipline` | what every commit must keep to |
//! | `state`, `line`, `dirty`, `flight`, `rate`, `kv`, `log` | what the writer knows |
//! | `moves`, `ordering`, `body` | how an entry leaves a state and enters another |
//! | `publish`, `claim`, `settle`, `sweep`, `done`, `act`, `job`, `operate` | the transitions |
//! | `read`, `page`, `inspect` | looking |
//! | `verify` | checking everything that is stored |
//! | `handle` | what callers hold |
//! | `command`, `batch`, `waiters` | what is asked, what is answered, who waits |
//! | `writer`, `syncer`, `janitor`, `supervisor` | the threads |

mod act;
mod batch;
mod body;
mod chunk;
mod claim;
mod command;
mod dirty;
#[cfg(debug_assertions)]
mod discipline;
mod done;
mod due;
mod entry;
mod event;
mod flight;
#[cfg(test)]
mod fuzz;
mod handle;
mod ids;
mod inspect;
mod janitor;
mod job;
mod keys;
mod kv;
mod line;
mod log;
mod memory;
mod moves;
mod operate;
mod ordering;
mod page;
mod publish;
mod rate;
mod read;
mod records;
mod rocks;
mod sample;
mod settle;
mod state;
mod store;
mod supervisor;
mod sweep;
mod syncer;
mod verify;
mod waiters;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use gristmill_core::{Clock, Monotonic, SystemClock, Timestamp};

pub use handle::Engine;
pub use memory::{Fault, Memory};
pub use rocks::{OnLoss, RocksDb};

use crate::contract::{DeadLetter, Durability, QueueError};

/// Commands that may wait for the writer; whoever brings one more waits for a place.
const MAX_WAITING: usize = 4_096;
/// Entries that one request may create.
const MAX_PUBLISH: usize = 100_000;
/// Deliveries that one claim may take.
const MAX_CLAIM: usize = 10_000;

/// Told of every entry that dies, once that is durable, in the order of the deaths. Called from a thread of the engine:
/// it must not block, and it must not panic.
pub type DeadHook = Arc<dyn Fn(DeadLetter) + Send + Sync>;

/// How an engine is opened.
#[derive(Clone)]
pub struct EngineOptions {
    /// Who tells the time. Default: the operating system.
    pub clock: Arc<dyn Clock>,
    /// When a publish is acknowledged. Default: after an fsync, which is also what [`RocksDb`] makes of
    /// [`Durability::Memory`]. The memory engine takes no notice of it.
    pub durability: Durability,
    /// The largest event, in bytes of attributes and data. Default: 1 MiB.
    pub max_event_size: u64,
    /// For how long a publish is remembered, so that it is not repeated. Default: 10 minutes; zero: not at all.
    pub idempotency_window: Duration,
    /// For how long published events are kept in the log. Default: there is no log.
    pub log_retention: Option<Duration>,
    /// Free disk space below which publishes are refused, in bytes. Default: 256 MiB.
    pub disk_reserve: u64,
    /// What to do with a store that has lost what it had acknowledged. Default: refuse to open it.
    pub on_loss: OnLoss,
    /// Memory for what is not yet in sorted files, in bytes. Default: 64 MiB.
    pub write_buffer: u64,
    /// Memory for what is read, the indexes of the sorted files included, in bytes. Default: 32 MiB.
    pub cache: u64,
    /// Told of every entry that dies. Default: nobody.
    pub on_dead: Option<DeadHook>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            durability: Durability::Fsync,
            max_event_size: 1 << 20,
            idempotency_window: Duration::from_secs(600),
            log_retention: None,
            disk_reserve: 256 << 20,
            on_loss: OnLoss::Refuse,
            write_buffer: 64 << 20,
            cache: 32 << 20,
            on_dead: None,
        }
    }
}

/// Both kinds of time, read once for each commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: Timestamp,
    pub(crate) monotonic: Monotonic,
}

impl From<keys::BadKey> for QueueError {
    fn from(error: keys::BadKey) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<records::BadRecord> for QueueError {
    fn from(error: records::BadRecord) -> Self {
        Self::Corrupt(error.to_string())
    }
}
