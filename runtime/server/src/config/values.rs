//! Values with a range: durations, sizes, numbers; and words from a list.

use std::ops::RangeInclusive;
use std::time::Duration;

use gristmill_core::units::{
    DURATION_UNITS, SIZE_UNITS, UnitError, format_duration, format_size, parse_duration, parse_size,
};
use toml::de::DeValue;

use super::error::Problem;
use super::reader::{Entry, Reader, Text};
use super::suggest::{closest, either, quoted};

/// The word for the absence of a limit.
pub(super) const UNLIMITED: &str = "unlimited";

/// What a value may be.
pub(super) struct Allowed<T> {
    /// From least to most.
    pub(super) range: RangeInclusive<T>,
    /// What it is when nobody writes it; where that is nothing, a value that would do.
    pub(super) default: T,
    limit: Limit,
}

/// Whether a value may be "unlimited": see [`Reader::unless_unlimited`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// It may not.
    Required,
    /// It may.
    Optional,
    /// It is, when nobody writes it.
    Absent,
    /// It may not; this is what holds when nobody writes it.
    Unset(&'static str),
}

impl<T> Allowed<T> {
    /// From least to most.
    pub(super) const fn within(range: RangeInclusive<T>, default: T) -> Self {
        Self { range, default, limit: Limit::Required }
    }

    /// From least to most, or "unlimited".
    pub(super) const fn optional(range: RangeInclusive<T>, default: T) -> Self {
        Self { range, default, limit: Limit::Optional }
    }

    /// From least to most, or "unlimited", which is the default.
    pub(super) const fn unlimited(range: RangeInclusive<T>, example: T) -> Self {
        Self { range, default: example, limit: Limit::Absent }
    }

    /// From least to most; `otherwise` says what holds when nobody writes it.
    pub(super) const fn unset(range: RangeInclusive<T>, example: T, otherwise: &'static str) -> Self {
        Self { range, default: example, limit: Limit::Unset(otherwise) }
    }

    /// What it is when nobody writes it; `None`: there is no limit.
    pub(super) fn default_limit(&self) -> Option<T>
    where
        T: Copy,
    {
        (self.limit != Limit::Absent).then_some(self.default)
    }

    /// What to add to the help of a wrong value.
    const fn or_unlimited(&self) -> &'static str {
        match self.limit {
            Limit::Optional | Limit::Absent => "; \"unlimited\" is allowed too",
            Limit::Required | Limit::Unset(_) => "",
        }
    }
}

/// How a quantity is read from text with a unit, and written as such.
struct Quantity<T> {
    kind: &'static str,
    units: &'static str,
    /// What people write instead, in lower case, for each unit.
    slips: &'static [(&'static str, &'static [&'static str])],
    parse: fn(&str) -> Result<T, UnitError>,
    format: fn(T) -> String,
}

const DURATION: Quantity<Duration> = Quantity {
    kind: "a duration",
    units: DURATION_UNITS,
    slips: &[
        ("ms", &["msec", "msecs", "millis", "millisecond", "milliseconds"]),
        ("s", &["sec", "secs", "second", "seconds"]),
        ("m", &["min", "mins", "minute", "minutes"]),
        ("h", &["hr", "hrs", "hour", "hours"]),
        ("d", &["day", "days"]),
    ],
    parse: parse_duration,
    format: format_duration,
};
const SIZE: Quantity<u64> = Quantity {
    kind: "a size",
    units: SIZE_UNITS,
    slips: &[
        ("B", &["byte", "bytes"]),
        ("KiB", &["k", "kb", "ki"]),
        ("MiB", &["m", "mb", "mi"]),
        ("GiB", &["g", "gb", "gi"]),
    ],
    parse: parse_size,
    format: format_size,
};

/// On which side of its range a value is.
#[derive(Clone, Copy)]
enum Miss {
    Below,
    Above,
    /// As NaN is.
    Nowhere,
}

