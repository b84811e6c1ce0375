//! Files of events: CloudEvents as JSON, one a line.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use gristmill_core::{Event, EventError, json};
use tokio::sync::mpsc;

/// The longest line that [`Source::stream`] takes, in bytes.
pub const MAX_LINE: usize = 8 << 20;
/// The most lines in one batch.
const MAX_BATCH_LINES: usize = 256;
/// A batch that has reached this many bytes takes no further line.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// How much is read at once.
const BUFFER: usize = 256 << 10;

/// Where events come from. Displays as the name that error messages give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Source {
    /// What an argument means: a file, or standard input for `-`.
    #[must_use]
    pub fn new(argument: &Path) -> Self {
        if argument.as_os_str() == "-" { Self::Stdin } else { Self::File(argument.to_owned()) }
    }

    /// Its lines, none longer than `max` bytes. Reading blocks.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn lines(&self, max: usize) -> io::Result<Lines<Box<dyn Read + Send>>> {
        let reader: Box<dyn Read + Send> = match self {
            Self::Stdin => Box::new(io::stdin()),
            Self::File(path) => Box::new(File::open(path)?),
        };
        Ok(Lines::new(reader, max))
    }

    /// Its lines in batches, read by a thread of their own. A batch is sent on when it is full, and at once when the
    /// next line is not there yet.
    ///
    /// # Errors
    /// When the file cannot be opened. What happens later comes through the channel, and ends it.
    pub fn stream(&self) -> io::Result<mpsc::Receiver<io::Result<Vec<Line>>>> {
        let lines = self.lines(MAX_LINE)?;
        let (sender, receiver) = mpsc::channel(2);
        std::thread::Builder::new().name("ndjson".to_owned()).spawn(move || {
            for batch in (Batches { lines, failed: None }) {
                if sender.blocking_send(batch).is_err() {
                    return;
                }
            }
        })?;
        Ok(receiver)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One line that is not blank.
#[derive(Debug)]
pub struct Line {
    /// Its number in the file; the first is 1, blank ones count.
    pub number: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// The event on it.
    pub event: Result<Event, EventError>,
}

/// The lines of a file of events. Blank ones are skipped; one that is too long is refused without being kept.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    max: usize,
    number: u64,
}

impl<R: Read> Lines<R> {
    /// The lines of `reader`, none longer than `max` bytes.
    pub fn new(reader: R, max: usize) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER, reader), max, number: 0 }
    }

    /// Whether the next line can be had without waiting for more input.
    fn has_line(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }

    /// The bytes of the next line, as far as they are not too many, and how many there are. `None`: the end.
    fn read(&mut self) -> io::Result<Option<(Vec<u8>, u64)>> {
        let mut line = Vec::new();
        let mut length = 0;
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                return Ok((length > 0).then_some((line, length)));
            }
            let mut parts = buffer.splitn(2, |&byte| byte == b'\n');
            let part = parts.next().unwrap_or_default();
            let ended = parts.next().is_some();
            length += part.len() as u64;
            if length <= self.max as u64 {
                line.extend_from_slice(part);
            }
            let consumed = part.len() + usize::from(ended);
            self.reader.consume(consumed);
            if ended {
                return Ok(Some((line, length)));
            }
        }
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, bytes) = match self.read() {
                Ok(read) => read?,
                Err(error) => return Some(Err(error)),
            };
            self.number += 1;
            let max = self.max as u64;
            let event = if bytes > max {
                Err(EventError::TooLarge { actual: bytes, max })
            } else if line.trim_ascii().is_empty() {
                continue;
            } else {
                json::parse(&line)
            };
            return Some(Ok(Line { number: self.number, bytes, event }));
        }
    }
}

/// Lines in batches; an error ends them.
struct Batches<R> {
    lines: Lines<R>,
    failed: Option<io::Error>,
}

impl<R: Read> Iterator for Batches<R> {
    type Item = io::Result<Vec<Line>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < MAX_BATCH_LINES && bytes < MAX_BATCH_BYTES as u64 {
            match self.lines.next() {
                None => break,
                Some(Ok(line)) => {
                    bytes += line.bytes.min(MAX_LINE as u64);
                    batch.push(line);
                }
                Some(Err(error)) if batch.is_empty() => return Some(Err(error)),
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
            }
            if !self.lines.has_line() {
                break;
            }
        }
        (!batch.is_empty()).then_some(Ok(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

    fn judge(text: &str, max: usize) -> Vec<(u64, Result<String, EventError>)> {
        let lines = Lines::new(text.as_bytes(), max);
        lines.map(|line| line.unwrap()).map(|line| (line.number, line.event.map(|event| event.id))).collect()
    }

    #[test]
    fn every_line_is_judged_by_itself() {
        let judged = judge(&format!("{EVENT}\n\n  \r\n{{}}\n{EVENT}\r\nnonsense\n{EVENT}"), 1_000);
        let numbers: Vec<_> = judged.iter().map(|(number, event)| (*number, event.is_ok())).collect();
        assert_eq!(numbers, [(1, true), (4, false), (5, true), (6, false), (7, true)]);
        assert_eq!(judge("", 10), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_the_next_one_read() {
        let long = "x".repeat(3 * BUFFER);
        let judged = judge(&format!("{long}\n{EVENT}\n{long}"), EVENT.len());
        let refused = EventError::TooLarge { actual: long.len() as u64, max: EVENT.len() as u64 };
        assert_eq!(judged, [(1, Err(refused.clone())), (2, Ok("1".to_owned())), (3, Err(refused))]);
    }

    /// Gives its pieces one read at a time, then fails.
    struct Pieces(Vec<&'static str>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::Error::other("unplugged"));
            }
            self.0.remove(0).as_bytes().read(buffer)
        }
    }

    #[test]
    fn a_batch_does_not_wait_for_lines_that_are_not_there_yet() {
        let pieces = Pieces(vec!["1\n2\n3", "3\n4\n"]);
        let batches = Batches { lines: Lines::new(pieces, 1_000), failed: None };
        let seen: Vec<_> = batches
            .take(3)
            .map(|batch| batch.map(|lines| lines.iter().map(|line| line.number).collect()).map_err(|e| e.to_string()))
            .collect();
        assert_eq!(seen, [Ok(vec![1, 2]), Ok(vec![3, 4]), Err("unplugged".to_owned())]);
    }

    #[test]
    fn batches_are_bounded() {
        let text = format!("{EVENT}\n").repeat(600);
        let batches = Batches { lines: Lines::new(text.as_bytes(), 1_000), failed: None };
        assert_eq!(batches.map(|batch| batch.unwrap().len()).collect::<Vec<_>>(), [256, 256, 88]);
    }
}
