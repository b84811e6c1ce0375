//! From what the engine reports to what became of the delivery.

use std::time::Duration;

use gristmill_core::Outcome;
use gristmill_core::outcome::MAX_REASON_LEN;
use gristmill_core::units::format_duration;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::backtrace;
use crate::memory::OverLimit;
use crate::messaging::TooManyMessages;

/// The deadline has passed while the guest computed.
#[derive(Debug, thiserror::Error)]
#[error("the deadline has passed")]
pub(crate) struct DeadlinePassed;

/// A person ended the invocation while the guest computed.
#[derive(Debug, thiserror::Error)]
#[error("killed")]
pub(crate) struct Killed;

/// Why an invocation has no answer.
pub(crate) enum Failure {
    /// No instance could be made.
    Instantiate(wasmtime::Error),
    /// The guest, or something that it called, failed.
    Call(wasmtime::Error),
    /// The deadline passed while the guest waited in a host call.
    Waited,
    /// A person ended the invocation while the guest waited in a host call.
    KilledWaiting,
}

/// What the engine says when a guest goes over the limits that the engine keeps, and the limit.
const ENGINE_LIMITS: [(&str, &str); 3] = [
    ("fuel allocated for hostcalls has been exhausted", "one call handed over more than `max-call-bytes` allows"),
    ("store handle limit exceeded", "it holds more handles than `max-handles` allows"),
    ("resource table has no free keys", "it holds more handles than `max-handles` allows"),
];

/// What a failure means. `timeout` is the limit that was given, `stderr` the end of what the guest wrote there.
pub(crate) fn of_failure(failure: &Failure, timeout: Duration, stderr: &str) -> Outcome {
    let error = match failure {
        Failure::Waited => {
            let reason = format!("{}; it was waiting in a host call", ran_longer(timeout));
            return Outcome::Timeout { reason };
        }
        Failure::KilledWaiting => {
            return Outcome::Killed { reason: "a person ended it; it was waiting in a host call".to_owned() };
        }
        Failure::Instantiate(error) | Failure::Call(error) => error,
    };
    let trace = error.downcast_ref::<WasmBacktrace>().map(backtrace::render).unwrap_or_default();
    if error.is::<DeadlinePassed>() {
        return Outcome::Timeout { reason: cut(format!("{}{trace}", ran_longer(timeout))) };
    }
    if error.is::<Killed>() {
        return Outcome::Killed { reason: cut(format!("a person ended it{trace}")) };
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        let reason = format!("it used more stack than `stack` in [runtime] allows: a recursion without an end?{trace}");
        return Outcome::OverLimit { reason: cut(reason) };
    }
    if let Some(over) = error.downcast_ref::<TooManyMessages>() {
        return Outcome::OverLimit { reason: cut(format!("{over}{trace}")) };
    }
    if let Some(over) = error.downcast_ref::<OverLimit>() {
        return Outcome::OutOfMemory { reason: cut(format!("{over}{trace}")) };
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Outcome::HostError { reason: format!("no free instance: {}", error.root_cause()) };
    }
    if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
        let reason = format!("the handler called exit with status {status} instead of returning a verdict{trace}");
        return Outcome::Trap { reason: cut(with_last_words(stderr, &reason)) };
    }
    let in_guest = error.is::<Trap>() || !trace.is_empty();
    let cause = error.root_cause().to_string();
    if let Some((_, limit)) = ENGINE_LIMITS.iter().find(|(said, _)| cause.contains(said)) {
        return Outcome::OverLimit { reason: cut(format!("{limit}{trace}")) };
    }
    let reason = format!("{cause}{trace}");
    match failure {
        Failure::Instantiate(_) if !in_guest => {
            Outcome::HostError { reason: format!("cannot make an instance: {reason}") }
        }
        // What fails in a call without a trap is the guest's doing too: text that is not UTF-8, a list out of bounds.
        _ => Outcome::Trap { reason: cut(with_last_words(stderr, &reason)) },
    }
}

fn ran_longer(timeout: Duration) -> String {
    format!("the handler ran longer than its time-out of {}", format_duration(timeout))
}

/// Puts what the guest said last, such as a panic's message, before `reason`.
pub(crate) fn with_last_words(stderr: &str, reason: &str) -> String {
    match last_words(stderr) {
        Some(words) => format!("{words}\n{reason}"),
        None => reason.to_owned(),
    }
}

/// The panic message at the end of `stderr`, as Rust or Go write it, or else its last line.
fn last_words(stderr: &str) -> Option<String> {
    /// What Rust adds to every panic, and what would be no help here.
    const NOTE: &str = "note: run with `RUST_BACKTRACE";
    const PANICKED: &str = "panicked at ";
    /// After these Go writes where every goroutine was.
    const GO: [&str; 2] = ["panic: ", "fatal error: "];
    let Some(start) = stderr.rfind(PANICKED) else {
        let mut lines = stderr.lines().rev().map(str::trim_end).filter(|line| !line.is_empty());
        let go = lines.clone().find(|line| GO.iter().any(|start| line.starts_with(start)));
        return go.or_else(|| lines.next()).map(|line| line.trim().to_owned());
    };
    let mut lines = stderr.get(start..)?.lines().take_while(|line| !line.starts_with(NOTE));
    let place = lines.next().unwrap_or_default().trim_end();
    let message = lines.map(str::trim_end).collect::<Vec<_>>().join("\n");
    Some(format!("{place} {message}").trim_end().to_owned())
}

/// Cuts a text to [`MAX_REASON_LEN`], between characters.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > MAX_REASON_LEN {
        text.truncate(text.floor_char_boundary(MAX_REASON_LEN));
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_panic_message() {
        let rust = "loading\n\nthread '<unnamed>' (1) panicked at src/lib.rs:7:9:\nindex out of bounds\nlen is 3\n\
                    note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        assert_eq!(last_words(rust).unwrap(), "panicked at src/lib.rs:7:9: index out of bounds\nlen is 3");
        assert_eq!(last_words("Traceback:\n  x\nValueError: no\n\n").unwrap(), "ValueError: no");
        let go = "loading\npanic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/main.go:18 +0x30\n";
        assert_eq!(last_words(go).unwrap(), "panic: boom");
        assert_eq!(last_words(" \n"), None);
        assert_eq!(last_words("panicked at "), Some("panicked at".to_owned()));
    }
}
