//! One event from the flags of `publish`.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use bytes::Bytes;
use gristmill_core::{Event, EventError, Timestamp};
use serde::de::IgnoredAny;

/// The attributes and the data of one event. Without `--type` there is none.
#[derive(Clone, Debug, clap::Args)]
pub struct EventFlags {
    /// What happened, such as com.acme.order.paid
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "file")]
    pub ty: Option<String>,
    /// Who says it: a URI reference
    #[arg(long, conflicts_with = "file", requires = "ty", default_value = "/gristmill/publish", value_parser = source)]
    pub source: String,
    /// What it happened to
    #[arg(long, conflicts_with = "file", requires = "ty")]
    pub subject: Option<String>,
    /// Tells the event from others of its source [default: made up]
    #[arg(long, conflicts_with = "file", requires = "ty")]
    pub id: Option<String>,
    /// The payload
    #[arg(long, conflicts_with = "file", requires = "ty")]
    pub data: Option<String>,
    /// Media type of the payload [default: application/json if it is JSON, else text/plain]
    #[arg(long, conflicts_with = "file", requires = "ty", value_name = "MEDIA-TYPE")]
    pub datacontenttype: Option<String>,
    /// An extension attribute; may be repeated
    #[arg(long, conflicts_with = "file", requires = "ty", value_name = "NAME=VALUE", value_parser = extension)]
    pub extension: Vec<(String, String)>,
}

impl EventFlags {
    /// The event, which happened `now`; `None` when the flags describe none.
    ///
    /// # Errors
    /// When an attribute is not allowed.
    pub fn event(&self, now: Timestamp) -> Result<Option<Event>, EventError> {
        let Some(ty) = &self.ty else { return Ok(None) };
        let id = self.id.clone().unwrap_or_else(|| made_up_id(now));
        let event = Event {
            subject: self.subject.clone(),
            time: Some(now.to_string()),
            datacontenttype: self.datacontenttype.clone().or_else(|| self.data.as_deref().map(media_type)),
            extensions: self.extension.iter().cloned().collect(),
            data: self.data.clone().map(Bytes::from),
            ..Event::new(id, &self.source, ty)
        };
        event.validate()?;
        Ok(Some(event))
    }
}

fn media_type(data: &str) -> String {
    let json = serde_json::from_str::<IgnoredAny>(data).is_ok();
    if json { "application/json" } else { "text/plain" }.to_owned()
}

/// Unlike any other: the time, and the 64 random bits that every hash map of the standard library starts from.
fn made_up_id(now: Timestamp) -> String {
    format!("{:014x}-{:016x}", now.as_micros(), RandomState::new().hash_one(now))
}

fn source(text: &str) -> Result<String, String> {
    match why_no_uri_reference(text) {
        None => Ok(text.to_owned()),
        Some(reason) => Err(format!("not a URI reference such as /shop/orders or https://example.com/shop: {reason}")),
    }
}

/// By the grammar of RFC 3986, as far as it goes without looking into an authority.
fn why_no_uri_reference(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("it is empty".to_owned());
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
    if let Some(c) = text.chars().find(|c| !is_allowed(*c)) {
        let encoded: String = c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect();
        return Some(format!("`{}` must be written as {encoded}", c.escape_debug()));
    }
    let is_encoded = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_encoded) {
        return Some("a `%` without two hexadecimal digits; `%` itself is %25".to_owned());
    }
    if text.matches('#').count() > 1 {
        return Some("more than one `#`".to_owned());
    }
    let head = text.split(['/', '?', '#']).next().unwrap_or_default();
    let (scheme, _) = head.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (!is_scheme).then(|| format!("`{scheme}` before the `:` is no scheme; write ./{text} if it is meant as a path"))
}

fn extension(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        file: Option<String>,
        #[command(flatten)]
        event: EventFlags,
    }

    fn event(flags: &[&str]) -> Result<Option<Event>, EventError> {
        let line = Line::try_parse_from([&["publish"], flags].concat()).unwrap();
        assert_eq!(line.file, None);
        line.event.event(Timestamp::EPOCH)
    }

    #[test]
    fn flags_become_an_event() {
        let flags = ["--type", "t", "--source", "/s", "--id", "1", "--data", "{}", "--extension", "a=b=c"];
        let event = event(&flags).unwrap().unwrap();
        assert_eq!((event.id.as_str(), event.source.as_str(), event.ty.as_str()), ("1", "/s", "t"));
        assert_eq!(event.time.as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
        assert_eq!(event.extensions, [("a".to_owned(), "b=c".to_owned())].into());
        assert_eq!(event.data.unwrap(), "{}");
    }

    #[test]
    fn what_is_left_out_is_made_up() {
        let one = event(&["--type", "t", "--data", "hello"]).unwrap().unwrap();
        let two = event(&["--type", "t"]).unwrap().unwrap();
        assert_ne!(one.id, two.id);
        assert_eq!(one.datacontenttype.as_deref(), Some("text/plain"));
        assert_eq!((two.datacontenttype, two.data), (None, None));
        assert_eq!(event(&[]).unwrap(), None);
    }

    #[test]
    fn a_source_is_a_uri_reference() {
        for text in ["/s", "s", "urn:a:b", "https://u@[::1]:80/a%20b?c=d#e", "./a:b", "?q", "#f", "mailto:a@b", "//h/p"]
        {
            assert_eq!(source(text), Ok(text.to_owned()));
        }
        let cases = [
            ("", "empty"),
            ("my shop", "` ` must be written as %20"),
            ("/caf\u{e9}", "%C3%A9"),
            ("/a%2", "hexadecimal"),
            ("/a%\u{e9}1", "%C3%A9"),
            ("#a#b", "more than one `#`"),
            ("1a:b", "`1a` before the `:` is no scheme; write ./1a:b"),
            (":b", "no scheme"),
            ("/a\n", "%0A"),
            ("<a>", "%3C"),
        ];
        for (text, words) in cases {
            let error = source(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn attributes_are_checked() {
        assert!(event(&["--type", "t", "--extension", "Bad=1"]).is_err());
        assert!(event(&["--type", "t", "--subject", "\u{1b}[31m"]).is_err());
    }
}
