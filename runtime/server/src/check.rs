//! `gristmill check`: the configuration and every component, and nothing is run.

use std::process::ExitCode;

use gristmill_core::Subscription;
use gristmill_host::Component;

use crate::cli::screen::{self, Screen};
use crate::cli::table::{Column, Table};
use crate::cli::text::{block, one_line, short_digest};
use crate::config::{Config, Granted};
use crate::registry::{self, Handler};

/// Loads every component, prints what was found, and complains of what is wrong.
///
/// # Errors
/// When the WebAssembly engine does not start, or the result cannot be printed.
pub async fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let host = registry::host(config)?;
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
    for handler in registry::load(&host, config).await {
        match handler {
            Ok(handler) => {
                let component = &handler.component;
                let subscriptions: Vec<_> = handler.config.subscribe.iter().map(describe).collect();
                loaded += 1;
                table.row([
                    component.name().to_string(),
                    interface(component),
                    short_digest(component.digest()),
                    subscriptions.join(", or "),
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
        eprintln!("{}", block(&format!("error: {error}"), ""));
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
