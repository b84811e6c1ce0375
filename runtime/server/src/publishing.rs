//! What publishers may ask for besides the event. The command line has a flag for each, `POST /v1/events` a parameter in
//! its query; either way it holds for every event of the call.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use gristmill_core::units::{format_duration, parse_duration};
use gristmill_core::{Event, QueueName, Timestamp};
use gristmill_queue::{Due, MAX_KEY_LEN, OnDuplicate, Publish};

/// Names in a query.
const PARAMETERS: [&str; 7] = ["key", "dedupe_key", "priority", "delay", "not_before", "ttl", "on_duplicate"];
/// What [`OnDuplicate`] is called.
const ON_DUPLICATE: [(&str, OnDuplicate); 4] = [
    ("return_existing", OnDuplicate::ReturnExisting),
    ("allow_after_failure", OnDuplicate::AllowAfterFailure),
    ("refuse", OnDuplicate::Refuse),
    ("allow", OnDuplicate::Allow),
];

/// How events are to be published. The default asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// The ordering key in all queues; `None`: as each queue's configuration says.
    pub key: Option<String>,
    /// Takes the place of the id where duplicates are looked for.
    pub dedupe_key: Option<String>,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// When the events may be handled.
    pub due: Due,
    /// Within this time somebody must claim them; `None`: as each queue's configuration says.
    pub time_to_live: Option<Duration>,
    /// What a repetition means.
    pub on_duplicate: OnDuplicate,
}

impl PublishOptions {
    /// The publish of one event under these options.
    #[must_use]
    pub fn publish(&self, event: Arc<Event>, queues: Vec<QueueName>) -> Publish {
        Publish {
            due: self.due,
            priority: self.priority,
            key: self.key.clone(),
            time_to_live: self.time_to_live,
            dedupe_key: self.dedupe_key.clone(),
            on_duplicate: self.on_duplicate,
            ..Publish::new(event, queues)
        }
    }

    /// What the query of a request asks for.
    ///
    /// # Errors
    /// Which parameter is wrong, its value, and what would be right.
    pub fn from_query(uri: &Uri) -> Result<Self, String> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| error.body_text())?;
        let mut options = Self::default();
        let mut seen = Vec::with_capacity(pairs.len());
        for (name, value) in &pairs {
            let Some(known) = PARAMETERS.into_iter().find(|known| known == name) else {
                let known = PARAMETERS.join(", ");
                return Err(format!("there is no parameter `{}`; there are: {known}", name.escape_debug()));
            };
            if seen.contains(&known) {
                return Err(format!("the parameter `{known}` stands more than once"));
            }
            if matches!(known, "delay" | "not_before") && options.due != Due::Now {
                return Err("the parameters `delay` and `not_before` exclude each other: give one of them".to_owned());
            }
            let set = options.set(known, value);
            set.map_err(|reason| format!("the parameter `{known}` is `{}`: {reason}", value.escape_debug()))?;
            seen.push(known);
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "key" => self.key = Some(parse_key(value)?),
            "dedupe_key" => self.dedupe_key = Some(parse_key(value)?),
            "priority" => {
                self.priority = value.parse().map_err(|_| "expected a number from 0 to 255".to_owned())?;
            }
            "delay" => self.due = Due::After(parse_duration(value).map_err(|error| error.to_string())?),
            "not_before" => self.due = Due::At(parse_instant(value)?),
            "ttl" => self.time_to_live = Some(parse_positive(value)?),
            "on_duplicate" => {
                let found = ON_DUPLICATE.into_iter().find(|(name, _)| *name == value);
                let names = || format!("expected one of {}", ON_DUPLICATE.map(|(name, _)| name).join(", "));
                self.on_duplicate = found.ok_or_else(names)?.1;
            }
            _ => {}
        }
        Ok(())
    }

    /// What [`from_query`](Self::from_query) understands as these options.
    pub fn to_query(&self) -> impl Iterator<Item = (&'static str, String)> {
        let (delay, not_before) = match self.due {
            Due::Now => (None, None),
            Due::After(delay) => (Some(format_duration(delay)), None),
            Due::At(time) => (None, Some(exact(time))),
        };
        let default = Self::default();
        let changed = Some(self.on_duplicate).filter(|asked| *asked != default.on_duplicate);
        let on_duplicate = changed.and_then(|asked| ON_DUPLICATE.into_iter().find(|(_, known)| *known == asked));
        let pairs = [
            ("key", self.key.clone()),
            ("dedupe_key", self.dedupe_key.clone()),
            ("priority", Some(self.priority).filter(|asked| *asked != default.priority).map(|n| n.to_string())),
            ("delay", delay),
            ("not_before", not_before),
            ("ttl", self.time_to_live.map(format_duration)),
            ("on_duplicate", on_duplicate.map(|(name, _)| name.to_owned())),
        ];
        pairs.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)))
    }
}

