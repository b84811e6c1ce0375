//! `POST /v1/events`: CloudEvents in their three modes.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use gristmill_core::units::format_size;
use gristmill_core::{Event, EventError, json};
use gristmill_queue::{Accepted, EntryRef, PublishError, Published};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::model::{self, PublishReply, PublishResult, PublishStatus};
use super::problem::{INTERNAL, INVALID_EVENT, INVALID_REQUEST, Problem, TOO_LARGE, UNSUPPORTED_MODE};
use super::{Api, binary};
use crate::publishing::PublishOptions;

/// The largest batch, unless a single event may be larger.
const MAX_BATCH: u64 = 16 << 20;
/// What JSON adds to a small event: names, quotes, braces.
const JSON_SLACK: u64 = 64 << 10;
/// How many events of a batch go to the engine at once: one commit should not take long.
const CHUNK: usize = 1_024;
/// Up to this size a body is parsed where it was read; a larger one would hold up the other requests.
const PARSED_INLINE: usize = 64 << 10;

pub(super) async fn publish(
    State(api): State<Api>,
    request: Request,
) -> Result<(StatusCode, Json<PublishReply>), Problem> {
    let (parts, body) = request.into_parts();
    let options = PublishOptions::from_query(&parts.uri).map_err(|detail| Problem::new(INVALID_REQUEST, detail))?;
    let mode = Mode::of(&parts.headers)?;
    let body = read(body, mode.limit(api.queue.capabilities().max_event_size)).await?;
    let results = match mode {
        Mode::Binary => single(&api, binary::decode(&parts.headers, body), &options).await?,
        Mode::Structured => single(&api, parse(body, |body| json::parse(&body)).await?, &options).await?,
        Mode::Batched => batch(&api, parse(body, |body| judge(&body)).await??, &options).await?,
    };
    Ok((StatusCode::ACCEPTED, Json(PublishReply { results })))
}

/// How events are laid out in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Binary,
    Structured,
    Batched,
}

impl Mode {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let media_type = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let essence = media_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        match essence.as_str() {
            json::STRUCTURED => Ok(Self::Structured),
            json::BATCH => Ok(Self::Batched),
            other if !other.starts_with("application/cloudevents") && binary::is_binary(headers) => Ok(Self::Binary),
            other => Err(Problem::new(
                UNSUPPORTED_MODE,
                format!(
                    "`Content-Type: {}` is none of the three ways to send events: {} (one event), {} (an array of \
                     them), or any other type with the event's attributes in `ce-*` headers (binary mode)",
                    other.escape_debug(),
                    json::STRUCTURED,
                    json::BATCH
                ),
            )),
        }
    }

    /// The largest body. The engine judges the events themselves; base64 and escapes may double what they take.
    fn limit(self, max_event_size: u64) -> u64 {
        let structured = max_event_size.saturating_mul(2).saturating_add(JSON_SLACK);
        match self {
            Self::Binary => max_event_size,
            Self::Structured => structured,
            Self::Batched => structured.max(MAX_BATCH),
        }
    }
}

async fn read(body: Body, limit: u64) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut read = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Problem::new(INVALID_REQUEST, format!("the body ended before it was complete: {error}"))
        })?;
        if (read.len() + chunk.len()) as u64 > limit {
            return Err(Problem::new(
                TOO_LARGE,
                format!("the body has more than the {} that are taken in this mode", format_size(limit)),
            ));
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read.freeze())
}

async fn parse<T: Send + 'static>(body: Bytes, parse: fn(Bytes) -> T) -> Result<T, Problem> {
    if body.len() <= PARSED_INLINE {
        return Ok(parse(body));
    }
    let parsed = tokio::task::spawn_blocking(move || parse(body)).await;
    parsed.map_err(|error| Problem::new(INTERNAL, format!("the body could not be parsed: {error}")))
}

/// Publishes events as a batch that came over HTTP is published.
pub(crate) async fn publish_events(
    api: &Api,
    events: &[&Event],
    options: &PublishOptions,
) -> Result<PublishReply, Problem> {
    let judged = events.iter().map(|&event| Judged { name: Name::of(event), event: Ok(event.clone()) });
    Ok(PublishReply { results: batch(api, judged.collect(), options).await? })
}

