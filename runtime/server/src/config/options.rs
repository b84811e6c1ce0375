//! How a handler's queue treats its entries: keys of `[defaults]` and of `[[handler]]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use gristmill_queue::{KeyOptions, OnDead, Payload, QueueOptions, Rate, Retention};

use super::error::Problem;
use super::keys;
use super::lowered::{COUNT, Judge, Layers, OPTIONAL_DURATION, RATE};
use super::reader::{Entry, Reader, Table};
use super::setting::{Effective, Setting};
use super::values::{Allowed, UNLIMITED};

const DAY: Duration = Duration::from_hours(24);
const COUNTS: RangeInclusive<u32> = 1..=u32::MAX;
const AGES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(365 * 24);
const KEPT_FOR: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(3_650 * 24);

const KEY_CONCURRENCY: Allowed<u32> = Allowed::within(1..=1024, 1);
const MAX_IN_FLIGHT: Allowed<u32> = Allowed::within(1..=1_000_000, 10_000);
const MAX_EVENTS: Allowed<u32> = Allowed::unlimited(COUNTS, 100_000);
const MAX_BYTES: Allowed<u64> = Allowed::unlimited(1 << 10..=1 << 44, 1 << 30);
const TIME_TO_LIVE: Allowed<Duration> = Allowed::unlimited(AGES, Duration::from_hours(1));
const MAX_AGE: Allowed<Duration> = Allowed::unlimited(AGES, DAY);
const PER_SECOND: Allowed<f64> =
    Allowed::unset(0.001..=1_000_000.0, 10.0, "for no limit at all, leave the rate out or write \"unlimited\"");
const BURST: Allowed<u32> = Allowed::unset(1..=1_000_000, 10, "without it, as many as may come in a second");
const ON_DEAD: [(&str, OnDead); 2] = [("continue", OnDead::Continue), ("hold", OnDead::Hold)];

/// What a retention may be, and what it is when nobody writes it.
struct Kept {
    key: &'static str,
    age: Allowed<Duration>,
    count: Allowed<u32>,
}

/// 0 entries: none is kept.
const KEPT_COUNTS: RangeInclusive<u32> = 0..=u32::MAX;
const DONE: Kept = Kept {
    key: "done-retention",
    age: Allowed::optional(KEPT_FOR, DAY),
    count: Allowed::optional(KEPT_COUNTS, 100_000),
};
const DEAD: Kept = Kept {
    key: "dead-retention",
    age: Allowed::unlimited(KEPT_FOR, Duration::from_hours(90 * 24)),
    count: Allowed::unlimited(KEPT_COUNTS, 100_000),
};
const CANCELLED: Kept = Kept {
    key: "cancelled-retention",
    age: Allowed::optional(KEPT_FOR, Duration::from_hours(30 * 24)),
    count: Allowed::unlimited(KEPT_COUNTS, 100_000),
};

/// What was written of them.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueKeys {
    key_concurrency: Setting<u32>,
    on_dead: Setting<OnDead>,
    rate: Setting<Option<Rate>>,
    key_rate: Setting<Option<Rate>>,
    max_in_flight: Setting<u32>,
    max_events: Setting<Option<u32>>,
    max_bytes: Setting<Option<u64>>,
    time_to_live: Setting<Option<Duration>>,
    max_age: Setting<Option<Duration>>,
    done: RetentionKeys,
    dead: RetentionKeys,
    cancelled: RetentionKeys,
    keep_payload: Setting<bool>,
}

/// What was written of one retention. `Some(None)`: no limit.
#[derive(Clone, Debug, Default)]
struct RetentionKeys {
    age: Setting<Option<Duration>>,
    count: Setting<Option<u32>>,
}

impl QueueKeys {
    /// Reads them from `[defaults]` or from a handler.
    pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Self {
        Self {
            key_concurrency: count(reader, table, "key-concurrency", &KEY_CONCURRENCY),
            on_dead: reader.setting(table, "on-dead", |reader, entry| reader.choice(entry, &ON_DEAD)),
            rate: reader.setting(table, "rate", rate),
            key_rate: reader.setting(table, "key-rate", rate),
            max_in_flight: count(reader, table, "max-in-flight", &MAX_IN_FLIGHT),
            max_events: limit(reader, table, "max-events", |reader, entry| reader.integer(entry, &MAX_EVENTS, number)),
            max_bytes: limit(reader, table, "max-bytes", |reader, entry| reader.size(entry, &MAX_BYTES)),
            time_to_live: limit(reader, table, "time-to-live", |reader, entry| reader.duration(entry, &TIME_TO_LIVE)),
            max_age: limit(reader, table, "max-age", |reader, entry| reader.duration(entry, &MAX_AGE)),
            done: RetentionKeys::read(reader, table, &DONE),
            dead: RetentionKeys::read(reader, table, &DEAD),
            cancelled: RetentionKeys::read(reader, table, &CANCELLED),
            keep_payload: reader.setting(table, "keep-payload", |reader, entry| reader.boolean(entry, true)),
        }
    }

    /// These, and `defaults` where they are silent; retentions key by key.
    pub(super) fn over(&self, defaults: &Self) -> Self {
        Self {
            key_concurrency: self.key_concurrency.or(&defaults.key_concurrency),
            on_dead: self.on_dead.or(&defaults.on_dead),
            rate: self.rate.or(&defaults.rate),
            key_rate: self.key_rate.or(&defaults.key_rate),
            max_in_flight: self.max_in_flight.or(&defaults.max_in_flight),
            max_events: self.max_events.or(&defaults.max_events),
            max_bytes: self.max_bytes.or(&defaults.max_bytes),
            time_to_live: self.time_to_live.or(&defaults.time_to_live),
            max_age: self.max_age.or(&defaults.max_age),
            done: self.done.over(&defaults.done),
            dead: self.dead.over(&defaults.dead),
            cancelled: self.cancelled.over(&defaults.cancelled),
            keep_payload: self.keep_payload.or(&defaults.keep_payload),
        }
    }

