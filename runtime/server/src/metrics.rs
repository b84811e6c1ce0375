//! What calls of handlers cost, summed up for `GET /metrics` in the text format of Prometheus. Labels are names of handlers
//! and outcomes: nothing that a guest says is one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use gristmill_core::{HandlerName, OutcomeKind};
use gristmill_host::Ledger;

use crate::deployment::status::Reloads;

/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 10] = [0.000_1, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Sums since the start of the process.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<BTreeMap<HandlerName, Sums>>);

#[derive(Clone, Debug, Default)]
struct Sums {
    outcomes: BTreeMap<OutcomeKind, u64>,
    /// Calls that took no longer than each of [`BUCKETS`], each counted once.
    durations: [u64; BUCKETS.len()],
    calls: u64,
    wall: f64,
    cpu: f64,
    host_calls: u64,
    host: f64,
    bytes_in: u64,
    bytes_out: u64,
    peak_memory: u64,
}

/// A sum as it is shown: its name, its type, what it is, and its value.
type Shown = (&'static str, &'static str, &'static str, fn(&Sums) -> f64);

/// What each handler has one of.
const SHOWN: [Shown; 6] = [
    ("call_cpu_seconds_total", "counter", "Time of calls on a processor", |sums| sums.cpu),
    ("host_calls_total", "counter", "Calls of host functions", |sums| sums.host_calls as f64),
    ("host_call_seconds_total", "counter", "Time in host functions, waiting included", |sums| sums.host),
    ("call_in_bytes_total", "counter", "Bytes given to calls", |sums| sums.bytes_in as f64),
    ("call_out_bytes_total", "counter", "Bytes given by calls", |sums| sums.bytes_out as f64),
    ("call_peak_memory_bytes", "gauge", "The most memory that a call had", |sums| sums.peak_memory as f64),
];

impl Metrics {
    /// Adds a call, with an outcome for each of its deliveries.
    pub(crate) fn note(&self, handler: &HandlerName, ledger: &Ledger, outcomes: impl IntoIterator<Item = OutcomeKind>) {
        let mut handlers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !handlers.contains_key(handler) {
            handlers.insert(handler.clone(), Sums::default());
        }
        let Some(sums) = handlers.get_mut(handler) else { return };
        for outcome in outcomes {
            *sums.outcomes.entry(outcome).or_default() += 1;
        }
        let wall = ledger.wall.as_secs_f64();
        if let Some(at) = BUCKETS.iter().position(|bound| wall <= *bound)
            && let Some(count) = sums.durations.get_mut(at)
        {
            *count += 1;
        }
        sums.calls += 1;
        sums.wall += wall;
        sums.cpu += ledger.cpu.as_secs_f64();
        sums.host_calls += ledger.host_calls;
        sums.host += ledger.host_time.as_secs_f64();
        sums.bytes_in = sums.bytes_in.saturating_add(ledger.bytes_in);
        sums.bytes_out = sums.bytes_out.saturating_add(ledger.bytes_out);
        sums.peak_memory = sums.peak_memory.max(ledger.peak_memory);
    }

    /// The page.
    #[must_use]
    pub fn render(&self, reloads: Option<&Reloads>) -> String {
        let handlers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = outcomes(&mut page, &handlers).and_then(|()| durations(&mut page, &handlers)).and_then(|()| {
            for (name, kind, help, value) in SHOWN {
                head(&mut page, name, kind, help)?;
                for (handler, sums) in &handlers {
                    writeln!(page, "gristmill_{name}{{handler=\"{handler}\"}} {}", value(sums))?;
                }
            }
            reloads.map_or(Ok(()), |reloads| self::reloads(&mut page, reloads))
        });
        page
    }
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(page, "# HELP gristmill_{name} {help}\n# TYPE gristmill_{name} {kind}")
}

fn outcomes(page: &mut String, handlers: &BTreeMap<HandlerName, Sums>) -> std::fmt::Result {
    head(page, "deliveries_total", "counter", "Deliveries that were handled, by outcome")?;
    for (handler, sums) in handlers {
        for (outcome, count) in &sums.outcomes {
            writeln!(page, "gristmill_deliveries_total{{handler=\"{handler}\",outcome=\"{outcome}\"}} {count}")?;
        }
    }
    Ok(())
}

fn reloads(page: &mut String, reloads: &Reloads) -> std::fmt::Result {
    head(page, "config_reloads_total", "counter", "Changed configurations, by what became of them")?;
    writeln!(page, "gristmill_config_reloads_total{{result=\"applied\"}} {}", reloads.applied)?;
    writeln!(page, "gristmill_config_reloads_total{{result=\"refused\"}} {}", reloads.refused)
}

fn durations(page: &mut String, handlers: &BTreeMap<HandlerName, Sums>) -> std::fmt::Result {
    const NAME: &str = "call_duration_seconds";
    head(page, NAME, "histogram", "Wall-clock time of calls")?;
    for (handler, sums) in handlers {
        let mut below = 0;
        for (bound, count) in BUCKETS.iter().zip(&sums.durations) {
            below += count;
            writeln!(page, "gristmill_{NAME}_bucket{{handler=\"{handler}\",le=\"{bound}\"}} {below}")?;
        }
        writeln!(page, "gristmill_{NAME}_bucket{{handler=\"{handler}\",le=\"+Inf\"}} {}", sums.calls)?;
        writeln!(page, "gristmill_{NAME}_sum{{handler=\"{handler}\"}} {}", sums.wall)?;
        writeln!(page, "gristmill_{NAME}_count{{handler=\"{handler}\"}} {}", sums.calls)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Each figure is another, so that none stands where another should.
    #[test]
    fn every_figure_is_shown_as_what_it_is() {
        let metrics = Metrics::default();
        let handler = HandlerName::new("resize").unwrap();
        let millis = Duration::from_millis;
        // What took as long as a bound is below it.
        let ledger = Ledger {
            wall: millis(500),
            cpu: millis(20),
            host_calls: 3,
            host_time: millis(400),
            bytes_in: 5,
            bytes_out: 6,
            peak_memory: 7,
            ..Ledger::default()
        };
        metrics.note(&handler, &ledger, [OutcomeKind::Ack, OutcomeKind::Ack, OutcomeKind::Reject]);
        metrics.note(&handler, &Ledger { peak_memory: 4, ..ledger }, [OutcomeKind::Ack]);
        let page = metrics.render(None);
        for line in [
            "gristmill_deliveries_total{handler=\"resize\",outcome=\"ack\"} 3",
            "gristmill_deliveries_total{handler=\"resize\",outcome=\"reject\"} 1",
            "gristmill_call_duration_seconds_bucket{handler=\"resize\",le=\"0.1\"} 0",
            "gristmill_call_duration_seconds_bucket{handler=\"resize\",le=\"0.5\"} 2",
            "gristmill_call_duration_seconds_count{handler=\"resize\"} 2",
            "gristmill_call_duration_seconds_sum{handler=\"resize\"} 1",
            "gristmill_call_cpu_seconds_total{handler=\"resize\"} 0.04",
            "gristmill_host_calls_total{handler=\"resize\"} 6",
            "gristmill_host_call_seconds_total{handler=\"resize\"} 0.8",
            "gristmill_call_in_bytes_total{handler=\"resize\"} 10",
            "gristmill_call_out_bytes_total{handler=\"resize\"} 12",
            "gristmill_call_peak_memory_bytes{handler=\"resize\"} 7",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
        }
    }

    #[test]
    fn calls_are_summed_up() {
        let metrics = Metrics::default();
        let handler = HandlerName::new("resize").unwrap();
        for (millis, outcome) in [(2, OutcomeKind::Ack), (700, OutcomeKind::Trap), (60_000, OutcomeKind::Ack)] {
            let ledger = Ledger { wall: Duration::from_millis(millis), peak_memory: millis, ..Ledger::default() };
            metrics.note(&handler, &ledger, [outcome]);
        }
        let page = metrics.render(None);
        for line in [
            "# TYPE gristmill_call_duration_seconds histogram",
            "gristmill_deliveries_total{handler=\"resize\",outcome=\"ack\"} 2",
            "gristmill_deliveries_total{handler=\"resize\",outcome=\"trap\"} 1",
            "gristmill_call_duration_seconds_bucket{handler=\"resize\",le=\"0.001\"} 0",
            "gristmill_call_duration_seconds_bucket{handler=\"resize\",le=\"0.005\"} 1",
            "gristmill_call_duration_seconds_bucket{handler=\"resize\",le=\"1\"} 2",
            "gristmill_call_duration_seconds_bucket{handler=\"resize\",le=\"30\"} 2",
            "gristmill_call_duration_seconds_bucket{handler=\"resize\",le=\"+Inf\"} 3",
            "gristmill_call_duration_seconds_sum{handler=\"resize\"} 60.702",
            "gristmill_call_peak_memory_bytes{handler=\"resize\"} 60000",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
        }
    }
}
