//! What moves on a terminal while work is going on, and the log lines that must not break it.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

static CURRENT: OnceLock<ProgressBar> = OnceLock::new();

/// A line on standard error that shows how far the work has got; nothing where nobody looks.
#[derive(Clone, Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Visible only when standard error is a terminal.
    #[must_use]
    pub fn start() -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = CURRENT.get_or_init(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed}] {bar:30} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self(bar.clone())
    }

    /// `ended` of `published` entries have come to an end; `message` says what the others do.
    pub fn show(&self, ended: u64, published: u64, message: String) {
        self.0.set_length(published);
        self.0.set_position(ended);
        self.0.set_message(message);
    }

    /// Takes the line away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Standard error, for log lines: they go above the progress line.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().lock().write(bytes);
        match CURRENT.get() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
