//! What differs, in few words. Nothing is escaped here: whoever shows it does that.

use std::time::Duration;

use gristmill_core::Outcome;
use gristmill_core::state::Change;
use gristmill_core::units::format_duration;

/// How much of two texts is shown from before where they differ, and in all; in characters.
const BEFORE: usize = 24;
const SHOWN: usize = 160;
/// The same for what is no text, in bytes.
const BYTES_BEFORE: usize = 4;
const BYTES_SHOWN: usize = 24;

/// Both texts, from a little before where they differ.
pub(super) fn shortened(old: &str, new: &str) -> (String, String) {
    let common = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
    let start = if old.chars().count().max(new.chars().count()) > SHOWN { common.saturating_sub(BEFORE) } else { 0 };
    (part(old, start), part(new, start))
}

fn part(text: &str, start: usize) -> String {
    let mut rest = text.chars().skip(start);
    let head = if start > 0 { "…" } else { "" };
    let shown: String = rest.by_ref().take(SHOWN).collect();
    let tail = if rest.next().is_some() { "…" } else { "" };
    format!("{head}{shown}{tail}")
}

/// Both, as text where they are; `None`: `nothing`.
pub(super) fn contents(old: Option<&[u8]>, new: Option<&[u8]>) -> (String, String) {
    let text = |bytes: Option<&[u8]>| match bytes {
        None => Some("nothing".to_owned()),
        Some(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
    };
    if let (Some(old), Some(new)) = (text(old), text(new)) {
        return shortened(&old, &new);
    }
    let (a, b) = (old.unwrap_or_default(), new.unwrap_or_default());
    let common = a.iter().zip(b).take_while(|(old, new)| old == new).count();
    let start = common.saturating_sub(BYTES_BEFORE);
    let shown = |bytes: Option<&[u8]>| bytes.map_or_else(|| "nothing".to_owned(), |bytes| hexadecimal(bytes, start));
    (shown(old), shown(new))
}

fn hexadecimal(bytes: &[u8], start: usize) -> String {
    let rest = bytes.get(start..).unwrap_or_default();
    let head = if start > 0 { "…" } else { "" };
    let shown: String = rest.iter().take(BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
    let tail = if rest.len() > BYTES_SHOWN { "…" } else { "" };
    format!("{} bytes, not text: {head}{shown}{tail}", bytes.len())
}

/// An outcome on its own.
pub(super) fn outcome(outcome: &Outcome) -> String {
    let short = |text: &str| part(text, 0);
    match outcome {
        Outcome::Ack { result: None } => "ack".to_owned(),
        Outcome::Ack { result: Some(result) } => format!("ack, result {}", short(&String::from_utf8_lossy(result))),
        Outcome::Retry { reason, after: None } => format!("retry: {}", short(reason)),
        Outcome::Retry { reason, after: Some(after) } => {
            format!("retry after {}: {}", format_duration(*after), short(reason))
        }
        Outcome::Defer { reason: None, after } => format!("defer by {}", format_duration(*after)),
        Outcome::Defer { reason: Some(reason), after } => {
            format!("defer by {}: {}", format_duration(*after), short(reason))
        }
        other => match without_places(other.reason().unwrap_or_default()).as_str() {
            "" => other.kind().to_string(),
            reason => format!("{}: {}", other.kind(), short(reason)),
        },
    }
}

pub(super) fn delay(delay: Option<Duration>) -> String {
    delay.map_or_else(|| "none".to_owned(), format_duration)
}

/// What is written to one key.
pub(super) fn changes(changes: &[&Change]) -> String {
    if changes.is_empty() {
        return "not written".to_owned();
    }
    let said = |change: &&Change| match change {
        Change::Set(value) => contents(Some(value), None).0,
        Change::Delete => "deleted".to_owned(),
        Change::Increment(by) => format!("+ {by}"),
    };
    changes.iter().map(said).collect::<Vec<_>>().join(", ")
}

/// A reason without what differs between two builds of one source: without the backtrace, and without the line and column
/// of a panic.
pub(super) fn without_places(reason: &str) -> String {
    let lines = reason.lines().filter(|line| !is_frame(line)).map(without_position);
    lines.collect::<Vec<_>>().join("\n")
}

/// `  3: name`, or `  … 3 more`.
fn is_frame(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("  ") else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    rest.split_once(": ").is_some_and(|(number, _)| is_number(number))
        || rest.strip_prefix("… ").and_then(|rest| rest.strip_suffix(" more")).is_some_and(is_number)
}

/// `panicked at FILE:7:9: MESSAGE` as `panicked at FILE: MESSAGE`.
fn without_position(line: &str) -> String {
    let without = || {
        let (file, message) = line.strip_prefix("panicked at ")?.split_once(": ")?;
        let (file, column) = file.rsplit_once(':')?;
        let (file, row) = file.rsplit_once(':')?;
        let are_numbers = column.parse::<u32>().is_ok() && row.parse::<u32>().is_ok();
        are_numbers.then(|| format!("panicked at {file}: {message}"))
    };
    without().unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_shown_where_they_differ() {
        assert_eq!(shortened("abc", "abd"), ("abc".to_owned(), "abd".to_owned()));
        let long = |last: &str| format!("{}{last}{}", "ä".repeat(5_000), "z".repeat(5_000));
        let (old, new) = shortened(&long("1"), &long("2"));
        let shown = |last: &str| format!("…{}{last}{}…", "ä".repeat(BEFORE), "z".repeat(SHOWN - BEFORE - 1));
        assert_eq!((old, new), (shown("1"), shown("2")));
        let (old, new) = shortened(&"x".repeat(1_000), &"x".repeat(1_001));
        assert_eq!((old, new), (format!("…{}", "x".repeat(BEFORE)), format!("…{}", "x".repeat(BEFORE + 1))));
    }

    #[test]
    fn what_is_no_text_is_shown_in_hexadecimal() {
        let (old, new) = contents(Some(&[0xff; 10]), Some(&[[0xff; 9].as_slice(), &[0]].concat()));
        assert_eq!(old, "10 bytes, not text: …ffffffffff");
        assert_eq!(new, "10 bytes, not text: …ffffffff00");
        assert_eq!(contents(None, Some(&[0xff])).0, "nothing");
    }

    #[test]
    fn only_backtraces_and_positions_are_left_out() {
        let reason = "panicked at src/a.rs:7:9: no: 1: 2\n3: kept\n  x\n  0: main\n  … 12 more";
        assert_eq!(without_places(reason), "panicked at src/a.rs: no: 1: 2\n3: kept\n  x");
        assert_eq!(without_places("panicked at here: no"), "panicked at here: no");
    }
}
