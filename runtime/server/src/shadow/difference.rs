//! In what two runs of one event differ.

use std::collections::BTreeMap;

use gristmill_core::state::Change;
use gristmill_core::{Outcome, StateUse, json};
use gristmill_host::{Emit, Replayed};

use super::comparison::{Difference, What};
use super::words;
use crate::cli::text::count;

/// What stands for something that is not there.
const NOTHING: &str = "nothing";

/// Everything that differs; empty: they do the same. What a call cost and logged is not compared.
pub(super) fn between(old: &Replayed, new: &Replayed) -> Vec<Difference> {
    let mut found = Found(Vec::new());
    found.network(old, new);
    let (old, new) = (&old.report, &new.report);
    found.outcomes(&old.outcome, &new.outcome);
    // Only an ack has effects: where one version gives none, that says it all.
    if old.outcome.kind() == new.outcome.kind() {
        found.emits(&old.emits, &new.emits);
        found.writes(&old.state, &new.state);
    }
    found.0
}

struct Found(Vec<Difference>);

impl Found {
    /// Notes two texts if they differ.
    fn texts(&mut self, what: What, part: impl Into<String>, old: &str, new: &str) {
        if old != new {
            let (old, new) = words::shortened(old, new);
            self.0.push(Difference { what, part: part.into(), old, new });
        }
    }

    fn bytes(&mut self, what: What, part: impl Into<String>, old: Option<&[u8]>, new: Option<&[u8]>) {
        if old != new {
            let (old, new) = words::contents(old, new);
            self.0.push(Difference { what, part: part.into(), old, new });
        }
    }

    fn network(&mut self, old: &Replayed, new: &Replayed) {
        for (part, name, old, new) in [
            ("http", "request", old.refused.http, new.refused.http),
            ("sockets", "use", old.refused.sockets, new.refused.sockets),
        ] {
            let said = |number: u32| count(number.into(), name, &format!("{name}s"));
            self.texts(What::Network, part, &said(old), &said(new));
        }
    }

    fn outcomes(&mut self, old: &Outcome, new: &Outcome) {
        let is_verdict = |outcome: &Outcome| {
            use Outcome::{Ack, Defer, Reject, Retry};
            matches!(outcome, Ack { .. } | Retry { .. } | Defer { .. } | Reject { .. })
        };
        let what = if is_verdict(old) && is_verdict(new) { What::Verdict } else { What::Outcome };
        match (old, new) {
            (Outcome::Ack { result: old }, Outcome::Ack { result: new }) => {
                self.bytes(what, "result", old.as_deref(), new.as_deref());
            }
            (Outcome::Retry { reason: old, after: before }, Outcome::Retry { reason: new, after }) => {
                self.texts(what, "reason", old, new);
                self.texts(what, "delay", &words::delay(*before), &words::delay(*after));
            }
            (Outcome::Defer { reason: old, after: before }, Outcome::Defer { reason: new, after }) => {
                let said = |reason: &Option<String>| reason.clone().unwrap_or_else(|| NOTHING.to_owned());
                self.texts(what, "reason", &said(old), &said(new));
                self.texts(what, "delay", &words::delay(Some(*before)), &words::delay(Some(*after)));
            }
            (Outcome::Reject { reason: old }, Outcome::Reject { reason: new }) => {
                self.texts(what, "reason", old, new);
            }
            // Where it was when the time was over is chance.
            (Outcome::Timeout { .. }, Outcome::Timeout { .. }) => {}
            (old, new) if old.kind() == new.kind() => {
                let said = |outcome: &Outcome| words::without_places(outcome.reason().unwrap_or_default());
                self.texts(what, "reason", &said(old), &said(new));
            }
            (old, new) => {
                let (old, new) = (words::outcome(old), words::outcome(new));
                self.0.push(Difference { what, part: what.to_string(), old, new });
            }
        }
    }

    fn emits(&mut self, old: &[Emit], new: &[Emit]) {
        for at in 0..old.len().max(new.len()) {
            match (old.get(at), new.get(at)) {
                (Some(old), Some(new)) => self.emit(at + 1, old, new),
                (old, new) => {
                    let said = |emit: Option<&Emit>| emit.map_or_else(|| NOTHING.to_owned(), whole);
                    self.texts(What::Emits, format!("event {}", at + 1), &said(old), &said(new));
                }
            }
        }
    }

