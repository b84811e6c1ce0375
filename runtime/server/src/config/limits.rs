//! `[defaults]`, and the same keys in a handler.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use gristmill_core::units::{format_duration, format_size};
use gristmill_core::{Backoff, RetryPolicy};
use gristmill_host::Instances;
use gristmill_queue::{MAX_KEY_LEN, QueueOptions, Rate};

use super::error::Problem;
use super::keys;
use super::lowered::{ATTEMPTS, COUNT, DURATION, Judge, Layers, RATE, SIZE};
use super::options::{QueueKeys, rate};
use super::reader::{Reader, Table};
use super::rollout::{BreakerOptions, CanaryOptions, RolloutKeys};
use super::sandbox::SandboxKeys;
use super::setting::{Effective, Setting};
use super::values::Allowed;

/// A lease outlives the time-out by this much at least, so that a call that timed out can still be settled.
const LEASE_GRACE: Duration = Duration::from_secs(1);

const DAY: Duration = Duration::from_hours(24);
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(30 * 24);

const MAX_ATTEMPTS: Allowed<u32> = Allowed::within(0..=u32::MAX, 5);
const LEASE: Allowed<Duration> =
    Allowed::within(Duration::from_secs(1)..=Duration::from_hours(48), Duration::from_secs(30));
const TIMEOUT: Allowed<Duration> = Allowed::within(Duration::from_millis(1)..=DAY, Duration::from_secs(5));
const MEMORY: Allowed<u64> = Allowed::within(1 << 20..=4 << 30, 64 << 20);
const CONCURRENCY: Allowed<u32> = Allowed::within(1..=1024, 4);
const MAX_LOG_RATE: Rate = Rate { per_second: 100.0, burst: 1_000 };
const BASE: Allowed<Duration> = Allowed::within(DELAYS, Duration::from_secs(1));
const FACTOR: Allowed<f64> = Allowed::within(1.0..=1000.0, 2.0);
const MAX: Allowed<Duration> = Allowed::within(DELAYS, Duration::from_hours(1));
const JITTER: Allowed<f64> = Allowed::within(0.0..=1.0, 0.2);

/// What was written of the keys that a handler shares with `[defaults]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    max_attempts: Setting<u32>,
    lease: Setting<Duration>,
    timeout: Setting<Duration>,
    memory: Setting<u64>,
    concurrency: Setting<u32>,
    sandbox: SandboxKeys,
    max_log_rate: Setting<Option<Rate>>,
    backoff: BackoffKeys,
    queue: QueueKeys,
    rollout: RolloutKeys,
}

/// What was written of `backoff`.
#[derive(Clone, Debug, Default)]
struct BackoffKeys {
    base: Setting<Duration>,
    factor: Setting<f64>,
    max: Setting<Duration>,
    jitter: Setting<f64>,
}

/// Reads `[defaults]`.
pub(super) fn defaults(reader: &mut Reader<'_>, root: &Table<'_>) -> Limits {
    match reader.section(root, "defaults", &keys::DEFAULTS) {
        Some(table) => Limits::read(reader, &table),
        None => Limits::default(),
    }
}

impl Limits {
    /// Reads them from `[defaults]` or from a handler.
    pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Self {
        Self {
            max_attempts: reader
                .setting(table, "max-attempts", |reader, entry| reader.integer(entry, &MAX_ATTEMPTS, attempts)),
            lease: reader.setting(table, "lease", |reader, entry| reader.duration(entry, &LEASE)),
            timeout: reader.setting(table, "timeout", |reader, entry| reader.duration(entry, &TIMEOUT)),
            memory: reader.setting(table, "memory", |reader, entry| reader.size(entry, &MEMORY)),
            concurrency: reader.setting(table, "concurrency", |reader, entry| {
                reader.integer(entry, &CONCURRENCY, |count| count.to_string())
            }),
            sandbox: SandboxKeys::read(reader, table),
            max_log_rate: reader.setting(table, "max-log-rate", rate),
            backoff: BackoffKeys::read(reader, table),
            queue: QueueKeys::read(reader, table),
            rollout: RolloutKeys::read(reader, table),
        }
    }

    /// These, and `defaults` where they are silent; `backoff` key by key.
    pub(super) fn over(&self, defaults: &Self) -> Self {
        Self {
            max_attempts: self.max_attempts.or(&defaults.max_attempts),
            lease: self.lease.or(&defaults.lease),
            timeout: self.timeout.or(&defaults.timeout),
            memory: self.memory.or(&defaults.memory),
            concurrency: self.concurrency.or(&defaults.concurrency),
            sandbox: self.sandbox.over(&defaults.sandbox),
            max_log_rate: self.max_log_rate.or(&defaults.max_log_rate),
            backoff: self.backoff.over(&defaults.backoff),
            queue: self.queue.over(&defaults.queue),
            rollout: self.rollout.over(&defaults.rollout),
        }
    }

