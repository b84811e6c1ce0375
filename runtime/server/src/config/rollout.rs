//! `canary` and `breaker`: how far a version is trusted. Keys of `[defaults]` and of `[[handler]]`.

use std::time::Duration;

use super::keys::{self, Keys};
use super::reader::{Entry, Reader, Table};
use super::setting::Setting;
use super::values::Allowed;

const OFF: &str = "off";
const DURATIONS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(24);

const SHARE: Allowed<f64> = Allowed::within(0.001..=1.0, 0.1);
const FOR: Allowed<Duration> =
    Allowed::within(Duration::from_millis(10)..=Duration::from_hours(7 * 24), Duration::from_mins(10));
const MAX_FAILURE_RATE: Allowed<f64> = Allowed::within(0.0..=1.0, 0.02);
const MIN_DELIVERIES: Allowed<u32> = Allowed::within(1..=1_000_000, 20);

const BREAKER_RATE: Allowed<f64> = Allowed::within(0.01..=1.0, 0.95);
const BREAKER_DELIVERIES: Allowed<u32> = Allowed::within(1..=10_000, 100);
const PROBE: Allowed<Duration> = Allowed::within(DURATIONS, Duration::from_secs(1));
const MAX_PROBE: Allowed<Duration> = Allowed::within(DURATIONS, Duration::from_mins(1));

/// `canary = …`: a version that is new gets a share of the deliveries first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CanaryOptions {
    /// How many of the deliveries, 0.001 to 1; those of an ordering key all go to one version. Default: 0.1.
    pub share: f64,
    /// For how long, before it takes over. Default: 10 min.
    pub period: Duration,
    /// How many of its deliveries may fail; with more, it is rolled back. Default: 0.02.
    pub max_failure_rate: f64,
    /// It takes over after so many deliveries at the earliest. Default: 20.
    pub min_deliveries: u32,
}

/// `breaker = …`: a handler that fails over and over gets no more deliveries until it is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerOptions {
    /// When so many of the latest deliveries have failed. Default: 0.95.
    pub max_failure_rate: f64,
    /// Which are the latest. Default: 100.
    pub deliveries: u32,
    /// How long until it is tried with a single delivery, and twice as long each time that this fails. Default: 1 s.
    pub probe: Duration,
    /// How long that is at most. Default: 1 min.
    pub max_probe: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            max_failure_rate: BREAKER_RATE.default,
            deliveries: BREAKER_DELIVERIES.default,
            probe: PROBE.default,
            max_probe: MAX_PROBE.default,
        }
    }
}

/// What was written of them. `Some(None)`: it is switched off.
#[derive(Clone, Debug, Default)]
pub(super) struct RolloutKeys {
    canary: Setting<Option<CanaryOptions>>,
    breaker: Setting<Option<BreakerOptions>>,
}

impl RolloutKeys {
    /// Reads them from `[defaults]` or from a handler.
    pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Self {
        Self {
            canary: reader.setting(table, "canary", |reader, entry| {
                unless_off(reader, entry, (&keys::CANARY, "{ share = 0.1, for = \"10m\" }"), canary)
            }),
            breaker: reader.setting(table, "breaker", |reader, entry| {
                unless_off(reader, entry, (&keys::BREAKER, "{ max-failure-rate = 0.95, deliveries = 100 }"), breaker)
            }),
        }
    }

    /// These, and `defaults` where they are silent.
    pub(super) fn over(&self, defaults: &Self) -> Self {
        Self { canary: self.canary.or(&defaults.canary), breaker: self.breaker.or(&defaults.breaker) }
    }

    pub(super) fn canary(&self) -> Option<CanaryOptions> {
        self.canary.value_or(None)
    }

    pub(super) fn breaker(&self) -> Option<BreakerOptions> {
        self.breaker.value_or(Some(BreakerOptions::default()))
    }
}

/// A table, or `"off"`.
fn unless_off<T>(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    (keys, example): (&Keys, &str),
    read: impl FnOnce(&mut Reader<'_>, &Table<'_>) -> T,
) -> Option<Option<T>> {
    if entry.value.get_ref().as_str() == Some(OFF) {
        return Some(None);
    }
    match reader.table(entry, keys) {
        Some(table) => Some(Some(read(reader, &table))),
        None => {
            reader.wrong_type(entry, "a table or \"off\"", &format!("for example: {} = {}", entry.key, example));
            None
        }
    }
}

fn canary(reader: &mut Reader<'_>, table: &Table<'_>) -> CanaryOptions {
    CanaryOptions {
        share: number(reader, table, "share", &SHARE),
        period: duration(reader, table, "for", &FOR),
        max_failure_rate: number(reader, table, "max-failure-rate", &MAX_FAILURE_RATE),
        min_deliveries: count(reader, table, "min-deliveries", &MIN_DELIVERIES),
    }
}

fn breaker(reader: &mut Reader<'_>, table: &Table<'_>) -> BreakerOptions {
    let probe = duration(reader, table, "probe", &PROBE);
    BreakerOptions {
        max_failure_rate: number(reader, table, "max-failure-rate", &BREAKER_RATE),
        deliveries: count(reader, table, "deliveries", &BREAKER_DELIVERIES),
        probe,
        max_probe: duration(reader, table, "max-probe", &MAX_PROBE).max(probe),
    }
}

fn number(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str, allowed: &Allowed<f64>) -> f64 {
    reader.setting(table, key, |reader, entry| reader.number(entry, allowed)).value_or(allowed.default)
}

fn duration(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str, allowed: &Allowed<Duration>) -> Duration {
    reader.setting(table, key, |reader, entry| reader.duration(entry, allowed)).value_or(allowed.default)
}

fn count(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str, allowed: &Allowed<u32>) -> u32 {
    let integer =
        |reader: &mut Reader<'_>, entry: &Entry<'_>| reader.integer(entry, allowed, |count| count.to_string());
    reader.setting(table, key, integer).value_or(allowed.default)
}
