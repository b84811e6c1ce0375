//! How fast a queue may be claimed from, in whole nanoseconds.

use gristmill_core::Monotonic;
use gristmill_queue::Rate;

/// What claims have used up of a queue's rate, and when that was so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// The time that the rate needs for what was claimed and has not been paid for.
    owed: u128,
    at: Monotonic,
}

impl Pace {
    /// So much time has passed.
    fn paid(self, now: Monotonic) -> Self {
        let passed = now.since(self.at).as_nanos();
        Self { owed: self.owed.saturating_sub(passed), at: now }
    }

    /// How many may be claimed now.
    pub(crate) fn allowance(self, rate: Option<Rate>, now: Monotonic) -> usize {
        let Some(rate) = rate else { return usize::MAX };
        let all = u128::from(rate.burst) * interval(rate);
        (all.saturating_sub(self.paid(now).owed) / interval(rate)) as usize
    }

    /// One was claimed.
    pub(crate) fn spend(&mut self, rate: Option<Rate>, now: Monotonic) {
        let Some(rate) = rate else { return };
        *self = self.paid(now);
        self.owed += interval(rate);
    }

    /// Another rate holds: as many are owed as before, but never more than a burst.
    pub(crate) fn change(&mut self, from: Option<Rate>, to: Option<Rate>, now: Monotonic) {
        *self = self.paid(now);
        self.owed = match (from, to) {
            (Some(from), Some(to)) => {
                let owed = self.owed * interval(to) / interval(from);
                owed.min(u128::from(to.burst) * interval(to))
            }
            _ => 0,
        };
    }
}

/// From one to the next.
fn interval(rate: Rate) -> u128 {
    (1e9 / rate.per_second) as u128
}