    pub(super) fn canary(&self) -> Option<CanaryOptions> {
        self.rollout.canary()
    }

    pub(super) fn breaker(&self) -> Option<BreakerOptions> {
        self.rollout.breaker()
    }

    /// Judges what a manifest says of them. What it may not say at all was reported when it was read.
    pub(super) fn judge(layers: &Layers<'_, Self>, judge: &mut Judge<'_>) {
        judge.judge("max-attempts", &layers.of(|limits| &limits.max_attempts), MAX_ATTEMPTS.default, &ATTEMPTS);
        judge.judge("timeout", &layers.of(|limits| &limits.timeout), TIMEOUT.default, &DURATION);
        judge.judge("memory", &layers.of(|limits| &limits.memory), MEMORY.default, &SIZE);
        judge.judge("concurrency", &layers.of(|limits| &limits.concurrency), CONCURRENCY.default, &COUNT);
        judge.judge("max-log-rate", &layers.of(|limits| &limits.max_log_rate), Some(MAX_LOG_RATE), &RATE);
        SandboxKeys::judge(&layers.of(|limits| &limits.sandbox), judge);
        QueueKeys::judge(&layers.of(|limits| &limits.queue), judge);
    }

    /// Reports the contradictions among what counts for one handler.
    pub(super) fn check(
        &self,
        reader: &mut Reader<'_>,
        max_event_size: Option<&Effective<u64>>,
        all_memory: Option<&Effective<u64>>,
    ) {
        let (lease, timeout) = (self.lease.effective(LEASE.default), self.timeout.effective(TIMEOUT.default));
        if let (Some(lease), Some(timeout)) = (lease, timeout) {
            let least = timeout.value + LEASE_GRACE;
            if lease.value < least {
                reader.report(short_lease(&lease, &timeout, least));
            }
        }
        if let (Some(memory), Some(all)) = (self.memory.effective(MEMORY.default), all_memory)
            && memory.value > all.value
        {
            reader.report(large_memory(&memory, all));
        }
        let (base, max) = (self.backoff.base.effective(BASE.default), self.backoff.max.effective(MAX.default));
        if let (Some(base), Some(max)) = (base, max)
            && max.value < base.value
        {
            reader.report(small_cap(&base, &max));
        }
        let (flight, running) = (self.queue.max_in_flight(), self.concurrency.effective(CONCURRENCY.default));
        if let (Some(flight), Some(running)) = (flight, running)
            && flight.value < running.value
        {
            reader.report(small_flight(&flight, &running));
        }
        if let (Some(max), Some(event)) = (self.queue.max_bytes(), max_event_size)
            && max.value < event.value
        {
            reader.report(small_queue(&max, event));
        }
    }

    /// How the queue of a handler treats its entries.
    pub(super) fn queue(&self, ordering_key: Option<String>) -> QueueOptions {
        let lease = self.lease.value_or(LEASE.default);
        QueueOptions { retry: self.retry(), lease, ..self.queue.options(ordering_key) }
    }

    /// What one call may use.
    pub(super) fn call(&self, max_event_size: u64) -> gristmill_host::Limits {
        self.sandbox.limits(gristmill_host::Limits {
            timeout: self.timeout.value_or(TIMEOUT.default),
            memory: self.memory.value_or(MEMORY.default),
            max_event_size,
            max_key_len: MAX_KEY_LEN,
            ..gristmill_host::Limits::default()
        })
    }

    /// For how many events an instance lives.
    pub(super) fn instances(&self) -> Instances {
        self.sandbox.instances()
    }

    pub(super) fn concurrency(&self) -> usize {
        usize::try_from(self.concurrency.value_or(CONCURRENCY.default)).unwrap_or(usize::MAX)
    }

    pub(super) fn max_log_rate(&self) -> Option<Rate> {
        self.max_log_rate.value_or(Some(MAX_LOG_RATE))
    }

    fn retry(&self) -> RetryPolicy {
        let attempts = self.max_attempts.value_or(MAX_ATTEMPTS.default);
        let backoff = Backoff {
            base: self.backoff.base.value_or(BASE.default),
            factor: self.backoff.factor.value_or(FACTOR.default),
            max: self.backoff.max.value_or(MAX.default),
            jitter: self.backoff.jitter.value_or(JITTER.default),
        };
        RetryPolicy { max_attempts: (attempts > 0).then_some(attempts), backoff }
    }
}

