//! The circuit breaker: a handler that fails over and over (the same trap for every event, a dependency down) gets no
//! more deliveries until it is better, instead of filling the dead letters.
//!
//! ```text
//!            too many of the latest failed            every now and then
//! closed ─────────────────────────────────► open ◄──────────────────────► probing
//!   ▲                                         (the queue is paused)           │
//!   └─────────────────────────────────────────────────────────────────────────┘ the single delivery is handled
//! ```
//!
//! A probe that fails is forgiven until the next: it spends no attempt, and another entry is the next probe. The queue is
//! paused as a person would pause it, with a reason, so that everybody sees it, and so that it is paused after a restart;
//! a person who resumes it closes the circuit.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gristmill_core::{EntryId, Outcome};
use tokio::sync::Notify;

use crate::cli::text::one_line;
use crate::config::BreakerOptions;

/// How the reason of a pause begins that is a breaker's.
const PREFIX: &str = "circuit breaker: ";
/// How often an entry is forgiven that is a probe.
const MAX_FORGIVEN: u32 = 10;

/// Watches over one version of a handler.
#[derive(Debug)]
pub struct Breaker {
    /// `None`: it never opens.
    options: Option<BreakerOptions>,
    circuit: Mutex<Circuit>,
    changed: Notify,
    /// Whether the queue has been asked for a pause that an earlier breaker has left.
    has_asked: AtomicBool,
}

#[derive(Debug)]
enum Circuit {
    Closed(Recent),
    Open(Open),
    /// The queue is still paused for this reason, and should not be.
    Mended(String),
}

/// Whether the latest deliveries have failed.
#[derive(Debug, Default)]
struct Recent {
    outcomes: VecDeque<bool>,
    failed: usize,
}

#[derive(Clone, Debug)]
struct Open {
    reason: String,
    is_paused: bool,
    /// How many probes have failed in a row.
    failed: u32,
    next: Instant,
    probing: Option<EntryId>,
}

/// What a dispatcher does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It claims as ever.
    Claim,
    /// It pauses the queue for this reason.
    Pause(String),
    /// It resumes the queue, if it is paused for this reason.
    Resume(String),
    /// It claims a single delivery through the pause for this reason, from then on.
    Probe(String, Instant),
    /// It waits for what becomes of the probe.
    Wait,
}

/// A circuit that is open, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCircuit {
    /// Why.
    pub reason: String,
    /// How many probes have failed in a row.
    pub failed_probes: u32,
    /// How long until the next one.
    pub next_probe: Duration,
}

impl Breaker {
    pub(super) fn new(options: Option<BreakerOptions>) -> Self {
        let circuit = Mutex::new(Circuit::Closed(Recent::default()));
        Self { options, circuit, changed: Notify::new(), has_asked: AtomicBool::new(false) }
    }

