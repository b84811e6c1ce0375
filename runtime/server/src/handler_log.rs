//! What handlers log: each line a structured record, and no more lines than a handler may write.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gristmill_core::HandlerName;
use gristmill_host::{LogLevel, LogLine};
use gristmill_queue::{Delivery, Rate};
use tracing::{Level, debug, enabled, error, info, warn};

use crate::cli::text::one_line;

/// How often it is said that lines are dropped.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

/// The log of one handler.
#[derive(Debug)]
pub struct HandlerLog {
    handler: HandlerName,
    version: String,
    limit: Mutex<Limit>,
}

impl HandlerLog {
    /// The log of `handler` in `version`, which is the digest of its component; `rate` is how many lines it may write.
    #[must_use]
    pub fn new(handler: HandlerName, version: String, rate: Option<Rate>) -> Arc<Self> {
        let limit = Mutex::new(Limit { bucket: rate.map(|rate| Bucket::new(rate, Instant::now())), dropped: 0 });
        Arc::new(Self { handler, version, limit })
    }

    /// Records what a run logged. Needs a tokio runtime with time.
    pub fn record(self: &Arc<Self>, delivery: &Delivery, lines: &[LogLine]) {
        let lines: Vec<_> = lines.iter().filter(|line| is_enabled(line.level)).collect();
        if lines.is_empty() {
            return;
        }
        let (kept, first_drop) = self.limit().admit(lines.len(), Instant::now());
        for line in lines.into_iter().take(kept) {
            self.line(delivery, line);
        }
        if first_drop {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(NOTICE_INTERVAL).await;
                this.notice();
            });
        }
    }

    /// Says how many lines were dropped since that was said last, if any were.
    pub fn notice(&self) {
        let dropped = std::mem::take(&mut self.limit().dropped);
        if dropped > 0 {
            warn!(target: "handler", handler = %self.handler, version = %self.version, dropped,
                "{dropped} lines dropped: the handler logs more than `max-log-rate` allows");
        }
    }

    /// A guest's line. Its text is escaped: it may go to a terminal.
    fn line(&self, delivery: &Delivery, line: &LogLine) {
        let (message, context) = (one_line(&line.message), one_line(&line.context));
        let trace_id = delivery.event.trace_id();
        macro_rules! record {
            ($level:ident) => {
                $level!(target: "handler", handler = %self.handler, version = %self.version, entry = %delivery.entry,
                    attempt = delivery.attempt, trace_id, context, "{message}")
            };
        }
        match line.level {
            LogLevel::Trace | LogLevel::Debug => record!(debug),
            LogLevel::Info => record!(info),
            LogLevel::Warn => record!(warn),
            LogLevel::Error | LogLevel::Critical => record!(error),
        }
    }

    fn limit(&self) -> std::sync::MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether anybody wants such lines: others use up nothing of the rate.
fn is_enabled(level: LogLevel) -> bool {
    match level {
        LogLevel::Trace | LogLevel::Debug => enabled!(target: "handler", Level::DEBUG),
        LogLevel::Info => enabled!(target: "handler", Level::INFO),
        LogLevel::Warn => enabled!(target: "handler", Level::WARN),
        LogLevel::Error | LogLevel::Critical => enabled!(target: "handler", Level::ERROR),
    }
}

/// How much of what is logged is kept.
#[derive(Debug)]
struct Limit {
    /// `None`: everything.
    bucket: Option<Bucket>,
    /// Lines that were dropped, and of which nothing was said yet.
    dropped: u64,
}

impl Limit {
    /// How many of so many lines are kept, and whether one is dropped for the first time since that was said.
    fn admit(&mut self, lines: usize, now: Instant) -> (usize, bool) {
        let kept = self.bucket.as_mut().map_or(lines, |bucket| bucket.take(lines, now));
        let dropped = (lines - kept) as u64;
        let is_first = self.dropped == 0 && dropped > 0;
        self.dropped += dropped;
        (kept, is_first)
    }
}

/// A token bucket: it holds `burst` tokens, and `per_second` are put into it.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: f64::from(rate.burst), at: now }
    }

    /// Takes up to `wanted` tokens; how many there were.
    fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.rate.per_second;
        self.tokens = (self.tokens + earned).min(f64::from(self.rate.burst));
        self.at = now;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
        let taken = wanted.min(self.tokens.floor() as usize);
        self.tokens -= f64::from(u32::try_from(taken).unwrap_or(u32::MAX));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut bucket = Bucket::new(Rate { per_second: 10.0, burst: 20 }, start);
        assert_eq!(bucket.take(15, at(0)), 15);
        assert_eq!(bucket.take(15, at(0)), 5);
        assert_eq!(bucket.take(15, at(99)), 0);
        assert_eq!(bucket.take(15, at(100)), 1);
        assert_eq!(bucket.take(15, at(350)), 2, "halves add up");
        assert_eq!(bucket.take(15, at(400)), 1);
        assert_eq!(bucket.take(100, at(3_600_000)), 20, "no more than the burst");
    }

    #[test]
    fn drops_are_counted_until_that_was_said() {
        let start = Instant::now();
        let rate = Rate { per_second: 1.0, burst: 2 };
        let mut limit = Limit { bucket: Some(Bucket::new(rate, start)), dropped: 0 };
        assert_eq!(limit.admit(2, start), (2, false));
        assert_eq!(limit.admit(3, start), (0, true));
        assert_eq!(limit.admit(4, start), (0, false), "somebody is about to say it");
        assert_eq!(std::mem::take(&mut limit.dropped), 7);
        assert_eq!(limit.admit(2, start + Duration::from_secs(1)), (1, true));
        let mut unlimited = Limit { bucket: None, dropped: 0 };
        assert_eq!(unlimited.admit(1_000_000, start), (1_000_000, false));
    }
}
