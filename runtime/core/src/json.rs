//! The CloudEvents JSON format: one event (structured mode), or an array of them (batched mode).
//!
//! JSON data is kept as the very text that was published, so that numbers keep their digits and objects their order.
//! Programs that are no more than programs get an event as one [`line`], and write [drafts](parse_draft).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::event::{Event, EventError, invalid};

/// Media type of one event.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of an array of events.
pub const BATCH: &str = "application/cloudevents-batch+json";

/// Parses and validates one event.
///
/// # Errors
/// When the text is not a JSON object, or its members are not those of a CloudEvents 1.0 event.
pub fn parse(text: &[u8]) -> Result<Event, EventError> {
    from_members(members(text)?, None)
}

/// What an event has that does not say so itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its id.
    pub id: String,
    /// Its source.
    pub source: String,
}

/// Parses and validates one event that may leave out `specversion`, and what `origin` knows.
///
/// # Errors
/// As [`parse`] has them.
pub fn parse_draft(text: &[u8], origin: Origin) -> Result<Event, EventError> {
    from_members(members(text)?, Some(origin))
}

/// The event on one line, with its end.
///
/// # Errors
/// When it cannot be written as JSON, which no valid event is known to cause.
pub fn line(event: &Event) -> Result<Vec<u8>, EventError> {
    let mut text = serde_json::to_vec(&Structured(event)).map_err(json_error)?;
    // JSON data is as it was published. Outside its strings a line's end means no more than a blank, and inside there
    // is none.
    for byte in &mut text {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.push(b'\n');
    Ok(text)
}

/// Parses an array of events; each is judged by itself.
///
/// # Errors
/// When the text is not a JSON array.
pub fn parse_batch(text: &[u8]) -> Result<Vec<Result<Event, EventError>>, EventError> {
    let items: Vec<&RawValue> = serde_json::from_slice(text).map_err(json_error)?;
    Ok(items.into_iter().map(|item| parse(item.get().as_bytes())).collect())
}

/// An event that serializes as CloudEvents JSON.
#[derive(Clone, Copy, Debug)]
pub struct Structured<'a>(pub &'a Event);

impl Serialize for Structured<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("source", &event.source)?;
        map.serialize_entry("type", &event.ty)?;
        let optional = [
            ("subject", &event.subject),
            ("time", &event.time),
            ("datacontenttype", &event.datacontenttype),
            ("dataschema", &event.dataschema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        for (name, value) in &event.extensions {
            map.serialize_entry(name, value)?;
        }
        if let Some(data) = &event.data {
            match json_text(event) {
                Some(json) => map.serialize_entry("data", json)?,
                // Without a media type, a string under `data` would be read back as JSON: keep the bytes.
                None => match event.text().filter(|_| !event.claims_json()) {
                    Some(text) => map.serialize_entry("data", text)?,
                    None => map.serialize_entry("data_base64", &BASE64.encode(data))?,
                },
            }
        }
        map.end()
    }
}

/// The data, when it claims to be JSON and is.
fn json_text(event: &Event) -> Option<&RawValue> {
    let data = event.data.as_deref().filter(|_| event.claims_json())?;
    serde_json::from_slice(data).ok()
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn members(text: &[u8]) -> Result<Members<'_>, EventError> {
    serde_json::from_slice(text).map_err(json_error)
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn json_error(error: serde_json::Error) -> EventError {
    EventError::Json(error.to_string())
}

fn from_members(mut members: Members<'_>, origin: Option<Origin>) -> Result<Event, EventError> {
    match take(&mut members, "specversion")?.as_deref() {
        Some("1.0") => {}
        Some(other) => return Err(invalid("specversion", &format!("is {other:?}; only \"1.0\" is understood"))),
        None if origin.is_some() => {}
        None => return Err(EventError::Missing("specversion")),
    }
    let (id, source) = origin.map(|origin| (origin.id, origin.source)).unzip();
    let mut event = Event {
        id: take(&mut members, "id")?.or(id).ok_or(EventError::Missing("id"))?,
        source: take(&mut members, "source")?.or(source).ok_or(EventError::Missing("source"))?,
        ty: take(&mut members, "type")?.ok_or(EventError::Missing("type"))?,
        subject: take(&mut members, "subject")?,
        time: take(&mut members, "time")?,
        datacontenttype: take(&mut members, "datacontenttype")?,
        dataschema: take(&mut members, "dataschema")?,
        extensions: BTreeMap::new(),
        data: None,
    };
    let data = members.remove("data").filter(|value| value.get() != "null");
    let base64 = take(&mut members, "data_base64")?;
    event.data = match (data, base64) {
        (Some(_), Some(_)) => return Err(invalid("data_base64", "stands beside `data`; an event has one of them")),
        (Some(value), None) => Some(data_bytes(&event, value)?),
        (None, Some(text)) => match BASE64.decode(text) {
            Ok(bytes) => Some(Bytes::from(bytes)),
            Err(error) => return Err(invalid("data_base64", &error.to_string())),
        },
        (None, None) => None,
    };
    for (name, value) in members {
        if let Some(value) = scalar(&name, value)? {
            event.extensions.insert(name.into_owned(), value);
        }
    }
    event.validate()?;
    Ok(event)
}

/// JSON data keeps its text; a string under another media type is the text itself.
fn data_bytes(event: &Event, value: &RawValue) -> Result<Bytes, EventError> {
    if event.claims_json() {
        return Ok(Bytes::copy_from_slice(value.get().as_bytes()));
    }
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => Ok(Bytes::from(text)),
        Err(_) => Err(invalid("data", "must be a string when `datacontenttype` is not JSON (or use `data_base64`)")),
    }
}

