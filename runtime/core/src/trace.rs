//! Traces that events belong to: the `traceparent` extension, as the W3C's Trace Context has it.

use crate::Event;

/// The extension of CloudEvents' distributed tracing.
const EXTENSION: &str = "traceparent";
/// `00-` trace id, parent id, flags.
const LENGTHS: [usize; 4] = [2, 32, 16, 2];

impl Event {
    /// The id of the trace that the event belongs to, 32 hexadecimal digits; `None`: it says nothing of one, or nothing
    /// valid.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.extensions.get(EXTENSION).and_then(|parent| trace_id(parent))
    }
}

fn trace_id(parent: &str) -> Option<&str> {
    let parts: Vec<&str> = parent.split('-').collect();
    let [version, trace, span, _flags, further @ ..] = parts.as_slice() else { return None };
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let fits = parts.iter().zip(LENGTHS).all(|(part, length)| part.len() == length && is_hex(part));
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    // A later version may say more behind what the first one says; ff is none.
    let is_version = *version != "ff" && (*version != "00" || further.is_empty());
    (fits && is_version && !is_zero(trace) && !is_zero(span)).then_some(*trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_parent_names_a_trace() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for valid in [
            format!("00-{trace}-00f067aa0ba902b7-01"),
            format!("00-{trace}-00f067aa0ba902b7-ff"),
            format!("cc-{trace}-00f067aa0ba902b7-01-what-the-future-will-be"),
        ] {
            assert_eq!(trace_id(&valid), Some(trace), "{valid}");
        }
        for wrong in [
            String::new(),
            trace.to_owned(),
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", &trace[1..]),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "\u{1b}[31m".repeat(8).get(..32).unwrap()),
        ] {
            assert_eq!(trace_id(&wrong), None, "{wrong}");
        }
    }
}
