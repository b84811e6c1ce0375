//! `gristmill running` and `kill`.

use std::process::ExitCode;
use std::time::Duration;

use super::args::{Kill, Running as Args};
use super::runtime::Runtime;
use super::screen::{Screen, print};
use super::table::{Column, Table};
use super::text::{short, short_digest};
use crate::http::model::Running;

pub(super) async fn running(runtime: &Runtime, args: &Args, screen: Screen) -> anyhow::Result<ExitCode> {
    let list = runtime.running().await?;
    if args.json {
        screen.json(&list)?;
    } else if list.items.is_empty() {
        eprintln!("nothing is running");
    } else {
        print(&table(&list.items).render(screen))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn kill(runtime: &Runtime, args: &Kill, screen: Screen) -> anyhow::Result<ExitCode> {
    let killed = runtime.kill(args.number).await?;
    if args.json {
        screen.json(&killed)?;
    } else {
        print(&format!("ended {}\n", killed.number))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(running: &[Running]) -> Table {
    let mut table = Table::new([
        Column::Number("NUMBER"),
        Column::Key("HANDLER"),
        Column::Key("ENTRY"),
        Column::Number("ATTEMPT"),
        Column::Number("FOR"),
        Column::Number("OF"),
        Column::Number("MEMORY"),
        Column::Rest("VERSION"),
    ]);
    for running in running {
        table.row([
            running.number.to_string(),
            running.handler.to_string(),
            running.entry.clone(),
            running.attempt.to_string(),
            short(Duration::from_millis(running.elapsed_ms)),
            short(Duration::from_millis(running.timeout_ms)),
            format!("{} KiB", running.memory.div_ceil(1_024)),
            short_digest(&running.version),
        ]);
    }
    table
}
