//! The handlers of a deployment: each a loaded component and the configuration it runs under.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::directory::DirectoryAccess;
use gristmill_core::{DirectoryGrant, HandlerName, QueueName, Secret};
use gristmill_host::{
    Compiler, Component, Configuration, Grants, Host, HostError, HostOptions, Interface, LoadError, LoadRequest,
    MAX_INSTANCES,
};
use gristmill_queue::QueueOptions;
use tracing::{error, info, warn};

use crate::cli::text::one_line;
use crate::config::{CodeCache, Config, DEFAULT_BATCH_SIZE, EngineKind, HandlerConfig};
use crate::configuration::{self, Current, Unreadable};
use crate::routing::Route;
use crate::source::{ComponentCache, Fetching, SourceError};

/// Places in the pool for each call that may run at once: composed components take several.
const PLACES: usize = 4;
/// Places that there are in any case: handlers may come later, and two versions run side by side during a switch. They are
/// address space, and no memory.
const ROOM: usize = 1_000;

/// A handler that can run.
#[derive(Debug)]
pub struct Handler {
    /// Its configuration.
    pub config: HandlerConfig,
    /// Its component.
    pub component: Component,
    /// What it is configured with.
    pub configuration: Current,
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
    /// Its component cannot be had.
    #[error("handler `{handler}`: {component}: {error}")]
    Fetch {
        /// The handler.
        handler: HandlerName,
        /// Where its component should come from.
        component: String,
        /// Why not.
        error: SourceError,
    },
    /// Its component is refused.
    #[error("handler `{handler}`: {component}: {error}")]
    Load {
        /// The handler.
        handler: HandlerName,
        /// Where its component comes from.
        component: String,
        /// Why.
        error: LoadError,
    },
    /// Its component is refused for lack of a grant, and its manifest says which one it wants.
    #[error(
        "handler `{handler}`: {component}: {error}\nits manifest wants what runtime.toml does not grant:\n    {wants}"
    )]
    Ungranted {
        /// The handler.
        handler: HandlerName,
        /// Where its component comes from.
        component: String,
        /// Why.
        error: LoadError,
        /// The line that grants it.
        wants: String,
    },
    /// It is to get several events at once, and cannot.
    #[error(
        "handler `{handler}`: `batch-size` is set, but {form} takes one event at a time\n\
         remove `batch-size`, or build the component as a {}",
        Interface::BatchHandler
    )]
    NoBatches {
        /// The handler.
        handler: HandlerName,
        /// What it has instead.
        form: String,
    },
    /// Secrets that it is configured with cannot be read.
    #[error("handler `{handler}`: {}", listed(.unreadable))]
    Configuration {
        /// The handler.
        handler: HandlerName,
        /// Which, and why.
        unreadable: Vec<Unreadable>,
    },
    /// It is granted the queue's own files.
    #[error(
        "handler `{handler}`: it is granted the directory {}, and {what} is in {}\n\
         nobody else may use that: grant a directory beside it", .path.display(), .kept.display()
    )]
    OwnFiles {
        /// The handler.
        handler: HandlerName,
        /// What it is granted.
        path: PathBuf,
        /// What is there of the runtime's own.
        what: &'static str,
        /// Its directory.
        kept: PathBuf,
    },
}

fn listed(unreadable: &[Unreadable]) -> String {
    match unreadable {
        [one] => one.to_string(),
        several => several
            .iter()
            .fold("its configuration is not complete".to_owned(), |text, one| text + "\n  - " + &one.to_string()),
    }
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file of certificate authorities cannot be read.
    #[error("cannot read the certificate authorities (`ca-file`) {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// There are no certificate authorities in it.
    #[error("{}: {error}", .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: HostError,
    },
    /// The engine does not start.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A host with room for every handler's concurrency, for which `compiler` compiles.