    /// The queue is paused for `reason` as the handler begins. If that was a breaker, of an earlier version or of an
    /// earlier process, this one goes on with a probe.
    pub(super) fn adopt(&self, reason: Option<&str>, now: Instant) {
        let mut circuit = self.lock();
        if let Some(reason) = reason.filter(|reason| is_breakers(reason))
            && matches!(*circuit, Circuit::Closed(_))
        {
            let reason = reason.to_owned();
            *circuit = match self.options {
                Some(_) => Circuit::Open(Open { reason, is_paused: true, failed: 0, next: now, probing: None }),
                None => Circuit::Mended(reason),
            };
        }
        drop(circuit);
        self.has_asked.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// What became of a delivery, which was forgiven so often before. `Some`: it is forgiven, and comes back after so long.
    pub(super) fn note(&self, (entry, forgiven): (&EntryId, u32), outcome: &Outcome, now: Instant) -> Option<Duration> {
        let options = self.options?;
        let Some(failed) = is_failure(outcome) else {
            self.forget(entry);
            return None;
        };
        let mut circuit = self.lock();
        match &mut *circuit {
            Circuit::Closed(recent) => {
                recent.note(failed, options.deliveries as usize);
                if !failed || !recent.is_too_much(&options) {
                    return None;
                }
                let reason = recent.describe(outcome);
                let next = now + options.probe;
                *circuit = Circuit::Open(Open { reason, is_paused: false, failed: 0, next, probing: None });
            }
            // What was begun before, or by hand, says nothing new.
            Circuit::Open(open) if open.probing.as_ref() != Some(entry) => return None,
            Circuit::Open(open) if failed => {
                open.probing = None;
                open.failed = open.failed.saturating_add(1);
                let wait = options.probe.saturating_mul(1 << open.failed.min(20)).min(options.max_probe);
                open.next = now + wait;
                drop(circuit);
                self.changed.notify_one();
                // Attempts end, also those of an entry that is every probe.
                return (forgiven < MAX_FORGIVEN).then_some(wait);
            }
            Circuit::Open(open) => *circuit = Circuit::Mended(std::mem::take(&mut open.reason)),
            Circuit::Mended(_) => return None,
        }
        drop(circuit);
        self.changed.notify_one();
        None
    }

    /// What to do next. It may be something else once [`changed`](Self::changed) returns.
    pub(super) fn step(&self) -> Step {
        match &*self.lock() {
            Circuit::Closed(_) => Step::Claim,
            Circuit::Mended(reason) => Step::Resume(reason.clone()),
            Circuit::Open(Open { reason, is_paused: false, .. }) => Step::Pause(reason.clone()),
            Circuit::Open(Open { probing: Some(_), .. }) => Step::Wait,
            Circuit::Open(Open { reason, next, .. }) => Step::Probe(reason.clone(), *next),
        }
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The queue is paused.
    pub(super) fn paused(&self) {
        if let Circuit::Open(open) = &mut *self.lock() {
            open.is_paused = true;
        }
    }

    /// This entry is the probe.
    pub(super) fn probing(&self, entry: EntryId) {
        if let Circuit::Open(open) = &mut *self.lock() {
            open.probing = Some(entry);
        }
    }

    /// If this entry is the probe, its delivery is over, and says nothing: it was given back, or has ended by itself.
    pub(super) fn forget(&self, entry: &EntryId) {
        let mut circuit = self.lock();
        match &mut *circuit {
            Circuit::Open(open) if open.probing.as_ref() == Some(entry) => open.probing = None,
            _ => return,
        }
        drop(circuit);
        self.changed.notify_one();
    }

    /// The probe has taken too long: there is another.
    pub(super) fn give_up_probe(&self) {
        if let Circuit::Open(open) = &mut *self.lock() {
            open.probing = None;
        }
    }

    /// Whether the handler gets nothing but probes.
    pub(super) fn is_open(&self) -> bool {
        self.options.is_some() && matches!(*self.lock(), Circuit::Open(_))
    }

    /// Whether the queue may yet go on by itself, without anything being wrong.
    pub(crate) fn is_undecided(&self) -> bool {
        let is_new = !self.has_asked.load(Ordering::Acquire);
        is_new
            || match &*self.lock() {
                Circuit::Closed(_) => false,
                Circuit::Mended(_) => true,
                Circuit::Open(open) => open.failed == 0,
            }
    }

    /// Everything is as ever: the queue goes on, or a person has resumed it.
    pub(super) fn close(&self) {
        *self.lock() = Circuit::Closed(Recent::default());
    }

    /// For people. `None`: it is closed.
    #[must_use]
    pub fn open(&self) -> Option<OpenCircuit> {
        match &*self.lock() {
            Circuit::Open(open) => Some(OpenCircuit {
                reason: open.reason.clone(),
                failed_probes: open.failed,
                next_probe: open.next.saturating_duration_since(Instant::now()),
            }),
            Circuit::Closed(_) | Circuit::Mended(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn note(&mut self, failed: bool, all: usize) {
        self.outcomes.push_back(failed);
        self.failed += usize::from(failed);
        if self.outcomes.len() > all {
            self.failed -= usize::from(self.outcomes.pop_front() == Some(true));
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "there are some thousand at most")]
    fn is_too_much(&self, options: &BreakerOptions) -> bool {
        let all = self.outcomes.len();
        all >= options.deliveries as usize && self.failed as f64 >= options.max_failure_rate * all as f64
    }

    fn describe(&self, last: &Outcome) -> String {
        let reason = last.reason().and_then(|reason| reason.lines().next()).map(one_line).unwrap_or_default();
        // The reason of a pause is for one line of a screen.
        let reason: String = reason.chars().take(200).collect();
        let all = self.outcomes.len();
        format!("{PREFIX}{} of the last {all} deliveries failed, the last one: {}: {reason}", self.failed, last.kind())
    }
}

/// Whether a queue that is paused for this reason was paused by a breaker.
pub(crate) fn is_breakers(reason: &str) -> bool {
    reason.starts_with(PREFIX)
}

/// Whether the handler has failed. `None`: it has neither failed nor succeeded.
fn is_failure(outcome: &Outcome) -> Option<bool> {
    match outcome {
        // A rejection is what the handler thinks of the event.
        Outcome::Ack { .. } | Outcome::Defer { .. } | Outcome::Reject { .. } => Some(false),
        Outcome::Released | Outcome::Killed { .. } => None,
        _ => Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: BreakerOptions = BreakerOptions {
        max_failure_rate: 0.75,
        deliveries: 4,
        probe: Duration::from_secs(1),
        max_probe: Duration::from_secs(3),
    };

    fn entry(number: u32) -> EntryId {
        EntryId::new(&format!("0-{number}")).unwrap()
    }

    fn trap() -> Outcome {
        Outcome::Trap { reason: "unreachable\n".to_owned() }
    }

    fn ack() -> Outcome {
        Outcome::Ack { result: None }
    }

    #[test]
    fn it_opens_when_too_many_of_the_latest_failed_and_not_before() {
        let (breaker, now) = (Breaker::new(Some(OPTIONS)), Instant::now());
        let reject = Outcome::Reject { reason: "no".to_owned() };
        for outcome in [trap(), trap(), reject.clone(), reject, trap(), Outcome::Released, trap()] {
            assert_eq!(breaker.note((&entry(1), 0), &outcome, now), None);
            assert_eq!(breaker.step(), Step::Claim, "{outcome:?}");
        }
        breaker.note((&entry(1), 0), &trap(), now);
        let reason = "circuit breaker: 3 of the last 4 deliveries failed, the last one: trap: unreachable";
        assert_eq!(breaker.step(), Step::Pause(reason.to_owned()));
        breaker.paused();
        assert_eq!(breaker.step(), Step::Probe(reason.to_owned(), now + OPTIONS.probe));
        breaker.note((&entry(1), 0), &ack(), now);
        assert!(matches!(breaker.step(), Step::Probe(..)), "what was begun before says nothing");
    }

    #[test]
    fn probes_are_forgiven_until_one_is_handled() {
        let (breaker, now) = (Breaker::new(Some(OPTIONS)), Instant::now());
        breaker.adopt(Some("circuit breaker: of another process"), now);
        for (number, wait) in [(1, 2), (2, 3), (3, 3)] {
            breaker.probing(entry(number));
            assert_eq!(breaker.step(), Step::Wait);
            let wait = Duration::from_secs(wait);
            assert_eq!(breaker.note((&entry(number), number), &trap(), now), Some(wait));
            assert_eq!(breaker.step(), Step::Probe("circuit breaker: of another process".to_owned(), now + wait));
        }
        assert_eq!(breaker.open().unwrap().failed_probes, 3);
        breaker.probing(entry(4));
        breaker.forget(&entry(5));
        assert_eq!(breaker.step(), Step::Wait);
        breaker.note((&entry(4), 0), &Outcome::Released, now);
        assert!(matches!(breaker.step(), Step::Probe(..)), "of a probe that was given back, there is another");
        breaker.probing(entry(4));
        assert_eq!(breaker.note((&entry(4), MAX_FORGIVEN), &trap(), now), None, "attempts end");
        breaker.probing(entry(4));
        assert_eq!(breaker.note((&entry(4), 0), &ack(), now), None);
        assert_eq!(breaker.step(), Step::Resume("circuit breaker: of another process".to_owned()));
        breaker.close();
        assert_eq!((breaker.step(), breaker.open()), (Step::Claim, None));
    }

    #[test]
    fn a_persons_pause_is_no_breakers_and_without_options_it_never_opens() {
        let (breaker, now) = (Breaker::new(Some(OPTIONS)), Instant::now());
        breaker.adopt(Some("maintenance"), now);
        assert_eq!(breaker.step(), Step::Claim);
        let never = Breaker::new(None);
        for _ in 0..100 {
            assert_eq!(never.note((&entry(1), 0), &trap(), now), None);
        }
        assert_eq!(never.step(), Step::Claim);
        never.adopt(Some("circuit breaker: before it was switched off"), now);
        assert!(matches!(never.step(), Step::Resume(_)));
    }
}
