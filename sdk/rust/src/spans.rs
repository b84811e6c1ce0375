//! A `tracing` subscriber that writes each event as one line, `span{key=value}: message key=value`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Interest, LevelFilter, Metadata, Subscriber};

use crate::{host, logging};

/// Collects everything: what a log line is worth is for the host to decide.
pub(crate) struct Collector;

thread_local! {
    static SPANS: RefCell<Spans> = RefCell::default();
}

#[derive(Default)]
struct Spans {
    last_id: u64,
    open: BTreeMap<u64, Span>,
    entered: Vec<u64>,
}

struct Span {
    name: &'static str,
    fields: Line,
    handles: usize,
}

impl Subscriber for Collector {
    fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Line::default();
        attributes.record(&mut fields);
        SPANS.with_borrow_mut(|spans| {
            spans.last_id += 1;
            let span = Span { name: attributes.metadata().name(), fields, handles: 1 };
            spans.open.insert(spans.last_id, span);
            Id::from_u64(spans.last_id)
        })
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut fields = Line::default();
        values.record(&mut fields);
        SPANS.with_borrow_mut(|spans| {
            if let Some(span) = spans.open.get_mut(&id.into_u64()) {
                span.fields.text.push_str(&fields.text);
            }
        });
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = SPANS.with_borrow(|spans| spans.prefix()) + &line.finish();
        host::log(logging::level(*event.metadata().level()), event.metadata().target(), &text);
    }

    fn enter(&self, id: &Id) {
        SPANS.with_borrow_mut(|spans| spans.entered.push(id.into_u64()));
    }

    fn exit(&self, id: &Id) {
        SPANS.with_borrow_mut(|spans| {
            if let Some(at) = spans.entered.iter().rposition(|entered| *entered == id.into_u64()) {
                spans.entered.remove(at);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        SPANS.with_borrow_mut(|spans| {
            if let Some(span) = spans.open.get_mut(&id.into_u64()) {
                span.handles += 1;
            }
        });
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        SPANS.with_borrow_mut(|spans| {
            let id = id.into_u64();
            let Some(span) = spans.open.get_mut(&id) else { return false };
            span.handles = span.handles.saturating_sub(1);
            let closed = span.handles == 0;
            if closed {
                spans.open.remove(&id);
            }
            closed
        })
    }
}

impl Spans {
    /// The spans that are entered, outermost first.
    fn prefix(&self) -> String {
        let mut prefix = String::new();
        for span in self.entered.iter().filter_map(|id| self.open.get(id)) {
            prefix.push_str(span.name);
            if !span.fields.text.is_empty() {
                // Writing to a string cannot fail.
                let _ = write!(prefix, "{{{}}}", span.fields.text.trim_start());
            }
            prefix.push_str(": ");
        }
        prefix
    }
}

/// A message, and its other fields as ` key=value`.
#[derive(Default)]
struct Line {
    message: String,
    text: String,
}

impl Line {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => self.message.write_fmt(value),
            name => write!(self.text, " {name}={value}"),
        };
    }

    fn finish(self) -> String {
        if self.message.is_empty() { self.text.trim_start().to_owned() } else { self.message + &self.text }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, format_args!("{value:?}"));
    }

    /// Quoted only if it would not read as one word.
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_word = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
        if is_word || field.name() == "message" {
            self.field(field, format_args!("{value}"));
        } else {
            self.field(field, format_args!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.field(field, format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Host, Level};

    fn messages(host: &Host) -> Vec<String> {
        host.logs().into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn fields_follow_the_message() {
        let host = Host::new();
        tracing::warn!(order = 7, name = "two words", word = "one", paid = true, "came {}", "late");
        tracing::info!(only = "fields", debug = ?Some(1), display = %1.5);
        log::error!(target: "till", "jammed {}", 3);
        let logs = host.logs();
        let lines: Vec<_> = logs.iter().map(|line| (line.level, line.message.as_str())).collect();
        assert_eq!(
            lines,
            [
                (Level::Warn, "came late order=7 name=\"two words\" word=one paid=true"),
                (Level::Info, "only=fields debug=Some(1) display=1.5"),
                (Level::Error, "jammed 3"),
            ]
        );
        assert_eq!((logs[0].target.as_str(), logs[2].target.as_str()), (module_path!(), "till"));
    }

    #[test]
    fn spans_go_before_the_message() {
        let host = Host::new();
        let order = tracing::info_span!("order", id = 7, total = tracing::field::Empty);
        {
            let _order = order.enter();
            tracing::info_span!("item").in_scope(|| tracing::info!("packed"));
            order.record("total", 12);
            tracing::info!("done");
        }
        tracing::info!("outside");
        assert_eq!(messages(&host), ["order{id=7}: item: packed", "order{id=7 total=12}: done", "outside"]);
        drop(order);
        super::SPANS.with_borrow(|spans| assert!(spans.open.is_empty() && spans.entered.is_empty()));
    }
}
