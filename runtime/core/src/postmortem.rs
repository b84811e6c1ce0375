//! What a delivery that killed its entry cost and said: kept with the dead letter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most lines of a log that are kept.
pub const MAX_LINES: usize = 20;
/// The most bytes of text of those lines, all together.
pub const MAX_LOG_LEN: usize = 16 * 1024;

/// What is known of the last delivery of a dead letter besides its outcome, whose reason has the backtrace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postmortem {
    /// Wall-clock time.
    pub wall: Duration,
    /// Of that, on a processor.
    pub cpu: Duration,
    /// Bytes of all memories and tables.
    pub peak_memory: u64,
    /// How many host functions were called.
    pub host_calls: u64,
    /// The time that passed in them.
    pub host_time: Duration,
    /// Bytes that it was given.
    pub bytes_in: u64,
    /// Bytes that it gave.
    pub bytes_out: u64,
    /// The last lines of its log, oldest first; their text is the handler's: escape it before a person reads it.
    pub log: Vec<LastLine>,
}

/// A line of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLine {
    /// How serious it is, by the names of `wasi:logging`.
    pub level: String,
    /// `stdout`, `stderr`, or what the handler gave.
    pub context: String,
    /// What it says.
    pub message: String,
}

impl Postmortem {
    /// With the last of `lines` that fit; of a line that is too long by itself, its beginning.
    #[must_use]
    pub fn with_log<I>(mut self, lines: I) -> Self
    where
        I: IntoIterator<Item = LastLine>,
        I::IntoIter: DoubleEndedIterator,
    {
        let mut room = MAX_LOG_LEN;
        for mut line in lines.into_iter().rev().take(MAX_LINES) {
            let rest = room.saturating_sub(line.level.len() + line.context.len());
            if line.message.len() > rest && !self.log.is_empty() {
                break;
            }
            line.message.truncate(line.message.floor_char_boundary(rest));
            room = rest.saturating_sub(line.message.len());
            self.log.push(line);
        }
        self.log.reverse();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> LastLine {
        LastLine { message: message.to_owned(), ..LastLine::default() }
    }

    fn kept(lines: impl IntoIterator<Item = String, IntoIter: DoubleEndedIterator>) -> Vec<String> {
        let lines: Vec<_> = lines.into_iter().map(|message| line(&message)).collect();
        Postmortem::default().with_log(lines).log.into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn the_last_lines_are_kept_in_their_order() {
        let lines = kept((0..100).map(|n| n.to_string()));
        assert_eq!((lines.len(), lines[0].as_str(), lines[19].as_str()), (MAX_LINES, "80", "99"));
    }

    #[test]
    fn there_is_no_more_than_so_much_text() {
        let long = "ä".repeat(MAX_LOG_LEN);
        assert_eq!(kept([long.clone(), "end".to_owned()]), ["end"]);
        assert_eq!(kept([long])[0].len(), MAX_LOG_LEN);
    }
}
