//! What a run has done, in a table that a person likes to read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use gristmill_core::{QueueName, State};
use gristmill_queue::{Entry, List, Queue, QueueError, QueueStats, Totals};

use crate::cli::screen::Screen;
use crate::cli::table::{Column, Table};
use crate::latency::Latencies;

/// Dead letters that are listed; the others are counted.
const MAX_DEAD: usize = 20;

/// Counts of every queue when a run began.
#[derive(Clone, Debug, Default)]
pub struct Baseline(BTreeMap<QueueName, Totals>);

impl Baseline {
    /// From the queues' numbers at that time.
    #[must_use]
    pub fn new(stats: &[QueueStats]) -> Self {
        Self(stats.iter().map(|stats| (stats.queue.clone(), stats.totals)).collect())
    }

    fn since(&self, stats: &QueueStats) -> Totals {
        let before = self.0.get(&stats.queue).copied().unwrap_or_default();
        let now = stats.totals;
        Totals {
            published: now.published - before.published,
            acked: now.acked - before.acked,
            retried: now.retried - before.retried,
            deferred: now.deferred - before.deferred,
            dead_lettered: now.dead_lettered - before.dead_lettered,
            redriven: now.redriven - before.redriven,
            duplicates: now.duplicates - before.duplicates,
            cancelled: now.cancelled - before.cancelled,
        }
    }
}

/// The queues and the dead letters after a run.
///
/// # Errors
/// When the queue cannot be read.
pub async fn render(
    queue: &dyn Queue,
    baseline: &Baseline,
    latencies: &Latencies,
    screen: Screen,
) -> Result<String, QueueError> {
    let stats = queue.stats().await?;
    let mut text = queues(&stats, baseline, latencies).render(screen);
    let dead = dead_letters(queue, &stats).await?;
    if !dead.is_empty() {
        let total: u64 = stats.iter().map(|stats| stats.dead).sum();
        // Writing into a string cannot fail.
        let _ = writeln!(text, "\nDead letters ({total})");
        text.push_str(&dead_table(&dead).render(screen));
        if total > dead.len() as u64 {
            let _ = writeln!(text, "… and {} more: `gristmill dead list`", total - dead.len() as u64);
        }
    }
    Ok(text)
}

fn queues(stats: &[QueueStats], baseline: &Baseline, latencies: &Latencies) -> Table {
    let mut table = Table::new([
        Column::Key("QUEUE"),
        Column::Number("PUBLISHED"),
        Column::Number("ACKED"),
        Column::Number("RETRIED"),
        Column::Rare("WAITING"),
        Column::Number("DEAD"),
        Column::Rare("CANCELLED"),
        Column::Number("EVENTS/S"),
        Column::Number("P50"),
        Column::Number("P99"),
    ]);
    for stats in stats {
        let run = baseline.since(stats);
        let latency = latencies.summary(&stats.queue);
        let rate = latency.map(|latency| per_second(run.acked, latency.span));
        let show = |duration: Option<Duration>| duration.map_or_else(|| "–".to_owned(), millis);
        table.row([
            stats.queue.to_string(),
            run.published.to_string(),
            run.acked.to_string(),
            run.retried.to_string(),
            stats.waiting.to_string(),
            run.dead_lettered.to_string(),
            run.cancelled.to_string(),
            rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}")),
            show(latency.map(|latency| latency.p50)),
            show(latency.map(|latency| latency.p99)),
        ]);
    }
    table
}

#[allow(clippy::cast_precision_loss, reason = "a rate for a person to read")]
fn per_second(count: u64, span: Duration) -> f64 {
    count as f64 / span.as_secs_f64().max(0.001)
}

/// Milliseconds with as many digits as they deserve.
fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1_000.0;
    if millis < 10.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}

async fn dead_letters(queue: &dyn Queue, stats: &[QueueStats]) -> Result<Vec<Entry>, QueueError> {
    let mut dead = Vec::new();
    for stats in stats.iter().filter(|stats| stats.dead > 0) {
        let limit = MAX_DEAD.saturating_sub(dead.len());
        if limit > 0 {
            let list = List { queue: stats.queue.clone(), state: State::Dead, limit, cursor: None };
            dead.extend(queue.list(list).await?.entries);
        }
    }
    Ok(dead)
}

fn dead_table(dead: &[Entry]) -> Table {
    let mut table = Table::new([
        Column::Key("QUEUE"),
        Column::Key("ENTRY"),
        Column::Text("EVENT"),
        Column::Number("ATTEMPTS"),
        Column::Key("OUTCOME"),
        Column::Rest("REASON"),
    ]);
    for entry in dead {
        let last = entry.last_attempt();
        let reason = last.and_then(|attempt| attempt.reason.as_deref()).unwrap_or_default();
        table.row([
            entry.queue.to_string(),
            entry.id.to_string(),
            entry.event.id.clone(),
            entry.attempts.to_string(),
            last.map(|attempt| attempt.outcome.to_string()).unwrap_or_default(),
            reason.lines().next().unwrap_or_default().to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_get_the_digits_they_deserve() {
        assert_eq!(millis(Duration::from_micros(1_234)), "1.23 ms");
        assert_eq!(millis(Duration::from_micros(123_400)), "123 ms");
    }
}
