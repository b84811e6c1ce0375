//! What a handler answers.

use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::payload::Payload;

/// What becomes of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done. A payload is kept as the event's result.
    Ack(Option<Payload>),
    /// Failed for now: the attempt counts, and there is another unless it was the last.
    Retry {
        /// Why.
        reason: String,
        /// When to try again, at the earliest. `None`: the queue's backoff decides.
        after: Option<Duration>,
    },
    /// Not yet: delivered again later, and no attempt is spent.
    Defer {
        /// When, at the earliest.
        after: Duration,
        /// Why, if it is worth saying.
        reason: Option<String>,
    },
    /// Never: to the dead letters, with this reason.
    Reject(String),
}

impl Verdict {
    /// Done, without a result.
    pub const ACK: Self = Self::Ack(None);
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "return `()`, `Verdict`, `Json<T>`, or a `Result` of one of these with an error that becomes `gristmill_sdk::Error`"
)]
pub trait IntoVerdict {
    /// The verdict that this stands for.
    fn into_verdict(self) -> Verdict;
}

impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Verdict {
        self
    }
}

/// Nothing more to say: an ack.
impl IntoVerdict for () {
    fn into_verdict(self) -> Verdict {
        Verdict::ACK
    }
}

impl<V: IntoVerdict, E: Into<Error>> IntoVerdict for Result<V, E> {
    fn into_verdict(self) -> Verdict {
        match self {
            Ok(value) => value.into_verdict(),
            Err(error) => error.into().into(),
        }
    }
}

/// An ack whose result is a value as JSON.
///
/// ```
/// use gristmill_sdk::{Error, Event, Json, handler};
///
/// #[handler]
/// fn sum(event: Event<Vec<u32>>) -> Result<Json<u32>, Error> {
///     Ok(Json(event.data.iter().sum()))
/// }
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// A value that cannot be serialized is a reject: another attempt would not change it.
impl<T: Serialize> IntoVerdict for Json<T> {
    fn into_verdict(self) -> Verdict {
        match Payload::from_json(&self.0) {
            Ok(payload) => Verdict::Ack(Some(payload)),
            Err(error) => Verdict::Reject(format!("the result is not JSON: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_return_type_is_a_verdict() {
        assert_eq!(().into_verdict(), Verdict::ACK);
        assert_eq!(Json([1, 2]).into_verdict(), Verdict::Ack(Some("[1,2]".into())));
        assert_eq!(Ok::<_, Error>(Json("x")).into_verdict(), Verdict::Ack(Some("\"x\"".into())));
        assert_eq!(Err::<(), _>(Error::reject("no")).into_verdict(), Verdict::Reject("no".into()));
        let foreign: Result<Verdict, std::num::ParseIntError> = "x".parse::<u32>().map(|_| Verdict::ACK);
        assert!(matches!(foreign.into_verdict(), Verdict::Retry { after: None, .. }));
    }

    #[test]
    fn a_result_that_is_no_json_is_rejected() {
        let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(Json(keys).into_verdict(), Verdict::Reject(_)));
    }
}
