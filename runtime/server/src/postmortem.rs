//! From what the host tells of a call to what is kept with a dead letter.

use gristmill_core::{LastLine, Outcome, Postmortem};
use gristmill_host::{Ledger, LogLine};

/// What to keep if `outcome` is the end of its entry; an ack never is the end of a dead letter.
pub(crate) fn of(outcome: &Outcome, ledger: &Ledger, logs: &[LogLine]) -> Option<Box<Postmortem>> {
    if matches!(outcome, Outcome::Ack { .. } | Outcome::Defer { .. } | Outcome::Released) {
        return None;
    }
    let lines = logs.iter().map(|line| LastLine {
        level: line.level.as_str().to_owned(),
        context: line.context.clone(),
        message: line.message.clone(),
    });
    Some(Box::new(cost(ledger).with_log(lines)))
}

/// What a call cost, without what it said.
pub(crate) fn cost(ledger: &Ledger) -> Postmortem {
    Postmortem {
        wall: ledger.wall,
        cpu: ledger.cpu,
        peak_memory: ledger.peak_memory,
        host_calls: ledger.host_calls,
        host_time: ledger.host_time,
        bytes_in: ledger.bytes_in,
        bytes_out: ledger.bytes_out,
        log: Vec::new(),
    }
}
