//! Problem details (RFC 9457): what every error looks like.

use std::borrow::Cow;
use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gristmill_core::EventError;
use gristmill_queue::{PublishError, QueueError};
use serde::{Deserialize, Serialize};

/// Media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A kind of problem: the last part of its URN, its title, its status.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    urn: &'static str,
    title: &'static str,
    status: StatusCode,
}

const fn kind(urn: &'static str, title: &'static str, status: StatusCode) -> Kind {
    Kind { urn, title, status }
}

/// The body, or a part of it, is not a CloudEvent.
pub const INVALID_EVENT: Kind =
    kind("urn:gristmill:problem:invalid-event", "Not a valid event", StatusCode::BAD_REQUEST);
/// The event or the body is larger than allowed.
pub const TOO_LARGE: Kind = kind("urn:gristmill:problem:too-large", "Too large", StatusCode::PAYLOAD_TOO_LARGE);
/// No subscription wants the event.
pub const NO_SUBSCRIPTION: Kind =
    kind("urn:gristmill:problem:no-subscription", "No subscription matches", StatusCode::UNPROCESSABLE_ENTITY);
/// The body is in no mode that CloudEvents over HTTP knows.
pub const UNSUPPORTED_MODE: Kind =
    kind("urn:gristmill:problem:unsupported-mode", "Unsupported media type", StatusCode::UNSUPPORTED_MEDIA_TYPE);
/// A parameter is missing or wrong.
pub const INVALID_REQUEST: Kind =
    kind("urn:gristmill:problem:invalid-request", "Invalid request", StatusCode::BAD_REQUEST);
/// There is no such queue.
pub const UNKNOWN_QUEUE: Kind = kind("urn:gristmill:problem:unknown-queue", "Unknown queue", StatusCode::NOT_FOUND);
/// There is no such entry (any more).
pub const UNKNOWN_ENTRY: Kind = kind("urn:gristmill:problem:unknown-entry", "Unknown entry", StatusCode::NOT_FOUND);
/// There is no such key in the state.
pub const UNKNOWN_KEY: Kind = kind("urn:gristmill:problem:unknown-key", "Unknown key", StatusCode::NOT_FOUND);
/// There is no such call (any more).
pub const UNKNOWN_CALL: Kind = kind("urn:gristmill:problem:unknown-call", "Unknown call", StatusCode::NOT_FOUND);
/// There is no such handler.
pub const UNKNOWN_HANDLER: Kind =
    kind("urn:gristmill:problem:unknown-handler", "Unknown handler", StatusCode::NOT_FOUND);
/// There is no such version (any more).
pub const UNKNOWN_VERSION: Kind =
    kind("urn:gristmill:problem:unknown-version", "Unknown version", StatusCode::NOT_FOUND);
/// The component cannot be this handler.
pub const UNFIT_COMPONENT: Kind =
    kind("urn:gristmill:problem:unfit-component", "Unfit component", StatusCode::UNPROCESSABLE_ENTITY);
/// The new version does something else than the current one.
pub const DIFFERENT: Kind = kind("urn:gristmill:problem:different", "Too different", StatusCode::CONFLICT);
/// The configuration pins the handler to another component.
pub const PINNED: Kind = kind("urn:gristmill:problem:pinned", "Pinned to another component", StatusCode::CONFLICT);
/// Only dead letters can be redriven.
pub const NOT_DEAD: Kind = kind("urn:gristmill:problem:not-dead", "Not a dead letter", StatusCode::CONFLICT);
/// A queue holds as much as it may.
pub const QUEUE_FULL: Kind = kind("urn:gristmill:problem:queue-full", "Queue full", StatusCode::TOO_MANY_REQUESTS);
/// The event was published before, and may not be again.
pub const DUPLICATE: Kind = kind("urn:gristmill:problem:duplicate", "Published before", StatusCode::CONFLICT);
/// What is left of the disk is for settling.
pub const DISK_FULL: Kind =
    kind("urn:gristmill:problem:disk-full", "Disk nearly full", StatusCode::INSUFFICIENT_STORAGE);
/// The engine cannot do it.
pub const UNSUPPORTED: Kind = kind("urn:gristmill:problem:unsupported", "Unsupported", StatusCode::NOT_IMPLEMENTED);
/// There is nothing at this path.
pub const UNKNOWN_PATH: Kind = kind("urn:gristmill:problem:unknown-path", "Unknown path", StatusCode::NOT_FOUND);
/// The path does not understand this method.
pub const WRONG_METHOD: Kind =
    kind("urn:gristmill:problem:wrong-method", "Method not allowed", StatusCode::METHOD_NOT_ALLOWED);
