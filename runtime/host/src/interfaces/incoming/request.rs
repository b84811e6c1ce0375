//! An event as a request: `POST /`, CloudEvents over HTTP in binary mode.

use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::Event;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;

use crate::invocation::Invocation;

/// Where the request goes, as far as the handler can tell.
const URL: &str = "http://localhost/";

/// The request, with its delivery in headers that begin with `gristmill-`.
pub(super) fn of(invocation: Invocation) -> Result<Request<Full<Bytes>>, http::Error> {
    let event = Arc::unwrap_or_clone(invocation.event);
    let data = event.data.clone().unwrap_or_default();
    let mut request = Request::builder().method(Method::POST).uri(URL).body(Full::new(data.clone()))?;
    let headers = request.headers_mut();
    attributes(headers, event)?;
    headers.try_insert(CONTENT_LENGTH, data.len().into())?;
    set(headers, "gristmill-delivery-id", &invocation.delivery_id)?;
    set(headers, "gristmill-queue", &invocation.queue)?;
    set(headers, "gristmill-attempt", &invocation.attempt.to_string())?;
    if let Some(max) = invocation.max_attempts {
        set(headers, "gristmill-max-attempts", &max.to_string())?;
    }
    set(headers, "gristmill-enqueued-at", &invocation.enqueued_at.to_string())?;
    Ok(request)
}

fn attributes(headers: &mut HeaderMap, event: Event) -> Result<(), http::Error> {
    let Event { id, source, ty, subject, time, datacontenttype, dataschema, extensions, data: _ } = event;
    set(headers, "ce-specversion", "1.0")?;
    for (name, value) in [("ce-id", Some(id)), ("ce-source", Some(source)), ("ce-type", Some(ty))].into_iter().chain([
        ("ce-subject", subject),
        ("ce-time", time),
        ("ce-dataschema", dataschema),
    ]) {
        if let Some(value) = value {
            set(headers, name, &value)?;
        }
    }
    for (name, value) in &extensions {
        set(headers, &format!("ce-{name}"), value)?;
    }
    if let Some(media_type) = datacontenttype {
        headers.try_insert(CONTENT_TYPE, HeaderValue::from_bytes(media_type.as_bytes())?)?;
    }
    Ok(())
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), http::Error> {
    headers.try_insert(HeaderName::try_from(name)?, HeaderValue::try_from(encode(value))?)?;
    Ok(())
}

/// Section 3.1.3.2 of the HTTP binding: everything but visible ASCII, and `"` and `%`, as percent-encoded UTF-8.
fn encode(value: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_the_binding_says() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode(r#"100% "a" ~!"#), "100%25%20%22a%22%20~!");
    }
}
