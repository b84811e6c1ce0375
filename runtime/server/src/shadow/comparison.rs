//! What came of a shadow replay.

use std::fmt;

use gristmill_core::EntryId;
use serde::{Deserialize, Serialize};

use super::Sample;

/// How many events that differ are listed; the others are counted.
const MAX_LISTED: usize = 1_000;
/// How many differences of one event are listed.
const MAX_DIFFERENCES: usize = 20;

/// How two versions compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// How many events went through both.
    pub events: u64,
    /// With which both did the same.
    pub same: u64,
    /// With which they did not.
    pub different: u64,
    /// Of those, by what differs: an event counts once for each kind.
    pub by_kind: Kinds,
    /// With which the old version does not even do the same as itself.
    pub not_deterministic: u64,
    /// With which it cannot be seen what they do.
    pub not_comparable: Obstacles,
    /// Whether a version is granted a directory to write to. What it would have written was refused, and is not compared.
    pub files_were_read_only: bool,
    /// Those that differ, in the order in which they came; at most 1,000.
    pub differing: Vec<Differing>,
}

/// How many events differ in what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kinds {
    /// The verdict, or what comes with it: result, reason, delay.
    pub verdict: u64,
    /// At least one version gives no verdict: it traps, or goes over a limit.
    pub outcome: u64,
    /// What they emit.
    pub emits: u64,
    /// What they write to the state.
    pub state: u64,
    /// Whether they use the network.
    pub network: u64,
}

/// How many events cannot be compared, by why not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacles {
    /// Both versions would send requests over HTTP.
    pub http: u64,
    /// Both would use sockets.
    pub sockets: u64,
    /// The host could not run one of them, or a person ended it.
    pub host: u64,
}

/// What two runs differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// See [`Kinds::verdict`].
    Verdict,
    /// See [`Kinds::outcome`].
    Outcome,
    /// See [`Kinds::emits`].
    Emits,
    /// See [`Kinds::state`].
    State,
    /// See [`Kinds::network`].
    Network,
}

/// An event with which two versions do not do the same. Texts are those of guests and publishers: escape them before a
/// person reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differing {
    /// Its entry.
    pub entry: EntryId,
    /// The event's id.
    pub event: String,
    /// The event's type.
    #[serde(rename = "type")]
    pub ty: String,
    /// In what they differ; at most 20.
    pub differences: Vec<Difference>,
    /// How many more differences there are.
    pub more: usize,
}

/// One thing that two versions do differently. What is long is shown from a little before where it differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What it belongs to.
    pub what: What,
    /// Which part: `result`, `event 1: data`, `orders/total`.
    pub part: String,
    /// As the old version does it.
    pub old: String,
    /// As the new one does.
    pub new: String,
}

/// What came of one event.
pub(super) enum Judged {
    Same,
    Different(Differing),
    Unsteady,
    NotComparable(Obstacle),
}

/// See [`Obstacles`].
#[derive(Clone, Copy)]
pub(super) enum Obstacle {
    Http,
    Sockets,
    Host,
}

/// What is good enough for a deployment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// No event differs.
    Same,
    /// At most so many of a hundred events that were compared differ.
    Percent(f64),
}

/// Why two versions are not alike enough.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooDifferent {
    /// Nobody knows.
    #[error("none of {0} could be compared: nothing is known of how the versions differ")]
    Unknown(String),
    /// Too many events differ.
    #[error("{different} of {compared} events that were compared differ; {allowed}")]
    TooMany {
        /// How many.
        different: u64,
        /// Of how many.
        compared: u64,
        /// How many may.
        allowed: String,
    },
}

impl Comparison {
    /// How many events could be compared.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.same + self.different
    }

    /// How many of a hundred events that could be compared differ; 0 if none could.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a share for a person to read")]
    pub fn percent(&self) -> f64 {
        if self.compared() == 0 { 0.0 } else { 100.0 * self.different as f64 / self.compared() as f64 }
    }

    /// Whether the new version is enough like the old one.
    ///
    /// # Errors
    /// When it is not; also when nothing could be compared, because then nothing speaks for it.
    pub fn check(&self, bar: Bar) -> Result<(), TooDifferent> {
        if self.compared() == 0 {
            return Err(TooDifferent::Unknown(crate::cli::text::count(self.events, "event", "events")));
        }
        let (is_over, allowed) = match bar {
            Bar::Same => (self.different > 0, "none may".to_owned()),
            Bar::Percent(percent) => (self.percent() > percent, format!("{percent} % may")),
        };
        let (different, compared) = (self.different, self.compared());
        if is_over { Err(TooDifferent::TooMany { different, compared, allowed }) } else { Ok(()) }
    }

    /// Counts an event; gives it back if it is to be listed.
    pub(super) fn count(&mut self, judged: Judged) -> Option<Differing> {
        self.events += 1;
        match judged {
            Judged::Same => self.same += 1,
            Judged::Unsteady => self.not_deterministic += 1,
            Judged::NotComparable(Obstacle::Http) => self.not_comparable.http += 1,
            Judged::NotComparable(Obstacle::Sockets) => self.not_comparable.sockets += 1,
            Judged::NotComparable(Obstacle::Host) => self.not_comparable.host += 1,
            Judged::Different(one) => {
                self.different += 1;
                self.by_kind.count(&one.differences);
                return (self.different <= MAX_LISTED as u64).then(|| one.shortened());
            }
        }
        None
    }

    pub(super) fn list(&mut self, differing: impl Iterator<Item = Differing>) {
        self.differing.extend(differing);
    }
}

impl Obstacles {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.http + self.sockets + self.host
    }
}

impl Kinds {
    fn count(&mut self, differences: &[Difference]) {
        for (what, count) in [
            (What::Verdict, &mut self.verdict),
            (What::Outcome, &mut self.outcome),
            (What::Emits, &mut self.emits),
            (What::State, &mut self.state),
            (What::Network, &mut self.network),
        ] {
            *count += u64::from(differences.iter().any(|difference| difference.what == what));
        }
    }
}

impl Differing {
    pub(super) fn new(sample: &Sample, differences: Vec<Difference>) -> Self {
        let (event, ty) = (sample.event.id.clone(), sample.event.ty.clone());
        Self { entry: sample.entry.clone(), event, ty, differences, more: 0 }
    }

    fn shortened(mut self) -> Self {
        self.more = self.differences.len().saturating_sub(MAX_DIFFERENCES);
        self.differences.truncate(MAX_DIFFERENCES);
        self
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Verdict => "verdict",
            Self::Outcome => "outcome",
            Self::Emits => "emits",
            Self::State => "state",
            Self::Network => "network",
        })
    }
}
