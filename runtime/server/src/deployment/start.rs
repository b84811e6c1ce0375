//! What runs when the process begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use gristmill_core::{Clock as _, SystemClock};
use gristmill_host::Host;
use tracing::{error, warn};

use super::plugins::{Folder, Found, Plugins};
use super::prepare::{PrepareError, Prepared, Workshop};
use super::versions::Versions;
use crate::cli::text::short_digest;
use crate::config::{CanaryOptions, Config, HandlerConfig};

/// Every handler of a deployment, ready to begin.
#[derive(Debug)]
pub struct Start {
    /// What is written in runtime.toml.
    pub(super) written: Config,
    /// The same with the handlers that plugins are.
    pub config: Config,
    pub(super) plugins: Plugins,
    /// The handlers.
    pub prepared: Vec<Prepared>,
    /// Versions that are new, and are tried beside them.
    pub(super) tried: Vec<(Prepared, CanaryOptions)>,
    /// What is wrong with handlers that go on with the version before.
    pub(super) complaints: Vec<String>,
}

impl Start {
    /// Loads every handler: the version that is current by its record, or what its source has, if that is new. Nothing is
    /// changed. A plugin that does not load is said and left out, or goes on as the version that it was before.
    ///
    /// # Errors
    /// With every handler of runtime.toml that cannot run, and when the folder of plugins cannot be read.
    pub async fn prepare(
        host: &Host,
        versions: &Arc<Versions>,
        written: Config,
        folder: Option<&mut Folder>,
    ) -> anyhow::Result<Self> {
        let mut plugins = Plugins::default();
        let Found { changed, wrong, .. } = match folder {
            Some(folder) => tokio::task::block_in_place(|| folder.look(|_| false))?,
            None => Found::default(),
        };
        plugins.note(&[], wrong);
        let mut given: BTreeMap<_, _> = BTreeMap::new();
        for (plugin, bytes) in changed {
            given.insert(plugin.name.clone(), bytes);
            plugins.known.insert(plugin.name.clone(), plugin);
        }
        let workshop = Workshop { host, versions, config: &written, now: SystemClock::new().now(), is_start: true };
        let (mut prepared, mut tried) = (Vec::new(), Vec::new());
        let (mut errors, mut complaints) = (Vec::new(), Vec::new());
        for (handler, plugin) in plugins.handlers(&written) {
            let loaded = load(workshop, &handler, given.remove(&handler.name)).await;
            match (loaded, plugin) {
                (Ok(next), _) => match (handler.canary, beside(workshop, &handler, &next).await) {
                    (Some(canary), Some(current)) => {
                        prepared.push(current);
                        tried.push((next, canary));
                    }
                    _ => prepared.push(next),
                },
                (Err(error), plugin) => {
                    // What has run before runs on, whatever has become of its file.
                    let before = before(workshop, &handler).await;
                    match plugin {
                        Some(plugin) => plugins.refuse(&plugin.path, error.to_string()),
                        None if before.is_some() => {
                            error!("{error}");
                            complaints.push(error.to_string());
                        }
                        None => errors.push(error.to_string()),
                    }
                    if let Some(before) = &before {
                        let digest = short_digest(&before.record.current.digest);
                        warn!(handler = %handler.name, digest, "going on with the version before");
                    }
                    prepared.extend(before);
                }
            }
        }
        if !errors.is_empty() {
            bail!("{}", errors.join("\nerror: "));
        }
        for name in written.expected().filter(|name| !plugins.known.contains_key(*name)) {
            warn!(handler = %name, "no component of this name is in the folder of plugins: nothing handles its events yet");
        }
        for prepared in &prepared {
            prepared.tell();
        }
        let handlers = prepared.iter().map(|prepared| prepared.handler.config.clone()).collect();
        let config = written.with(handlers);
        Ok(Self { written, config, plugins, prepared, tried, complaints })
    }
}

async fn load(workshop: Workshop<'_>, handler: &HandlerConfig, given: Option<Bytes>) -> Result<Prepared, PrepareError> {
    let choice = workshop.choose(handler, given).await?;
    workshop.prepare(handler, choice).await
}

/// The version that `next` is tried beside; `None`: there is none, or `next` itself is current.
async fn beside(workshop: Workshop<'_>, handler: &HandlerConfig, next: &Prepared) -> Option<Prepared> {
    next.new.as_ref()?;
    let choice = workshop.recorded(handler).await.ok()??;
    if choice.record.current.digest == next.record.current.digest {
        return None;
    }
    workshop.prepare(handler, choice).await.ok()
}

/// The version that was current before a file was put in its place that does not load.
async fn before(workshop: Workshop<'_>, handler: &HandlerConfig) -> Option<Prepared> {
    let choice = workshop.recorded(handler).await.ok()??;
    workshop.prepare(handler, choice).await.ok()
}
