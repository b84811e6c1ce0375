//! What the expansion of `#[handler]` calls. Not for use by hand, and free to change.

use crate::event::Event;
use crate::payload::{FromPayload, Raw};
use crate::verdict::{IntoVerdict, Verdict};

#[cfg(target_arch = "wasm32")]
pub use crate::guest::{Guest, WitDelivery, WitVerdict, bindings, bindings::export, run};

/// Decodes the data, calls the handler, and makes a verdict of its answer.
pub fn dispatch<T: FromPayload, V: IntoVerdict>(handler: impl FnOnce(Event<T>) -> V, event: Event<Raw>) -> Verdict {
    match event.decode() {
        Ok(event) => handler(event).into_verdict(),
        Err(error) => Verdict::Reject(error.to_string()),
    }
}

/// The type of a handler's argument.
#[diagnostic::on_unimplemented(
    message = "a handler takes `gristmill_sdk::Event<T>`, not `{Self}`",
    label = "should be `Event<{Self}>`"
)]
pub trait Argument {}

impl<T: FromPayload> Argument for Event<T> {}

/// Compiles if the type may be a handler's argument.
pub const fn check_argument<A: Argument>() {}

/// Compiles if the type may be what a handler returns.
pub const fn check_answer<V: IntoVerdict>() {}
