//! Runs event handlers that are WebAssembly components: component and delivery in, outcome out.
//!
//! A [`Host`] compiles [`Component`]s and owns a pool of instances. [`Component::handle`] runs one event through one
//! fresh instance and returns a [`Report`]: the outcome, what was emitted, what was read and written of the state, and
//! what was logged. It does not know where events come from or what becomes of outcomes: there is no queue and no store
//! in here. This is the only crate that names wasmtime.
//!
//! - **Nothing of a guest is trusted.** Time, memory, emits and logs have limits; whatever a guest does ends as an
//!   [`Outcome`](gristmill_core::Outcome), never as a panic. WASI is linked and powerless: no environment, no
//!   files, no network, until [`Grants`] say which.
//! - **A full pool waits.** Further calls queue up, first come, first served, and waiting is not the handler's time.
//! - **Async code is never held up for more than a tick.** Compilation is off the async threads, or [outside the
//!   process](Compiler::Child) and limited, and a guest that computes gives way every millisecond.
//! - **A replay lets nothing out**, and sees the same again: [`Component::replay`].
//! - **A component that cannot run does not load.** [`LoadError`] says what it is and what to do about it.
//!
//! ```
//! use std::sync::Arc;
//!
//! use gristmill_core::{Event, HandlerName, Outcome, Timestamp};
//! use gristmill_host::{Configuration, Grants, Host, HostOptions, Instances, Invocation, Limits, LoadRequest};
//!
//! // The smallest handler: acks every event. See `wit/gristmill.wit` for the types.
//! let bytes = wat::parse_str(r#"(component
//!     (type $payload (variant (case "text" string) (case "binary" (list u8))))
//!     (type $event (record (field "id" string) (field "source" string) (field "type" string)
//!         (field "subject" (option string)) (field "time" (option string))
//!         (field "datacontenttype" (option string)) (field "dataschema" (option string))
//!         (field "extensions" (list (tuple string string))) (field "data" (option $payload))))
//!     (type $delivery (record (field "id" string) (field "queue" string) (field "attempt" u32)
//!         (field "max-attempts" (option u32)) (field "enqueued-at" string) (field "event" $event)))
//!     (type $failure (record (field "reason" string) (field "after" (option u32))))
//!     (type $deferral (record (field "after" u32) (field "reason" (option string))))
//!     (type $verdict (variant (case "ack" (option $payload)) (case "retry" $failure)
//!         (case "defer" $deferral) (case "reject" string)))
//!     (core module $m
//!         (memory (export "memory") 1)
//!         (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
//!         (func (export "handle") (param i32) (result i32) (i32.const 0)))
//!     (core instance $i (instantiate $m))
//!     (func $handle (param "delivery" $delivery) (result $verdict) (canon lift (core func $i "handle")
//!         (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
//!     (instance $handler (export "payload" (type $payload)) (export "event" (type $event))
//!         (export "delivery" (type $delivery)) (export "failure" (type $failure))
//!         (export "deferral" (type $deferral)) (export "verdict" (type $verdict))
//!         (export "handle" (func $handle)))
//!     (export "gristmill:events/handler@0.1.0" (instance $handler)))"#)?;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let host = Host::new(HostOptions::default())?;
//! let name = HandlerName::new("acker")?;
//! let grants = Grants::default();
//! let (digest, interface, instances) = (None, None, Instances::Fresh);
//! let component =
//!     host.load(LoadRequest { name, bytes: bytes.into(), digest, interface, grants, instances }).await?;
//! let report = component.handle(Invocation {
//!     delivery_id: "e1".to_owned(),
//!     queue: "acker".to_owned(),
//!     attempt: 1,
//!     max_attempts: Some(5),
//!     enqueued_at: Timestamp::EPOCH,
//!     event: Arc::new(Event::new("1", "/shop", "com.acme.order.paid")),
//!     state: None,
//!     configuration: Configuration::default(),
//!     limits: Limits::default(),
//! }).await;
//! assert_eq!(report.outcome, Outcome::Ack { result: None });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backtrace;
mod batch;
mod bindings;
mod cache;
mod compile;
mod compiler;
mod component;
mod componentize;
mod configuration;
mod engine;
mod error;
mod execution;
mod gap;
mod http;
mod imports;
mod inspect;
mod interfaces;
mod invocation;
mod keyvalue;
mod ledger;
mod live;
mod log;
mod manifest;
mod memory;
mod messaging;
mod options;
mod outbox;
mod outcome;
mod platform;
mod pool;
mod private_folder;
mod provided;
mod replay;
mod reuse;
mod slices;
mod sockets;
mod state;
mod stdio;
mod surroundings;
mod tuning;

pub use batch::{BatchDelivery, BatchInvocation, BatchOutcome, BatchReport};
pub use compiler::{ChildCompiler, Compiler, compile_as_child};
pub use component::{Component, LoadRequest};
pub use configuration::Configuration;
pub use engine::Host;
pub use error::{HostError, LoadError};
pub use gap::{Gap, GrantKind, Want};
pub use inspect::{Import, digest};
pub use interfaces::{Interface, UnknownInterface};
pub use invocation::{Invocation, Place, Report};
pub use ledger::Ledger;
pub use live::Running;
pub use log::{LogLevel, LogLine, MAX_LINE_LEN};
pub use manifest::{MANIFEST_SECTION, MAX_MANIFEST, ManifestError, manifest, with_manifest};
pub use options::{Grants, HostOptions, Instances, Limits, MAX_INSTANCES};
pub use outbox::Emit;
pub use private_folder::PrivateFolder;
pub use provided::ImportStatus;
pub use replay::{Refused, Replay, Replayed};
pub use slices::give_way;
