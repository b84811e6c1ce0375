//! The handlers of a deployment: each a loaded component and the configuration it runs under.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::{HandlerName, QueueName};
use gristmill_host::{
    Component, Grants, Host, HostError, HostOptions, Interface, LoadError, LoadRequest, MAX_INSTANCES,
};
use gristmill_queue::QueueOptions;

use crate::config::{CodeCache, Config, DEFAULT_BATCH_SIZE, HandlerConfig};
use crate::routing::Router;

/// Places in the pool for each call that may run at once: composed components take several.
const PLACES: usize = 4;

/// A handler that can run.
#[derive(Clone, Debug)]
pub struct Handler {
    /// Its configuration.
    pub config: HandlerConfig,
    /// Its component.
    pub component: Component,
}

impl Handler {
    /// How many deliveries one call gets at most.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        match self.component.interface() {
            Interface::BatchHandler => self.config.batch_size.unwrap_or(DEFAULT_BATCH_SIZE) as usize,
            _ => 1,
        }
    }
}

/// Why a handler cannot run.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Its file cannot be read.
    #[error("handler `{handler}`: cannot read {}: {error}", .path.display())]
    Read {
        /// The handler.
        handler: HandlerName,
        /// Its component's file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// Its component is refused.
    #[error("handler `{handler}`: {}: {error}", .path.display())]
    Load {
        /// The handler.
        handler: HandlerName,
        /// Its component's file.
        path: PathBuf,
        /// Why.
        error: LoadError,
    },
    /// It is to get several events at once, and cannot.
    #[error(
        "handler `{handler}`: `batch-size` is set, but {interface} takes one event at a time\n\
         remove `batch-size`, or build the component as a {}",
        Interface::BatchHandler
    )]
    NoBatches {
        /// The handler.
        handler: HandlerName,
        /// What it has instead.
        interface: Interface,
    },
}

/// A host with room for every handler's concurrency.
///
/// # Errors
/// When the WebAssembly engine does not start.
pub fn host(config: &Config) -> Result<Host, HostError> {
    let wanted = config.handlers.iter().map(|handler| handler.concurrency * PLACES).sum::<usize>();
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).min(MAX_INSTANCES);
    Host::new(HostOptions {
        instances: config.host.max_instances.unwrap_or(wanted),
        memory: config.host.memory,
        stack: config.host.stack,
        max_component_size: config.host.max_component_size,
        cache: match &config.host.code_cache {
            CodeCache::Usual => usual_cache(),
            CodeCache::Folder(folder) => Some(folder.clone()),
            CodeCache::Off => None,
        },
        count_fuel: false,
    })
}

/// Below the user's folder for caches, as the XDG base directory specification has it; `None`: there is no such folder.
pub(crate) fn usual_cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("gristmill"))
}

/// Loads every handler; one result each, in the order of the configuration.
pub async fn load(host: &Host, config: &Config) -> Vec<Result<Arc<Handler>, HandlerError>> {
    let mut handlers = Vec::with_capacity(config.handlers.len());
    for handler in &config.handlers {
        handlers.push(load_one(host, handler).await.map(Arc::new));
    }
    handlers
}

async fn load_one(host: &Host, config: &HandlerConfig) -> Result<Handler, HandlerError> {
    let path = config.component.clone();
    let name = config.name.clone();
    let read = tokio::task::spawn_blocking({
        let path = path.clone();
        move || std::fs::read(path)
    });
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(HandlerError::Read { handler: name, path, error }),
        Err(error) => return Err(HandlerError::Read { handler: name, path, error: std::io::Error::other(error) }),
    };
    let request = LoadRequest {
        name: name.clone(),
        bytes: Bytes::from(bytes),
        digest: config.digest.clone(),
        interface: config.interface,
        grants: Grants { emit: config.grant.emit.clone(), state: config.grant.state.clone() },
        instances: config.instances,
    };
    match host.load(request).await {
        Ok(component) if config.batch_size.is_some() && component.interface() != Interface::BatchHandler => {
            Err(HandlerError::NoBatches { handler: name, interface: component.interface() })
        }
        Ok(component) => Ok(Handler { config: config.clone(), component }),
        Err(error) => Err(HandlerError::Load { handler: name, path, error }),
    }
}

/// Where the events of this deployment go.
#[must_use]
pub fn router(config: &Config) -> Router {
    Router::new(config.handlers.iter().map(|handler| (handler.name.clone(), handler.subscribe.clone())))
}

/// The queues of this deployment and their options.
pub fn queues(config: &Config) -> impl Iterator<Item = (QueueName, QueueOptions)> + '_ {
    config.handlers.iter().map(|handler| (handler.name.clone(), handler.queue.clone()))
}
