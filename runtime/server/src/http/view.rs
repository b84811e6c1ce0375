//! From the engine's answers to the JSON that is sent.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gristmill_core::Event;
use gristmill_core::json::Structured;
use gristmill_queue::{Entry, QueueStats};
use serde_json::value::{RawValue, to_raw_value};

use super::model::{self, Time};
use crate::routing::Router;

/// How much of an event's data a list shows: 1,000 entries of a megabyte each would be a gigabyte.
const LISTED_DATA: usize = 4 * 1024;

/// How much of an entry is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything.
    Whole,
    /// Everything but large data.
    Listed,
}

pub(super) fn queue(stats: QueueStats, router: &Router) -> model::Queue {
    let totals = stats.totals;
    model::Queue {
        handler: router.serves(&stats.queue).then(|| stats.queue.clone()),
        name: stats.queue,
        paused: stats.paused.is_some(),
        pause_reason: stats.paused,
        scheduled: stats.scheduled,
        waiting: stats.waiting,
        ready: stats.ready,
        leased: stats.leased,
        done: stats.done,
        dead: stats.dead,
        cancelled: stats.cancelled,
        bytes: stats.bytes,
        oldest_ready_ms: stats.oldest_ready.map(millis),
        next_due: stats.next_due.map(Time),
        totals: model::Totals {
            published: totals.published,
            duplicates: totals.duplicates,
            acked: totals.acked,
            retried: totals.retried,
            deferred: totals.deferred,
            dead_lettered: totals.dead_lettered,
            redriven: totals.redriven,
            cancelled: totals.cancelled,
        },
    }
}

pub(super) fn entry(entry: &Entry, extent: Extent) -> Result<model::Entry, serde_json::Error> {
    let data_bytes = entry.event.data.as_ref().map_or(0, |data| data.len());
    let event = if extent == Extent::Listed && data_bytes > LISTED_DATA {
        to_raw_value(&Structured(&without_data(&entry.event)))?
    } else {
        to_raw_value(&Structured(&entry.event))?
    };
    Ok(model::Entry {
        entry: entry.id.clone(),
        queue: entry.queue.clone(),
        state: entry.state,
        priority: entry.priority,
        key: entry.key.as_deref().map(str::to_owned),
        attempts: entry.attempts,
        enqueued_at: Time(entry.enqueued_at),
        at: Time(entry.at),
        history: entry.history.attempts().iter().map(attempt).collect(),
        history_omitted: entry.history.omitted(),
        event,
        data_bytes: data_bytes as u64,
        postmortem: entry.postmortem.as_deref().map(postmortem),
        result: entry.result.as_deref().map(result).transpose()?,
    })
}

fn without_data(event: &Event) -> Event {
    Event {
        id: event.id.clone(),
        source: event.source.clone(),
        ty: event.ty.clone(),
        subject: event.subject.clone(),
        time: event.time.clone(),
        datacontenttype: event.datacontenttype.clone(),
        dataschema: event.dataschema.clone(),
        extensions: event.extensions.clone(),
        data: None,
    }
}

fn attempt(attempt: &gristmill_core::Attempt) -> model::Attempt {
    model::Attempt {
        attempt: attempt.attempt,
        outcome: attempt.outcome,
        reason: attempt.reason.clone(),
        version: attempt.version.clone(),
        started_at: Time(attempt.started_at),
        duration_ms: millis(attempt.duration),
        forgiven: attempt.forgiven,
    }
}

pub(crate) fn postmortem(postmortem: &gristmill_core::Postmortem) -> model::Postmortem {
    let millis = |time: Duration| time.div_duration_f64(Duration::from_millis(1));
    let lines = postmortem.log.iter().map(|line| model::LastLine {
        level: line.level.clone(),
        context: line.context.clone(),
        message: line.message.clone(),
    });
    model::Postmortem {
        wall_ms: millis(postmortem.wall),
        cpu_ms: millis(postmortem.cpu),
        peak_memory: postmortem.peak_memory,
        host_calls: postmortem.host_calls,
        host_ms: millis(postmortem.host_time),
        bytes_in: postmortem.bytes_in,
        bytes_out: postmortem.bytes_out,
        log: lines.collect(),
    }
}

fn result(bytes: &[u8]) -> Result<Box<RawValue>, serde_json::Error> {
    if let Ok(json) = serde_json::from_slice::<Box<RawValue>>(bytes) {
        return Ok(json);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => to_raw_value(text),
        Err(_) => to_raw_value(&serde_json::json!({ "base64": BASE64.encode(bytes) })),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_json_or_text_or_bytes() {
        let shown = |bytes: &[u8]| result(bytes).unwrap().get().to_owned();
        assert_eq!(shown(br#"{"b":1.10,"a":2}"#), r#"{"b":1.10,"a":2}"#);
        assert_eq!(shown(b"done \x1b[31m"), r#""done \u001b[31m""#);
        assert_eq!(shown(b""), r#""""#);
        assert_eq!(shown(b"\xff\x00"), r#"{"base64":"/wA="}"#);
    }
}