impl BackoffKeys {
    fn invalid() -> Self {
        Self { base: Setting::Invalid, factor: Setting::Invalid, max: Setting::Invalid, jitter: Setting::Invalid }
    }

    fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Self {
        let Some(entry) = table.entry("backoff") else { return Self::default() };
        let Some(table) = reader.table(&entry, &keys::BACKOFF) else {
            reader.wrong_type(&entry, "a table", "for example: backoff = { base = \"1s\", factor = 2.0 }");
            return Self::invalid();
        };
        Self {
            base: reader.setting(&table, "base", |reader, entry| reader.duration(entry, &BASE)),
            factor: reader.setting(&table, "factor", |reader, entry| reader.number(entry, &FACTOR)),
            max: reader.setting(&table, "max", |reader, entry| reader.duration(entry, &MAX)),
            jitter: reader.setting(&table, "jitter", |reader, entry| reader.number(entry, &JITTER)),
        }
    }

    fn over(&self, defaults: &Self) -> Self {
        Self {
            base: self.base.or(&defaults.base),
            factor: self.factor.or(&defaults.factor),
            max: self.max.or(&defaults.max),
            jitter: self.jitter.or(&defaults.jitter),
        }
    }
}

fn attempts(count: u32) -> String {
    if count == 0 { String::from("0 (no limit)") } else { count.to_string() }
}

fn short_lease(lease: &Effective<Duration>, timeout: &Effective<Duration>, least: Duration) -> Problem {
    let what = [
        Side::new("lease", "then the event goes to another delivery", lease, format_duration),
        Side::new("timeout", "a call may take this long", timeout, format_duration),
    ];
    contradiction("`lease` must be at least `timeout` + 1s: it ends before the call may", what)
        .help(format!("write: lease = \"{}\" (or more), or a shorter `timeout`", format_duration(least)))
}

fn large_memory(memory: &Effective<u64>, all: &Effective<u64>) -> Problem {
    let what = [
        Side::new("memory", "one instance may use this much", memory, format_size),
        Side::new("[runtime] memory", "all instances together have this much", all, format_size),
    ];
    contradiction("`memory` of a handler must not be more than `memory` in `[runtime]`: no call would ever begin", what)
        .help(format!(
            "write in [runtime]: memory = \"{}\" (or more), or give the handler less",
            format_size(memory.value)
        ))
}

fn small_cap(base: &Effective<Duration>, max: &Effective<Duration>) -> Problem {
    let what = [
        Side::new("max", "no delay is longer", max, format_duration),
        Side::new("base", "the first delay", base, format_duration),
    ];
    contradiction("`backoff.max` must not be less than `backoff.base`", what)
        .help(format!("write: max = \"{}\" (or more), or a smaller `base`", format_duration(base.value)))
}

fn small_flight(flight: &Effective<u32>, running: &Effective<u32>) -> Problem {
    let number = |count: u32| count.to_string();
    let what = [
        Side::new("max-in-flight", "no more are claimed at once", flight, number),
        Side::new("concurrency", "this many should run at once", running, number),
    ];
    contradiction("`max-in-flight` must not be less than `concurrency`", what)
        .help(format!("write: concurrency = {} (or less), or a larger `max-in-flight`", flight.value))
}

fn small_queue(max: &Effective<u64>, event: &Effective<u64>) -> Problem {
    let what = [
        Side::new("max-bytes", "the queue holds no more", max, format_size),
        Side::new("max-event-size", "one event may have as much", event, format_size),
    ];
    contradiction("`max-bytes` must not be less than `max-event-size`: large events would never fit", what)
        .help(format!("write: max-bytes = \"{}\" (or more), or a smaller `max-event-size`", format_size(event.value)))
}

/// One of two settings that contradict each other.
struct Side {
    key: &'static str,
    says: &'static str,
    span: Option<Range<usize>>,
    value: String,
}

impl Side {
    fn new<T: Copy>(
        key: &'static str,
        says: &'static str,
        setting: &Effective<T>,
        format: impl FnOnce(T) -> String,
    ) -> Self {
        Self { key, says, span: setting.span.clone(), value: format(setting.value) }
    }
}

/// Points at the later one of those that were written, and names the default of the other. (Defaults agree with each
/// other, so that at least one was written.)
fn contradiction(message: &str, mut sides: [Side; 2]) -> Problem {
    sides.sort_by_key(|side| std::cmp::Reverse(side.span.as_ref().map(|span| span.start)));
    let [later, other] = sides;
    let place = later.span.unwrap_or_default();
    match other.span {
        Some(span) => Problem::new(message, place, later.says).context(span, other.says),
        None => {
            let label = format!("contradicts the default {} of {}", other.key, other.value);
            Problem::new(message, place, label).because_absent()
        }
    }
}
