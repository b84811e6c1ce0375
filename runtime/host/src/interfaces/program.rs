//! What a plain program is told and how it answers, whatever it was compiled to: the event is one line of JSON on stdin,
//! what it emits are lines of JSON on stdout, stderr is the log, and the exit status is the verdict.

use gristmill_core::units::format_size;
use gristmill_core::{Event, EventError, Outcome, json};
use wasmtime_wasi::I32Exit;

use crate::bindings::emitter::EmitError;
use crate::outcome::{Failure, cut, with_last_words};
use crate::slices::give_way;
use crate::state::State;
use crate::stdio::Stdio;

/// `EX_DATAERR` of `sysexits.h`: the input is wrong and will stay so.
const REJECT: i32 = 65;
/// How much output is read before others get a turn.
const SLICE: usize = 64 << 10;
/// How much of a wrong line is shown, in characters.
const SHOWN: usize = 120;

pub(super) fn stdio(event: &Event) -> Result<Stdio, EventError> {
    Ok(Stdio::Event { input: json::line(event)?.into() })
}

/// The exit status, whether the program returned it or exited with it.
pub(super) fn status(result: wasmtime::Result<i32>) -> Result<i32, Failure> {
    result.or_else(|error| match error.downcast_ref::<I32Exit>() {
        Some(I32Exit(status)) => Ok(*status),
        None => Err(Failure::Call(error)),
    })
}

/// What an exit status means. Nothing is emitted unless it is 0, so that only then the output has to be right.
pub(super) async fn outcome(state: &mut State, status: i32) -> Outcome {
    if status == 0 {
        return match emit(state).await {
            Ok(()) => Outcome::Ack { result: None },
            Err(reason) => Outcome::InvalidOutput { reason: cut(reason) },
        };
    }
    let reason = cut(with_last_words(&state.log.lock().stderr_tail(), &format!("exit status {status}")));
    match status {
        REJECT => Outcome::Reject { reason },
        // 75, `EX_TEMPFAIL`, asks for it; whatever else a program may mean, trying again loses nothing.
        _ => Outcome::Retry { reason, after: None },
    }
}

/// Emits what is on stdout, or says why that is not possible; then the log has it.
async fn emit(state: &mut State) -> Result<(), String> {
    let Some(output) = &state.output else { return Ok(()) };
    let written = output.take();
    let result = match written.overflow {
        Some(max) => Err(format!("wrote more than {} to stdout", format_size(max))),
        None => emit_lines(state, &written.bytes).await,
    };
    if result.is_err() {
        state.log.lock().write(crate::log::Stream::Stdout, &written.bytes);
    }
    result
}

async fn emit_lines(state: &mut State, output: &[u8]) -> Result<(), String> {
    let mut read = 0;
    for (number, line) in (1..).zip(output.split(|&byte| byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let identity = &state.identity;
        if let Err(error) = state.outbox.emit_line(line, &identity.name, &identity.grants.emit) {
            return Err(refusal(number, line, error));
        }
        read += line.len();
        if read >= SLICE {
            read = 0;
            give_way().await;
        }
    }
    Ok(())
}

fn refusal(number: usize, line: &[u8], error: EmitError) -> String {
    let why = match error {
        EmitError::Invalid(why) => format!("is no event: {why}"),
        EmitError::Denied(why) | EmitError::TooMuch(why) | EmitError::Other(why) => format!("is not emitted: {why}"),
    };
    // Enough for as many characters, whatever they are.
    let head = line.get(..4 * SHOWN).unwrap_or(line);
    let shown: String = String::from_utf8_lossy(head).trim().chars().take(SHOWN).collect();
    format!("line {number} of stdout {why}\nit begins: {shown}")
}
