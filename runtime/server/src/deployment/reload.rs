//! A configuration, applied by difference.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use gristmill_core::HandlerName;
use gristmill_queue::{Operation, PauseIf, QueueError};
use tracing::{debug, error, info, warn};

use super::plugins::Found;
use super::prepare::{Choice, PrepareError};
use super::record::Origin;
use super::{DeployError, Deployment, Prepared, REMOVED, Shared, Slot};
use crate::cli::text::{one_line, short_digest};
use crate::config::{self, CanaryOptions, Color, Config, ConfigValue, HandlerConfig};
use crate::{engine, registry};

/// Whose sources are looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Those of all handlers: somebody has asked for it.
    Everywhere,
    /// Those of handlers whose settings have changed: that a tag has moved meanwhile, or a file was built, is no reason
    /// to take it.
    WhereChanged,
}

/// What another configuration has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Handlers that there were not.
    pub added: Vec<HandlerName>,
    /// Handlers whose settings or component are others.
    pub changed: Vec<HandlerName>,
    /// Handlers that there are not any more. Their queues are kept, and paused.
    pub removed: Vec<HandlerName>,
    /// Settings that are others, and hold after a restart only.
    pub restart: Vec<String>,
}

/// Why a configuration was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// These handlers cannot run.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Handlers(Vec<PrepareError>),
    /// The store cannot be written.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// What is new cannot be recorded, or the runtime is about to stop.
    #[error(transparent)]
    Deploy(#[from] DeployError),
}

impl ApplyError {
    /// Whether nothing has changed: nothing was written yet.
    fn is_clean(&self) -> bool {
        matches!(self, Self::Handlers(_) | Self::Deploy(DeployError::Stopping))
    }
}

/// Where the bytes of a handler's component are from.
enum TakenFrom {
    /// Its source, unless somebody has chosen another version.
    Source,
    /// Its source, which was just read.
    Given(Bytes),
    /// What was recorded last.
    Record,
}

impl Deployment {
    /// Reads the configuration again, and applies it; what comes of it is logged, and kept for the status.
    pub async fn reload(&self, path: &Path, look: Look) {
        let applied = match read(path.to_owned()).await {
            Ok(config) => self.apply(config, look).await.map_err(|error| (error.to_string(), error.is_clean())),
            Err(error) => Err((error, true)),
        };
        let mut reloads = self.shared.reloads();
        match applied {
            Ok(applied) => {
                applied.tell("the configuration");
                reloads.applied += 1;
                reloads.error = None;
                reloads.restart = applied.restart;
            }
            Err((reason, is_clean)) => {
                let so_far = if is_clean {
                    "nothing has changed"
                } else {
                    "some of it may be in effect, now or after a restart"
                };
                error!("{} is not applied, and {so_far}:\n{reason}", path.display());
                reloads.refused += 1;
                let reason = if is_clean { reason } else { format!("{reason}\n{so_far}") };
                reloads.error = Some((self.shared.clock.now(), reason));
            }
        }
    }

    /// Takes what has changed in the folder of plugins. Whether that was done; else it is to be found again.
    pub async fn take_plugins(&self, found: Found) -> bool {
        if found.is_empty() {
            return true;
        }
        let taken = self.uninterrupted(async move |shared| Ok(shared.take(found).await)).await;
        match taken {
            Ok(Ok(applied)) => {
                if applied != Applied::default() {
                    applied.tell("the folder of plugins");
                }
                return true;
            }
            Ok(Err(error)) => error!(%error, "what has changed in the folder of plugins is not applied"),
            Err(error) => debug!(%error, "what has changed in the folder of plugins is for the next start"),
        }
        false
    }

    /// Makes `config` what holds: handlers that are new or others are loaded first, and if one of them fails, nothing
    /// changes. Settings of the runtime itself hold after a restart only.
    ///
    /// # Errors
    /// When it is not applied. Where the disk has failed half-way, some of it may be in effect.
    pub async fn apply(&self, config: Config, look: Look) -> Result<Applied, ApplyError> {
        self.uninterrupted(async move |shared| Ok(shared.apply(config, look).await)).await?
    }
}