impl Reader<'_> {
    /// `entry` as a duration.
    pub(super) fn duration(&mut self, entry: &Entry<'_>, allowed: &Allowed<Duration>) -> Option<Duration> {
        self.quantity(entry, allowed, &DURATION)
    }

    /// `entry` as a number of bytes.
    pub(super) fn size(&mut self, entry: &Entry<'_>, allowed: &Allowed<u64>) -> Option<u64> {
        self.quantity(entry, allowed, &SIZE)
    }

    /// `entry` as a whole number; `show` puts one into words.
    pub(super) fn integer(
        &mut self,
        entry: &Entry<'_>,
        allowed: &Allowed<u32>,
        show: fn(u32) -> String,
    ) -> Option<u32> {
        let DeValue::Integer(written) = entry.value.get_ref() else {
            let in_quotes = entry.value.get_ref().as_str().filter(|text| text.parse::<u32>().is_ok());
            let example = format!("{}{}", allowed.default, allowed.or_unlimited());
            self.not_a_number(entry, in_quotes, "an integer", &example);
            return None;
        };
        // What does not fit is too large: the least `i64` and more are all in an `i128`.
        let value = i128::from_str_radix(written.as_str(), written.radix()).unwrap_or(i128::MAX);
        let in_range = u32::try_from(value).ok().filter(|value| allowed.range.contains(value));
        if in_range.is_none() {
            let words = Words::of(allowed, show);
            let label = words.label(&written.to_string(), miss(&value, &i128::from(*allowed.range.start())));
            self.report(words.help(Problem::new(words.message(entry), entry.span(), label)));
        }
        in_range
    }

    /// `entry` as a number.
    pub(super) fn number(&mut self, entry: &Entry<'_>, allowed: &Allowed<f64>) -> Option<f64> {
        let written = match entry.value.get_ref() {
            DeValue::Integer(written) if written.radix() == 10 => written.as_str(),
            DeValue::Float(written) => written.as_str(),
            _ => {
                let is_number = |text: &&str| text.parse::<f64>().is_ok_and(f64::is_finite);
                let in_quotes = entry.value.get_ref().as_str().filter(is_number);
                self.not_a_number(entry, in_quotes, "a number", &allowed.default.to_string());
                return None;
            }
        };
        let value = written.parse().unwrap_or(f64::NAN);
        if allowed.range.contains(&value) {
            return Some(value);
        }
        let words = Words::of(allowed, |number| number.to_string());
        let label = words.label(written, miss(&value, allowed.range.start()));
        self.report(words.help(Problem::new(words.message(entry), entry.span(), label)));
        None
    }

    /// `entry` as `true` or `false`.
    pub(super) fn boolean(&mut self, entry: &Entry<'_>, example: bool) -> Option<bool> {
        let DeValue::Boolean(value) = entry.value.get_ref() else {
            let in_quotes = entry.value.get_ref().as_str().filter(|text| ["true", "false"].contains(text));
            let help = match in_quotes {
                Some(word) => format!("write it without quotes: {} = {word}", entry.key),
                None => format!("for example: {} = {example}", entry.key),
            };
            self.wrong_type(entry, "true or false", &help);
            return None;
        };
        Some(*value)
    }

    /// `entry` as one of `words`.
    pub(super) fn choice<T: Copy>(&mut self, entry: &Entry<'_>, words: &[(&'static str, T)]) -> Option<T> {
        let example = words.first().map_or("", |(name, _)| name);
        let text = self.string(entry, &format!("\"{example}\""))?;
        self.one_of(entry, &text, words)
    }

    /// `text`, which is the value of `entry`, as one of `words`.
    pub(super) fn one_of<T: Copy>(&mut self, entry: &Entry<'_>, text: &Text, words: &[(&'static str, T)]) -> Option<T> {
        let found = words.iter().find(|(name, _)| *name == text.value).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            let message = format!("unknown {} {}", entry.key, quoted(&text.value));
            let allowed = format!("expected {}", either(&names));
            self.report(match closest(&text.value, &names) {
                Some(near) => text.problem(message, format!("did you mean \"{near}\"?")).help(allowed),
                None => text.problem(message, allowed),
            });
        }
        found
    }

    fn quantity<T>(&mut self, entry: &Entry<'_>, allowed: &Allowed<T>, quantity: &Quantity<T>) -> Option<T>
    where
        T: PartialOrd + Copy,
    {
        let example = (quantity.format)(allowed.default);
        let text = match entry.value.get_ref() {
            DeValue::Integer(number) => Text::bare(number.to_string(), entry),
            DeValue::Float(number) => Text::bare(number.as_str().to_owned(), entry),
            DeValue::String(_) => self.string(entry, &format!("\"{example}\""))?,
            _ => {
                let help = format!("for example: {} = \"{example}\"{}", entry.key, allowed.or_unlimited());
                self.wrong_type(entry, quantity.kind, &help);
                return None;
            }
        };
        let words = Words::of(allowed, quantity.format);
        let out_of_range = |miss| words.help(text.problem(words.message(entry), words.label(&text.value, miss)));
        let problem = match (quantity.parse)(&text.value) {
            Ok(value) if allowed.range.contains(&value) => return Some(value),
            Ok(value) => out_of_range(miss(&value, allowed.range.start())),
            Err(UnitError::TooLarge) => out_of_range(Miss::Above),
            Err(error) => {
                let (message, label) = quantity.explain(entry, &error);
                let or = allowed.or_unlimited();
                let help = format!("for example: {} = \"{example}\"; the units are {}{or}", entry.key, quantity.units);
                text.problem(message, label).help(help)
            }
        };
        self.report(problem);
        None
    }

    fn not_a_number(&mut self, entry: &Entry<'_>, in_quotes: Option<&str>, wanted: &str, example: &str) {
        let help = match in_quotes {
            Some(number) => format!("write it without quotes: {} = {number}", entry.key),
            None => format!("for example: {} = {example}", entry.key),
        };
        self.wrong_type(entry, wanted, &help);
    }
}

