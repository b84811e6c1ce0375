//! Looking at what runs, and ending it.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Shared};

use super::Api;
use super::inspect::segment;
use super::model::{Killed, List, Running};
use super::problem::{Problem, UNKNOWN_CALL};
use super::view::millis;

pub(super) async fn running(Shared(api): Shared<Api>) -> Json<List<Running>> {
    let running = api.deployment.iter().flat_map(|deployment| deployment.host().running());
    let items = running.map(|running| Running {
        number: running.number,
        handler: running.handler,
        version: running.digest,
        entry: running.delivery_id,
        attempt: running.attempt,
        elapsed_ms: millis(running.elapsed),
        timeout_ms: millis(running.timeout),
        memory: running.memory,
    });
    Json(List { items: items.collect(), next: None })
}

pub(super) async fn kill(
    Shared(api): Shared<Api>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Killed>, Problem> {
    let number = segment(path)?;
    match (number.parse(), &api.deployment) {
        (Ok(number), Some(deployment)) if deployment.host().kill(number) => Ok(Json(Killed { number })),
        _ => {
            let number = number.escape_debug();
            Err(Problem::new(UNKNOWN_CALL, format!("there is no call `{number}`: it never began, or is over")))
        }
    }
}
