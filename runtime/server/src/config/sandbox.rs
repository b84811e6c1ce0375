//! What one call of a handler may use, besides time and memory, and how long an instance lives.

use std::ops::RangeInclusive;
use std::time::Duration;

use gristmill_host::{Instances, Limits};

use super::lowered::{COUNT, DURATION, Judge, Kind, Layers, SIZE, words};
use super::reader::{Reader, Table};
use super::setting::Setting;
use super::values::Allowed;

const MAX_STATE_WRITES: Allowed<u32> = Allowed::within(1..=50_000, 1_000);
const MAX_STATE_BYTES: Allowed<u64> = Allowed::within(1 << 10..=64 << 20, 4 << 20);
const MAX_EMITS: Allowed<u32> = Allowed::within(0..=50_000, 1_000);
const MAX_EMIT_BYTES: Allowed<u64> = Allowed::within(1 << 10..=64 << 20, 16 << 20);
const MAX_LOG_BYTES: Allowed<u64> = Allowed::within(0..=16 << 20, 64 << 10);
const MAX_RESULT_BYTES: Allowed<u64> = Allowed::within(0..=16 << 20, 1 << 20);
const MAX_CALL_BYTES: Allowed<u64> = Allowed::within(64 << 10..=1 << 30, 16 << 20);
const MAX_HANDLES: Allowed<u32> = Allowed::within(16..=100_000, 1_000);
const REUSE_EVENTS: Allowed<u32> = Allowed::within(1..=u32::MAX, 1_000);
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
const REUSE_FOR: Allowed<Duration> = Allowed::within(AGES, Duration::from_mins(10));
const LIFE: Kind<Life> = words(|life| match life {
    Life::Fresh => String::from("\"fresh\""),
    Life::Reuse => String::from("\"reuse\""),
});
const LIVES: [(&str, Life); 2] = [("fresh", Life::Fresh), ("reuse", Life::Reuse)];

/// `instances = …`. Reuse is more: what an instance keeps between two events stays in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    Fresh,
    Reuse,
}

/// What was written of these keys.
#[derive(Clone, Debug, Default)]
pub(super) struct SandboxKeys {
    max_state_writes: Setting<u32>,
    max_state_bytes: Setting<u64>,
    max_emits: Setting<u32>,
    max_emit_bytes: Setting<u64>,
    max_log_bytes: Setting<u64>,
    max_result_bytes: Setting<u64>,
    max_call_bytes: Setting<u64>,
    max_handles: Setting<u32>,
    instances: Setting<Life>,
    reuse_events: Setting<u32>,
    reuse_for: Setting<Duration>,
}

impl SandboxKeys {
    /// Reads them from `[defaults]` or from a handler.
    pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Self {
        let mut count = |key, allowed: &Allowed<u32>| {
            reader.setting(table, key, |reader, entry| reader.integer(entry, allowed, |count| count.to_string()))
        };
        let max_state_writes = count("max-state-writes", &MAX_STATE_WRITES);
        let max_emits = count("max-emits", &MAX_EMITS);
        let max_handles = count("max-handles", &MAX_HANDLES);
        let reuse_events = count("reuse-events", &REUSE_EVENTS);
        let mut size =
            |key, allowed: &Allowed<u64>| reader.setting(table, key, |reader, entry| reader.size(entry, allowed));
        Self {
            max_state_writes,
            max_emits,
            max_handles,
            reuse_events,
            max_state_bytes: size("max-state-bytes", &MAX_STATE_BYTES),
            max_emit_bytes: size("max-emit-bytes", &MAX_EMIT_BYTES),
            max_log_bytes: size("max-log-bytes", &MAX_LOG_BYTES),
            max_result_bytes: size("max-result-bytes", &MAX_RESULT_BYTES),
            max_call_bytes: size("max-call-bytes", &MAX_CALL_BYTES),
            instances: reader.setting(table, "instances", |reader, entry| reader.choice(entry, &LIVES)),
            reuse_for: reader.setting(table, "reuse-for", |reader, entry| reader.duration(entry, &REUSE_FOR)),
        }
    }

