//! Handlers and their versions: what there is, and another version in the place of one.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use gristmill_core::HandlerName;
use serde::Deserialize;

use super::Api;
use super::inspect::{invalid, segment};
use super::model::{
    self, Canary, Circuit, Deployed, Handler, List, Refused, Reloads, Status, Time, Version, WrongPlugin,
};
use super::problem::{self, Problem};
use super::view::millis;
use crate::deployment::record::Kept;
use crate::deployment::shadow::Shadow;
use crate::deployment::status::{HandlerStatus, RolledBack};
use crate::deployment::{DeployError, Deployment, How, PrepareError};
use crate::registry::HandlerError;
use crate::shadow::comparison::Bar;
use crate::shadow::selection::SelectionError;

type Segment = Result<Path<String>, PathRejection>;

pub(super) async fn handlers(Shared(api): Shared<Api>) -> Json<List<Handler>> {
    let handlers = api.deployment.iter().flat_map(Deployment::handlers);
    Json(List { items: handlers.map(handler).collect(), next: None })
}

pub(super) async fn status(Shared(api): Shared<Api>) -> Result<Json<Status>, Problem> {
    let deployment = deployment(&api)?;
    let reloads = deployment.reloads();
    let config = Reloads {
        applied: reloads.applied,
        refused: reloads.refused,
        error: reloads.error.map(|(at, reason)| Refused { at: Time(at), reason }),
        needs_restart: reloads.restart,
    };
    let plugins = deployment.wrong_plugins().into_iter();
    let plugins = plugins.map(|(path, error)| WrongPlugin { path: path.display().to_string(), error }).collect();
    Ok(Json(Status { config, handlers: deployment.handlers().into_iter().map(handler).collect(), plugins }))
}

/// The query of a deployment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manner {
    /// Without a trial, whatever the configuration says.
    #[serde(default)]
    now: bool,
    /// Over which stored events it is compared with the current version first.
    shadow: Option<String>,
    /// It is deployed only if no event differs.
    #[serde(default)]
    require_same: bool,
    /// It is deployed only if no more than so many of a hundred events differ.
    max_different: Option<f64>,
}

impl Manner {
    fn how(self) -> Result<How, Problem> {
        let bar = match (self.require_same, self.max_different) {
            (true, Some(_)) => return Err(invalid("`require_same` or `max_different`, not both".to_owned())),
            (true, None) => Some(Bar::Same),
            (false, Some(percent)) if (0.0..=100.0).contains(&percent) => Some(Bar::Percent(percent)),
            (false, Some(percent)) => {
                return Err(invalid(format!("`max_different` is from 0 to 100, not {percent}")));
            }
            (false, None) => None,
        };
        let shadow = match (self.shadow, bar) {
            (Some(selection), bar) => {
                let selection = selection.parse().map_err(|error: SelectionError| invalid(error.to_string()))?;
                Some(Shadow { selection, bar })
            }
            (None, Some(_)) => return Err(invalid("nothing is compared without `shadow`".to_owned())),
            (None, None) => None,
        };
        Ok(How { at_once: self.now, shadow })
    }
}

pub(super) async fn deploy(
    Shared(api): Shared<Api>,
    path: Segment,
    query: Result<Query<Manner>, QueryRejection>,
    body: Body,
) -> Result<Json<Deployed>, Problem> {
    let (name, deployment) = (handler_name(path)?, deployment(&api)?);
    let Query(manner) = query.map_err(|error| invalid(error.body_text()))?;
    let how = manner.how()?;
    let max = deployment.config().host.max_component_size;
    let bytes = to_bytes(body, usize::try_from(max).unwrap_or(usize::MAX)).await.map_err(|error| {
        let detail =
            format!("the component cannot be read, or has more than {max} bytes (`max-component-size`): {error}");
        Problem::new(problem::TOO_LARGE, detail)
    })?;
    let deployed = deployment.deploy(name.clone(), bytes, how).await?;
    Ok(Json(shown(name, deployed)))
}

/// The query of a rollback.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    /// A digest, or how it begins.
    to: Option<String>,
}

pub(super) async fn roll_back(
    Shared(api): Shared<Api>,
    path: Segment,
    query: Result<Query<Target>, QueryRejection>,
) -> Result<Json<Deployed>, Problem> {
    let name = handler_name(path)?;
    let Query(Target { to }) = query.map_err(|error| invalid(error.body_text()))?;
    let deployed = deployment(&api)?.roll_back(name.clone(), to).await?;
    Ok(Json(shown(name, deployed)))
}

fn deployment(api: &Api) -> Result<&Deployment, Problem> {
    api.deployment.as_ref().ok_or_else(|| Problem::new(problem::NOT_READY, "no handlers are at work"))
}

fn handler_name(path: Segment) -> Result<HandlerName, Problem> {
    HandlerName::new(&segment(path)?).map_err(|error| Problem::new(problem::UNKNOWN_HANDLER, error.to_string()))
}

fn handler(status: HandlerStatus) -> Handler {
    Handler {
        name: status.name,
        interface: status.interface,
        pinned: status.pinned,
        versions: status.versions.into_iter().map(version).collect(),
        canary: status.canary.map(|canary| Canary {
            version: version(canary.version),
            share: canary.share,
            handled: canary.standing.handled,
            failed: canary.standing.failed,
            left_ms: millis(canary.left),
        }),
        rolled_back: status.rolled_back.map(|RolledBack { digest, at, reason }| model::RolledBack {
            digest,
            at: Time(at),
            reason,
        }),
        circuit: status.circuit.map(|circuit| Circuit {
            reason: circuit.reason,
            failed_probes: circuit.failed_probes,
            next_probe_ms: millis(circuit.next_probe),
        }),
    }
}

fn version(kept: Kept) -> Version {
    Version { digest: kept.digest, size: kept.size, origin: kept.origin, since: kept.since }
}

fn shown(handler: HandlerName, deployed: crate::deployment::Deployed) -> Deployed {
    Deployed {
        handler,
        current: version(deployed.current),
        before: deployed.before,
        wants: deployed.wants,
        canary: deployed.tried.map(version),
        shadow: deployed.comparison,
        ended: deployed.ended.map(version),
    }
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let kind = match &error {
            DeployError::Unknown { .. } => problem::UNKNOWN_HANDLER,
            DeployError::Pinned { .. } => problem::PINNED,
            DeployError::Different { .. } => problem::DIFFERENT,
            DeployError::Queue(_) => problem::UNAVAILABLE,
            DeployError::NoVersion { .. } => problem::UNKNOWN_VERSION,
            DeployError::Prepare(PrepareError::Handler(error)) if is_unfit(error) => problem::UNFIT_COMPONENT,
            DeployError::Prepare(_) | DeployError::Versions { .. } => problem::INTERNAL,
            DeployError::Stopping => problem::NOT_READY,
        };
        Self::new(kind, error.to_string())
    }
}

/// Whether it is the component's fault.
fn is_unfit(error: &HandlerError) -> bool {
    matches!(error, HandlerError::Load { .. } | HandlerError::Ungranted { .. } | HandlerError::NoBatches { .. })
}
