//! Commands with `--offline`: on the store of a runtime that is stopped.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use gristmill_queue::{OnLoss, Queue as _};

use crate::cli::args::Publish;
use crate::cli::state::State;
use crate::config::{Config, EngineKind};
use crate::http::{Api, Readiness};
use crate::routing::Router;
use crate::{cli, engine, registry};

/// Opens the store, publishes, and closes it.
///
/// # Errors
/// When a runtime has the store open, or nothing would be left of what was published.
pub async fn publish(args: &Publish, config: &Config) -> anyhow::Result<ExitCode> {
    if config.queue.engine == EngineKind::Memory {
        bail!("the memory engine keeps nothing: publish to a running runtime, or use `engine = \"rocksdb\"`");
    }
    let queue = engine::open(config, OnLoss::Refuse).await?;
    let api = Api {
        queue: queue.clone(),
        router: Arc::new(Router::new(registry::routes(config))),
        deployment: None,
        metrics: Arc::default(),
        readiness: Readiness::default(),
    };
    let published = cli::publish_offline(args, &api).await;
    queue.close().await?;
    published
}

/// Opens the store, looks at its state or changes it, and closes it.
///
/// # Errors
/// When a runtime has the store open, when there is none, and when what was asked for is not there.
pub async fn state(command: &State, config: &Config) -> anyhow::Result<ExitCode> {
    if config.queue.engine == EngineKind::Memory {
        bail!("the memory engine keeps nothing: there is no state to look at");
    }
    let store = engine::directory(config);
    if !store.exists() && !matches!(command, State::Set(_)) {
        bail!("there is no store at {}: nothing to look at", store.display());
    }
    let queue = engine::open_store(config, OnLoss::Refuse).await?;
    let result = cli::state::state(command, &queue).await;
    queue.close().await?;
    result
}