/// What is to be done about one handler.
enum Plan {
    /// This takes over.
    Switch(Prepared),
    /// `next` is tried beside what is current, which changes too if there is another of it.
    Try { current: Option<Prepared>, next: Prepared, canary: CanaryOptions },
}

impl Shared {
    async fn apply(self: &Arc<Self>, mut written: Config, look: Look) -> Result<Applied, ApplyError> {
        let old = self.written();
        let restart = restart_needed(&old, &written);
        keep_what_needs_a_restart(&old, &mut written);
        let mut plugins = self.plugins().clone();
        let (mut plans, mut handlers, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (handler, plugin) in plugins.handlers(&written) {
            // What plugins are is looked at in their folder alone.
            let from = if plugin.is_some() { TakenFrom::Record } else { TakenFrom::Source };
            match (self.plan(&handler, &written, look, from).await, plugin) {
                // It has never run, and is found in its folder: nothing would handle its events yet.
                (Ok(None), Some(_)) if self.slot(&handler.name).is_err() => {}
                (Ok(plan), _) => {
                    plans.extend(plan);
                    handlers.push(handler);
                }
                (Err(error), None) => errors.push(error),
                // What it was before goes on.
                (Err(error), Some(plugin)) => {
                    plugins.refuse(&plugin.path, error.to_string());
                    handlers.extend(self.slot(&handler.name).ok().map(|(handler, _)| handler.config.clone()));
                }
            }
        }
        if !errors.is_empty() {
            return Err(ApplyError::Handlers(errors));
        }
        let config = written.with(handlers);
        let applied = self.carry_out(config, plans).await?;
        *self.plugins() = plugins;
        *self.written.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(written);
        Ok(Applied { restart, ..applied })
    }

    /// Takes what was found in the folder of plugins: each by itself, so that one that is broken changes nothing, and does
    /// not keep the others from it.
    async fn take(self: &Arc<Self>, found: Found) -> Result<Applied, ApplyError> {
        let (written, config) = (self.written(), self.config());
        let mut plugins = self.plugins().clone();
        let gone = |handler: &HandlerConfig| {
            plugins.known.get(&handler.name).is_some_and(|plugin| found.gone.contains(&plugin.path))
        };
        let mut handlers: Vec<_> = config.handlers.iter().filter(|handler| !gone(handler)).cloned().collect();
        plugins.note(&found.gone, found.wrong);
        let mut plans = Vec::new();
        for (plugin, bytes) in found.changed {
            let planned = match written.plugin(&plugin) {
                Ok(handler) => match self.plan(&handler, &written, Look::Everywhere, TakenFrom::Given(bytes)).await {
                    Ok(plan) => Ok((handler, plan)),
                    Err(error) => Err(error.to_string()),
                },
                Err(errors) => Err(errors.to_string()),
            };
            match planned {
                Ok((handler, plan)) => {
                    handlers.retain(|other| other.name != handler.name);
                    handlers.push(handler);
                    plans.extend(plan);
                    plugins.accept(plugin);
                }
                Err(why) => plugins.refuse(&plugin.path, why),
            }
        }
        let applied = self.carry_out(config.with(handlers), plans).await?;
        *self.plugins() = plugins;
        Ok(applied)
    }

    /// Makes `config` what holds, and does what is planned for that.
    async fn carry_out(self: &Arc<Self>, config: Config, plans: Vec<Plan>) -> Result<Applied, ApplyError> {
        if self.is_stopping() {
            return Err(DeployError::Stopping.into());
        }
        let mut applied = Applied::default();
        for plan in &plans {
            let (Plan::Switch(next) | Plan::Try { next, .. }) = plan;
            let name = next.handler.config.name.clone();
            if matches!(plan, Plan::Switch(_)) {
                self.record(next).await.map_err(|error| DeployError::Versions { handler: name.clone(), error })?;
            }
            let list = if self.slots().contains_key(&name) { &mut applied.changed } else { &mut applied.added };
            list.push(name);
        }
        engine::configure(&*self.queue, &config).await?;
        // From here on, nothing fails.
        let names: BTreeSet<_> = config.handlers.iter().map(|handler| handler.name.clone()).collect();
        applied.removed = self.slots().keys().filter(|name| !names.contains(*name)).cloned().collect();
        self.router.set(registry::routes(&config));
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        for name in &applied.added {
            if let Err(error) = self.unpause(name).await {
                error!(handler = %name, %error, "cannot resume its queue");
            }
        }
        for plan in plans {
            match plan {
                Plan::Switch(next) => {
                    let name = &next.handler.config.name;
                    if applied.changed.contains(name) {
                        info!(handler = %name, to = short_digest(next.handler.component.digest()), "another version takes over");
                    }
                    self.switch(next);
                }
                Plan::Try { current, next, canary } => {
                    if let Some(current) = current {
                        self.switch(current);
                    }
                    self.try_out(next, canary);
                }
            }
        }
        for name in &applied.removed {
            self.remove(name).await;
        }
        Ok(applied)
    }

    /// What to do so that `handler` is what `config` says. `None`: nothing.
    async fn plan(
        &self,
        handler: &HandlerConfig,
        config: &Config,
        look: Look,
        from: TakenFrom,
    ) -> Result<Option<Plan>, PrepareError> {
        let is_configured = |slot: &Slot| is_alike(&slot.handler.config, handler);
        if look == Look::WhereChanged && self.slots().get(&handler.name).is_some_and(is_configured) {
            return Ok(None);
        }
        let workshop = self.workshop(config);
        let is_looked_at = !matches!(from, TakenFrom::Record);
        let choice = match from {
            TakenFrom::Source => workshop.choose(handler, None).await?,
            TakenFrom::Given(bytes) => workshop.choose(handler, Some(bytes)).await?,
            TakenFrom::Record => match workshop.recorded(handler).await? {
                Some(choice) => choice,
                // It has never run: it is found in its folder.
                None => return Ok(None),
            },
        };
        if self.is_at_work(handler, &choice, is_looked_at) {
            return Ok(None);
        }
        let next = workshop.prepare(handler, choice).await?;
        let Ok((current, record)) = self.slot(&handler.name) else { return Ok(Some(Plan::Switch(next))) };
        let is_another = next.handler.component.digest() != current.component.digest();
        let (Some(canary), Some(_), true) = (handler.canary, &next.new, is_another) else {
            return Ok(Some(Plan::Switch(next)));
        };
        if self.is_circuit_open(&handler.name) {
            return Ok(Some(Plan::Switch(next)));
        }
        if is_alike(&current.config, handler) {
            return Ok(Some(Plan::Try { current: None, next, canary }));
        }
        // The current version goes on under the new configuration, if it can.
        let current = match workshop.component(current.component.digest()).await {
            Ok(bytes) => workshop.prepare(handler, Choice { bytes, record, is_new: false }).await.ok(),
            Err(_) => None,
        };
        Ok(Some(match current {
            Some(current) => Plan::Try { current: Some(current), next, canary },
            None => {
                warn!(handler = %handler.name, "its current version cannot run under the new configuration: the new one is not tried first");
                Plan::Switch(next)
            }
        }))
    }

    /// Whether the very same runs already.
    fn is_at_work(&self, handler: &HandlerConfig, choice: &Choice, is_looked_at: bool) -> bool {
        let slots = self.slots();
        let Some(slot) = slots.get(&handler.name) else { return false };
        let wanted = &choice.record.current.digest;
        let is_tried = slot.tried.as_ref().is_some_and(|tried| tried.version.digest == *wanted);
        // Its source has gone back to what is current.
        let is_over = is_looked_at
            && slot.tried.as_ref().is_some_and(|tried| tried.version.origin == Origin::Source)
            && !is_tried;
        let runs = slot.handler.component.digest() == wanted && slot.record.source == choice.record.source && !is_over;
        (runs || is_tried) && is_alike(&slot.handler.config, handler)
    }

    async fn remove(&self, name: &HandlerName) {
        let Some(Slot { work, .. }) = self.slots_mut().remove(name) else { return };
        work.drain();
        self.finish(work);
        // Who has paused it already, resumes it.
        let only_if = PauseIf::NotPaused;
        let pause = Operation::Pause { queue: name.clone(), reason: REMOVED.to_owned(), only_if };
        if let Err(error) = self.queue.operate(pause).await {
            error!(handler = %name, %error, "cannot pause the queue of a handler that was removed");
        }
    }
}

/// The configuration as it is written; or what is wrong with it.
async fn read(path: PathBuf) -> Result<Config, String> {
    let read = tokio::task::spawn_blocking(move || config::load(&path));
    match read.await {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(errors)) => Err(errors.render(Color::Plain).trim_end().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Applied {
    /// Tells the log.
    pub fn tell(&self, what: &str) {
        let list = |names: &[HandlerName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let lists = [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)];
        let lists = lists.iter().filter(|(_, names)| !names.is_empty());
        let lists: Vec<_> = lists.map(|(what, names)| format!("{what} {}", list(names))).collect();
        if lists.is_empty() {
            info!("{what} was read again: no handler has changed");
        } else {
            info!("{what} was read again: {}", lists.join("; "));
        }
        for setting in &self.restart {
            warn!("{} has changed, and needs a restart to take effect", one_line(setting));
        }
    }
}

/// Settings that are read when the process starts, and are others now.
fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let (a, b, q, r) = (&old.host, &new.host, &old.queue, &new.queue);
    let settings = [
        ("`[runtime] data-dir`", old.data_dir != new.data_dir),
        ("`[runtime] memory`", a.memory != b.memory),
        ("`[runtime] stack`", a.stack != b.stack),
        ("`[runtime] max-component-size`", a.max_component_size != b.max_component_size),
        ("`[runtime] compile-time`", a.compile_time != b.compile_time),
        ("`[runtime] compile-memory`", a.compile_memory != b.compile_memory),
        ("`[runtime] max-instances`", a.max_instances != b.max_instances),
        ("`[runtime] code-cache`", a.code_cache != b.code_cache),
        ("`[runtime] code-cache-size`", a.code_cache_size != b.code_cache_size),
        ("`[http] listen`", old.listen != new.listen),
        ("`[http-client] ca-file`", old.ca_file != new.ca_file),
        ("`[queue] engine`", q.engine != r.engine),
        ("`[queue] durability`", q.durability != r.durability),
        ("`[queue] max-event-size`", q.max_event_size != r.max_event_size),
        ("`[queue] idempotency-window`", q.idempotency_window != r.idempotency_window),
        ("`[queue] disk-reserve`", q.disk_reserve != r.disk_reserve),
        ("`[queue] write-buffer`", q.write_buffer != r.write_buffer),
        ("`[queue] cache`", q.cache != r.cache),
        ("`[log] retention`", old.log_retention != new.log_retention),
        ("`[plugins] dir`", old.plugins.dir != new.plugins.dir),
    ];
    settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
}

/// What holds stays what holds, until the restart.
fn keep_what_needs_a_restart(old: &Config, new: &mut Config) {
    new.data_dir.clone_from(&old.data_dir);
    new.host.clone_from(&old.host);
    new.listen = old.listen;
    new.ca_file.clone_from(&old.ca_file);
    new.queue = old.queue;
    new.log_retention = old.log_retention;
    new.plugins.dir.clone_from(&old.plugins.dir);
}

fn is_alike(one: &HandlerConfig, other: &HandlerConfig) -> bool {
    without_places(one) == without_places(other)
}

/// A handler's configuration, wherever in the file its secrets are written.
fn without_places(config: &HandlerConfig) -> HandlerConfig {
    let mut config = config.clone();
    for value in config.config.values_mut() {
        if let ConfigValue::Env { place, .. } | ConfigValue::File { place, .. } = value {
            place.clear();
        }
    }
    config
}