/// One event of a batch, or why it is none, and what it calls itself.
struct Judged {
    name: Name,
    event: Result<Event, EventError>,
}

/// What a result is told apart by; also for what is otherwise no event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Name {
    source: Option<String>,
    id: Option<String>,
}

impl Name {
    fn of(event: &Event) -> Self {
        Self { source: Some(event.source.clone()), id: Some(event.id.clone()) }
    }
}

fn judge(batch: &[u8]) -> Result<Vec<Judged>, Problem> {
    let items: Vec<&RawValue> = serde_json::from_slice(batch)
        .map_err(|error| Problem::new(INVALID_EVENT, format!("a batch is a JSON array of events: {error}")))?;
    let judged = items.into_iter().map(|item| match json::parse(item.get().as_bytes()) {
        Ok(event) => Judged { name: Name::of(&event), event: Ok(event) },
        Err(error) => Judged { name: serde_json::from_str(item.get()).unwrap_or_default(), event: Err(error) },
    });
    Ok(judged.collect())
}

async fn single(
    api: &Api,
    event: Result<Event, EventError>,
    options: &PublishOptions,
) -> Result<Vec<PublishResult>, Problem> {
    let event = event.map_err(|error| Problem::from(&error))?;
    let mut results = batch(api, vec![Judged { name: Name::of(&event), event: Ok(event) }], options).await?;
    match results.iter_mut().find_map(|result| result.error.take()) {
        Some(problem) => Err(problem),
        None => Ok(results),
    }
}

async fn batch(api: &Api, judged: Vec<Judged>, options: &PublishOptions) -> Result<Vec<PublishResult>, Problem> {
    let mut results = Vec::with_capacity(judged.len());
    let mut judged = judged.into_iter().peekable();
    while judged.peek().is_some() {
        results.extend(chunk(api, judged.by_ref().take(CHUNK), options).await?);
    }
    Ok(results)
}

async fn chunk(
    api: &Api,
    judged: impl Iterator<Item = Judged>,
    options: &PublishOptions,
) -> Result<Vec<PublishResult>, Problem> {
    let mut publishes = Vec::new();
    let mut verdicts = Vec::new();
    for Judged { name, event } in judged {
        let refusal = match event {
            Ok(event) => {
                let queues = api.router.route(&event);
                publishes.push(options.publish(Arc::new(event), queues));
                None
            }
            Err(error) => Some(Problem::from(&error)),
        };
        verdicts.push((name, refusal));
    }
    let Published { durability, results } = match publishes.as_slice() {
        [] => Published { durability: api.queue.capabilities().durability, results: Vec::new() },
        _ => api.queue.publish(publishes).await?,
    };
    let mut answers = results.into_iter();
    let answered = verdicts.into_iter().map(|(name, refusal)| match refusal {
        Some(problem) => PublishResult::refused(name.source, name.id, problem),
        None => result(name, durability.as_str(), answers.next()),
    });
    Ok(answered.collect())
}

fn result(name: Name, durability: &str, answer: Option<Result<Accepted, PublishError>>) -> PublishResult {
    match answer {
        Some(Ok(Accepted { status, entries })) => PublishResult {
            source: name.source,
            id: name.id,
            status: match status {
                gristmill_queue::PublishStatus::Accepted => PublishStatus::Accepted,
                gristmill_queue::PublishStatus::Duplicate => PublishStatus::Duplicate,
            },
            durability: Some(durability.to_owned()),
            entries: entries.into_iter().map(|EntryRef { queue, entry }| model::EntryRef { queue, entry }).collect(),
            error: None,
        },
        Some(Err(error)) => PublishResult::refused(name.source, name.id, Problem::from(&error)),
        None => {
            let problem = Problem::new(INTERNAL, "the engine answered fewer events than it was given");
            PublishResult::refused(name.source, name.id, problem)
        }
    }
}
