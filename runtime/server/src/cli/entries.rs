//! `gristmill entries list` and `show`, and the table that `dead list` shares.

use std::process::ExitCode;

use gristmill_core::{State, Timestamp, json};

use super::args::{ListEntries, Show};
use super::runtime::{PageOf, Runtime};
use super::screen::{Screen, print};
use super::sheet;
use super::table::{Column, Table};
use super::text::age;
use crate::http::model::Entry;

pub(super) async fn list(
    runtime: &Runtime,
    args: &ListEntries,
    screen: Screen,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let ListEntries { queue, state, page, json } = args;
    let (state, cursor) = (*state, page.cursor.as_deref());
    let list = runtime.entries(PageOf { queue, state, limit: page.limit, cursor }).await?;
    if *json {
        screen.json(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    if list.items.is_empty() {
        eprintln!("no entry of `{queue}` is {state}");
    } else {
        print(&table(&list.items, state, now).render(screen))?;
    }
    if let Some(next) = &list.next {
        eprintln!("there are more: gristmill entries list {queue} --state {state} --cursor {next}");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(runtime: &Runtime, args: &Show, screen: Screen, now: Timestamp) -> anyhow::Result<ExitCode> {
    let entry = runtime.entry(&args.entry).await?;
    if args.json {
        screen.json(&entry)?;
    } else {
        print(&sheet::sheet(&entry, screen, now))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Entries in one state, of one queue or of several.
pub(super) fn table(entries: &[Entry], state: State, now: Timestamp) -> Table {
    let since = match state {
        State::Scheduled => "DUE",
        State::Waiting => "WAITING",
        State::Ready => "READY",
        State::Leased => "LEASED",
        State::Done => "DONE",
        State::Dead => "DEAD",
        State::Cancelled => "CANCELLED",
    };
    let mut table = Table::new([
        Column::Key("ENTRY"),
        Column::Key("QUEUE"),
        Column::Text("TYPE"),
        Column::Text("ID"),
        Column::Number("AGE"),
        Column::Number(since),
        Column::Number("ATTEMPTS"),
        Column::Key("OUTCOME"),
        Column::Rest("REASON"),
    ]);
    for entry in entries {
        let event = json::parse(entry.event.get().as_bytes()).ok();
        let (ty, id) = event.map_or(("?".to_owned(), "?".to_owned()), |event| (event.ty, event.id));
        let last = entry.history.last();
        table.row([
            entry.entry.to_string(),
            entry.queue.to_string(),
            ty,
            id,
            age(now, entry.enqueued_at.0),
            age(now, entry.at.0),
            entry.attempts.to_string(),
            last.map_or_else(|| "-".to_owned(), |attempt| attempt.outcome.to_string()),
            last.and_then(|attempt| attempt.reason.clone()).unwrap_or_default(),
        ]);
    }
    table
}
