//! What an invocation logged: lines of stdout, of stderr, and of `wasi:logging`, in the order of their ends.

use std::fmt;

/// The longest message of a line, in bytes; the rest of the line is dropped.
pub const MAX_LINE_LEN: usize = 8 * 1024;
/// How much of stderr's end is kept for a trap's reason, whatever the cap.
const TAIL_LEN: usize = 4 * 1024;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the levels of wasi:logging")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl LogLevel {
    /// The name in JSON and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A line that a guest logged. Its text is the guest's: escape it before a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How serious it is: `info` for stdout, `warn` for stderr.
    pub level: LogLevel,
    /// `stdout`, `stderr`, or what the guest gave; `gristmill` for what the host adds.
    pub context: String,
    /// At most [`MAX_LINE_LEN`] bytes.
    pub message: String,
}

/// One of the guest's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Collects lines up to a number of bytes.
#[derive(Debug)]
pub(crate) struct Log {
    lines: Vec<LogLine>,
    max: u64,
    used: u64,
    full: bool,
    /// The unfinished line of each stream.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    tail: Vec<u8>,
}

impl Log {
    pub(crate) fn new(max: u64) -> Self {
        Self { lines: Vec::new(), max, used: 0, full: false, stdout: Vec::new(), stderr: Vec::new(), tail: Vec::new() }
    }

    /// Takes what the guest wrote to a stream.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stderr {
            self.keep_tail(bytes);
        }
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.full {
                return;
            }
            let (part, ended) = match piece.strip_suffix(b"\n") {
                Some(part) => (part, true),
                None => (piece, false),
            };
            let line = self.unfinished(stream);
            let room = MAX_LINE_LEN.saturating_sub(line.len());
            line.extend_from_slice(part.get(..room).unwrap_or(part));
            if ended {
                self.end_line(stream);
            }
        }
    }

    /// Takes a line that is whole.
    pub(crate) fn push(&mut self, level: LogLevel, context: &str, message: &str) {
        if self.full {
            return;
        }
        let context = context.get(..context.floor_char_boundary(MAX_LINE_LEN)).unwrap_or_default();
        let message = message.get(..message.floor_char_boundary(MAX_LINE_LEN)).unwrap_or_default();
        // One more for the line itself, so that empty lines end too.
        let used = self.used.saturating_add((context.len() + message.len() + 1) as u64);
        if used > self.max {
            self.full = true;
            let message = format!("the log ends here: more than {} bytes were written (`max-log-bytes`)", self.max);
            self.lines.push(LogLine { level: LogLevel::Warn, context: "gristmill".to_owned(), message });
            return;
        }
        self.used = used;
        self.lines.push(LogLine { level, context: context.to_owned(), message: message.to_owned() });
    }

    /// The end of what was written to stderr.
    pub(crate) fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.tail).into_owned()
    }

    /// All lines, the unfinished ones last.
    pub(crate) fn finish(&mut self) -> Vec<LogLine> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.unfinished(stream).is_empty() {
                self.end_line(stream);
            }
        }
        std::mem::take(&mut self.lines)
    }

    fn unfinished(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn end_line(&mut self, stream: Stream) {
        let bytes = std::mem::take(self.unfinished(stream));
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        match stream {
            Stream::Stdout => self.push(LogLevel::Info, "stdout", text),
            Stream::Stderr => self.push(LogLevel::Warn, "stderr", text),
        }
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(TAIL_LEN)..).unwrap_or_default();
        let excess = (self.tail.len() + bytes.len()).saturating_sub(TAIL_LEN);
        self.tail.drain(..excess.min(self.tail.len()));
        self.tail.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(log: &mut Log) -> Vec<String> {
        log.finish().into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn streams_become_lines_whatever_the_pieces() {
        let mut log = Log::new(1_000);
        log.write(Stream::Stdout, b"one\r\ntw");
        log.write(Stream::Stderr, b"err\n");
        log.write(Stream::Stdout, b"o\n\nthree \xff");
        assert_eq!(messages(&mut log), ["one", "err", "two", "", "three \u{fffd}"]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let mut log = Log::new(100_000);
        log.write(Stream::Stdout, "x".repeat(MAX_LINE_LEN + 1).as_bytes());
        log.write(Stream::Stdout, b"more\nnext");
        log.push(LogLevel::Debug, "", &format!("x{}", "ä".repeat(MAX_LINE_LEN)));
        let lines = messages(&mut log);
        assert_eq!([lines[0].len(), lines[1].len(), lines[2].len()], [MAX_LINE_LEN, MAX_LINE_LEN - 1, 4]);
    }

    #[test]
    fn the_cap_holds_for_everything_together_and_is_said() {
        let mut log = Log::new(20);
        log.push(LogLevel::Info, "", "0123456789");
        log.write(Stream::Stdout, b"0123456789\n");
        log.write(Stream::Stderr, b"the panic\n");
        assert_eq!(
            messages(&mut log),
            ["0123456789", "the log ends here: more than 20 bytes were written (`max-log-bytes`)"]
        );
        assert_eq!(log.stderr_tail(), "the panic\n");
    }

    #[test]
    fn the_end_of_stderr_is_kept() {
        let mut log = Log::new(0);
        for _ in 0..10 {
            log.write(Stream::Stderr, &[b'x'; 1_000]);
        }
        log.write(Stream::Stderr, b"end");
        assert_eq!(log.stderr_tail().len(), TAIL_LEN);
        assert!(log.stderr_tail().ends_with("xend"));
        log.write(Stream::Stderr, &[b'y'; 3 * TAIL_LEN]);
        assert_eq!(log.stderr_tail(), "y".repeat(TAIL_LEN));
    }
}
