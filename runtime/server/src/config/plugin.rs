//! The handler that a component of the plugins folder becomes: what its manifest says, as far as runtime.toml lets it.
//!
//! - What the `[[handler]]` of its name says wins, key by key; then the manifest; then `[defaults]`.
//! - The subscriptions of a manifest lie within `allow-subscribe`.
//! - Its limits only lower the defaults.
//! - Grants come from runtime.toml alone.

use std::ops::Range;
use std::path::{Path, PathBuf};

use gristmill_core::{HandlerName, Pattern, Subscription};

use super::error::{ConfigErrors, Problem};
use super::handler::Written;
use super::limits::Limits;
use super::lowered::{Judge, Layers};
use super::suggest::quoted;
use super::wants::list;
use super::{Config, HandlerConfig, Manifest};
use crate::source::Source;

/// A component of the plugins folder.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The handler that it becomes: as its file is called, without the extension.
    pub name: HandlerName,
    /// Its file.
    pub path: PathBuf,
    /// Of the file's bytes: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// What it says of itself; `None`: nothing.
    pub manifest: Option<Manifest>,
}

/// What plugins are read over: the defaults, and what was written of handlers.
#[derive(Clone, Debug)]
pub(super) struct Base {
    /// What messages call runtime.toml.
    origin: PathBuf,
    defaults: Limits,
    max_event_size: u64,
    handlers: Vec<Written>,
}

impl Base {
    pub(super) fn new(origin: &Path, defaults: Limits, max_event_size: u64, handlers: Vec<Written>) -> Self {
        Self { origin: origin.to_owned(), defaults, max_event_size, handlers }
    }
}

impl Config {
    /// The same with these handlers.
    #[must_use]
    pub fn with(&self, handlers: Vec<HandlerConfig>) -> Self {
        Self { handlers, ..self.clone() }
    }

    /// The handlers whose components are expected in the plugins folder: each `[[handler]]` without a `component`.
    pub fn expected(&self) -> impl Iterator<Item = &HandlerName> {
        self.base.handlers.iter().filter(|handler| handler.component.is_none()).map(|handler| &handler.name)
    }

    /// The handler that `plugin` becomes in this deployment.
    ///
    /// # Errors
    /// With everything that the deployment does not let it say, or lacks: each with the line of runtime.toml that would
    /// mend it.
    pub fn plugin(&self, plugin: &Plugin) -> Result<HandlerConfig, ConfigErrors> {
        let found = self.base.handlers.iter().find(|handler| handler.name == plugin.name);
        let nothing = Written::nothing(plugin.name.clone());
        let reading = Reading { config: self, plugin, written: found.unwrap_or(&nothing) };
        let mut problems: Vec<Problem> = reading.taken().into_iter().chain(reading.unpinned()).collect();
        problems.extend(reading.too_high());
        let subscribe = reading.subscribe(&mut problems);
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.span().map(|span| span.start));
            let manifest = plugin.manifest.as_ref();
            let origin = manifest.map_or(plugin.path.as_path(), Manifest::origin);
            return Err(ConfigErrors::new(origin, manifest.map_or("", Manifest::text), problems));
        }
        Ok(reading.handler(subscribe))
    }
}

/// One plugin under one deployment.
struct Reading<'a> {
    config: &'a Config,
    plugin: &'a Plugin,
    written: &'a Written,
}

