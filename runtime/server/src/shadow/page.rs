//! A comparison as a person reads it.

use std::fmt::Write as _;

use super::comparison::{Comparison, Differing};
use crate::cli::screen::Screen;
use crate::cli::text::{clip, count, one_line};

const INDENT: &str = "  ";

impl Comparison {
    /// The numbers, and what differs below them. On a terminal, lines are cut to its width.
    #[must_use]
    pub fn render(&self, screen: Screen) -> String {
        let mut lines = vec![self.numbers()];
        lines.extend(self.kinds());
        lines.extend(self.obstacles());
        if self.files_were_read_only {
            lines.push("not compared    files: directories could be read only".to_owned());
        }
        for one in &self.differing {
            lines.push(String::new());
            lines.extend(describe(one));
        }
        let unlisted = self.different.saturating_sub(self.differing.len() as u64);
        if unlisted > 0 {
            lines.push(format!("\n… and {unlisted} more"));
        }
        let fit = |line: String| match screen {
            Screen::Terminal { width } => clip(&line, width.into()),
            Screen::Plain => line,
        };
        lines.into_iter().map(|line| fit(line) + "\n").collect()
    }

    fn numbers(&self) -> String {
        let mut text =
            format!("{}: {} same, {} different", count(self.events, "event", "events"), self.same, self.different);
        if self.different > 0 {
            // Writing into a string cannot fail.
            let _ = write!(text, " ({:.1} %)", self.percent());
        }
        for (number, name) in
            [(self.not_deterministic, "not deterministic"), (self.not_comparable.total(), "not comparable")]
        {
            if number > 0 {
                let _ = write!(text, ", {number} {name}");
            }
        }
        text
    }

    fn kinds(&self) -> Option<String> {
        let kinds = &self.by_kind;
        let kinds = [
            (kinds.verdict, "verdict"),
            (kinds.outcome, "outcome"),
            (kinds.emits, "emits"),
            (kinds.state, "state"),
            (kinds.network, "network"),
        ];
        let said: Vec<_> =
            kinds.iter().filter(|(number, _)| *number > 0).map(|(number, name)| format!("{name} {number}")).collect();
        (!said.is_empty()).then(|| format!("different       {}", said.join(", ")))
    }

    fn obstacles(&self) -> Option<String> {
        let obstacles = &self.not_comparable;
        let obstacles = [
            (obstacles.http, "needs HTTP"),
            (obstacles.sockets, "needs sockets"),
            (obstacles.host, "could not be run"),
        ];
        let said: Vec<_> =
            obstacles.iter().filter(|(number, _)| *number > 0).map(|(number, why)| format!("{why} {number}")).collect();
        (!said.is_empty()).then(|| format!("not comparable  {}", said.join(", ")))
    }
}

fn describe(one: &Differing) -> Vec<String> {
    let mut lines = vec![format!("{}  {}  {}", one.entry, one_line(&one.ty), one_line(&one.event))];
    for difference in &one.differences {
        let part = one_line(&difference.part);
        let what = difference.what.to_string();
        lines.push(if part == what { format!("{INDENT}{what}") } else { format!("{INDENT}{what}, {part}") });
        lines.push(format!("{INDENT}- {}", one_line(&difference.old)));
        lines.push(format!("{INDENT}+ {}", one_line(&difference.new)));
    }
    if one.more > 0 {
        lines.push(format!("{INDENT}… and {}", count(one.more as u64, "more difference", "more differences")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use gristmill_core::EntryId;

    use super::super::comparison::{Bar, Difference, Kinds, Obstacles, What};
    use super::*;

    fn comparison() -> Comparison {
        let difference = |what, part: &str, old: &str, new: &str| {
            let [part, old, new] = [part, old, new].map(str::to_owned);
            Difference { what, part, old, new }
        };
        let one = Differing {
            entry: EntryId::new("0-17").unwrap(),
            event: "e\u{1b}17".to_owned(),
            ty: "order.paid".to_owned(),
            differences: vec![
                difference(What::Verdict, "verdict", "ack", "reject: no\nway"),
                difference(What::Emits, "event 1: data", "{\"total\":10}", "{\"total\":11}"),
            ],
            more: 1,
        };
        Comparison {
            events: 500,
            same: 490,
            different: 2,
            by_kind: Kinds { verdict: 1, emits: 2, ..Kinds::default() },
            not_deterministic: 3,
            not_comparable: Obstacles { http: 4, sockets: 0, host: 1 },
            files_were_read_only: true,
            differing: vec![one],
        }
    }

    #[test]
    fn a_page_tells_what_differs() {
        let expected = "\
500 events: 490 same, 2 different (0.4 %), 3 not deterministic, 5 not comparable
different       verdict 1, emits 2
not comparable  needs HTTP 4, could not be run 1
not compared    files: directories could be read only

0-17  order.paid  e\\u{1b}17
  verdict
  - ack
  + reject: no\\nway
  emits, event 1: data
  - {\"total\":10}
  + {\"total\":11}
  … and 1 more difference

… and 1 more
";
        assert_eq!(comparison().render(Screen::Plain), expected);
        let narrow = comparison().render(Screen::Terminal { width: 20 });
        assert!(narrow.lines().all(|line| line.chars().count() <= 20), "{narrow}");
        let same = Comparison { events: 1, same: 1, ..Comparison::default() };
        assert_eq!(same.render(Screen::Plain), "1 event: 1 same, 0 different\n");
    }

    #[test]
    fn as_json_it_has_stable_names() {
        let json = serde_json::to_value(comparison()).unwrap();
        assert_eq!(json["not_comparable"], serde_json::json!({ "http": 4, "sockets": 0, "host": 1 }));
        assert_eq!((&json["by_kind"]["emits"], &json["differing"][0]["entry"]), (&2.into(), &"0-17".into()));
        let difference = &json["differing"][0]["differences"][1];
        assert_eq!((&difference["what"], &difference["part"]), (&"emits".into(), &"event 1: data".into()));
    }

    #[test]
    fn a_bar_is_for_what_was_compared() {
        let comparison = comparison();
        let error = comparison.check(Bar::Same).unwrap_err();
        assert_eq!(error.to_string(), "2 of 492 events that were compared differ; none may");
        assert!(comparison.check(Bar::Percent(0.5)).is_ok());
        let error = comparison.check(Bar::Percent(0.4)).unwrap_err();
        assert_eq!(error.to_string(), "2 of 492 events that were compared differ; 0.4 % may");
        let same = Comparison { different: 0, ..comparison.clone() };
        assert!(same.check(Bar::Same).is_ok());
        for unknown in [Comparison::default(), Comparison { same: 0, ..same }] {
            assert!(unknown.check(Bar::Percent(100.0)).is_err());
        }
    }
}
