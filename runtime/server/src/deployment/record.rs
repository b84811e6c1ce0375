//! Which versions a handler has had, and which one handles its events.

use gristmill_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::http::model::Time;

/// What is kept of one handler's versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of this record: [`Record::FORMAT`].
    format: u32,
    /// What the handler's own source delivered last. Only another digest than this one makes a new version; so what was
    /// deployed or rolled back by hand stays over a restart. `None`: it never delivered anything.
    pub source: Option<String>,
    /// The one that handles events.
    pub current: Kept,
    /// The one that was current last is the last.
    earlier: Vec<Kept>,
}

/// A version that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Of the component: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Of the component, in bytes.
    pub size: u64,
    /// Where it came from.
    pub origin: Origin,
    /// When it became current last.
    pub since: Time,
}

/// Where a version came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The handler's own source: a file, or what `component` refers to.
    Source,
    /// Somebody deployed it by hand.
    Deploy,
}

/// Why there is no version to go back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVersion {
    /// There has been only one.
    #[error("it has no earlier version: only {current} is kept")]
    OnlyOne {
        /// The one.
        current: String,
    },
    /// None is called that.
    #[error("it has no version {asked}; kept are: {}", .kept.join(", "))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// Their digests.
        kept: Vec<String>,
    },
    /// Several begin like that.
    #[error("{asked} may be any of {}: write more of it", .kept.join(", "))]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// Their digests.
        kept: Vec<String>,
    },
}

impl Record {
    /// Raised when an older release could not read it.
    pub const FORMAT: u32 = 1;

    /// Of a handler's first version.
    #[must_use]
    pub fn new(first: Kept) -> Self {
        let source = (first.origin == Origin::Source).then(|| first.digest.clone());
        Self { format: Self::FORMAT, source, current: first, earlier: Vec::new() }
    }

    /// All of them, the current one first, then by when they were current last.
    pub fn versions(&self) -> impl Iterator<Item = &Kept> {
        std::iter::once(&self.current).chain(self.earlier.iter().rev())
    }

    /// Makes `version` the current one, and forgets the oldest of more than `keep`.
    pub fn activate(&mut self, version: Kept, keep: usize) {
        if version.origin == Origin::Source {
            self.source = Some(version.digest.clone());
        }
        let before = std::mem::replace(&mut self.current, version);
        self.earlier.push(before);
        self.earlier.retain(|kept| kept.digest != self.current.digest);
        let over = (self.earlier.len() + 1).saturating_sub(keep.max(1));
        self.earlier.drain(..over);
    }

    /// Makes a version current again: the one whose digest begins with `asked` (with or without `sha256:`), or the one
    /// before the current.
    ///
    /// # Errors
    /// When there is none, or several are meant.
    pub fn roll_back(&mut self, asked: Option<&str>, now: Timestamp) -> Result<Kept, NoVersion> {
        let found = match asked {
            None => self.before(),
            Some(asked) => self.find(asked),
        }?;
        let again = Kept { since: Time(now), ..found };
        // What the source has delivered, it has delivered before.
        let source = self.source.clone();
        self.activate(again.clone(), usize::MAX);
        self.source = source;
        Ok(again)
    }

    fn before(&self) -> Result<Kept, NoVersion> {
        self.earlier.last().cloned().ok_or_else(|| NoVersion::OnlyOne { current: self.current.digest.clone() })
    }

    fn find(&self, asked: &str) -> Result<Kept, NoVersion> {
        let digits = asked.strip_prefix("sha256:").unwrap_or(asked);
        let is_meant = |kept: &&Kept| kept.digest.strip_prefix("sha256:").is_some_and(|all| all.starts_with(digits));
        let meant: Vec<_> = self.versions().filter(is_meant).collect();
        let names = |kept: &[&Kept]| kept.iter().map(|kept| kept.digest.clone()).collect();
        let asked = asked.to_owned();
        match meant.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(NoVersion::Unknown { asked, kept: names(&self.versions().collect::<Vec<_>>()) }),
            several => Err(NoVersion::Ambiguous { asked, kept: names(several) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(digits: &str, origin: Origin) -> Kept {
        Kept { digest: format!("sha256:{digits}"), size: 1, origin, since: Time(Timestamp::EPOCH) }
    }

    fn digests(record: &Record) -> Vec<&str> {
        record.versions().map(|kept| kept.digest.trim_start_matches("sha256:")).collect()
    }

    #[test]
    fn the_oldest_of_too_many_is_forgotten_and_a_version_is_there_once() {
        let mut record = Record::new(version("aa", Origin::Source));
        for digits in ["bb", "cc", "bb", "dd"] {
            record.activate(version(digits, Origin::Deploy), 3);
        }
        assert_eq!(digests(&record), ["dd", "bb", "cc"]);
        assert_eq!(record.source.as_deref(), Some("sha256:aa"), "only the source's own count as delivered by it");
        record.activate(version("ee", Origin::Source), 0);
        assert_eq!(digests(&record), ["ee"], "the current one is always kept");
        assert_eq!(record.source.as_deref(), Some("sha256:ee"));
    }

    #[test]
    fn rolling_back_twice_goes_back_and_forth() {
        let mut record = Record::new(version("aa", Origin::Source));
        let only = record.roll_back(None, Timestamp::EPOCH).unwrap_err();
        assert_eq!(only.to_string(), "it has no earlier version: only sha256:aa is kept");
        record.activate(version("ab", Origin::Deploy), 5);
        record.activate(version("ca", Origin::Deploy), 5);
        assert_eq!(record.roll_back(None, Timestamp::EPOCH).unwrap().digest, "sha256:ab");
        assert_eq!(record.roll_back(None, Timestamp::EPOCH).unwrap().digest, "sha256:ca");
        assert_eq!(record.roll_back(Some("aa"), Timestamp::EPOCH).unwrap().digest, "sha256:aa");
        assert_eq!(digests(&record), ["aa", "ca", "ab"]);
        let several = record.roll_back(Some("sha256:a"), Timestamp::EPOCH).unwrap_err();
        assert_eq!(several.to_string(), "sha256:a may be any of sha256:aa, sha256:ab: write more of it");
        let unknown = record.roll_back(Some("f"), Timestamp::EPOCH).unwrap_err();
        assert_eq!(unknown.to_string(), "it has no version f; kept are: sha256:aa, sha256:ca, sha256:ab");
        assert_eq!(digests(&record), ["aa", "ca", "ab"], "what fails changes nothing");
    }
}
