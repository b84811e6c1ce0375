//! `gristmill publish`, to a running runtime.

use std::fmt;
use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use gristmill_core::{Event, Timestamp};
use tokio::sync::mpsc;

use super::args::Publish;
use super::ndjson::{Line, Source};
use super::runtime::{NoRuntime, Runtime};
use super::screen::Screen;
use super::text::{count, one_line};
use crate::http::model::{PublishReply, PublishResult, PublishStatus};
use crate::http::{Api, Problem, publish_events};
use crate::publishing::PublishOptions;

impl Publish {
    /// Where its events come from, and the events in batches: those of the file, or the one of the flags.
    ///
    /// # Errors
    /// When the file cannot be opened, or the flags make no event.
    pub fn input(&self, now: Timestamp) -> anyhow::Result<Input> {
        if let Some(event) = self.event.event(now)? {
            let (sender, batches) = mpsc::channel(1);
            sender.try_send(Ok(vec![Line { number: 1, bytes: event.size(), event: Ok(event) }]))?;
            return Ok(Input { source: None, batches });
        }
        let source = Source::new(self.file.as_deref().context("neither a file nor --type was given")?);
        let batches = source.stream().with_context(|| format!("cannot read {source}"))?;
        Ok(Input { source: Some(source), batches })
    }
}

/// Events to publish.
#[derive(Debug)]
pub struct Input {
    /// The file; `None`: the flags.
    pub source: Option<Source>,
    /// Its lines, in batches; an error ends them.
    pub batches: mpsc::Receiver<io::Result<Vec<Line>>>,
}

impl Input {
    /// `events.ndjson:17: `, or nothing for the event of the flags.
    #[must_use]
    pub fn place(&self, line: u64) -> String {
        self.source.as_ref().map(|source| format!("{}:{line}: ", one_line(&source.to_string()))).unwrap_or_default()
    }
}

/// How many events were accepted and refused, and how durable they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    accepted: u64,
    duplicate: u64,
    refused: u64,
    durability: Option<String>,
}

impl Tally {
    fn count(&mut self, result: &PublishResult) {
        match result.status {
            PublishStatus::Accepted => self.accepted += 1,
            PublishStatus::Duplicate => self.duplicate += 1,
            PublishStatus::Refused => self.refused += 1,
        }
        if result.durability.is_some() {
            self.durability.clone_from(&result.durability);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "published {}", count(self.accepted, "event", "events"))?;
        if let Some(durability) = &self.durability {
            write!(f, " ({})", one_line(durability))?;
        }
        if self.duplicate > 0 {
            write!(f, ", {} known already", self.duplicate)?;
        }
        write!(f, ", refused {}", self.refused)
    }
}

/// Who takes the events.
pub(super) enum Target<'a> {
    /// A running runtime.
    Running(&'a Runtime),
    /// The store of a stopped one.
    Stopped(&'a Api),
}

impl Target<'_> {
    async fn publish(&self, events: &[&Event], options: &PublishOptions) -> anyhow::Result<PublishReply> {
        match self {
            Self::Running(runtime) => runtime.publish(events, options).await,
            Self::Stopped(api) => Ok(publish_events(api, events, options).await?),
        }
    }
}

pub(super) async fn publish(
    target: &Target<'_>,
    args: &Publish,
    screen: Screen,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let options = args.options.options();
    let mut input = args.input(now)?;
    let mut tally = Tally::default();
    while let Some(batch) = input.batches.recv().await {
        let batch = batch.with_context(|| match &input.source {
            Some(source) => format!("cannot read {source} any further; so far: {tally}"),
            None => tally.to_string(),
        })?;
        let first = batch.first().map_or(1, |line| line.number);
        let reply = publish_batch(target, &batch, &options).await.map_err(|error| {
            let context = if error.is::<NoRuntime>() {
                tally.to_string()
            } else {
                format!("{tally}; {}this event and what follows may or may not be published", input.place(first))
            };
            error.context(context)
        })?;
        for (line, result) in batch.iter().zip(&reply.results) {
            tally.count(result);
            if let Some(problem) = &result.error {
                eprintln!("{}{}", input.place(line.number), one_line(&problem.to_string()));
            }
        }
        if args.json {
            screen.json(&reply)?;
        }
    }
    eprintln!("{tally}");
    Ok(if tally.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A result for each line: the runtime's for events, our own for what is none.
async fn publish_batch(target: &Target<'_>, batch: &[Line], options: &PublishOptions) -> anyhow::Result<PublishReply> {
    let events: Vec<_> = batch.iter().filter_map(|line| line.event.as_ref().ok()).collect();
    let answers = match events.as_slice() {
        [] => Vec::new(),
        events => target.publish(events, options).await?.results,
    };
    let mut answers = answers.into_iter();
    let results = batch.iter().map(|line| match &line.event {
        Ok(_) => answers.next().ok_or_else(|| anyhow!("the runtime answered fewer events than it was sent")),
        Err(error) => Ok(PublishResult::refused(None, None, Problem::from(error))),
    });
    Ok(PublishReply { results: results.collect::<anyhow::Result<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts() {
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "published 0 events, refused 0");
        let accepted = PublishResult {
            source: None,
            id: None,
            status: PublishStatus::Accepted,
            durability: Some("fsync".into()),
            entries: Vec::new(),
            error: None,
        };
        tally.count(&accepted);
        tally.count(&PublishResult::refused(None, None, Problem::from(&gristmill_core::EventError::Missing("id"))));
        assert_eq!(tally.to_string(), "published 1 event (fsync), refused 1");
    }
}
