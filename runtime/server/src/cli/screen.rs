//! Where output goes.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::text::{indented_json, safe_json};

/// A terminal's width when it does not say.
const DEFAULT_WIDTH: u16 = 100;

/// What standard output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// A person reads it.
    Terminal {
        /// In characters.
        width: u16,
    },
    /// A program, or a file.
    Plain,
}

impl Screen {
    /// What standard output is right now.
    #[must_use]
    pub fn stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self::Plain;
        }
        let width = console::Term::stdout().size_checked().map(|(_, columns)| columns);
        Self::Terminal { width: width.filter(|&columns| columns > 0).unwrap_or(DEFAULT_WIDTH) }
    }

    /// JSON: indented for a person, on one line for a program.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn json(self, value: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_string(value)?;
        match self {
            Self::Terminal { .. } => print(&(safe_json(&indented_json(&json)) + "\n")),
            Self::Plain => print(&(json + "\n")),
        }
    }
}

/// Writes text to standard output.
///
/// # Errors
/// When it cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
