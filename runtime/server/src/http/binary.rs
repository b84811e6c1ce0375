//! CloudEvents over HTTP, binary mode: attributes in `ce-*` headers, data in the body.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::Bytes;
use gristmill_core::{Event, EventError};

const PREFIX: &str = "ce-";

/// Whether any header speaks of a CloudEvent.
pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PREFIX))
}

/// The event in the headers and the body.
pub(super) fn decode(headers: &HeaderMap, body: Bytes) -> Result<Event, EventError> {
    let mut event = Event::new("", "", "");
    let mut version = None;
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        if headers.get_all(name).iter().count() > 1 {
            return Err(invalid(name, "stands more than once"));
        }
        let value = decode_value(name, value)?;
        match attribute {
            "specversion" => version = Some(value),
            "id" => event.id = value,
            "source" => event.source = value,
            "type" => event.ty = value,
            "subject" => event.subject = Some(value),
            "time" => event.time = Some(value),
            "dataschema" => event.dataschema = Some(value),
            "datacontenttype" => return Err(invalid(name, "is the header `Content-Type` in binary mode")),
            extension => {
                event.extensions.insert(extension.to_owned(), value);
            }
        }
    }
    match version.as_deref() {
        Some("1.0") => {}
        Some(other) => {
            let reason = format!("is {other:?}; only \"1.0\" is understood");
            return Err(EventError::Invalid { name: "specversion".to_owned(), reason });
        }
        None => return Err(EventError::Missing("specversion")),
    }
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        event.datacontenttype = Some(text(&header::CONTENT_TYPE, value.as_bytes().to_vec())?);
    }
    event.data = Some(body).filter(|body| !body.is_empty());
    event.validate()?;
    Ok(event)
}

/// Section 3.1.3.2 of the HTTP binding: quotes off, then one round of percent-decoding, and what comes out is UTF-8.
fn decode_value(name: &HeaderName, value: &HeaderValue) -> Result<String, EventError> {
    let unquoted = unquote(value.as_bytes().trim_ascii());
    let mut decoded = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.as_slice();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        match tail {
            [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex(*high) << 4 | hex(*low));
                rest = tail;
            }
            _ => return Err(invalid(name, "holds a `%` without two hexadecimal digits; `%` itself is `%25`")),
        }
    }
    text(name, decoded)
}

/// A value in double quotes without them and their backslash escapes; older senders quote.
fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return value.to_vec();
    };
    let mut escaped = false;
    let mut plain = inner.to_vec();
    plain.retain(|&byte| {
        escaped = byte == b'\\' && !escaped;
        !escaped
    });
    plain
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

fn text(name: &HeaderName, bytes: Vec<u8>) -> Result<String, EventError> {
    String::from_utf8(bytes).map_err(|_| invalid(name, "is not UTF-8"))
}

fn invalid(name: &HeaderName, reason: &str) -> EventError {
    EventError::Invalid { name: name.as_str().to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(extra: &[(&str, &str)]) -> HeaderMap {
        let required = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/shop"), ("ce-type", "order.paid")];
        let mut headers = HeaderMap::new();
        for (name, value) in required.iter().chain(extra) {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn subject(value: &str) -> Result<String, String> {
        decode(&headers(&[("ce-subject", value)]), Bytes::new())
            .map(|event| event.subject.unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn headers_become_attributes_and_the_body_data() {
        let headers = headers(&[("CE-Traceparent", "00-ab"), ("content-type", "text/plain"), ("x-other", "1")]);
        let event = decode(&headers, Bytes::from_static(b"hello")).unwrap();
        assert_eq!((event.id.as_str(), event.source.as_str(), event.ty.as_str()), ("1", "/shop", "order.paid"));
        assert_eq!(event.datacontenttype.as_deref(), Some("text/plain"));
        assert_eq!(event.extensions, [("traceparent".to_owned(), "00-ab".to_owned())].into());
        assert_eq!(event.data.unwrap(), "hello");
    }

    #[test]
    fn values_are_decoded_once() {
        assert_eq!(subject("Euro%20%E2%82%AC%20%F0%9F%98%80").unwrap(), "Euro € 😀");
        assert_eq!(subject("100%2525").unwrap(), "100%25");
        assert_eq!(subject(r#""a \"b\" \\ c%21""#).unwrap(), r#"a "b" \ c!"#);
        assert_eq!(subject("plain text").unwrap(), "plain text");
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        assert!(subject("%C0%A0").unwrap_err().contains("not UTF-8"));
        assert!(subject("50%").unwrap_err().contains("%25"));
        assert!(subject("%zz").unwrap_err().contains("%25"));
        assert!(subject("%0A").unwrap_err().contains("control character"));
    }

    #[test]
    fn attributes_are_required_unique_and_known() {
        let error = |headers: &HeaderMap| decode(headers, Bytes::new()).unwrap_err().to_string();
        assert!(error(&headers(&[("ce-id", "2")])).contains("more than once"));
        assert!(error(&headers(&[("ce-datacontenttype", "a/b")])).contains("Content-Type"));
        assert!(error(&headers(&[("ce-Bad_name", "1")])).contains("lower-case"));
        let mut none = headers(&[]);
        none.remove("ce-specversion");
        assert!(error(&none).contains("`specversion` is missing"));
    }
}
