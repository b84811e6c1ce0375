//! How a handler fails: for now, for good, or not yet.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::emit::EmitError;
use crate::payload::DataError;
use crate::verdict::Verdict;

/// A failed attempt that says whether it is worth another.
///
/// Every [`std::error::Error`] converts into it, so `?` just works. Such an error is retried, because most failures
/// pass, except for those that cannot: JSON that does not fit ([`serde_json::Error`], [`DataError`]) and an
/// [`EmitError`] other than [`EmitError::Other`] are rejected.
///
/// ```
/// use std::time::Duration;
/// use gristmill_sdk::Error;
///
/// let busy = Error::retry("the mail server is busy").after(Duration::from_secs(30));
/// let never = Error::reject("the order has no items");
/// let early = Error::defer(Duration::from_secs(3600)).because("the shop is closed");
/// # let _ = (busy, never, early);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Retry(Option<Duration>),
    Defer(Duration),
    Reject,
}

impl Error {
    /// Failed for now: the attempt counts, and the queue's backoff says when the next one is.
    #[must_use]
    pub fn retry(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Retry(None), reason: reason.into() }
    }

    /// Failed for good: to the dead letters, with this reason.
    #[must_use]
    pub fn reject(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Reject, reason: reason.into() }
    }

    /// Not yet: come back after this long. No attempt is spent.
    #[must_use]
    pub fn defer(after: Duration) -> Self {
        Self { kind: Kind::Defer(after), reason: String::new() }
    }

    /// When to come back, for a retry or a deferral. A reject stays a reject.
    #[must_use]
    pub fn after(mut self, after: Duration) -> Self {
        self.kind = match self.kind {
            Kind::Retry(_) => Kind::Retry(Some(after)),
            Kind::Defer(_) => Kind::Defer(after),
            Kind::Reject => Kind::Reject,
        };
        self
    }

    /// Says why: replaces the reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// The reason, as the event's history will show it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Defer(_) if self.reason.is_empty() => f.write_str("deferred"),
            _ => f.write_str(&self.reason),
        }
    }
}

impl From<Error> for Verdict {
    fn from(Error { kind, reason }: Error) -> Self {
        match kind {
            Kind::Retry(after) => Self::Retry { reason, after },
            Kind::Defer(after) => Self::Defer { after, reason: Some(reason).filter(|reason| !reason.is_empty()) },
            Kind::Reject => Self::Reject(reason),
        }
    }
}

impl<E: StdError + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let reason = with_sources(&error);
        if is_permanent(&error) { Self::reject(reason) } else { Self::retry(reason) }
    }
}

/// Whether the same event would fail in the same way again.
fn is_permanent(error: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<serde_json::Error>() {
        return !error.is_io();
    }
    if let Some(error) = error.downcast_ref::<EmitError>() {
        return !matches!(error, EmitError::Other(_));
    }
    error.is::<DataError>()
}

/// The error and what caused it, unless its own text says so already.
fn with_sources(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Says of a failure whether it is worth another attempt, and what was being done.
///
/// ```
/// use gristmill_sdk::{Error, OrFail};
///
/// fn quantity(field: &str) -> Result<u32, Error> {
///     let field = field.strip_prefix("x").or_reject("a quantity starts with x")?;
///     field.parse::<u32>().or_reject("quantity")
/// }
/// assert_eq!(quantity("x7"), Ok(7));
/// assert_eq!(quantity("xy"), Err(Error::reject("quantity: invalid digit found in string")));
/// ```
pub trait OrFail<T> {
    /// A failure is for good.
    ///
    /// # Errors
    /// [`Error::reject`] with the context, and the cause if there is one.
    fn or_reject(self, context: impl fmt::Display) -> Result<T, Error>;

    /// A failure is for now.
    ///
    /// # Errors
    /// [`Error::retry`] with the context, and the cause if there is one.
    fn or_retry(self, context: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: Into<Error>> OrFail<T> for Result<T, E> {
    fn or_reject(self, context: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error::reject(format!("{context}: {}", error.into())))
    }

    fn or_retry(self, context: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error::retry(format!("{context}: {}", error.into())))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_reject(self, context: impl fmt::Display) -> Result<T, Error> {
        self.ok_or_else(|| Error::reject(context.to_string()))
    }

    fn or_retry(self, context: impl fmt::Display) -> Result<T, Error> {
        self.ok_or_else(|| Error::retry(context.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the rates")]
    struct Rates(#[source] io::Error);

    #[test]
    fn a_foreign_error_is_retried_and_tells_its_causes() {
        let error = Error::from(Rates(io::Error::other("connection reset")));
        assert_eq!(error, Error::retry("cannot read the rates: connection reset"));
    }

    #[test]
    fn what_cannot_pass_is_rejected() {
        let json = serde_json::from_str::<u32>("x").unwrap_err();
        let reason = json.to_string();
        assert_eq!(Error::from(json), Error::reject(reason));
        assert_eq!(Error::from(DataError::Missing), Error::reject("data: missing"));
        for error in [EmitError::Denied("t".into()), EmitError::Invalid("t".into()), EmitError::TooMuch("t".into())] {
            assert!(matches!(Verdict::from(Error::from(error)), Verdict::Reject(_)));
        }
        assert!(matches!(Verdict::from(Error::from(EmitError::Other("t".into()))), Verdict::Retry { .. }));
    }

    #[test]
    fn the_delay_belongs_to_retries_and_deferrals() {
        assert_eq!(
            Verdict::from(Error::retry("busy").after(SECOND)),
            Verdict::Retry { reason: "busy".into(), after: Some(SECOND) }
        );
        assert_eq!(Verdict::from(Error::reject("no").after(SECOND)), Verdict::Reject("no".into()));
        assert_eq!(Verdict::from(Error::defer(SECOND)), Verdict::Defer { after: SECOND, reason: None });
        assert_eq!(
            Verdict::from(Error::defer(SECOND * 9).after(SECOND).because("closed")),
            Verdict::Defer { after: SECOND, reason: Some("closed".into()) }
        );
    }

    #[test]
    fn context_goes_before_the_cause() {
        let failed: Result<(), _> = Err(io::Error::other("full"));
        assert_eq!(failed.or_retry("saving"), Err(Error::retry("saving: full")));
        let failed: Result<(), _> = Err(Error::retry("busy"));
        assert_eq!(failed.or_reject("saving"), Err(Error::reject("saving: busy")));
        assert_eq!(None::<()>.or_retry("no rate yet"), Err(Error::retry("no rate yet")));
    }
}
