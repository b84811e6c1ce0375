//! Gristmill's vocabulary and its rules, without any I/O.
//!
//! Everything here is a value or a pure function: no tokio, no store, no Wasm, and the time is always a parameter (the
//! [`Clock`] that provides it is the one thing that looks outside). The queue and the host both speak these types and
//! do not know each other.
//!
//! | module | noun |
//! | --- | --- |
//! | [`event`] | a CloudEvents 1.0 event, validated |
//! | [`json`] | the CloudEvents JSON format, one event or a batch |
//! | [`outcome`] | what became of one delivery |
//! | [`retry`] | what the queue does with an outcome |
//! | [`entry`] | an event in a queue: its id, state and history |
//! | [`pattern`] | subscriptions |
//! | [`name`] | names of queues and handlers |
//! | [`state`] | keys and values that handlers keep, and the right to them |
//! | [`directory`], [`socket`] | what of the machine and the network a handler may use |
//! | [`postmortem`] | what a delivery cost and said that killed its entry |
//! | [`secret`] | text that no log may show |
//! | [`http`] | the right to send requests, and what servers say of the next try |
//! | [`time`], [`clock`] | instants, and who tells them |
//! | [`units`] | durations and sizes as people write them |
//!
//! ```
//! use gristmill_core::{json, pattern::{Pattern, Subscription}};
//!
//! let event = json::parse(br#"{"specversion": "1.0", "id": "1", "source": "/shop",
//!                              "type": "com.acme.order.paid", "data": {"total": 12}}"#)?;
//! let orders = Subscription { ty: Some(Pattern::new("com.acme.order.*")), ..Subscription::default() };
//! assert!(orders.matches(&event));
//! # Ok::<(), gristmill_core::event::EventError>(())
//! ```

pub mod clock;
pub mod directory;
pub mod entry;
pub mod event;
mod host_name;
pub mod http;
pub mod json;
pub mod name;
pub mod outcome;
pub mod pattern;
pub mod postmortem;
pub mod retry;
pub mod secret;
pub mod socket;
pub mod state;
pub mod time;
mod trace;
pub mod units;

pub use clock::{Clock, ManualClock, SystemClock};
pub use directory::DirectoryGrant;
pub use entry::{Attempt, EntryId, History, State};
pub use event::{Event, EventError};
pub use http::{HttpGrant, HttpGrantError};
pub use name::{HandlerName, NameError, QueueName};
pub use outcome::{Outcome, OutcomeKind};
pub use pattern::{Pattern, Subscription};
pub use postmortem::{LastLine, Postmortem};
pub use retry::{Backoff, Disposition, RetryPolicy};
pub use secret::Secret;
pub use socket::SocketGrant;
pub use state::{StateGrant, StateReader, StateUse};
pub use time::{Monotonic, Timestamp};