impl Reading<'_> {
    /// The name belongs to a component from elsewhere.
    fn taken(&self) -> Option<Problem> {
        let is_other =
            |component: &&Source| !matches!(component, Source::Path(path) if is_same(path, &self.plugin.path));
        let component = self.written.component.as_ref().filter(is_other)?;
        let (name, place) = (&self.plugin.name, self.place());
        let message = format!("the handler `{name}` has another component: {component} ({place})");
        let help = format!("remove `component` at {place}, or call the file in the plugins folder something else");
        Some(Problem::without_place(message).help(help))
    }

    /// Every plugin is to be pinned, and this one is not.
    fn unpinned(&self) -> Option<Problem> {
        if !self.config.plugins.require_digest || self.written.digest.is_some() {
            return None;
        }
        let message = format!("the plugin `{}` is not pinned, and `require-digest` wants that", self.plugin.name);
        let line = format!("digest = \"{}\"", self.plugin.digest);
        Some(Problem::without_place(message).help(format!("if this is the file that you want, {}", self.mend(&line))))
    }

    /// Limits of the manifest above the defaults.
    fn too_high(&self) -> Vec<Problem> {
        let Some(manifest) = &self.plugin.manifest else { return Vec::new() };
        let mend = |line: &str| format!("to allow it, {}", self.mend(line));
        let mut judge = Judge { mend: &mend, problems: Vec::new() };
        let defaults = &self.config.base.defaults;
        Limits::judge(&Layers { manifest: &manifest.limits, written: &self.written.limits, defaults }, &mut judge);
        judge.problems
    }

    /// What it handles.
    fn subscribe(&self, problems: &mut Vec<Problem>) -> Vec<Subscription> {
        if let Some(subscribe) = &self.written.subscribe {
            return subscribe.clone();
        }
        let Some(subscribe) = self.plugin.manifest.as_ref().and_then(|manifest| manifest.subscribe.as_ref()) else {
            let line = "subscribe = [{ type = \"com.acme.image.*\" }]";
            let message = match &self.plugin.manifest {
                Some(_) => format!("the manifest does not say which events `{}` handles", self.plugin.name),
                None => format!("nothing says which events `{}` handles: it has no manifest", self.plugin.name),
            };
            let help = format!("give it a manifest that says so (`gristmill embed`), or {}", self.mend(line));
            problems.push(Problem::without_place(message).help(help));
            return Vec::new();
        };
        let refused: Vec<_> = subscribe.iter().filter(|(subscription, _)| !self.allows(subscription)).collect();
        if !refused.is_empty() {
            let mend = self.allowing(&refused);
            problems.extend(refused.iter().map(|(subscription, span)| refuse(subscription, span.clone(), &mend)));
        }
        subscribe.iter().map(|(subscription, _)| subscription.clone()).collect()
    }

    fn allows(&self, subscription: &Subscription) -> bool {
        let wanted = types(subscription);
        self.config.plugins.allow_subscribe.iter().any(|allowed| allowed.covers(&wanted))
    }

    /// The line that would allow all of them.
    fn allowing(&self, refused: &[&(Subscription, Range<usize>)]) -> String {
        let mut patterns = self.config.plugins.allow_subscribe.clone();
        for (subscription, _) in refused {
            let wanted = types(subscription);
            if !patterns.iter().any(|allowed| allowed.covers(&wanted)) {
                patterns.push(wanted);
            }
        }
        let patterns = list(patterns.iter());
        format!(
            "to allow it, write in `[plugins]` of {}: allow-subscribe = {patterns}",
            self.config.base.origin.display()
        )
    }

    fn handler(&self, subscribe: Vec<Subscription>) -> HandlerConfig {
        let base = &self.config.base;
        let (path, written) = (Source::Path(self.plugin.path.clone()), self.written);
        let Some(manifest) = &self.plugin.manifest else {
            return written.handler(path, subscribe, &written.limits.over(&base.defaults), base.max_event_size);
        };
        let mut both = written.clone();
        both.interface = written.interface.or(manifest.interface);
        both.batch_size = written.batch_size.or(manifest.batch_size);
        both.ordering_key = written.ordering_key.clone().or_else(|| manifest.ordering_key.clone());
        for (key, value) in &manifest.config {
            both.config.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let limits = written.limits.over(&manifest.limits).over(&base.defaults);
        let handler = both.handler(path, subscribe, &limits, base.max_event_size);
        HandlerConfig { wants: manifest.wants.clone(), ..handler }
    }

    /// Where its `[[handler]]` is.
    fn place(&self) -> String {
        format!("{}:{}", self.config.base.origin.display(), self.written.line)
    }

    /// Where to write `line`, and what with it.
    fn mend(&self, line: &str) -> String {
        match self.written.line {
            0 => {
                let (name, origin) = (&self.plugin.name, self.config.base.origin.display());
                format!("write in {origin}:\n  [[handler]]\n  name = \"{name}\"\n  {line}")
            }
            _ => format!("write below the `[[handler]]` at {}: {line}", self.place()),
        }
    }
}

fn refuse(subscription: &Subscription, span: Range<usize>, mend: &str) -> Problem {
    match &subscription.ty {
        Some(ty) => {
            let message = format!("a manifest may not subscribe to events of type {} here", quoted(ty.as_str()));
            Problem::new(message, span, "not within `allow-subscribe`").help(mend)
        }
        None => {
            let message = "a manifest may not subscribe to events of every type here";
            let problem = Problem::new(message, span, "without `type` it is for every type");
            problem.help("name the type as well").help(mend)
        }
    }
}

/// The types of the events that it may match.
fn types(subscription: &Subscription) -> Pattern {
    subscription.ty.clone().unwrap_or_else(|| Pattern::new("*"))
}

/// Whether two paths name one file, as far as that can be told without looking.
fn is_same(one: &Path, other: &Path) -> bool {
    match (std::path::absolute(one), std::path::absolute(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
