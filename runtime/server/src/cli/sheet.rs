//! One entry on a page: `gristmill entries show`.

use std::time::Duration;

use gristmill_core::{Event, Timestamp, json};

use super::screen::Screen;
use super::table::{Column, Table};
use super::text::{age, block, count, indented_json, one_line, short};
use crate::http::model::{Entry, LastLine, Postmortem, Time};

/// How much data a page shows.
const SHOWN_DATA: usize = 64 << 10;
/// How much of a component's digest identifies it to a person.
const SHOWN_VERSION: usize = "sha256:".len() + 12;
const INDENT: &str = "  ";

pub(super) fn sheet(entry: &Entry, screen: Screen, now: Timestamp) -> String {
    let event = json::parse(entry.event.get().as_bytes()).ok();
    let sections = [
        head(entry, now),
        event.as_ref().map(attributes).unwrap_or_default(),
        history(entry, screen),
        last_error(entry),
        entry.postmortem.as_ref().map(postmortem).unwrap_or_default(),
        event.as_ref().map(data).unwrap_or_default(),
        entry.result.as_deref().map(|result| section("result", &pretty(result.get()))).unwrap_or_default(),
    ];
    let sections: Vec<_> = sections.into_iter().filter(|section| !section.is_empty()).collect();
    sections.join("\n")
}

fn head(entry: &Entry, now: Timestamp) -> String {
    let when = |Time(at): Time| match age(now, at) {
        soon if at > now => format!("{at} ({soon})"),
        ago => format!("{at} ({ago} ago)"),
    };
    let known = [
        ("entry", entry.entry.to_string()),
        ("queue", entry.queue.to_string()),
        ("state", format!("{}, {}", entry.state, when(entry.at))),
        ("enqueued", when(entry.enqueued_at)),
        ("attempts", entry.attempts.to_string()),
        ("priority", entry.priority.to_string()),
    ];
    fields("", known.into_iter().chain(entry.key.clone().map(|key| ("key", key))))
}

fn attributes(event: &Event) -> String {
    let required = [("id", Some(&event.id)), ("source", Some(&event.source)), ("type", Some(&event.ty))];
    let optional = [
        ("subject", event.subject.as_ref()),
        ("time", event.time.as_ref()),
        ("datacontenttype", event.datacontenttype.as_ref()),
        ("dataschema", event.dataschema.as_ref()),
    ];
    let named = required.into_iter().chain(optional).filter_map(|(name, value)| Some((name, value?.clone())));
    let extensions = event.extensions.iter().map(|(name, value)| (name.as_str(), value.clone()));
    format!("event\n{}", fields(INDENT, named.chain(extensions)))
}

fn history(entry: &Entry, screen: Screen) -> String {
    if entry.history.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        Column::Number("ATTEMPT"),
        Column::Key("OUTCOME"),
        Column::Key("STARTED"),
        Column::Number("TOOK"),
        Column::Key("VERSION"),
        Column::Rest("REASON"),
    ]);
    for attempt in &entry.history {
        let version = attempt.version.as_deref().unwrap_or("-");
        table.row([
            attempt.attempt.to_string(),
            format!("{}{}", attempt.outcome, if attempt.forgiven { ", forgiven" } else { "" }),
            attempt.started_at.0.to_string(),
            short(Duration::from_millis(attempt.duration_ms)),
            version.chars().take(SHOWN_VERSION).collect(),
            attempt.reason.clone().unwrap_or_default(),
        ]);
    }
    let omitted = match entry.history_omitted {
        0 => String::new(),
        n => format!(
            "{INDENT}{} between the first and the last ten are not kept\n",
            count(n.into(), "attempt", "attempts")
        ),
    };
    let table: String = table.render(screen).lines().map(|line| format!("{INDENT}{line}\n")).collect();
    format!("history\n{table}{omitted}")
}

/// The last reason in full: a trap's ends with a backtrace, which one line of a table does not show.
fn last_error(entry: &Entry) -> String {
    let reason = entry.history.last().and_then(|attempt| attempt.reason.as_deref()).unwrap_or_default();
    if reason.lines().count() > 1 { section("last reason", reason) } else { String::new() }
}

