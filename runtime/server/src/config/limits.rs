//! `[defaults]`, and the same keys in a handler.

use std::ops::RangeInclusive;
use std::time::Duration;

use gristmill_core::units::format_duration;
use gristmill_core::{Backoff, RetryPolicy};

use super::error::Problem;
use super::keys;
use super::reader::{Reader, Table};
use super::setting::{Effective, Setting};
use super::values::Allowed;

/// A lease outlives the time-out by this much at least, so that a call that timed out can still be settled.
const LEASE_GRACE: Duration = Duration::from_secs(1);

const DAY: Duration = Duration::from_hours(24);
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(30 * 24);

const MAX_ATTEMPTS: Allowed<u32> = Allowed { range: 0..=u32::MAX, default: 5 };
const LEASE: Allowed<Duration> =
    Allowed { range: Duration::from_secs(1)..=Duration::from_hours(48), default: Duration::from_secs(30) };
const TIMEOUT: Allowed<Duration> = Allowed { range: Duration::from_millis(1)..=DAY, default: Duration::from_secs(5) };
const MEMORY: Allowed<u64> = Allowed { range: 1 << 20..=4 << 30, default: 64 << 20 };
const CONCURRENCY: Allowed<u32> = Allowed { range: 1..=1024, default: 4 };
const BASE: Allowed<Duration> = Allowed { range: DELAYS, default: Duration::from_secs(1) };
const FACTOR: Allowed<f64> = Allowed { range: 1.0..=1000.0, default: 2.0 };
const MAX: Allowed<Duration> = Allowed { range: DELAYS, default: Duration::from_hours(1) };
const JITTER: Allowed<f64> = Allowed { range: 0.0..=1.0, default: 0.2 };

/// What was written of the keys that a handler shares with `[defaults]`.
pub(super) struct Limits {
    max_attempts: Setting<u32>,
    lease: Setting<Duration>,
    timeout: Setting<Duration>,
    memory: Setting<u64>,
    concurrency: Setting<u32>,
    backoff: BackoffKeys,
}

/// What was written of `backoff`.
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
        None => Limits::absent(),
    }
}

impl Limits {
    fn absent() -> Self {
        Self {
            max_attempts: Setting::Absent,
            lease: Setting::Absent,
            timeout: Setting::Absent,
            memory: Setting::Absent,
            concurrency: Setting::Absent,
            backoff: BackoffKeys::absent(),
        }
    }

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
            backoff: BackoffKeys::read(reader, table),
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
            backoff: self.backoff.over(&defaults.backoff),
        }
    }

    /// Reports the contradictions among what counts for one handler.
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        if let (Some(lease), Some(timeout)) =
            (self.lease.effective(LEASE.default), self.timeout.effective(TIMEOUT.default))
        {
            let least = timeout.value + LEASE_GRACE;
            if lease.value < least {
                reader.report(short_lease(&lease, &timeout, least));
            }
        }
        if let (Some(base), Some(max)) =
            (self.backoff.base.effective(BASE.default), self.backoff.max.effective(MAX.default))
            && max.value < base.value
        {
            reader.report(small_cap(&base, &max));
        }
    }

    pub(super) fn lease(&self) -> Duration {
        self.lease.value_or(LEASE.default)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout.value_or(TIMEOUT.default)
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory.value_or(MEMORY.default)
    }

    pub(super) fn concurrency(&self) -> usize {
        usize::try_from(self.concurrency.value_or(CONCURRENCY.default)).unwrap_or(usize::MAX)
    }

    pub(super) fn retry(&self) -> RetryPolicy {
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
    fn absent() -> Self {
        Self { base: Setting::Absent, factor: Setting::Absent, max: Setting::Absent, jitter: Setting::Absent }
    }

    fn invalid() -> Self {
        Self { base: Setting::Invalid, factor: Setting::Invalid, max: Setting::Invalid, jitter: Setting::Invalid }
    }

    fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Self {
        let Some(entry) = table.entry("backoff") else { return Self::absent() };
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
        Side { key: "lease", says: "then the event goes to another delivery", setting: lease },
        Side { key: "timeout", says: "a call may take this long", setting: timeout },
    ];
    contradiction("`lease` must be at least `timeout` + 1s: it ends before the call may", what)
        .help(format!("write: lease = \"{}\" (or more), or a shorter `timeout`", format_duration(least)))
}

fn small_cap(base: &Effective<Duration>, max: &Effective<Duration>) -> Problem {
    let what = [
        Side { key: "max", says: "no delay is longer", setting: max },
        Side { key: "base", says: "the first delay", setting: base },
    ];
    contradiction("`backoff.max` must not be less than `backoff.base`", what)
        .help(format!("write: max = \"{}\" (or more), or a smaller `base`", format_duration(base.value)))
}

/// One of two settings that contradict each other.
struct Side<'a> {
    key: &'static str,
    says: &'static str,
    setting: &'a Effective<Duration>,
}

/// Points at the later one of those that were written, and names the default of the other. (Defaults agree with each
/// other, so that at least one was written.)
fn contradiction(message: &str, mut sides: [Side<'_>; 2]) -> Problem {
    sides.sort_by_key(|side| std::cmp::Reverse(side.setting.span.as_ref().map(|span| span.start)));
    let [later, other] = &sides;
    let place = later.setting.span.clone().unwrap_or_default();
    match &other.setting.span {
        Some(span) => Problem::new(message, place, later.says).context(span.clone(), other.says),
        None => {
            let label = format!("contradicts the default {} of {}", other.key, format_duration(other.setting.value));
            Problem::new(message, place, label).because_absent()
        }
    }
}
