//! `gristmill dead list` and `redrive`.

use std::process::ExitCode;

use anyhow::bail;
use futures_util::StreamExt as _;
use gristmill_core::{EntryId, QueueName, State, Timestamp};

use super::args::{ListDead, PageFlags, Redrive};
use super::entries::table;
use super::runtime::{PageOf, Runtime};
use super::screen::{Screen, print};
use super::text::{count, one_line};
use crate::http::Problem;
use crate::http::model::{Entry, List, Queue, Redriven};

/// How many dead letters `--queue` without `--all` redrives.
const SOME: u64 = 100;
/// How many are asked for at once.
const PAGE: u16 = 1_000;
/// How many redrives are under way at once; they share the engine's sync.
const CONCURRENCY: usize = 64;

pub(super) async fn list(
    runtime: &Runtime,
    args: &ListDead,
    screen: Screen,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let list = match &args.queue {
        Some(queue) => {
            let cursor = args.page.cursor.as_deref();
            runtime.entries(PageOf { queue, state: State::Dead, limit: args.page.limit, cursor }).await?
        }
        None => of_all_queues(runtime, &args.page).await?,
    };
    if args.json {
        screen.json(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    if list.items.is_empty() {
        eprintln!("there are no dead letters");
    } else {
        print(&table(&list.items, State::Dead, now).render(screen))?;
    }
    if let Some(next) = &list.next {
        let queue = args.queue.as_ref().map(|queue| format!("{queue} ")).unwrap_or_default();
        eprintln!("there are more: gristmill dead list {queue}--cursor {}", one_line(next));
    }
    Ok(ExitCode::SUCCESS)
}

/// A page of all of them, queue by queue. Its cursor is the name of the queue where it goes on, a colon, and that queue's
/// own cursor, if the page begins within the queue.
async fn of_all_queues(runtime: &Runtime, page: &PageFlags) -> anyhow::Result<List<Entry>> {
    let (first, mut within) = match page.cursor.as_deref().map(split) {
        Some(Some((first, within))) => (Some(first), Some(within).filter(|within| !within.is_empty())),
        Some(None) => bail!("--cursor: not what a list of all queues ended with; to go on within one, name it"),
        None => (None, None),
    };
    let queues = runtime.queues().await?.items;
    let mut items: Vec<Entry> = Vec::new();
    let from = queues.iter().filter(|queue| queue.dead > 0 && first.as_ref().is_none_or(|first| queue.name >= *first));
    for Queue { name: queue, .. } in from {
        let left = usize::from(page.limit).saturating_sub(items.len());
        let Some(limit) = u16::try_from(left).ok().filter(|&left| left > 0) else {
            return Ok(List { items, next: Some(format!("{queue}:")) });
        };
        let cursor = within.take().filter(|_| first.as_ref() == Some(queue));
        let page = runtime.entries(PageOf { queue, state: State::Dead, limit, cursor }).await?;
        items.extend(page.items);
        if let Some(next) = page.next {
            return Ok(List { items, next: Some(format!("{queue}:{next}")) });
        }
    }
    Ok(List { items, next: None })
}

fn split(cursor: &str) -> Option<(QueueName, &str)> {
    let (queue, within) = cursor.split_once(':')?;
    Some((QueueName::new(queue).ok()?, within))
}

/// What became of the redrives so far.
#[derive(Debug, Default)]
struct Tally {
    redriven: u64,
    refused: u64,
}

pub(super) async fn redrive(runtime: &Runtime, args: &Redrive, screen: Screen) -> anyhow::Result<ExitCode> {
    let mut tally = Tally::default();
    match &args.queue {
        Some(queue) => {
            let dead = runtime.queue(queue).await?.dead;
            let limit = if args.all { dead } else { dead.min(SOME) };
            let wanted = Wanted { queue, limit, version: args.version_of_failure.as_deref(), dead };
            let unseen = redrive_queue(runtime, wanted, |answer| tally.note(answer, args, screen)).await?;
            match &args.version_of_failure {
                None if unseen > 0 => eprintln!("{unseen} left: gristmill dead redrive --queue {queue} --all"),
                Some(version) if unseen > 0 => eprintln!(
                    "there may be more: gristmill dead redrive --queue {queue} --all --version-of-failure {version}"
                ),
                _ => {}
            }
        }
        None => redrive_entries(runtime, args.entries.clone(), |answer| tally.note(answer, args, screen)).await?,
    }
    let Tally { redriven, refused } = tally;
    eprintln!("redrove {}, refused {refused}", count(redriven, "dead letter", "dead letters"));
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An entry, and whether it is ready again.
type Answer = (EntryId, anyhow::Result<Redriven>);

impl Tally {
    fn note(&mut self, (entry, answer): Answer, args: &Redrive, screen: Screen) -> anyhow::Result<()> {
        match answer {
            Ok(redriven) => {
                self.redriven += 1;
                if args.json {
                    screen.json(&redriven)?;
                }
            }
            // The runtime's word on this entry; anything else concerns all of them.
            Err(error) if error.downcast_ref::<Problem>().is_some_and(|problem| problem.status < 500) => {
                self.refused += 1;
                eprintln!("{entry}: {}", one_line(&error.to_string()));
            }
            Err(error) => {
                return Err(error.context(format!("stopped after {}", count(self.redriven, "redrive", "redrives"))));
            }
        }
        Ok(())
    }
}

/// Some dead letters of a queue.
struct Wanted<'a> {
    queue: &'a QueueName,
    /// No more than this.
    limit: u64,
    /// Only those whose last attempt was handled by a version whose digest begins like this.
    version: Option<&'a str>,
    /// How many there were when it began.
    dead: u64,
}

/// The first dead letters that are wanted; how many were not looked at. An entry that dies again meanwhile joins at the
/// end, so counting ends this.
async fn redrive_queue(
    runtime: &Runtime,
    wanted: Wanted<'_>,
    mut note: impl FnMut(Answer) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let Wanted { queue, limit: mut left, version, dead: mut unseen } = wanted;
    let mut cursor = None;
    while left > 0 && unseen > 0 {
        let looked_at = if version.is_some() { unseen } else { left };
        let limit = u16::try_from(looked_at).unwrap_or(PAGE).min(PAGE);
        let page = PageOf { queue, state: State::Dead, limit, cursor: cursor.as_deref() };
        let List { items, next } = runtime.entries(page).await?;
        let mut entries = Vec::new();
        for entry in items {
            if left == 0 {
                break;
            }
            unseen = unseen.saturating_sub(1);
            if version.is_none_or(|version| failed_last(&entry).is_some_and(|failed| failed.starts_with(version))) {
                left -= 1;
                entries.push(entry.entry);
            }
        }
        redrive_entries(runtime, entries, &mut note).await?;
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(0),
        }
    }
    Ok(unseen)
}

/// The version that handled the last attempt; `None`: nobody has said.
fn failed_last(entry: &Entry) -> Option<&str> {
    entry.history.iter().rfind(|attempt| attempt.outcome.is_attempt())?.version.as_deref()
}

async fn redrive_entries(
    runtime: &Runtime,
    entries: Vec<EntryId>,
    mut note: impl FnMut(Answer) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let redrives = entries.into_iter().map(async |entry| {
        let answer = runtime.redrive(&entry).await;
        (entry, answer)
    });
    let mut answers = std::pin::pin!(futures_util::stream::iter(redrives).buffered(CONCURRENCY));
    while let Some(answer) = answers.next().await {
        note(answer)?;
    }
    Ok(())
}