/// What a call cost: a name and a text each.
pub(crate) fn cost(call: &Postmortem) -> [(&'static str, String); 4] {
    [
        ("time", format!("{:.2} ms, {:.2} ms of them on a processor", call.wall_ms, call.cpu_ms)),
        ("calls", format!("{} of the host, {:.2} ms in them", call.host_calls, call.host_ms)),
        ("memory", format!("{} KiB", call.peak_memory.div_ceil(1_024))),
        ("bytes", format!("{} in, {} out", call.bytes_in, call.bytes_out)),
    ]
}

/// What the last delivery of a dead letter cost and said.
fn postmortem(postmortem: &Postmortem) -> String {
    let cost = fields(INDENT, cost(postmortem));
    let line = |line: &LastLine| {
        let (context, message) = (one_line(&line.context), one_line(&line.message));
        format!("{INDENT}{:<5} {context}: {message}\n", one_line(&line.level))
    };
    let lines: String = postmortem.log.iter().map(line).collect();
    let log = if lines.is_empty() { lines } else { format!("\nlast lines of its log\n{lines}") };
    format!("last attempt\n{cost}{log}")
}

fn data(event: &Event) -> String {
    let Some(bytes) = &event.data else { return String::new() };
    let size = count(bytes.len() as u64, "byte", "bytes");
    match event.text() {
        None => format!("data\n{INDENT}{size}, not text: --json prints them in base64\n"),
        Some(text) if text.len() > SHOWN_DATA => {
            let start = text.get(..text.floor_char_boundary(SHOWN_DATA)).unwrap_or_default();
            section(&format!("data ({size}, of which {SHOWN_DATA} are shown: --json prints all)"), start)
        }
        Some(text) => section(&format!("data ({size})"), &pretty(text)),
    }
}

/// JSON indented, anything else as it is.
fn pretty(text: &str) -> String {
    let is_json = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
    if is_json { indented_json(text) } else { text.to_owned() }
}

fn section(heading: &str, text: &str) -> String {
    format!("{heading}\n{}", block(text, INDENT))
}

/// A line for each, its name in front.
pub(crate) fn fields<'a>(indent: &str, fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let fields: Vec<_> = fields.into_iter().collect();
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    fields.iter().map(|(name, value)| format!("{indent}{name:width$}  {}\n", one_line(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{
        "entry": "0-1", "queue": "orders", "state": "dead", "priority": 0, "key": "A-7", "attempts": 2,
        "enqueued_at": "1970-01-01T00:00:10.000Z", "at": "1970-01-01T00:01:00.000Z",
        "history": [
            {"attempt": 1, "outcome": "reject", "reason": "no", "version": "sha256:fedcba9876543210",
             "started_at": "1970-01-01T00:00:11.000Z", "duration_ms": 3, "forgiven": true},
            {"attempt": 1, "outcome": "retry", "reason": "busy", "version": "sha256:0123456789abcdef",
             "started_at": "1970-01-01T00:00:11.000Z", "duration_ms": 12},
            {"attempt": 2, "outcome": "trap", "reason": "unreachable\n  at \u001b[31mparse", "version": null,
             "started_at": "1970-01-01T00:00:59.000Z", "duration_ms": 1000}
        ],
        "history_omitted": 0,
        "event": {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "trace": "x",
                  "data": {"b":1.10,"a":[]}},
        "data_bytes": 17, "result": null,
        "postmortem": {"wall_ms": 12.345, "cpu_ms": 1.5, "peak_memory": 65537, "host_calls": 3, "host_ms": 10.0,
                       "bytes_in": 40, "bytes_out": 0,
                       "log": [{"level": "warn", "context": "stderr", "message": "oh \u001b[31mno"}]}
    }"#;

    #[test]
    fn a_sheet_tells_everything() {
        let entry: Entry = serde_json::from_str(ENTRY).unwrap();
        let now = Timestamp::EPOCH.after(Duration::from_secs(240));
        let expected = "\
entry     0-1
queue     orders
state     dead, 1970-01-01T00:01:00.000Z (3m ago)
enqueued  1970-01-01T00:00:10.000Z (3m ago)
attempts  2
priority  0
key       A-7

event
  id      1
  source  /shop
  type    order.paid
  trace   x

history
  ATTEMPT  OUTCOME           STARTED                   TOOK  VERSION              REASON
        1  reject, forgiven  1970-01-01T00:00:11.000Z   3ms  sha256:fedcba987654  no
        1  retry             1970-01-01T00:00:11.000Z  12ms  sha256:0123456789ab  busy
        2  trap              1970-01-01T00:00:59.000Z    1s  -                    unreachable\\n  at \\u{1b}[31mparse

last reason
  unreachable
    at \\u{1b}[31mparse

last attempt
  time    12.35 ms, 1.50 ms of them on a processor
  calls   3 of the host, 10.00 ms in them
  memory  65 KiB
  bytes   40 in, 0 out

last lines of its log
  warn  stderr: oh \\u{1b}[31mno

data (17 bytes)
  {
    \"b\": 1.10,
    \"a\": []
  }
";
        assert_eq!(sheet(&entry, Screen::Plain, now), expected);
    }
}