    fn emit(&mut self, number: usize, old: &Emit, new: &Emit) {
        let part = |name: &str| format!("event {number}: {name}");
        let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| NOTHING.to_owned());
        let (a, b) = (&old.event, &new.event);
        for (name, old, new) in [("type", &a.ty, &b.ty), ("id", &a.id, &b.id), ("source", &a.source, &b.source)] {
            self.texts(What::Emits, part(name), old, new);
        }
        for (name, old, new) in [
            ("subject", &a.subject, &b.subject),
            ("time", &a.time, &b.time),
            ("datacontenttype", &a.datacontenttype, &b.datacontenttype),
            ("dataschema", &a.dataschema, &b.dataschema),
            ("key", &old.key, &new.key),
            ("dedupe-key", &old.dedupe_key, &new.dedupe_key),
        ] {
            if old != new {
                let (old, new) = words::shortened(&optional(old), &optional(new));
                self.0.push(Difference { what: What::Emits, part: part(name), old, new });
            }
        }
        let names: std::collections::BTreeSet<_> = a.extensions.keys().chain(b.extensions.keys()).collect();
        for name in names {
            let [old, new] = [a, b].map(|event| event.extensions.get(name).map_or(NOTHING, String::as_str));
            self.texts(What::Emits, part(name), old, new);
        }
        self.bytes(What::Emits, part("data"), a.data.as_deref(), b.data.as_deref());
        self.texts(What::Emits, part("priority"), &old.priority.to_string(), &new.priority.to_string());
        self.texts(What::Emits, part("delay"), &words::delay(old.delay), &words::delay(new.delay));
    }

    fn writes(&mut self, old: &StateUse, new: &StateUse) {
        let mut keys: BTreeMap<_, (Vec<&Change>, Vec<&Change>)> = BTreeMap::new();
        for write in &old.writes {
            keys.entry((&write.bucket, &write.key)).or_default().0.push(&write.change);
        }
        for write in &new.writes {
            keys.entry((&write.bucket, &write.key)).or_default().1.push(&write.change);
        }
        for ((bucket, key), (old, new)) in keys {
            let part = format!("{bucket}/{key}");
            match (&old[..], &new[..]) {
                (old, new) if old == new => {}
                ([Change::Set(old)], [Change::Set(new)]) => self.bytes(What::State, part, Some(old), Some(new)),
                (old, new) => {
                    let (old, new) = (words::changes(old), words::changes(new));
                    self.0.push(Difference { what: What::State, part, old, new });
                }
            }
        }
    }
}

