//! `gristmill check`: the configuration and every component, and nothing is run.

use std::process::ExitCode;

use gristmill_core::Subscription;
use gristmill_host::{Component, ImportStatus};

use crate::cli::screen::{self, Screen};
use crate::cli::table::{Column, Table};
use crate::cli::text::block;
use crate::config::Config;
use crate::registry;

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
        Column::Rest("POWERLESS IMPORTS"),
    ]);
    let mut errors = Vec::new();
    let mut loaded = 0;
    for handler in registry::load(&host, config).await {
        match handler {
            Ok(handler) => {
                let component = &handler.component;
                let powerless = component.imports().iter().filter(|import| import.status == ImportStatus::Powerless);
                let names: Vec<_> = powerless.map(|import| import.name.as_str()).collect();
                let subscriptions: Vec<_> = handler.config.subscribe.iter().map(describe).collect();
                loaded += 1;
                table.row([
                    component.name().to_string(),
                    interface(component),
                    component.digest().chars().take("sha256:".len() + 12).collect(),
                    subscriptions.join(", or "),
                    names.join(", "),
                ]);
            }
            Err(error) => errors.push(error),
        }
    }
    if loaded > 0 {
        screen::print(&table.render(Screen::stdout()))?;
    }
    for error in &errors {
        eprintln!("{}", block(&format!("error: {error}"), ""));
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn interface(component: &Component) -> String {
    let form = if component.is_wrapped() { " (from a core module)" } else { "" };
    format!("{}{form}", component.interface())
}

fn describe(subscription: &Subscription) -> String {
    let part = |name: &str, pattern: &Option<gristmill_core::Pattern>| {
        pattern.as_ref().map(|pattern| format!("{name} = {pattern}"))
    };
    let parts =
        [part("type", &subscription.ty), part("source", &subscription.source), part("subject", &subscription.subject)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}
