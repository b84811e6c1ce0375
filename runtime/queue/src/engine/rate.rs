//! Rates: a virtual clock that each event moves on by its share of a second, and that may run ahead by the burst.

use std::time::Duration;

use gristmill_core::Monotonic;

use crate::contract::Rate;

/// How far the rate of a queue or a job is used up, in monotonic time: with the process, that is forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace(Monotonic);

impl Pace {
    /// How many events the rate allows now.
    pub(crate) fn allowance(self, rate: Rate, now: Monotonic) -> usize {
        let ahead = self.0.since(now).as_secs_f64();
        let left = f64::from(rate.burst.max(1)) - ahead * rate.per_second;
        // Saturates; a millionth of an event is a rounding error.
        (left + 1e-6).max(0.0) as usize
    }

    /// So many events have happened.
    pub(crate) fn spend(&mut self, rate: Rate, count: usize, now: Monotonic) {
        let since = Duration::try_from_secs_f64(count as f64 / rate.per_second).unwrap_or(Duration::MAX);
        self.0 = self.0.max(now).after(since);
    }

    /// Another rate holds from now on. As many events are owed as before, at the new rate; but never more than a burst,
    /// so that nobody waits longer than the new rate makes them.
    pub(crate) fn change(&mut self, from: Option<Rate>, to: Option<Rate>, now: Monotonic) {
        if from == to {
            return;
        }
        let (Some(from), Some(to)) = (from, to) else {
            *self = Self::default();
            return;
        };
        let owed = (self.0.since(now).as_secs_f64() * from.per_second).min(f64::from(to.burst.max(1)));
        self.0 = now.after(Duration::try_from_secs_f64(owed / to.per_second).unwrap_or(Duration::MAX));
    }

    /// When the rate allows the next event, if it does not now.
    pub(crate) fn next(self, rate: Rate) -> Monotonic {
        // One event short of the burst.
        let ahead = f64::from(rate.burst.max(1) - 1) / rate.per_second;
        let ahead = Duration::try_from_secs_f64(ahead).unwrap_or(Duration::MAX);
        let next = self.0.since(Monotonic::from_start(ahead));
        // One microsecond more: rounding must not wake anybody too early again and again.
        Monotonic::from_start(next).after(Duration::from_micros(1))
    }
}
