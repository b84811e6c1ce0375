//! What benchmarks print: a table, and the same as JSON.
#![allow(dead_code, reason = "each benchmark uses a part")]

use serde_json::{Value, json};
use tokio::runtime::Runtime;

type Measure = Box<dyn Fn(&Runtime) -> f64>;

/// Something to measure, and what it is measured against.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ours: Measure,
    pub(crate) floor: Measure,
    pub(crate) floor_is: &'static str,
    pub(crate) target: Target,
}

/// What the ratio to the floor shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Whatever it is: it is only reported.
    None,
}

impl Target {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(target) => ratio >= target,
            Self::AtMost(target) => ratio <= target,
            Self::None => true,
        }
    }

    fn text(self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::AtLeast(target) => format!("≥ {target}"),
            Self::AtMost(target) => format!("≤ {target}"),
        }
    }
}

/// A line of the table.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) floor: f64,
    /// And how often it was measured, if not as often as the others.
    pub(crate) floor_is: String,
    pub(crate) ratio: f64,
    pub(crate) target: Target,
}

/// The one in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What was measured under the same circumstances.
pub(crate) struct Report {
    /// What the lines are called in `bench.json`: before their names, and behind them.
    group: (&'static str, &'static str),
    /// The circumstances.
    heading: String,
    /// How often each case counts; once more warms up.
    runs: usize,
    lines: Vec<Line>,
}

impl Report {
    pub(crate) fn new(group: (&'static str, &'static str), heading: String, runs: usize) -> Self {
        Self { group, heading, runs, lines: Vec::new() }
    }

    /// Runs a case and its floor in turn. The first run warms up.
    pub(crate) fn measure(&mut self, runtime: &Runtime, case: &Case) {
        let runs = (0..=self.runs).map(|_| ((case.ours)(runtime), (case.floor)(runtime)));
        self.add(case, runs.skip(1).unzip());
    }

    /// Runs a case and its floor once, as something is run that takes long.
    pub(crate) fn measure_once(&mut self, runtime: &Runtime, case: &Case) {
        self.add(case, (vec![(case.ours)(runtime)], vec![(case.floor)(runtime)]));
    }

    fn add(&mut self, case: &Case, (values, floors): (Vec<f64>, Vec<f64>)) {
        let ratio = median(values.iter().zip(&floors).map(|(value, floor)| value / floor).collect());
        self.lines.push(Line {
            name: case.name.to_owned(),
            unit: case.unit,
            value: median(values),
            floor: median(floors),
            floor_is: case.floor_is.to_owned(),
            ratio,
            target: case.target,
        });
    }

    pub(crate) fn extend(&mut self, lines: Vec<Line>) {
        self.lines.extend(lines);
    }

    /// Prints the table and adds its lines to `bench.json`.
    pub(crate) fn finish(self) {
        if self.lines.is_empty() {
            return;
        }
        println!("\n{}", self.heading);
        println!("{:<34} {:>12} {:>12} {:>8} {:>8}      floor", "case", "value", "floor", "ratio", "target");
        for line in &self.lines {
            let met = match line.target {
                Target::None => "",
                target if target.is_met(line.ratio) => "met",
                _ => "MISSED",
            };
            println!(
                "{:<34} {:>12.1} {:>12.1} {:>8.2} {:>8} {met:<6} {} ({})",
                line.name,
                line.value,
                line.floor,
                line.ratio,
                line.target.text(),
                line.floor_is,
                line.unit
            );
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let path = std::path::Path::new(&target).join("bench.json");
        let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Vec<Value>>(&bytes).ok());
        let mut list = known.unwrap_or_default();
        for line in self.lines {
            let case = format!("{}{}{}", self.group.0, line.name, self.group.1);
            list.retain(|known| known["case"] != case.as_str());
            list.push(json!({ "case": case, "value": line.value, "unit": line.unit, "floor": line.floor,
                "ratio": line.ratio, "target": line.target.text(), "met": line.target.is_met(line.ratio) }));
        }
        std::fs::write(&path, serde_json::to_string_pretty(&list).unwrap()).unwrap();
    }
}
