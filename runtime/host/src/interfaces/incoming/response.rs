//! A response as a verdict.

use bytes::{Bytes, BytesMut};
use gristmill_core::http::retry_after;
use gristmill_core::units::format_size;
use gristmill_core::{Outcome, Timestamp};
use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::outcome::cut;

/// How much of a body is shown in a reason, in bytes.
const SHOWN: u64 = 1 << 10;

/// What a handler sets.
type Set = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// What came of a handler that has returned.
pub(super) enum Answer {
    /// A response, and its body to the end.
    Response { status: StatusCode, headers: HeaderMap, body: Body },
    /// An error instead of a response.
    Error(ErrorCode),
    /// It returned without a response.
    Missing,
    /// It returned, and left a response or a body open.
    Unfinished,
}

/// How a body came.
pub(super) enum Body {
    /// All of it.
    Whole(Bytes),
    /// How it begins; it is longer than that.
    Beginning(Bytes),
    /// It was broken off.
    Aborted,
}

/// Reads the response to its end. Its body is kept as far as it is of use; the rest is taken and forgotten, so that the
/// handler can go on writing.
pub(super) async fn read(response: oneshot::Receiver<Set>, max_result: u64) -> Answer {
    let response = match response.await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Answer::Error(error),
        Err(_) => return Answer::Missing,
    };
    let (head, body) = response.into_parts();
    let max = if head.status.is_success() { max_result } else { SHOWN };
    Answer::Response { status: head.status, headers: head.headers, body: read_body(body, max).await }
}

async fn read_body(mut body: HyperOutgoingBody, max: u64) -> Body {
    let mut kept = BytesMut::new();
    let mut is_too_long = false;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Body::Aborted };
        // Trailers say nothing of the verdict.
        let Ok(data) = frame.into_data() else { continue };
        let room = usize::try_from(max).unwrap_or(usize::MAX).saturating_sub(kept.len());
        is_too_long |= data.len() > room;
        kept.extend_from_slice(data.get(..room).unwrap_or(&data));
    }
    if is_too_long { Body::Beginning(kept.freeze()) } else { Body::Whole(kept.freeze()) }
}

/// What an answer means. `now` is what dates in `Retry-After` are compared with.
pub(super) fn outcome(answer: Answer, now: Timestamp) -> Outcome {
    let retry = |reason: &str| Outcome::Retry { reason: cut(reason.to_owned()), after: None };
    let (status, headers, body) = match answer {
        Answer::Response { status, headers, body } => (status, headers, body),
        Answer::Error(error) => return retry(&format!("no response, but an error: {error:?}")),
        Answer::Missing => return retry("the handler returned without a response"),
        Answer::Unfinished => return retry("the handler returned before the end of its response"),
    };
    if status.is_success() {
        return match body {
            Body::Whole(body) => Outcome::Ack { result: (!body.is_empty()).then_some(body) },
            Body::Beginning(body) => {
                let max = format_size(body.len() as u64);
                let reason = format!("HTTP {status}, but the body is longer than {max}, which is `max-result-bytes`");
                Outcome::OverLimit { reason }
            }
            Body::Aborted => retry(&format!("HTTP {status}, but the body was dropped before it was finished")),
        };
    }
    let reason = cut(described(status, &body));
    if is_final(status) {
        return Outcome::Reject { reason };
    }
    let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Outcome::Retry { reason, after: after.and_then(|value| retry_after(value, now)) }
}

/// Whether another try would end the same way.
fn is_final(status: StatusCode) -> bool {
    let for_now = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    (status.is_redirection() || status.is_client_error()) && !for_now.contains(&status)
}

fn described(status: StatusCode, body: &Body) -> String {
    let text = match body {
        Body::Whole(body) | Body::Beginning(body) => String::from_utf8_lossy(body).trim().to_owned(),
        Body::Aborted => String::new(),
    };
    let name = status.canonical_reason().map(|name| format!(" {name}")).unwrap_or_default();
    let status = format!("HTTP {}{name}", status.as_str());
    if text.is_empty() { status } else { format!("{status}: {text}") }
}
