//! How long entries took from publish to ack, queue by queue.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gristmill_core::QueueName;
use hdrhistogram::Histogram;

/// Latencies of every queue since the process began.
#[derive(Debug)]
pub struct Latencies {
    started: Instant,
    queues: Mutex<BTreeMap<QueueName, Recorded>>,
}

#[derive(Debug)]
struct Recorded {
    /// Microseconds, to three digits.
    histogram: Histogram<u64>,
    last: Instant,
}

/// What is known of one queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Half of the entries took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// From the start to the last ack.
    pub span: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { started: Instant::now(), queues: Mutex::default() }
    }
}

impl Latencies {
    /// An entry of `queue` was acked `latency` after its publish.
    pub fn record(&self, queue: &QueueName, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !queues.contains_key(queue) {
            // One hour, three digits: both are within what a histogram can have.
            let Ok(histogram) = Histogram::new_with_bounds(1, 3_600_000_000, 3) else { return };
            queues.insert(queue.clone(), Recorded { histogram, last: Instant::now() });
        }
        if let Some(recorded) = queues.get_mut(queue) {
            recorded.histogram.saturating_record(micros);
            recorded.last = Instant::now();
        }
    }

    /// What was recorded of `queue`; `None`: nothing.
    #[must_use]
    pub fn summary(&self, queue: &QueueName) -> Option<Summary> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = queues.get(queue)?;
        let quantile = |q| Duration::from_micros(recorded.histogram.value_at_quantile(q));
        Some(Summary { p50: quantile(0.5), p99: quantile(0.99), span: recorded.last.duration_since(self.started) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let latencies = Latencies::default();
        let queue = QueueName::new("q").unwrap();
        assert_eq!(latencies.summary(&queue), None);
        for millis in 1..=100 {
            latencies.record(&queue, Duration::from_millis(millis));
        }
        let summary = latencies.summary(&queue).unwrap();
        assert_eq!((summary.p50.as_millis(), summary.p99.as_millis()), (50, 99));
    }
}
