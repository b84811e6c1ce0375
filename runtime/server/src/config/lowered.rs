//! The limits of a manifest compared with the defaults: it may only lower them.
//!
//! A limit that runtime.toml sets for the handler itself is not judged: there the manifest's is without effect. Where there
//! need not be a limit, none is the highest.

use std::time::Duration;

use gristmill_core::units::{format_duration, format_size};
use gristmill_queue::Rate;

use super::error::Problem;
use super::setting::{Effective, Setting};
use super::values::UNLIMITED;

/// The same of the three places that say it.
pub(super) struct Layers<'a, T> {
    pub(super) manifest: &'a T,
    /// In the handler's own table.
    pub(super) written: &'a T,
    pub(super) defaults: &'a T,
}

/// What kind of limit it is: how two compare, and how one is written in TOML.
pub(super) struct Kind<T> {
    is_higher: fn(&T, &T) -> bool,
    toml: fn(&T) -> String,
}

/// Collects what a manifest must not say.
pub(super) struct Judge<'a> {
    /// What to do to allow it, given the line to write.
    pub(super) mend: &'a dyn Fn(&str) -> String,
    pub(super) problems: Vec<Problem>,
}

impl<'a, T> Layers<'a, T> {
    /// A part of each.
    pub(super) fn of<P>(&self, part: impl Fn(&'a T) -> &'a P) -> Layers<'a, P> {
        Layers { manifest: part(self.manifest), written: part(self.written), defaults: part(self.defaults) }
    }
}

impl Judge<'_> {
    /// Judges the limit `key`, which is `builtin` where nobody says it.
    pub(super) fn judge<T: Clone>(
        &mut self,
        key: &'static str,
        layers: &Layers<'_, Setting<T>>,
        builtin: T,
        kind: &Kind<T>,
    ) {
        let (Setting::Written { value, span }, Setting::Absent) = (layers.manifest, layers.written) else { return };
        let Some(Effective { value: default, span: written }) = layers.defaults.effective(builtin) else { return };
        if !(kind.is_higher)(value, &default) {
            return;
        }
        let (wanted, default) = ((kind.toml)(value), (kind.toml)(&default));
        let message = format!("a manifest may only lower `{key}`: {wanted} is more than the default, {default}");
        let label = if written.is_some() { "more than `[defaults]` allows" } else { "more than the default" };
        let line = format!("{key} = {wanted}");
        self.problems.push(Problem::new(message, span.clone(), label).help((self.mend)(&line)));
    }
}

/// Counts.
pub(super) const COUNT: Kind<u32> = Kind { is_higher: |one, other| one > other, toml: ToString::to_string };
/// Counts, of which 0 stands for no limit.
pub(super) const ATTEMPTS: Kind<u32> =
    Kind { is_higher: |one, other| *other != 0 && (*one == 0 || one > other), toml: ToString::to_string };
/// Bytes.
pub(super) const SIZE: Kind<u64> =
    Kind { is_higher: |one, other| one > other, toml: |size| in_quotes(&format_size(*size)) };
/// Times.
pub(super) const DURATION: Kind<Duration> =
    Kind { is_higher: |one, other| one > other, toml: |duration| in_quotes(&format_duration(*duration)) };
/// Times, or no limit.
pub(super) const OPTIONAL_DURATION: Kind<Option<Duration>> = Kind {
    is_higher: |one, other| other.is_some_and(|other| one.is_none_or(|one| one > other)),
    toml: |duration| in_quotes(&duration.map_or_else(|| UNLIMITED.to_owned(), format_duration)),
};
/// Rates, or no limit: neither the mean nor the burst may be higher.
pub(super) const RATE: Kind<Option<Rate>> = Kind {
    is_higher: |one, other| {
        let exceeds = |one: Rate, other: Rate| one.per_second > other.per_second || one.burst > other.burst;
        other.is_some_and(|other| one.is_none_or(|one| exceeds(one, other)))
    },
    toml: |rate| match rate {
        Some(Rate { per_second, burst }) => format!("{{ per-second = {per_second}, burst = {burst} }}"),
        None => in_quotes(UNLIMITED),
    },
};

/// A kind that is written as a word; the words are in order.
pub(super) const fn words<T: PartialOrd>(toml: fn(&T) -> String) -> Kind<T> {
    Kind { is_higher: |one, other| one > other, toml }
}

fn in_quotes(text: &str) -> String {
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_the_highest() {
        let second = Some(Duration::from_secs(1));
        let higher = OPTIONAL_DURATION.is_higher;
        assert!(
            higher(&None, &second) && !higher(&second, &None) && !higher(&None, &None) && !higher(&second, &second)
        );
        let higher = ATTEMPTS.is_higher;
        assert!(higher(&0, &5) && higher(&6, &5) && !higher(&5, &5) && !higher(&5, &0) && !higher(&0, &0));
    }

    #[test]
    fn neither_part_of_a_rate_may_be_higher() {
        let rate = |per_second, burst| Some(Rate { per_second, burst });
        let higher = RATE.is_higher;
        assert!(higher(&rate(2.0, 1), &rate(1.0, 9)) && higher(&rate(1.0, 10), &rate(2.0, 9)));
        assert!(!higher(&rate(1.0, 9), &rate(1.0, 9)) && !higher(&rate(0.5, 1), &None) && higher(&None, &rate(1.0, 1)));
    }
}
