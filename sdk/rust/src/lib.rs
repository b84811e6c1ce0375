//! Write event handlers for Gristmill in Rust.
//!
//! A handler is one function with an attribute. It is handed one event, its data already decoded, and its answer
//! decides what becomes of the event: done, tried again, put off, or dead-lettered.
//!
//! ```
//! use gristmill_sdk::{Error, Event, NewEvent, emit, handler};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     id: String,
//!     total_cents: u32,
//! }
//!
//! #[handler]
//! fn handle(event: Event<Order>) -> Result<(), Error> {
//!     let order = &event.data;
//!     if order.total_cents == 0 {
//!         return Err(Error::reject("an order costs something"));
//!     }
//!     let receipt = serde_json::json!({ "order": order.id, "paid_cents": order.total_cents });
//!     emit(NewEvent::new("com.acme.receipt.requested").subject(&order.id).json(&receipt)?)?;
//!     Ok(())
//! }
//! # fn main() {}
//! ```
//!
//! Compile it as a component with `cargo build --target wasm32-wasip2 --release` (the crate's type is `cdylib`).
//!
//! # What a handler takes and returns
//!
//! It takes one [`Event<T>`](Event). `T` is any type that serde can deserialize; data that does not fit is
//! dead-lettered with a reason that names the place, and the function is not called. [`Raw`] is the data as it came.
//!
//! It returns anything that is [`IntoVerdict`]: nothing, a [`Verdict`], a [`Json`] result, or a `Result` of these whose
//! error becomes an [`Error`].
//!
//! # Failing
//!
//! `?` works on every error. A foreign error means *try again*, for most failures pass; say otherwise with
//! [`OrFail::or_reject`] or [`Error::reject`]. What [`emit`] published and what the handler logged differ in this: emits
//! count only if the handler acks, log lines always.
//!
//! # Logging
//!
//! [`handler`] installs a collector for `tracing` and for `log`; both write to the runtime's log. What is printed to
//! stdout and stderr arrives there, too.
//!
//! # Testing
//!
//! The attribute leaves the function as it is, and outside WebAssembly the host is replaced by a recorder: see
//! [`testing`](https://docs.rs/gristmill-sdk/latest/gristmill_sdk/testing).

mod context;
mod emit;
mod error;
mod event;
#[cfg(target_arch = "wasm32")]
mod guest;
mod logging;
mod payload;
mod spans;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod verdict;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

#[cfg(target_arch = "wasm32")]
use guest as host;
#[cfg(not(target_arch = "wasm32"))]
use testing as host;

pub use crate::context::{component_digest, handler_name, remaining};
pub use crate::emit::{EmitError, NewEvent, emit};
pub use crate::error::{Error, OrFail};
pub use crate::event::{Delivery, Event};
pub use crate::payload::{DataError, FromPayload, Payload, Raw};
pub use crate::verdict::{IntoVerdict, Json, Verdict};

/// Makes a function the handler of this component.
///
/// The function takes one [`Event<T>`](Event) and returns something that is [`IntoVerdict`]. It stays callable as it is
/// written. A component has one handler.
///
/// ```
/// use gristmill_sdk::{Event, Raw, handler};
///
/// #[handler]
/// fn accept_everything(_event: Event<Raw>) {}
/// # fn main() {}
/// ```
///
/// What cannot be a handler does not compile, and the error says why:
///
/// ```compile_fail
/// # use gristmill_sdk::{Event, Raw, handler};
/// #[handler]
/// async fn wait(_event: Event<Raw>) {}
/// # fn main() {}
/// ```
pub use gristmill_sdk_macros::handler;
