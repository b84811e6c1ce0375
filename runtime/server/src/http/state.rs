//! Looking at state: buckets, keys, values.
//!
//! Keys stand in the query, not in the path: `.`, `..` and `/` are keys like others, and paths lose them on the way.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use gristmill_queue::{QueueError, StateSnapshot};
use serde::Deserialize;

use super::Api;
use super::inspect::{invalid, limit, segment};
use super::model::List;
use super::problem::{INTERNAL, Problem, UNKNOWN_KEY};

pub(super) async fn buckets(Shared(api): Shared<Api>) -> Result<Json<List<String>>, Problem> {
    let items = read(&api, |snapshot| snapshot.buckets()).await?;
    Ok(Json(List { items, next: None }))
}

/// The query of a list of keys. The cursor is the last key of the page before.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    #[serde(default)]
    prefix: String,
    limit: Option<String>,
    cursor: Option<String>,
}

pub(super) async fn keys(
    Shared(api): Shared<Api>,
    bucket: Result<Path<String>, PathRejection>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<List<String>>, Problem> {
    let bucket = segment(bucket)?;
    let Query(Filter { prefix, limit: wanted, cursor }) = query.map_err(|error| invalid(error.body_text()))?;
    let limit = limit(wanted)?;
    // One more than is shown tells whether there are more.
    let look = move |snapshot: &dyn StateSnapshot| snapshot.keys(&bucket, &prefix, cursor.as_deref(), limit + 1);
    let mut items = read(&api, look).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().cloned() } else { None };
    Ok(Json(List { items, next }))
}

/// The query of a value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    key: Option<String>,
}

/// The bytes of a value, as they are.
pub(super) async fn value(
    Shared(api): Shared<Api>,
    bucket: Result<Path<String>, PathRejection>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Problem> {
    let bucket = segment(bucket)?;
    let Query(Which { key }) = query.map_err(|error| invalid(error.body_text()))?;
    let key = key.ok_or_else(|| invalid("the parameter `key` is missing: the key whose value to read".to_owned()))?;
    let unknown = format!("there is no key `{}` in bucket `{}`", key.escape_debug(), bucket.escape_debug());
    match read(&api, move |snapshot| snapshot.get(&bucket, &key)).await? {
        // What guests wrote is never shown as a page.
        Some(value) => {
            let headers =
                [(header::CONTENT_TYPE, "application/octet-stream"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
            Ok((headers, value).into_response())
        }
        None => Err(Problem::new(UNKNOWN_KEY, unknown)),
    }
}

async fn read<T: Send + 'static>(
    api: &Api,
    look: impl FnOnce(&dyn StateSnapshot) -> Result<T, QueueError> + Send + 'static,
) -> Result<T, Problem> {
    let snapshot: Arc<dyn StateSnapshot> = api.queue.snapshot().await?;
    let looked = tokio::task::spawn_blocking(move || look(&*snapshot)).await;
    Ok(looked.map_err(|error| Problem::new(INTERNAL, error.to_string()))??)
}