    /// Judges what a manifest says of them.
    pub(super) fn judge(layers: &Layers<'_, Self>, judge: &mut Judge<'_>) {
        judge.judge("key-concurrency", &layers.of(|keys| &keys.key_concurrency), KEY_CONCURRENCY.default, &COUNT);
        judge.judge("rate", &layers.of(|keys| &keys.rate), None, &RATE);
        judge.judge("key-rate", &layers.of(|keys| &keys.key_rate), None, &RATE);
        judge.judge("time-to-live", &layers.of(|keys| &keys.time_to_live), None, &OPTIONAL_DURATION);
        judge.judge("max-age", &layers.of(|keys| &keys.max_age), None, &OPTIONAL_DURATION);
    }

    /// `max-in-flight`, to be compared with others.
    pub(super) fn max_in_flight(&self) -> Option<Effective<u32>> {
        self.max_in_flight.effective(MAX_IN_FLIGHT.default)
    }

    /// `max-bytes`, to be compared with others; `None` also where there is no limit.
    pub(super) fn max_bytes(&self) -> Option<Effective<u64>> {
        let Effective { value, span } = self.max_bytes.effective(None)?;
        Some(Effective { value: value?, span })
    }

    /// What counts. The retry policy and the lease are somebody else's.
    pub(super) fn options(&self, ordering_key: Option<String>) -> QueueOptions {
        QueueOptions {
            time_to_live: self.time_to_live.value_or(None),
            max_age: self.max_age.value_or(None),
            max_events: self.max_events.value_or(None).map(u64::from),
            max_bytes: self.max_bytes.value_or(None),
            max_in_flight: self.max_in_flight.value_or(MAX_IN_FLIGHT.default),
            rate: self.rate.value_or(None),
            key: KeyOptions {
                attribute: ordering_key,
                concurrency: self.key_concurrency.value_or(KEY_CONCURRENCY.default),
                rate: self.key_rate.value_or(None),
                on_dead: self.on_dead.value_or(OnDead::Continue),
            },
            done: self.done.retention(&DONE),
            payload: if self.keep_payload.value_or(false) { Payload::Keep } else { Payload::Drop },
            dead: self.dead.retention(&DEAD),
            cancelled: self.cancelled.retention(&CANCELLED),
            ..QueueOptions::default()
        }
    }
}

impl RetentionKeys {
    fn read(reader: &mut Reader<'_>, table: &Table<'_>, kept: &Kept) -> Self {
        let Some(entry) = table.entry(kept.key) else { return Self::default() };
        let Some(table) = reader.table(&entry, &keys::RETENTION) else {
            let help = format!("for example: {} = {{ age = \"7d\", count = 10_000 }}", kept.key);
            reader.wrong_type(&entry, "a table", &help);
            return Self { age: Setting::Invalid, count: Setting::Invalid };
        };
        Self {
            age: limit(reader, &table, "age", |reader, entry| reader.duration(entry, &kept.age)),
            count: limit(reader, &table, "count", |reader, entry| reader.integer(entry, &kept.count, number)),
        }
    }

    fn over(&self, defaults: &Self) -> Self {
        Self { age: self.age.or(&defaults.age), count: self.count.or(&defaults.count) }
    }

    fn retention(&self, kept: &Kept) -> Retention {
        Retention {
            age: self.age.value_or(kept.age.default_limit()),
            count: self.count.value_or(kept.count.default_limit()).map(u64::from),
        }
    }
}

fn count(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str, allowed: &Allowed<u32>) -> Setting<u32> {
    reader.setting(table, key, |reader, entry| reader.integer(entry, allowed, number))
}

fn limit<T>(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    key: &'static str,
    read: impl FnOnce(&mut Reader<'_>, &Entry<'_>) -> Option<T>,
) -> Setting<Option<T>> {
    reader.setting(table, key, |reader, entry| reader.unless_unlimited(entry, read))
}

fn number(count: u32) -> String {
    count.to_string()
}

/// `{ per-second = …, burst = … }`, or "unlimited".
pub(super) fn rate(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Option<Rate>> {
    reader.unless_unlimited(entry, |reader, entry| {
        let Some(table) = reader.table(entry, &keys::RATE) else {
            let help = format!("for example: {} = {{ per-second = 10, burst = 5 }}, or \"{UNLIMITED}\"", entry.key);
            reader.wrong_type(entry, "a table", &help);
            return None;
        };
        let burst = reader.setting(&table, "burst", |reader, entry| reader.integer(entry, &BURST, number));
        if table.entry("per-second").is_none() {
            let problem =
                Problem::new(format!("`{}` lacks `per-second`", entry.key), entry.span(), "how many a second?");
            let help = format!("for example: {} = {{ per-second = 10, burst = 5 }}", entry.key);
            reader.report(problem.help(help).because_absent());
            return None;
        }
        let per_second = reader.setting(&table, "per-second", |reader, entry| reader.number(entry, &PER_SECOND));
        let per_second = per_second.value()?;
        Some(Rate { per_second, burst: burst.value_or(one_second_of(per_second)) })
    })
}

/// As many as may come in a second, at least 1.
fn one_second_of(per_second: f64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: at most a million")]
    let burst = per_second.ceil().clamp(1.0, f64::from(*BURST.range.end())) as u32;
    burst
}