impl<T> Quantity<T> {
    /// What is wrong, and what to say at the caret.
    fn explain(&self, entry: &Entry<'_>, error: &UnitError) -> (String, String) {
        let (key, expected) = (entry.key, format!("expected {}", self.kind));
        match error {
            UnitError::NoUnit { number, suggestion, .. } => {
                (format!("`{key}`: a unit is missing: write \"{number}{suggestion}\""), expected)
            }
            UnitError::UnknownUnit { unit, .. } => {
                let label = self.meant(unit).map_or(expected, |meant| format!("did you mean `{meant}`?"));
                (format!("`{key}`: unknown unit {}", quoted(unit)), label)
            }
            _ => (format!("`{key}` must be {}", self.kind), String::from("expected a number and a unit")),
        }
    }

    fn meant(&self, unit: &str) -> Option<&'static str> {
        let unit = unit.trim().to_lowercase();
        let is_slip =
            |(right, slips): &&(&str, &[&str])| right.to_lowercase() == unit || slips.contains(&unit.as_str());
        self.slips.iter().find(is_slip).map(|(right, _)| *right)
    }
}

fn miss<T: PartialOrd>(value: &T, least: &T) -> Miss {
    match value.partial_cmp(least) {
        Some(std::cmp::Ordering::Less) => Miss::Below,
        Some(_) => Miss::Above,
        None => Miss::Nowhere,
    }
}

/// An allowed range, in words.
struct Words {
    least: String,
    most: String,
    default: String,
}

impl Words {
    fn of<T: Copy>(allowed: &Allowed<T>, show: impl Fn(T) -> String) -> Self {
        let default = match allowed.limit {
            Limit::Required => format!("the default is {}", show(allowed.default)),
            Limit::Optional => format!("the default is {}; \"{UNLIMITED}\" is allowed too", show(allowed.default)),
            Limit::Absent => format!("the default is \"{UNLIMITED}\""),
            Limit::Unset(otherwise) => otherwise.to_owned(),
        };
        Self { least: show(*allowed.range.start()), most: show(*allowed.range.end()), default }
    }

    fn message(&self, entry: &Entry<'_>) -> String {
        format!("`{}` must be between {} and {}", entry.key, self.least, self.most)
    }

    fn label(&self, written: &str, miss: Miss) -> String {
        let written = quoted(written);
        match miss {
            Miss::Below => format!("{written} is less than {}", self.least),
            Miss::Above => format!("{written} is more than {}", self.most),
            Miss::Nowhere => format!("{written} is not a number"),
        }
    }

    fn help(&self, problem: Problem) -> Problem {
        problem.help(&*self.default)
    }
}