/// An event as JSON.
fn whole(emit: &Emit) -> String {
    serde_json::to_string(&json::Structured(&emit.event)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gristmill_core::Event;
    use gristmill_core::state::StateWrite;
    use gristmill_host::{Ledger, Refused, Report};

    use super::*;

    const ACK: Outcome = Outcome::Ack { result: None };

    type Edit = fn(&mut Emit);

    fn run(outcome: Outcome) -> Replayed {
        let (emits, state, logs) = (Vec::new(), StateUse::default(), Vec::new());
        let report = Report { outcome, emits, state, logs, ledger: Ledger::default() };
        Replayed { report, refused: Refused::default() }
    }

    fn emitting(emits: Vec<Emit>) -> Replayed {
        let mut run = run(ACK);
        run.report.emits = emits;
        run
    }

    fn writing(writes: &[(&str, Change)]) -> Replayed {
        let mut run = run(ACK);
        let write = |(key, change): &(&str, Change)| StateWrite {
            bucket: "orders".to_owned(),
            key: (*key).to_owned(),
            change: change.clone(),
        };
        run.report.state.writes = writes.iter().map(write).collect();
        run
    }

    fn emit() -> Emit {
        let event = Event { data: Some("{}".into()), ..Event::new("e-1", "/handlers/a", "com.acme.a") };
        Emit { event, priority: 0, delay: None, key: None, dedupe_key: None }
    }

    /// What, which part, old and new, of each.
    #[track_caller]
    fn found(old: &Replayed, new: &Replayed) -> Vec<String> {
        assert!(between(old, old).is_empty() && between(new, new).is_empty());
        let said = |d: Difference| format!("{} {}: {} | {}", d.what, d.part, d.old, d.new);
        between(old, new).into_iter().map(said).collect()
    }

    #[test]
    fn verdicts_differ_in_kind_and_in_every_field() {
        let second = Duration::from_secs(1);
        let ack = |result: &str| Outcome::Ack { result: Some(result.to_owned().into()) };
        let retry = |reason: &str, after| Outcome::Retry { reason: reason.to_owned(), after };
        let defer = |reason: Option<&str>, after| Outcome::Defer { reason: reason.map(str::to_owned), after };
        let reject = |reason: &str| Outcome::Reject { reason: reason.to_owned() };
        for (old, new, expected) in [
            (ACK, ack("1"), "verdict result: nothing | 1"),
            (ack("1"), ack("2"), "verdict result: 1 | 2"),
            (ack("1"), reject("no"), "verdict verdict: ack, result 1 | reject: no"),
            (retry("a", None), retry("b", None), "verdict reason: a | b"),
            (retry("a", None), retry("a", Some(second)), "verdict delay: none | 1s"),
            (retry("a", Some(second)), defer(None, second), "verdict verdict: retry after 1s: a | defer by 1s"),
            (defer(None, second), defer(Some("b"), second), "verdict reason: nothing | b"),
            (defer(None, second), defer(None, 2 * second), "verdict delay: 1s | 2s"),
            (reject("a"), reject("b"), "verdict reason: a | b"),
        ] {
            assert_eq!(found(&run(old), &run(new)), [expected]);
        }
    }

    #[test]
    fn outcomes_differ_in_what_happened_and_not_in_where() {
        let trap = |reason: &str| Outcome::Trap { reason: reason.to_owned() };
        let timeout = |reason: &str| Outcome::Timeout { reason: reason.to_owned() };
        let old = trap("panicked at src/lib.rs:7:9: boom\nunreachable\n  0: parse at src/lib.rs:7:9\n  1: handle");
        let moved = trap("panicked at src/lib.rs:17:5: boom\nunreachable\n  0: read\n  … 3 more");
        assert!(between(&run(old.clone()), &run(moved)).is_empty());
        assert!(between(&run(timeout("a\n  0: f")), &run(timeout("b; it was waiting"))).is_empty());
        let other = trap("panicked at src/lib.rs:7:9: bang\nunreachable");
        let expected =
            "outcome reason: panicked at src/lib.rs: boom\nunreachable | panicked at src/lib.rs: bang\nunreachable";
        assert_eq!(found(&run(old.clone()), &run(other)), [expected]);
        let expected = "outcome outcome: ack | trap: panicked at src/lib.rs: boom\nunreachable";
        assert_eq!(found(&run(ACK), &run(old)), [expected]);
    }

    #[test]
    fn every_field_of_an_emitted_event_counts() {
        let same = emitting(vec![emit()]);
        let changes: [(Edit, &str); 10] = [
            (|emit| emit.event.ty.push('b'), "emits event 1: type: com.acme.a | com.acme.ab"),
            (|emit| emit.event.id.push('b'), "emits event 1: id: e-1 | e-1b"),
            (|emit| emit.event.source.push('b'), "emits event 1: source: /handlers/a | /handlers/ab"),
            (|emit| emit.event.subject = Some("s".to_owned()), "emits event 1: subject: nothing | s"),
            (|emit| emit.event.data = None, "emits event 1: data: {} | nothing"),
            (
                |emit| drop(emit.event.extensions.insert("x".to_owned(), "1".to_owned())),
                "emits event 1: x: nothing | 1",
            ),
            (|emit| emit.priority = 1, "emits event 1: priority: 0 | 1"),
            (|emit| emit.delay = Some(Duration::from_secs(1)), "emits event 1: delay: none | 1s"),
            (|emit| emit.key = Some("k".to_owned()), "emits event 1: key: nothing | k"),
            (|emit| emit.dedupe_key = Some("nothing".to_owned()), "emits event 1: dedupe-key: nothing | nothing"),
        ];
        for (change, expected) in changes {
            let mut other = emit();
            change(&mut other);
            assert_eq!(found(&same, &emitting(vec![other])), [expected]);
        }
        let [more] = &found(&same, &emitting(vec![emit(), emit()]))[..] else { panic!("one difference") };
        assert!(more.starts_with("emits event 2: nothing | {\"specversion\""), "{more}");
    }

    #[test]
    fn writes_are_compared_by_key() {
        let set = |value: &str| Change::Set(value.to_owned().into());
        let old = writing(&[("a", set("1")), ("b", Change::Delete), ("c", Change::Increment(1)), ("d", set("4"))]);
        let new =
            writing(&[("d", set("4")), ("c", Change::Increment(2)), ("b", set("2")), ("a", set("3")), ("e", set(""))]);
        assert_eq!(
            found(&old, &new),
            [
                "state orders/a: 1 | 3",
                "state orders/b: deleted | 2",
                "state orders/c: + 1 | + 2",
                "state orders/e: not written | ",
            ]
        );
    }

    #[test]
    fn who_uses_the_network_differs_from_who_does_not() {
        let mut new = run(ACK);
        new.refused = Refused { http: 1, sockets: 0 };
        assert_eq!(found(&run(ACK), &new), ["network http: 0 requests | 1 request"]);
    }

    #[test]
    fn only_an_ack_has_effects_to_compare() {
        let retry = run(Outcome::Retry { reason: "no".to_owned(), after: None });
        assert_eq!(found(&emitting(vec![emit()]), &retry), ["verdict verdict: ack | retry: no"]);
    }
}