///
/// # Errors
/// When the WebAssembly engine does not start, or the file of certificate authorities is of no use.
pub fn host(config: &Config, compiler: Compiler) -> Result<Host, SetupError> {
    let wanted = config.handlers.iter().map(|handler| handler.concurrency * PLACES).sum::<usize>();
    let wanted = u32::try_from(wanted.max(ROOM)).unwrap_or(u32::MAX).min(MAX_INSTANCES);
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|error| SetupError::Unreadable { path: path.clone(), error });
    let options = HostOptions {
        instances: config.host.max_instances.unwrap_or(wanted),
        memory: config.host.memory,
        stack: config.host.stack,
        max_component_size: config.host.max_component_size,
        cache: code_cache(config),
        max_cache_size: config.host.code_cache_size,
        count_fuel: false,
        compiler,
        authorities: config.ca_file.as_ref().map(read).transpose()?,
    };
    Host::new(options).map_err(|error| match (error, &config.ca_file) {
        (error @ HostError::Authorities { .. }, Some(path)) => SetupError::Authorities { path: path.clone(), error },
        (error, _) => SetupError::Host(error),
    })
}

/// Below the user's folder for caches, as the XDG base directory specification has it; `None`: there is no such folder.
pub(crate) fn usual_cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("gristmill"))
}

/// Loads every handler from its source; one result each, in the order of the configuration.
pub async fn load(host: &Host, config: &Config) -> Vec<Result<Arc<Handler>, HandlerError>> {
    let mut handlers = Vec::with_capacity(config.handlers.len());
    for handler in &config.handlers {
        handlers.push(load_one(host, handler, config).await.map(Arc::new));
    }
    handlers
}

/// Loads one handler from its source.
///
/// # Errors
/// When it cannot run.
pub async fn load_one(host: &Host, config: &HandlerConfig, whole: &Config) -> Result<Handler, HandlerError> {
    let bytes = read(config, whole).await?;
    load_version(host, config, whole, (bytes, config.component.to_string())).await
}

/// The bytes of a handler's component, as its source has them.
///
/// # Errors
/// When there are none.
pub async fn read(config: &HandlerConfig, whole: &Config) -> Result<Bytes, HandlerError> {
    let fetched = config.component.fetch(config.digest.as_deref(), &fetching(whole)).await;
    fetched.map(|fetched| fetched.bytes).map_err(|error| unfetched(config, error))
}

fn unfetched(config: &HandlerConfig, error: SourceError) -> HandlerError {
    HandlerError::Fetch { handler: config.name.clone(), component: config.component.to_string(), error }
}

/// Loads one version of a handler: `bytes` under its configuration, which is part of `whole`. `place` is what messages call
/// the bytes.
///
/// # Errors
/// When the bytes are no component that can run like that, or its secrets cannot be read.
pub async fn load_version(
    host: &Host,
    config: &HandlerConfig,
    whole: &Config,
    (bytes, place): (Bytes, String),
) -> Result<Handler, HandlerError> {
    let name = config.name.clone();
    let prepared = tokio::task::spawn_blocking({
        let (config, own) = (config.clone(), own(whole));
        move || prepare(&config, &own)
    });
    let configuration = match prepared.await {
        Ok(prepared) => prepared?,
        Err(error) => return Err(unfetched(config, SourceError::Read(std::io::Error::other(error)))),
    };
    let request = LoadRequest {
        name: name.clone(),
        bytes,
        digest: config.digest.clone(),
        interface: config.interface,
        grants: grants(config),
        instances: config.instances,
    };
    match host.load(request).await {
        Ok(component) if config.batch_size.is_some() && component.interface() != Interface::BatchHandler => {
            Err(HandlerError::NoBatches { handler: name, form: component.form().to_owned() })
        }
        Ok(component) => {
            let configuration = Current::new(configuration);
            Ok(Handler { config: config.clone(), component, configuration })
        }
        Err(error) => Err(refused(config, place, error)),
    }
}

fn refused(config: &HandlerConfig, component: String, error: LoadError) -> HandlerError {
    let handler = config.name.clone();
    match (&error, config.wants.beyond(&config.grant).line()) {
        (LoadError::EmitNotGranted | LoadError::StateNotGranted, Some(wants)) => {
            HandlerError::Ungranted { handler, component, error, wants }
        }
        _ => HandlerError::Load { handler, component, error },
    }
}