    /// These, and `defaults` where they are silent.
    pub(super) fn over(&self, defaults: &Self) -> Self {
        Self {
            max_state_writes: self.max_state_writes.or(&defaults.max_state_writes),
            max_state_bytes: self.max_state_bytes.or(&defaults.max_state_bytes),
            max_emits: self.max_emits.or(&defaults.max_emits),
            max_emit_bytes: self.max_emit_bytes.or(&defaults.max_emit_bytes),
            max_log_bytes: self.max_log_bytes.or(&defaults.max_log_bytes),
            max_result_bytes: self.max_result_bytes.or(&defaults.max_result_bytes),
            max_call_bytes: self.max_call_bytes.or(&defaults.max_call_bytes),
            max_handles: self.max_handles.or(&defaults.max_handles),
            instances: self.instances.or(&defaults.instances),
            reuse_events: self.reuse_events.or(&defaults.reuse_events),
            reuse_for: self.reuse_for.or(&defaults.reuse_for),
        }
    }

    /// Judges what a manifest says of them.
    pub(super) fn judge(layers: &Layers<'_, Self>, judge: &mut Judge<'_>) {
        judge.judge("max-state-writes", &layers.of(|keys| &keys.max_state_writes), MAX_STATE_WRITES.default, &COUNT);
        judge.judge("max-state-bytes", &layers.of(|keys| &keys.max_state_bytes), MAX_STATE_BYTES.default, &SIZE);
        judge.judge("max-emits", &layers.of(|keys| &keys.max_emits), MAX_EMITS.default, &COUNT);
        judge.judge("max-emit-bytes", &layers.of(|keys| &keys.max_emit_bytes), MAX_EMIT_BYTES.default, &SIZE);
        judge.judge("max-log-bytes", &layers.of(|keys| &keys.max_log_bytes), MAX_LOG_BYTES.default, &SIZE);
        judge.judge("max-result-bytes", &layers.of(|keys| &keys.max_result_bytes), MAX_RESULT_BYTES.default, &SIZE);
        judge.judge("max-call-bytes", &layers.of(|keys| &keys.max_call_bytes), MAX_CALL_BYTES.default, &SIZE);
        judge.judge("max-handles", &layers.of(|keys| &keys.max_handles), MAX_HANDLES.default, &COUNT);
        judge.judge("instances", &layers.of(|keys| &keys.instances), Life::Fresh, &LIFE);
        judge.judge("reuse-events", &layers.of(|keys| &keys.reuse_events), REUSE_EVENTS.default, &COUNT);
        judge.judge("reuse-for", &layers.of(|keys| &keys.reuse_for), REUSE_FOR.default, &DURATION);
    }

    /// `limits` with what was written.
    pub(super) fn limits(&self, limits: Limits) -> Limits {
        let count = |setting: &Setting<u32>, allowed: &Allowed<u32>| {
            usize::try_from(setting.value_or(allowed.default)).unwrap_or(usize::MAX)
        };
        Limits {
            max_state_writes: count(&self.max_state_writes, &MAX_STATE_WRITES),
            max_state_bytes: self.max_state_bytes.value_or(MAX_STATE_BYTES.default),
            max_emits: count(&self.max_emits, &MAX_EMITS),
            max_emit_bytes: self.max_emit_bytes.value_or(MAX_EMIT_BYTES.default),
            max_log_bytes: self.max_log_bytes.value_or(MAX_LOG_BYTES.default),
            max_result_bytes: self.max_result_bytes.value_or(MAX_RESULT_BYTES.default),
            max_call_bytes: self.max_call_bytes.value_or(MAX_CALL_BYTES.default),
            max_handles: count(&self.max_handles, &MAX_HANDLES),
            ..limits
        }
    }

    /// For how many events an instance lives.
    pub(super) fn instances(&self) -> Instances {
        match self.instances.value_or(Life::Fresh) {
            Life::Fresh => Instances::Fresh,
            Life::Reuse => Instances::Reuse {
                events: self.reuse_events.value_or(REUSE_EVENTS.default),
                age: self.reuse_for.value_or(REUSE_FOR.default),
            },
        }
    }
}
