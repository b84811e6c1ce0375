//! `gristmill check`: the configuration and every component, and nothing is run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gristmill_core::Subscription;
use gristmill_host::{Compiler, Component, Host};

use crate::cli::screen::{self, Screen};
use crate::cli::sheet::fields;
use crate::cli::table::{Column, Table};
use crate::cli::text::{block, one_line, short_digest};
use crate::compiling::Program;
use crate::config::{Config, Granted, HandlerConfig, Manifest, Plugin};
use crate::deployment::plugins::Folder;
use crate::manifest::{self, PluginError};
use crate::registry::{self, Handler};

/// Loads every component, prints what was found, and complains of what is wrong.
///
/// # Errors
/// When the WebAssembly engine does not start, or the result cannot be printed.
pub async fn check(config: &Config, program: &Program) -> anyhow::Result<ExitCode> {
    let compiler = program.compiler(config.host.compile_time, config.host.compile_memory);
    let host = registry::host(config, Compiler::Child(compiler))?;
    let mut table = Table::new([
        Column::Key("HANDLER"),
        Column::Key("INTERFACE"),
        Column::Key("DIGEST"),
        Column::Text("SUBSCRIBES TO"),
        Column::Rest("GRANTS"),
    ]);
    let mut errors = Vec::new();
    let mut notes = Vec::new();
    let mut loaded = 0;
    let mut all = Vec::new();
    for handler in &config.handlers {
        all.push(registry::load_one(&host, handler, config).await.map_err(|error| format!("error: {error}")));
    }
    all.extend(plugins(&host, config).await);
    for handler in all {
        match handler {
            Ok(handler) => {
                let component = &handler.component;
                loaded += 1;
                table.row([
                    component.name().to_string(),
                    interface(component),
                    short_digest(component.digest()),
                    subscriptions(&handler.config.subscribe),
                    grants(&handler.config.grant),
                ]);
                notes.extend(remarks(&handler));
            }
            Err(error) => errors.push(error),
        }
    }
    if loaded > 0 {
        screen::print(&table.render(Screen::stdout()))?;
        screen::print(&notes.concat())?;
    }
    for error in &errors {
        eprintln!("{}", block(error, ""));
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is in the folder of plugins, as handlers.
async fn plugins(host: &Host, config: &Config) -> Vec<Result<Handler, String>> {
    let Some(mut folder) = Folder::of(config) else { return Vec::new() };
    let found = match tokio::task::block_in_place(|| folder.look(|_| false)) {
        Ok(found) => found,
        Err(error) => return vec![Err(format!("error: {error}"))],
    };
    let mut plugins: Vec<_> = found.wrong.into_iter().map(|(_, why)| Err(why)).collect();
    for (plugin, bytes) in found.changed {
        let place = plugin.path.display().to_string();
        plugins.push(match config.plugin(&plugin) {
            Ok(handler) => registry::load_version(host, &handler, config, (bytes, place))
                .await
                .map_err(|error| format!("error: {error}")),
            Err(errors) => Err(format!("{place}\n{errors}")),
        });
    }
    plugins
}

/// Loads each component at `paths` as the plugin that it would be in this deployment, and prints what it says of itself.
///
/// # Errors
/// When the WebAssembly engine does not start, or the result cannot be printed.
pub async fn components(paths: &[PathBuf], config: &Config, program: &Program) -> anyhow::Result<ExitCode> {
    let compiler = program.compiler(config.host.compile_time, config.host.compile_memory);
    let host = registry::host(config, Compiler::Child(compiler))?;
    let mut code = ExitCode::SUCCESS;
    for (at, path) in paths.iter().enumerate() {
        if at > 0 {
            screen::print("\n")?;
        }
        let (shown, error) = match read(path).await {
            Ok(plugin) => sheet(&host, &plugin, config).await,
            Err(error) => (String::new(), Some(error.complaint())),
        };
        screen::print(&shown)?;
        if let Some(complaint) = error {
            eprint!("{complaint}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

async fn read(path: &Path) -> Result<Plugin, PluginError> {
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking({
        let path = path.clone();
        move || manifest::read(&path)
    });
    match reading.await {
        Ok(read) => read.map(|(plugin, _)| plugin),
        Err(error) => Err(PluginError::Read { path, error: std::io::Error::other(error) }),
    }
}

/// What is known of a plugin, and a complaint if it cannot run.
async fn sheet(host: &Host, plugin: &Plugin, config: &Config) -> (String, Option<String>) {
    let mut known = vec![
        ("handler", plugin.name.to_string()),
        ("component", plugin.path.display().to_string()),
        ("digest", plugin.digest.clone()),
    ];
    match &plugin.manifest {
        Some(manifest) => known.extend(said(manifest)),
        None => known.push(("manifest", String::from("none"))),
    }
    let handler = match config.plugin(plugin) {
        Ok(handler) => handler,
        Err(errors) => return (fields("", known), Some(PluginError::Manifest(errors).complaint())),
    };
    known.push(("handles", subscriptions(&handler.subscribe)));
    known.push(("granted", granted(&handler)));
    if let Some(line) = handler.wants.beyond(&handler.grant).line() {
        known.push(("not granted", format!("write for it: {line}")));
    }
    match registry::load_one(host, &handler, config).await {
        Ok(handler) => {
            known.insert(2, ("interface", interface(&handler.component)));
            (fields("", known) + &remarks(&handler).concat(), None)
        }
        Err(error) => (fields("", known), Some(block(&format!("error: {error}"), ""))),
    }
}

/// What a manifest says; it is in effect only as far as the deployment lets it.
fn said(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let mut said = vec![("manifest", manifest.origin().display().to_string())];
    said.extend(manifest.description().map(|text| ("description", text.to_owned())));
    let subscribe: Vec<_> = manifest.subscribe().cloned().collect();
    if !subscribe.is_empty() {
        said.push(("subscribes", subscriptions(&subscribe)));
    }
    said.extend(manifest.settings().iter().map(|(key, value)| ("says", format!("{key} = {value}"))));
    let configured: Vec<_> = manifest.configured().collect();
    if !configured.is_empty() {
        said.push(("config", configured.join(", ")));
    }
    if !manifest.wants().is_empty() {
        said.push(("wants", grants(manifest.wants())));
    }
    said
}

fn granted(handler: &HandlerConfig) -> String {
    if handler.grant.is_empty() { String::from("nothing") } else { grants(&handler.grant) }
}

fn subscriptions(subscriptions: &[Subscription]) -> String {
    subscriptions.iter().map(describe).collect::<Vec<_>>().join(", or ")
}

fn interface(component: &Component) -> String {
    let origin = if component.is_wrapped() { " (from a core module)" } else { "" };
    format!("{}{origin}", component.form())
}

/// What a handler may do, each grant with what it covers.
fn grants(granted: &Granted) -> String {
    fn part(name: &str, items: impl Iterator<Item = String>) -> Option<String> {
        let items: Vec<_> = items.collect();
        (!items.is_empty()).then(|| format!("{name}: {}", items.join(", ")))
    }
    let parts = [
        part("emit", granted.emit.iter().map(ToString::to_string)),
        part("state", granted.state.iter().map(ToString::to_string)),
        part("http", granted.http.iter().map(ToString::to_string)),
        part("env", granted.env.iter().cloned()),
        part("files", granted.files.iter().map(ToString::to_string)),
        part("sockets", granted.sockets.iter().map(ToString::to_string)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What a handler imports in vain, and what it is granted in vain; a line each.
fn remarks(handler: &Handler) -> Vec<String> {
    let gaps = handler.component.gaps().into_iter().map(|gap| gap.to_string());
    let unset = handler.config.grant.env.iter().filter(|name| std::env::var(name).is_err());
    let unset = unset.map(|name| format!("is granted the environment variable {name}, which is not set here"));
    gaps.chain(unset).map(|remark| one_line(&format!("{} {remark}", handler.config.name)) + "\n").collect()
}

fn describe(subscription: &Subscription) -> String {
    let part = |name: &str, pattern: &Option<gristmill_core::Pattern>| {
        pattern.as_ref().map(|pattern| format!("{name} = {pattern}"))
    };
    let parts =
        [part("type", &subscription.ty), part("source", &subscription.source), part("subject", &subscription.subject)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}