fn take(members: &mut BTreeMap<Cow<'_, str>, &RawValue>, name: &str) -> Result<Option<String>, EventError> {
    match members.remove(name) {
        None => Ok(None),
        Some(value) if value.get() == "null" => Ok(None),
        Some(value) => match serde_json::from_str(value.get()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(invalid(name, "must be a string")),
        },
    }
}

/// An extension's canonical string: CloudEvents allows strings, booleans and 32-bit integers.
fn scalar(name: &str, value: &RawValue) -> Result<Option<String>, EventError> {
    match serde_json::from_str(value.get()) {
        Ok(serde_json::Value::Null) => Ok(None),
        Ok(serde_json::Value::String(text)) => Ok(Some(text)),
        Ok(serde_json::Value::Bool(flag)) => Ok(Some(flag.to_string())),
        Ok(serde_json::Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
            Ok(Some(n.to_string()))
        }
        _ => Err(invalid(name, "an extension is a string, a boolean or a 32-bit integer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> Event {
        let event = parse(text.as_bytes()).unwrap();
        let again = serde_json::to_vec(&Structured(&event)).unwrap();
        assert_eq!(parse(&again).unwrap(), event, "{}", String::from_utf8_lossy(&again));
        event
    }

    #[test]
    fn json_data_keeps_its_text() {
        let event = round_trip(
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"b":1.10,"a":12345678901234567890123}}"#,
        );
        assert_eq!(event.data.unwrap(), r#"{"b":1.10,"a":12345678901234567890123}"#);
    }

    #[test]
    fn data_of_every_kind_survives() {
        let head = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","#;
        let text = round_trip(&format!(r#"{head}"datacontenttype":"text/plain","data":"a\nb"}}"#));
        assert_eq!(text.data.unwrap(), "a\nb");
        let binary = round_trip(&format!(r#"{head}"datacontenttype":"image/png","data_base64":"/wA="}}"#));
        assert_eq!(binary.data.unwrap(), &[0xff, 0][..]);
        let broken = round_trip(&format!(r#"{head}"datacontenttype":"application/json","data_base64":"ew=="}}"#));
        assert_eq!(broken.data.unwrap(), "{");
        let string = round_trip(&format!(r#"{head}"data":"text"}}"#));
        assert_eq!(string.data.unwrap(), "\"text\"");
        assert_eq!(round_trip(&format!(r#"{head}"data":null}}"#)).data, None);
    }

    #[test]
    fn an_event_is_one_line_whatever_its_data_looks_like() {
        let mut event = Event::new("1", "/s", "t");
        event.data = Some(Bytes::from_static(b"{\r\n  \"a\": \"x\\ny\",\n  \"b\": 1.10\n}\n"));
        event.subject = Some("line\nbreak".to_owned());
        let text = line(&event).unwrap();
        assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 1, "{}", String::from_utf8_lossy(&text));
        assert!(text.ends_with(b"}\n") && !text.contains(&b'\r'));
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["data"]["a"], "x\ny");
        assert_eq!(value["subject"], "line\nbreak");
    }

    #[test]
    fn a_draft_may_leave_out_what_its_origin_knows() {
        let origin = || Origin { id: "e7-1".to_owned(), source: "/handlers/shop".to_owned() };
        let draft = parse_draft(br#"{"type":"t","data":[1]}"#, origin()).unwrap();
        assert_eq!((draft.id.as_str(), draft.source.as_str()), ("e7-1", "/handlers/shop"));
        assert_eq!(draft.data.unwrap(), "[1]");
        let whole = parse_draft(br#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#, origin()).unwrap();
        assert_eq!(whole, Event::new("1", "/s", "t"));
        for text in [&br#"{"specversion":"0.3","type":"t"}"#[..], b"{}", br#"{"type":"t","id":""}"#, b"\"\xff\""] {
            assert!(parse_draft(text, origin()).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn extensions_become_canonical_strings() {
        let event = round_trip(
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","flag":true,"count":-7,"traceparent":"00-ab","gone":null}"#,
        );
        let extensions: Vec<_> = event.extensions.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(extensions, [("count", "-7"), ("flag", "true"), ("traceparent", "00-ab")]);
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        let head = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t""#;
        let cases = [
            ("{".to_owned(), "not a CloudEvent in JSON"),
            ("[]".to_owned(), "not a CloudEvent in JSON"),
            (r#"{"id":"1"}"#.to_owned(), "`specversion` is missing"),
            (r#"{"specversion":"0.3"}"#.to_owned(), "only \"1.0\" is understood"),
            (r#"{"specversion":"1.0","id":1}"#.to_owned(), "attribute `id`: must be a string"),
            (r#"{"specversion":"1.0","id":"1","source":"/s"}"#.to_owned(), "`type` is missing"),
            (format!(r#"{head},"data":1,"data_base64":""}}"#), "stands beside"),
            (format!(r#"{head},"data_base64":"?"}}"#), "data_base64"),
            (format!(r#"{head},"datacontenttype":"text/plain","data":{{}}}}"#), "must be a string"),
            (format!(r#"{head},"Bad":"x"}}"#), "lower-case"),
            (format!(r#"{head},"ext":[1]}}"#), "an extension is a string"),
            (format!(r#"{head},"ext":1.5}}"#), "an extension is a string"),
        ];
        for (text, expected) in cases {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_batch_is_judged_event_by_event() {
        let batch = parse_batch(br#"[{"specversion":"1.0","id":"1","source":"/s","type":"t"}, {}, 3]"#).unwrap();
        assert_eq!(batch.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false]);
        assert!(parse_batch(b"{}").is_err());
    }
}
