//! Looking at queues and entries, and making dead letters ready again.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use gristmill_core::outcome::MAX_REASON_LEN;
use gristmill_core::{EntryId, QueueName, State};
use gristmill_queue::{
    Act, ActReply, Action, List, Operated, Operation, PauseIf, QueueError, QueueStats, ResumeIf, Selection,
};
use serde::Deserialize;

use super::model::{self, Redriven};
use super::problem::{INVALID_REQUEST, NOT_DEAD, Problem, UNKNOWN_ENTRY, UNKNOWN_PATH, UNKNOWN_QUEUE};
use super::view::{self, Extent};
use super::{Api, problem};

/// Entries on a page, unless the request says otherwise.
const DEFAULT_LIMIT: usize = 100;
/// The most entries on a page.
const MAX_LIMIT: usize = 1_000;

type Segment = Result<Path<String>, PathRejection>;

pub(super) async fn queues(Shared(api): Shared<Api>) -> Result<Json<model::List<model::Queue>>, Problem> {
    let stats = api.queue.stats().await?;
    let items = stats.into_iter().map(|stats| view::queue(stats, &api.router)).collect();
    Ok(Json(model::List { items, next: None }))
}

pub(super) async fn queue(Shared(api): Shared<Api>, path: Segment) -> Result<Json<model::Queue>, Problem> {
    let name = queue_name(path)?;
    let stats = api.queue.stats().await?;
    match stats.iter().find(|stats| stats.queue == name) {
        Some(found) => Ok(Json(view::queue(found.clone(), &api.router))),
        None => Err(unknown_queue(&name, &stats)),
    }
}

fn unknown_queue(name: &QueueName, stats: &[QueueStats]) -> Problem {
    let known: Vec<_> = stats.iter().map(|stats| stats.queue.as_str()).collect();
    Problem::new(UNKNOWN_QUEUE, format!("there is no queue `{name}`; there are: {}", known.join(", ")))
}

/// The query of a pause.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pausing {
    /// Why, for others to see.
    reason: Option<String>,
}

pub(super) async fn pause(
    Shared(api): Shared<Api>,
    path: Segment,
    query: Result<Query<Pausing>, QueryRejection>,
) -> Result<Json<model::Queue>, Problem> {
    let queue = queue_name(path)?;
    let Query(Pausing { reason }) = query.map_err(|error| invalid(error.body_text()))?;
    let reason = reason.unwrap_or_else(|| "by hand".to_owned());
    if reason.len() > MAX_REASON_LEN {
        return Err(invalid(format!("`reason` has {} bytes; it may have {MAX_REASON_LEN}", reason.len())));
    }
    operated(&api, queue.clone(), Operation::Pause { queue, reason, only_if: PauseIf::Any }).await
}

pub(super) async fn resume(Shared(api): Shared<Api>, path: Segment) -> Result<Json<model::Queue>, Problem> {
    let queue = queue_name(path)?;
    operated(&api, queue.clone(), Operation::Resume { queue, only_if: ResumeIf::Any }).await
}

/// The queue after an operation on it.
async fn operated(api: &Api, name: QueueName, operation: Operation) -> Result<Json<model::Queue>, Problem> {
    let find = |stats: &[QueueStats]| stats.iter().find(|stats| stats.queue == name).cloned();
    let before = api.queue.stats().await?;
    if find(&before).is_none() {
        return Err(unknown_queue(&name, &before));
    }
    api.queue.operate(operation).await?;
    let after = api.queue.stats().await?;
    find(&after).map(|stats| Json(view::queue(stats, &api.router))).ok_or_else(|| unknown_queue(&name, &after))
}

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    state: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

pub(super) async fn entries(
    Shared(api): Shared<Api>,
    path: Segment,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<model::List<model::Entry>>, Problem> {
    let queue = queue_name(path)?;
    let Query(filter) = query.map_err(|error| invalid(error.body_text()))?;
    let request = List { queue, state: state(filter.state)?, limit: limit(filter.limit)?, cursor: filter.cursor };
    let page = match api.queue.list(request).await {
        Err(QueueError::UnknownQueue(name)) => return Err(unknown_queue(&name, &api.queue.stats().await?)),
        page => page?,
    };
    let items = page.entries.iter().map(|entry| view::entry(entry, Extent::Listed)).collect::<Result<_, _>>()?;
    Ok(Json(model::List { items, next: page.next }))
}

pub(super) async fn entry(Shared(api): Shared<Api>, path: Segment) -> Result<Json<model::Entry>, Problem> {
    let id = entry_id(path)?;
    match api.queue.get(id.clone()).await? {
        Some(entry) => Ok(Json(view::entry(&entry, Extent::Whole)?)),
        None => Err(unknown_entry(&id)),
    }
}

pub(super) async fn redrive(Shared(api): Shared<Api>, path: Segment) -> Result<Json<Redriven>, Problem> {
    let entry = entry_id(path)?;
    let act = Act { action: Action::Redrive, on: Selection::Entries(vec![entry.clone()]), rate: None };
    let Operated { mut replies, .. } = api.queue.operate(Operation::Act(act)).await?;
    match replies.pop() {
        // Behind others of its ordering key it waits.
        Some(ActReply::Done) => match api.queue.get(entry.clone()).await? {
            Some(now) => Ok(Json(Redriven { entry, state: now.state })),
            None => Err(unknown_entry(&entry)),
        },
        Some(ActReply::WrongState(state)) => {
            let detail = format!("entry `{entry}` is {state}; only a dead letter can be redriven");
            Err(Problem::new(NOT_DEAD, detail))
        }
        Some(ActReply::Unknown) => Err(unknown_entry(&entry)),
        Some(ActReply::Moved(_)) | None => {
            Err(Problem::new(problem::INTERNAL, "the engine did not answer the redrive"))
        }
    }
}

fn queue_name(path: Segment) -> Result<QueueName, Problem> {
    QueueName::new(&segment(path)?).map_err(|error| Problem::new(UNKNOWN_QUEUE, error.to_string()))
}

fn entry_id(path: Segment) -> Result<EntryId, Problem> {
    EntryId::new(&segment(path)?).map_err(|error| Problem::new(UNKNOWN_ENTRY, error.to_string()))
}

pub(super) fn segment(path: Segment) -> Result<String, Problem> {
    match path {
        Ok(Path(segment)) => Ok(segment),
        Err(error) => Err(Problem::new(UNKNOWN_PATH, error.body_text())),
    }
}

fn state(given: Option<String>) -> Result<State, Problem> {
    let given = given.ok_or_else(|| {
        let states: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        invalid(format!("the parameter `state` is missing: one of {}", states.join(", ")))
    })?;
    given.parse().map_err(|error: gristmill_core::entry::StateError| invalid(error.to_string()))
}

pub(super) fn limit(given: Option<String>) -> Result<usize, Problem> {
    let Some(given) = given else { return Ok(DEFAULT_LIMIT) };
    let parsed = given.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    parsed.ok_or_else(|| {
        invalid(format!("the parameter `limit` is a number from 1 to {MAX_LIMIT}, not `{}`", given.escape_debug()))
    })
}

fn unknown_entry(entry: &EntryId) -> Problem {
    let detail = format!("there is no entry `{entry}`: it never existed, or retention has removed it");
    Problem::new(UNKNOWN_ENTRY, detail)
}

pub(super) fn invalid(detail: String) -> Problem {
    Problem::new(INVALID_REQUEST, detail)
}
