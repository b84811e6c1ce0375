//! The rule that turns an outcome into what the queue does next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// Delays that a handler asks for are at least this long, so that `defer` is no busy loop.
pub const MIN_DELAY: Duration = Duration::from_millis(100);

/// How long to wait between attempts: `base × factor^(attempt − 1)`, capped at `max`, then spread by `jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// After the first attempt. Default: 1 s.
    pub base: Duration,
    /// Growth from one attempt to the next, at least 1. Default: 2.
    pub factor: f64,
    /// The longest delay, before and after jitter. Default: 1 h.
    pub max: Duration,
    /// Share by which a delay may be shorter or longer, 0 to 1. Default: 0.2.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(3_600), jitter: 0.2 }
    }
}

impl Backoff {
    /// The delay after `attempt` (1 for the first). `random` is uniform in 0 to 1 and decides the jitter.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let max = self.max.as_secs_f64();
        let exponent = f64::from(attempt.saturating_sub(1));
        let ideal = (self.base.as_secs_f64() * self.factor.powf(exponent)).min(max);
        let spread = 1.0 + self.jitter * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        Duration::try_from_secs_f64((ideal * spread).clamp(0.0, max)).unwrap_or(self.max)
    }
}

/// How often an entry of a queue is tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts before the dead letters; `None` (0 in configuration): no limit. Default: 5.
    pub max_attempts: Option<u32>,
    /// The delay between them.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: Some(5), backoff: Backoff::default() }
    }
}

/// What the queue does with a settled delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is done.
    Complete,
    /// Again, after this delay; the attempt counts. Zero: at once.
    Retry(Duration),
    /// Again, after this delay; the attempt does not count.
    Defer(Duration),
    /// To the front, at once; the attempt does not count.
    Release,
    /// Never again, unless somebody redrives it.
    DeadLetter,
}

impl Disposition {
    /// What follows from a failure that is forgiven: the entry comes back after so long; zero: at once.
    #[must_use]
    pub const fn of_forgiven(after: Duration) -> Self {
        if after.is_zero() { Self::Release } else { Self::Defer(after) }
    }
}

impl RetryPolicy {
    /// What follows from `outcome` of attempt number `attempt`. `random` is uniform in 0 to 1 and decides the jitter.
    #[must_use]
    pub fn decide(&self, attempt: u32, outcome: &Outcome, random: f64) -> Disposition {
        let spent = self.max_attempts.is_some_and(|max| attempt >= max);
        match outcome {
            Outcome::Ack { .. } => Disposition::Complete,
            Outcome::Released => Disposition::Release,
            Outcome::Defer { after, .. } => Disposition::Defer((*after).max(MIN_DELAY)),
            Outcome::Reject { .. } | Outcome::Loop { .. } | Outcome::TimeToLive { .. } | Outcome::MaxAge { .. } => {
                Disposition::DeadLetter
            }
            _ if spent => Disposition::DeadLetter,
            Outcome::Retry { after: Some(after), .. } => Disposition::Retry((*after).max(MIN_DELAY)),
            // Whoever lost it waited long enough: the lease had to end, or the process to start again.
            Outcome::Lost => Disposition::Retry(Duration::ZERO),
            Outcome::Retry { after: None, .. }
            | Outcome::Trap { .. }
            | Outcome::Timeout { .. }
            | Outcome::OutOfMemory { .. }
            | Outcome::HostError { .. }
            | Outcome::InvalidOutput { .. }
            | Outcome::OverLimit { .. }
            | Outcome::Killed { .. }
            | Outcome::Expired => Disposition::Retry(self.backoff.delay(attempt, random)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIDDLE: f64 = 0.5;

    fn trap() -> Outcome {
        Outcome::Trap { reason: "unreachable".into() }
    }

    #[test]
    fn delays_double_up_to_the_cap() {
        let backoff = Backoff { max: Duration::from_secs(5), ..Backoff::default() };
        let delays: Vec<_> = (1..=5).map(|n| backoff.delay(n, MIDDLE).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn jitter_spreads_both_ways_and_never_over_the_cap() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(1, 0.0), Duration::from_millis(800));
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(1_200));
        assert_eq!(backoff.delay(60, 1.0), backoff.max);
    }

    proptest! {
        #[test]
        fn no_input_makes_a_delay_panic_or_exceed_the_cap(
            attempt in any::<u32>(), random in any::<f64>(), factor in any::<f64>(), jitter in any::<f64>(), base in any::<Duration>(),
        ) {
            let backoff = Backoff { base, factor, jitter, max: Duration::from_secs(60) };
            prop_assert!(backoff.delay(attempt, random) <= backoff.max);
        }
    }

    #[test]
    fn attempts_end() {
        let policy = RetryPolicy { max_attempts: Some(3), ..RetryPolicy::default() };
        for outcome in [
            trap(),
            Outcome::Lost,
            Outcome::Expired,
            Outcome::InvalidOutput { reason: String::new() },
            Outcome::OverLimit { reason: String::new() },
            Outcome::Killed { reason: String::new() },
            Outcome::Retry { reason: String::new(), after: Some(MIN_DELAY) },
        ] {
            assert!(matches!(policy.decide(2, &outcome, MIDDLE), Disposition::Retry(_)), "{outcome:?}");
            assert_eq!(policy.decide(3, &outcome, MIDDLE), Disposition::DeadLetter, "{outcome:?}");
        }
    }

    #[test]
    fn without_a_limit_attempts_go_on() {
        let policy = RetryPolicy { max_attempts: None, ..RetryPolicy::default() };
        assert!(matches!(policy.decide(u32::MAX, &trap(), MIDDLE), Disposition::Retry(_)));
    }

    #[test]
    fn deferral_and_release_spend_no_attempt() {
        let policy = RetryPolicy { max_attempts: Some(1), ..RetryPolicy::default() };
        let defer = Outcome::Defer { reason: None, after: Duration::from_secs(9) };
        assert_eq!(policy.decide(1, &defer, MIDDLE), Disposition::Defer(Duration::from_secs(9)));
        assert_eq!(policy.decide(1, &Outcome::Released, MIDDLE), Disposition::Release);
    }

    #[test]
    fn a_reject_is_final_and_a_busy_loop_is_slowed() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.decide(1, &Outcome::Reject { reason: String::new() }, MIDDLE), Disposition::DeadLetter);
        let defer = Outcome::Defer { reason: None, after: Duration::ZERO };
        assert_eq!(policy.decide(1, &defer, MIDDLE), Disposition::Defer(MIN_DELAY));
    }
}
