//! Checking a whole store.

use std::collections::BTreeMap;
use std::fmt;

/// What a check of everything in the store has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many records were read, by the name of their family.
    pub records: BTreeMap<&'static str, u64>,
    /// What is wrong: the first [`MAX_PROBLEMS`] findings.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: u64,
}

/// The most findings that a report spells out.
pub const MAX_PROBLEMS: usize = 1_000;

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.problems.is_empty() && self.more == 0
    }
}

/// One line for each finding; `sound` if there is none.
impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records: u64 = self.records.values().sum();
        if self.is_sound() {
            return write!(f, "sound: {records} records");
        }
        write!(f, "{} problems in {records} records", self.problems.len() as u64 + self.more)?;
        for problem in &self.problems {
            write!(f, "\n{problem}")?;
        }
        if self.more > 0 { write!(f, "\nand {} more", self.more) } else { Ok(()) }
    }
}

/// Something in the store that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The family of the record that shows it.
    pub family: &'static str,
    /// The record's key in words, or in hexadecimal digits if it cannot be read.
    pub key: String,
    /// What is wrong, about "it": the record.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.family, self.key, self.what)
    }
}