/// How the components of this deployment are fetched.
fn fetching(config: &Config) -> Fetching {
    let folder = code_cache(config).map(|code| code.join("components"));
    Fetching {
        max_size: config.host.max_component_size,
        ca_file: config.ca_file.clone(),
        cache: folder.map(ComponentCache::new),
    }
}

/// Checks the directories that a handler is granted, and reads its secrets. Blocks.
fn prepare(config: &HandlerConfig, own: &[Own]) -> Result<Configuration, HandlerError> {
    let handler = config.name.clone();
    for (what, kept, least) in own {
        let is_touched = |grant: &&DirectoryGrant| {
            let path = resolved(&grant.host);
            grant.access >= *least && (path.starts_with(kept) || kept.starts_with(&path))
        };
        if let Some(grant) = config.grant.files.iter().find(is_touched) {
            let (path, kept) = (resolved(&grant.host), kept.clone());
            return Err(HandlerError::OwnFiles { handler, path, what, kept });
        }
    }
    configuration::read(&config.config).map_err(|unreadable| HandlerError::Configuration { handler, unreadable })
}

/// Something of the runtime's own: what it is, its directory without links, and the least access that is too much.
type Own = (&'static str, PathBuf, DirectoryAccess);

/// What no handler may touch.
fn own(config: &Config) -> Vec<Own> {
    let store = (config.queue.engine == EngineKind::Rocksdb).then(|| config.data_dir.clone());
    let store = store.map(|store| ("the queue's store", resolved(&store), DirectoryAccess::Read));
    // Whoever writes there writes what the next start runs.
    let code = code_cache(config).map(|code| ("compiled code", resolved(&code), DirectoryAccess::Write));
    store.into_iter().chain(code).collect()
}

/// Where compiled code is kept.
fn code_cache(config: &Config) -> Option<PathBuf> {
    match &config.host.code_cache {
        CodeCache::Usual => usual_cache(),
        CodeCache::Folder(folder) => Some(folder.clone()),
        CodeCache::Off => None,
    }
}

/// A path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in path.ancestors() {
        if let (Ok(there), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return there.join(rest);
        }
    }
    path
}

/// What a handler may do. Variables that are not set are left out.
fn grants(config: &HandlerConfig) -> Grants {
    let granted = &config.grant;
    let variable = |name: &String| Some((name.clone(), Secret::new(std::env::var(name).ok()?)));
    Grants {
        http: config.grant.http.clone(),
        emit: granted.emit.clone(),
        state: granted.state.clone(),
        env: granted.env.iter().filter_map(variable).collect(),
        files: granted.files.clone(),
        sockets: granted.sockets.clone(),
    }
}

/// Reads the secrets of all handlers again. Each handler's next run has them; what cannot be read stays as it was.
pub async fn refresh(handlers: Vec<Arc<Handler>>) {
    let refreshed = tokio::task::spawn_blocking(move || {
        let read =
            |handler: &Arc<Handler>| configuration::refresh(&handler.config.config, &handler.configuration.get());
        let read: Vec<_> = handlers.iter().map(read).collect();
        let mut kept = 0;
        for (handler, (configuration, unreadable)) in handlers.iter().zip(read) {
            handler.configuration.set(configuration);
            kept += unreadable.len();
            for Unreadable { key, place, reason } in unreadable {
                error!(handler = %handler.config.name, key = one_line(&key), place = one_line(&place),
                    reason = one_line(&reason), "a secret cannot be read again: its value stays as it was");
            }
        }
        kept
    });
    match refreshed.await {
        Ok(0) => info!("the secrets of all handlers were read again"),
        Ok(kept) => warn!(kept, "the secrets of the handlers were read again, but for those that could not be"),
        Err(error) => error!(%error, "the secrets of the handlers were not read again"),
    }
}

/// Where the events of this deployment go.
pub fn routes(config: &Config) -> impl Iterator<Item = Route> + '_ {
    config.handlers.iter().map(|handler| (handler.name.clone(), handler.subscribe.clone()))
}

/// The queues of this deployment and their options.
pub fn queues(config: &Config) -> impl Iterator<Item = (QueueName, QueueOptions)> + '_ {
    config.handlers.iter().map(|handler| (handler.name.clone(), handler.queue.clone()))
}