/// An ordering key or a dedupe key.
///
/// # Errors
/// When it is empty or too long.
pub fn parse_key(text: &str) -> Result<String, String> {
    match text.len() {
        1..=MAX_KEY_LEN => Ok(text.to_owned()),
        len => Err(format!("expected 1 to {MAX_KEY_LEN} bytes, not {len}")),
    }
}

/// A duration that is not zero.
///
/// # Errors
/// When it is zero, or none at all.
pub fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("expected more than zero".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// An instant in RFC 3339. One before 1970 is as good as 1970.
///
/// # Errors
/// When it is none.
pub fn parse_instant(text: &str) -> Result<Timestamp, String> {
    let instant = jiff::Timestamp::from_str(text)
        .map_err(|_| "expected an RFC 3339 time with its offset, such as 2026-05-04T12:00:00Z".to_owned())?;
    Ok(Timestamp::from_micros(u64::try_from(instant.as_microsecond()).unwrap_or_default()))
}

/// In RFC 3339, to the microsecond.
fn exact(time: Timestamp) -> String {
    let instant = i64::try_from(time.as_micros()).ok().and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
    instant.unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<PublishOptions, String> {
        PublishOptions::from_query(&format!("/v1/events?{query}").parse().unwrap())
    }

    #[test]
    fn what_is_asked_for_survives_the_query() {
        let all = PublishOptions {
            key: Some("A 7/ü&=".into()),
            dedupe_key: Some("+%41".into()),
            priority: 255,
            due: Due::After(Duration::from_micros(1_500)),
            time_to_live: Some(Duration::from_secs(3_600)),
            on_duplicate: OnDuplicate::Allow,
        };
        let at = PublishOptions { due: Due::At(Timestamp::from_micros(1_800_000_000_000_001)), ..Default::default() };
        for options in [all, at, PublishOptions::default()] {
            let mut url: reqwest::Url = "http://x/v1/events".parse().unwrap();
            url.query_pairs_mut().extend_pairs(options.to_query());
            assert_eq!(parse(url.query().unwrap_or_default()), Ok(options));
        }
        for (name, on_duplicate) in ON_DUPLICATE {
            assert_eq!(parse(&format!("on_duplicate={name}")).unwrap().on_duplicate, on_duplicate);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!("key={}", "x".repeat(MAX_KEY_LEN + 1));
        let cases = [
            ("prio=1", "no parameter `prio`; there are: key, dedupe_key"),
            ("priority=256", "`priority` is `256`: expected a number from 0 to 255"),
            ("priority=-1", "from 0 to 255"),
            ("priority=", "from 0 to 255"),
            ("priority=1&priority=2", "`priority` stands more than once"),
            ("key=", "`key` is ``: expected 1 to 1024 bytes, not 0"),
            ("dedupe_key=", "`dedupe_key` is ``: expected 1 to 1024 bytes"),
            (&long, "1025"),
            ("delay=5", "`delay` is `5`: a unit is missing"),
            ("delay=5s&not_before=2026-05-04T12:00:00Z", "exclude each other"),
            ("not_before=2026-05-04T12:00:00Z&delay=0s", "exclude each other"),
            ("not_before=tomorrow", "RFC 3339"),
            ("not_before=2026-05-04T12:00:00", "with its offset"),
            ("ttl=0s", "`ttl` is `0s`: expected more than zero"),
            ("ttl=1w", "ms, s, m, h, d"),
            ("on_duplicate=skip", "return_existing, allow_after_failure, refuse, allow"),
        ];
        for (query, words) in cases {
            let error = parse(query).unwrap_err();
            assert!(error.contains(words), "{query}: {error}");
        }
    }
}
