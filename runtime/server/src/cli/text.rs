//! Text as people read it. What guests and publishers wrote never reaches a terminal as it is.

use std::fmt::Write as _;
use std::time::Duration;

use gristmill_core::Timestamp;

/// `text` on one line, control characters escaped as Rust escapes them.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { line.extend(c.escape_debug()) } else { line.push(c) }
    }
    line
}

/// `text` with its line breaks, everything else as in [`one_line`], each line after `indent`.
#[must_use]
pub fn block(text: &str, indent: &str) -> String {
    let mut block = String::with_capacity(text.len());
    for line in text.lines() {
        block.push_str(indent);
        block.push_str(&one_line(&line.replace('\t', "    ")));
        block.push('\n');
    }
    block
}

/// JSON that a terminal may see: control characters that JSON allows in strings are written as `\u…`.
#[must_use]
pub fn safe_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) && !c.is_ascii_whitespace() {
            // Infallible: a string grows. None of them lies outside the first plane.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Controls, and what turns the direction of text around or breaks lines.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The first `max` characters; an ellipsis in place of the last one says that there were more.
#[must_use]
pub fn clip(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// A duration in its largest unit: `250ms`, `3m`, `5d`.
#[must_use]
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago `at` was: `3m`; or how soon it will be: `in 3m`.
#[must_use]
pub fn age(now: Timestamp, at: Timestamp) -> String {
    if at > now { format!("in {}", short(at.since(now))) } else { short(now.since(at)) }
}

/// As much of a component's digest as tells it from others.
#[must_use]
pub fn short_digest(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

/// A size for a person to read: `193KiB`, `1.4MiB`.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "it is rounded in any case")]
pub fn rough_size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes}B"),
        1_024..1_048_576 => format!("{:.0}KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1}MiB", bytes as f64 / 1_048_576.0),
    }
}

/// `one thing`, `two things`.
#[must_use]
pub fn count(number: u64, singular: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { singular } else { plural })
}

/// Valid JSON with line breaks and indentation; numbers keep their digits and objects their order.
#[must_use]
pub fn indented_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut chars = json.chars().filter(not_space_outside_strings()).peekable();
    let mut strings = StringTracker::default();
    while let Some(c) = chars.next() {
        if strings.step(c) {
            out.push(c);
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                match chars.next_if(|&next| next == '}' || next == ']') {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        break_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

/// Whether a character belongs to a string literal, quotes included.
#[derive(Default)]
struct StringTracker {
    inside: bool,
    escaped: bool,
}

impl StringTracker {
    fn step(&mut self, c: char) -> bool {
        let was_inside = self.inside;
        if self.inside {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.inside = false,
                _ => {}
            }
        } else if c == '"' {
            self.inside = true;
        }
        was_inside || self.inside
    }
}

fn not_space_outside_strings() -> impl FnMut(&char) -> bool {
    let mut strings = StringTracker::default();
    move |&c| strings.step(c) || !c.is_ascii_whitespace()
}

fn break_line(out: &mut String, depth: usize) {
    // Deeply nested data stays readable and its size linear.
    const DEEPEST: usize = 40;
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth.min(DEEPEST)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_raw() {
        assert_eq!(one_line("a\n\u{1b}[31mred\u{9b}1m\u{202e}\t\"q\" ä"), r#"a\n\u{1b}[31mred\u{9b}1m\u{202e}\t"q" ä"#);
        assert_eq!(block("a\tb\r\n\u{1b}c", "  "), "  a    b\n  \\u{1b}c\n");
        assert_eq!(safe_json("{\"a\":\n\t\"\u{9b}\u{7f}\u{202e}ä\"}"), "{\"a\":\n\t\"\\u009b\\u007f\\u202eä\"}");
    }

    #[test]
    fn ages_have_one_unit() {
        let ages = [5, 59, 60, 3_599, 3_600, 172_799, 172_800].map(|s| short(Duration::from_secs(s)));
        assert_eq!(ages, ["5s", "59s", "1m", "59m", "1h", "47h", "2d"]);
        let at = |seconds| Timestamp::EPOCH.after(Duration::from_secs(seconds));
        assert_eq!(age(at(200), at(20)), "3m");
        assert_eq!(age(at(20), at(200)), "in 3m");
    }

    #[test]
    fn clipping_counts_characters() {
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("äöüß", 3), "äö…");
        assert_eq!(clip("ab", 0), "…");
    }

    #[test]
    fn indented_json_is_the_same_json() {
        let text = r#"{"b": 1.10,"a":[ {},[],"x , \" {" , null ],"n":12345678901234567890123}"#;
        let expected = "{\n  \"b\": 1.10,\n  \"a\": [\n    {},\n    [],\n    \"x , \\\" {\",\n    null\n  ],\n  \
                        \"n\": 12345678901234567890123\n}";
        assert_eq!(indented_json(text), expected);
        assert_eq!(indented_json("\"a b\""), "\"a b\"");
        assert_eq!(indented_json(" 1 "), "1");
    }
}
