//! How `publish` publishes, from its flags.

use std::time::Duration;

use clap::ValueEnum;
use gristmill_core::Timestamp;
use gristmill_core::units::parse_duration;
use gristmill_queue::{Due, OnDuplicate};

use crate::publishing::{PublishOptions, parse_instant, parse_key, parse_positive};

/// What holds for every event of the command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options for every event")]
pub struct PublishFlags {
    /// Ordering key: events with the same key are handled one at a time, in order [default: the handler's
    /// `ordering-key`]
    #[arg(long, value_parser = parse_key)]
    pub key: Option<String>,
    /// Tells repetitions apart instead of the events' ids: of all events of one source with this key, one is published
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub dedupe_key: Option<String>,
    /// What to do with a repetition of an earlier publish
    #[arg(long, value_name = "WHAT", default_value = "return-existing")]
    pub on_duplicate: Repetition,
    /// 0 to 255, higher first
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub priority: u8,
    /// Handle them so long after their publish at the earliest, such as 5s or 1.5h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "not_before")]
    pub delay: Option<Duration>,
    /// Handle them at this time at the earliest: RFC 3339, such as 2026-05-04T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    pub not_before: Option<Timestamp>,
    /// What nobody has begun to handle this long after its publish becomes a dead letter [default: the handler's
    /// `time-to-live`]
    #[arg(long, value_name = "DURATION", value_parser = parse_positive)]
    pub ttl: Option<Duration>,
}

impl PublishFlags {
    /// What they ask for.
    #[must_use]
    pub fn options(&self) -> PublishOptions {
        PublishOptions {
            key: self.key.clone(),
            dedupe_key: self.dedupe_key.clone(),
            priority: self.priority,
            due: match (self.delay, self.not_before) {
                (Some(delay), _) => Due::After(delay),
                (None, Some(time)) => Due::At(time),
                (None, None) => Due::Now,
            },
            time_to_live: self.ttl,
            on_duplicate: self.on_duplicate.into(),
        }
    }
}

/// [`OnDuplicate`], as flags spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Repetition {
    /// Publish nothing, and name the entries of the earlier one
    ReturnExisting,
    /// Publish it again if the earlier one is dead or cancelled
    AllowAfterFailure,
    /// Publish nothing, and count it as refused
    Refuse,
    /// Publish it again
    Allow,
}

impl From<Repetition> for OnDuplicate {
    fn from(asked: Repetition) -> Self {
        match asked {
            Repetition::ReturnExisting => Self::ReturnExisting,
            Repetition::AllowAfterFailure => Self::AllowAfterFailure,
            Repetition::Refuse => Self::Refuse,
            Repetition::Allow => Self::Allow,
        }
    }
}