/// The request may come from a web page of somebody else.
pub const FORBIDDEN: Kind = kind("urn:gristmill:problem:forbidden", "Forbidden", StatusCode::FORBIDDEN);
/// The runtime is starting or stopping.
pub const NOT_READY: Kind = kind("urn:gristmill:problem:not-ready", "Not ready", StatusCode::SERVICE_UNAVAILABLE);
/// The store cannot be used at the moment.
pub const UNAVAILABLE: Kind = kind("urn:gristmill:problem:unavailable", "Unavailable", StatusCode::SERVICE_UNAVAILABLE);
/// Something is broken on the side of the runtime.
pub const INTERNAL: Kind = kind("urn:gristmill:problem:internal", "Internal error", StatusCode::INTERNAL_SERVER_ERROR);

/// One error, for programs (`type`, `status`) and for people (`title`, `detail`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URN that stays the same from release to release.
    #[serde(rename = "type")]
    pub ty: Cow<'static, str>,
    /// The kind of problem, in words.
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What, where, and what to do.
    pub detail: String,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            ty: Cow::Borrowed(kind.urn),
            title: Cow::Borrowed(kind.title),
            status: kind.status.as_u16(),
            detail: detail.into(),
        }
    }

    /// Whether it is of this kind.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        self.ty == kind.urn
    }
}

/// The detail, which is for people. It may quote what others sent: escape it before a terminal sees it.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

/// A 503 and a 429 say when to come back: the engine reopens within seconds, and handlers make room.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<&EventError> for Problem {
    fn from(error: &EventError) -> Self {
        let kind = match error {
            EventError::TooLarge { .. } => TOO_LARGE,
            EventError::Json(_) | EventError::Missing(_) | EventError::Invalid { .. } => INVALID_EVENT,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<&PublishError> for Problem {
    fn from(error: &PublishError) -> Self {
        match error {
            PublishError::Invalid(error) => error.into(),
            PublishError::Unroutable { .. } => Self::new(
                NO_SUBSCRIPTION,
                format!("{error}: nothing would ever handle it; subscribe a handler to it in runtime.toml"),
            ),
            // The publisher named no queue: the routes and the engine disagree.
            PublishError::UnknownQueue(_) => Self::new(INTERNAL, error.to_string()),
            PublishError::InvalidKey { .. } => Self::new(INVALID_REQUEST, error.to_string()),
            PublishError::Full { queue, .. } => Self::new(
                QUEUE_FULL,
                format!(
                    "{error}; publish again once some are handled, or raise the limit of the handler `{queue}` in \
                     runtime.toml"
                ),
            ),
            PublishError::Duplicate(_) => Self::new(DUPLICATE, error.to_string()),
            PublishError::DiskFull { .. } => Self::new(DISK_FULL, format!("{error}; make room, and publish again")),
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        let kind = match error {
            QueueError::UnknownQueue(_) => UNKNOWN_QUEUE,
            QueueError::InvalidRequest(_) => INVALID_REQUEST,
            QueueError::Unsupported { .. } => UNSUPPORTED,
            QueueError::Unavailable(_) | QueueError::Closed => UNAVAILABLE,
            QueueError::Corrupt(_) => INTERNAL,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::new(INTERNAL, format!("the answer cannot be written as JSON: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use gristmill_queue::{EntryRef, Limit};

    use super::*;

    #[test]
    fn refusals_have_a_status_and_say_what_to_do() {
        let entry = EntryRef { queue: "orders".parse().unwrap(), entry: "0-1".parse().unwrap() };
        let full = |limit| PublishError::Full { queue: "orders".parse().unwrap(), limit };
        let cases = [
            (full(Limit::Events(10)), 429, "it may hold 10 events; publish again once"),
            (full(Limit::Bytes(10)), 429, "it may hold 10 bytes; publish again once"),
            (PublishError::Duplicate(vec![entry]), 409, "published before, as 0-1"),
            (PublishError::DiskFull { available: 1, reserve: 2 }, 507, "make room"),
            (PublishError::InvalidKey { name: "dedupe key", len: 0 }, 400, "dedupe key"),
        ];
        for (error, status, words) in cases {
            let problem = Problem::from(&error);
            assert_eq!(problem.status, status, "{error}");
            assert!(problem.detail.contains(words), "{}", problem.detail);
        }
    }
}
