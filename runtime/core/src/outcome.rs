//! What became of one delivery.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The longest reason that is kept, in bytes; the rest is cut off.
pub const MAX_REASON_LEN: usize = 4 * 1024;

/// What the host or the queue observed of one delivery: the handler's verdict, or why there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Verdict: done. The bytes, if any, are kept as the entry's result.
    Ack {
        /// The handler's result.
        result: Option<Bytes>,
    },
    /// Verdict: failed for now.
    Retry {
        /// The handler's words.
        reason: String,
        /// When to try again; `None`: the queue's backoff decides.
        after: Option<Duration>,
    },
    /// Verdict: not yet; no attempt is spent.
    Defer {
        /// The handler's words, if any.
        reason: Option<String>,
        /// When to come back.
        after: Duration,
    },
    /// Verdict: never.
    Reject {
        /// The handler's words.
        reason: String,
    },
    /// The handler trapped. The reason ends with the Wasm backtrace.
    Trap {
        /// What happened and where.
        reason: String,
    },
    /// The handler ran longer than it may.
    Timeout {
        /// The limit, and where the handler was.
        reason: String,
    },
    /// The handler asked for more memory than it may have.
    OutOfMemory {
        /// The limit, and what was asked for.
        reason: String,
    },
    /// The host could not run the handler, for a reason of its own.
    HostError {
        /// What failed.
        reason: String,
    },
    /// The handler emitted an event whose hop count is over [`crate::event::MAX_HOPS`].
    Loop {
        /// Which event.
        reason: String,
    },
    /// The handler, a plain program, says that it succeeded, but what it wrote is no event that it may emit.
    InvalidOutput {
        /// Which line, and what is wrong with it.
        reason: String,
    },
    /// The handler went over a limit that is neither time nor memory: of its stack, its result, its handles, or
    /// what one call of a host function hands over.
    OverLimit {
        /// Which limit, and the key of `runtime.toml` that sets it.
        reason: String,
    },
    /// A person ended the call.
    Killed {
        /// Where the handler was.
        reason: String,
    },
    /// The lease ended before anybody settled the delivery.
    Expired,
    /// The process that held the lease died.
    Lost,
    /// Nobody claimed the entry within its time to live. No attempt: it says why the entry is dead.
    TimeToLive {
        /// How long it was to live.
        reason: String,
    },
    /// The next attempt would begin after the entry's maximum age. No attempt: it says why the entry is dead.
    MaxAge {
        /// The maximum age.
        reason: String,
    },
    /// Given back unhandled (shutdown, hot swap); no attempt is spent.
    Released,
}

/// The name of an outcome, as histories, metrics and JSON show it. Stored by position: new ones come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "documented at Outcome")]
pub enum OutcomeKind {
    Ack,
    Retry,
    Defer,
    Reject,
    Trap,
    Timeout,
    OutOfMemory,
    HostError,
    Loop,
    Expired,
    Lost,
    TimeToLive,
    MaxAge,
    Released,
    InvalidOutput,
    OverLimit,
    Killed,
}

impl OutcomeKind {
    /// The name in JSON and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Retry => "retry",
            Self::Defer => "defer",
            Self::Reject => "reject",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::OutOfMemory => "out_of_memory",
            Self::HostError => "host_error",
            Self::Loop => "loop",
            Self::Expired => "expired",
            Self::Lost => "lost",
            Self::TimeToLive => "time_to_live",
            Self::MaxAge => "max_age",
            Self::Released => "released",
            Self::InvalidOutput => "invalid_output",
            Self::OverLimit => "over_limit",
            Self::Killed => "killed",
        }
    }
}

impl OutcomeKind {
    /// Whether somebody had the entry. Otherwise it is a note in the history, of why the entry is dead.
    #[must_use]
    pub const fn is_attempt(self) -> bool {
        !matches!(self, Self::TimeToLive | Self::MaxAge)
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Outcome {
    /// Which kind of outcome this is.
    #[must_use]
    pub const fn kind(&self) -> OutcomeKind {
        match self {
            Self::Ack { .. } => OutcomeKind::Ack,
            Self::Retry { .. } => OutcomeKind::Retry,
            Self::Defer { .. } => OutcomeKind::Defer,
            Self::Reject { .. } => OutcomeKind::Reject,
            Self::Trap { .. } => OutcomeKind::Trap,
            Self::Timeout { .. } => OutcomeKind::Timeout,
            Self::OutOfMemory { .. } => OutcomeKind::OutOfMemory,
            Self::HostError { .. } => OutcomeKind::HostError,
            Self::Loop { .. } => OutcomeKind::Loop,
            Self::Expired => OutcomeKind::Expired,
            Self::Lost => OutcomeKind::Lost,
            Self::TimeToLive { .. } => OutcomeKind::TimeToLive,
            Self::MaxAge { .. } => OutcomeKind::MaxAge,
            Self::Released => OutcomeKind::Released,
            Self::InvalidOutput { .. } => OutcomeKind::InvalidOutput,
            Self::OverLimit { .. } => OutcomeKind::OverLimit,
            Self::Killed { .. } => OutcomeKind::Killed,
        }
    }

    /// Why, in words, cut to [`MAX_REASON_LEN`]. `None` where the kind says it all.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let reason = match self {
            Self::Ack { .. } | Self::Released => return None,
            Self::Defer { reason, .. } => reason.as_deref()?,
            Self::Expired => "the lease ended before the delivery was settled",
            Self::Lost => "the process that held the lease ended",
            Self::Retry { reason, .. }
            | Self::Reject { reason }
            | Self::Trap { reason }
            | Self::Timeout { reason }
            | Self::OutOfMemory { reason }
            | Self::HostError { reason }
            | Self::TimeToLive { reason }
            | Self::MaxAge { reason }
            | Self::Loop { reason }
            | Self::InvalidOutput { reason }
            | Self::OverLimit { reason }
            | Self::Killed { reason } => reason,
        };
        let end = reason.floor_char_boundary(MAX_REASON_LEN);
        reason.get(..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let reason = "ä".repeat(MAX_REASON_LEN);
        let outcome = Outcome::Reject { reason };
        assert_eq!(outcome.reason().unwrap().len(), MAX_REASON_LEN);
        let outcome = Outcome::Reject { reason: format!("x{}", "ä".repeat(MAX_REASON_LEN)) };
        assert_eq!(outcome.reason().unwrap().len(), MAX_REASON_LEN - 1);
    }

    #[test]
    fn kinds_are_named_alike_in_json_and_tables() {
        use OutcomeKind::{Ack, HostError, InvalidOutput, OutOfMemory, OverLimit, Timeout};
        for kind in [Ack, OutOfMemory, HostError, Timeout, InvalidOutput, OverLimit] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
