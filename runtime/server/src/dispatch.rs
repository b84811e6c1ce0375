//! Dispatch: claims what a handler can start at once, runs it, and settles what became of it.
//!
//! ```text
//! claim ──► window ──► workers, one for each slot ──► settlements ──► queue
//! ```
//!
//! **Invariants.** Nothing is claimed that is not [started at once](window). Every delivery is settled, or its lease ends
//! by itself. A stop spends no attempt: claims end first and what was not begun goes back, running handlers get their
//! grace, and what still runs then is released.

mod batch;
pub mod breaker;
mod claiming;
mod settlement;
pub mod trial;
mod version;
mod window;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use gristmill_core::{Clock, HandlerName, Outcome};
use gristmill_host::{Emit, Interface, Invocation, Place, Report, give_way};
use gristmill_queue::{Delivery, Due, Extend, ExtendReply, Publish, Queue, QueueError, Settle};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, warn};

use self::breaker::Breaker;
use self::settlement::{Judged, MAX_SETTLEMENTS, Settled};
pub use self::version::Fleet;
use self::version::Version;
use self::window::Window;
use crate::cli::text::one_line;
use crate::latency::Latencies;
use crate::metrics::Metrics;
use crate::postmortem;
use crate::routing::Router;
use crate::state::RunState;

/// How long quick calls run in a row before others have their turn.
const TURN: Duration = Duration::from_micros(250);
/// How long one claim waits; only a bound, because a publish wakes it.
const CLAIM_WAIT: Duration = Duration::from_secs(30);
/// How long dispatch waits before it asks a queue again that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// How much longer than a run's time-out the lease must last before the run begins.
const SETTLE_GRACE: Duration = Duration::from_secs(1);
/// Conflicts after which the queue gives a delivery its buckets alone; further ones mean that another has them now.
const RESERVED_AFTER: u32 = 3;
/// How long a run waits for whoever has its buckets alone: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// Types that nobody subscribes to are warned of once each, up to this many.
const MAX_UNROUTED: usize = 100;

/// How far a stop has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Claiming and running.
    Running,
    /// No more claims; what runs may finish.
    Draining,
    /// What still runs is released.
    Releasing,
}

/// A call of the handler that was claimed.
enum Call {
    One(Box<Run>),
    Batch {
        version: Arc<Version>,
        deliveries: Vec<Delivery>,
        claimed: Instant,
        /// See [`Run`].
        _in_hand: mpsc::Sender<Infallible>,
    },
}

/// A delivery until it is settled.
struct Run {
    version: Arc<Version>,
    delivery: Delivery,
    lease_end: Instant,
    /// How often in a row what it read was changed meanwhile.
    conflicts: u32,
    /// Dropped when it is over: a stop waits for that.
    _in_hand: mpsc::Sender<Infallible>,
}

impl Call {
    fn deliveries(&self) -> &[Delivery] {
        match self {
            Self::One(run) => std::slice::from_ref(&run.delivery),
            Self::Batch { deliveries, .. } => deliveries,
        }
    }
}

impl Run {
    fn lease_left(&self) -> Duration {
        self.lease_end.saturating_duration_since(Instant::now())
    }
}

/// What is told of every handler's work.
#[derive(Clone, Debug, Default)]
pub struct Observers {
    /// From publish to ack.
    pub latencies: Arc<Latencies>,
    /// What calls cost.
    pub metrics: Arc<Metrics>,
}

/// One handler at work.
pub struct Dispatcher {
    name: HandlerName,
    version: Arc<Version>,
    /// Another version, which is tried.
    candidate: Option<Arc<Version>>,
    breaker: Arc<Breaker>,
    queue: Arc<dyn Queue>,
    router: Arc<Router>,
    clock: Arc<dyn Clock>,
    latencies: Arc<Latencies>,
    metrics: Arc<Metrics>,
    phase: watch::Receiver<Phase>,
    /// Where calls run.
    guests: Handle,
    window: Window<Call>,
    unrouted: Mutex<BTreeSet<String>>,
}

impl Dispatcher {
    /// A dispatcher that [`run`](Self::run) sets to work. The handler's calls run on the runtime on which it is made.
    #[must_use]
    pub fn new(
        fleet: impl Into<Fleet>,
        queue: Arc<dyn Queue>,
        router: Arc<Router>,
        clock: Arc<dyn Clock>,
        (observers, phase): (Observers, watch::Receiver<Phase>),
    ) -> Arc<Self> {
        let Fleet { handler, trial } = fleet.into();
        let Observers { latencies, metrics } = observers;
        let guests = Handle::current();
        let window = Window::new(handler.config.concurrency, guests.metrics().num_workers(), handler.batch_size());
        Arc::new(Self {
            name: handler.config.name.clone(),
            breaker: Arc::new(Breaker::new(handler.config.breaker)),
            candidate: trial.map(|trial| Version::new(trial.candidate.clone(), Some(trial))),
            version: Version::new(handler, None),
            queue,
            router,
            clock,
            latencies,
            metrics,
            phase,
            guests,
            window,
            unrouted: Mutex::default(),
        })
    }

    /// Whether the handler gets deliveries, or is only probed.
    #[must_use]
    pub fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Works until it is told to drain, and returns when every delivery is settled. What claims and settles should not
    /// have to wait for calls: run it on [threads of its own](crate::threads).
    pub async fn run(self: Arc<Self>) {
        let (settlements, judged) = mpsc::channel(MAX_SETTLEMENTS);
        let settler = tokio::spawn(self.clone().settle_as_they_come(judged));
        // Whatever is in hand has a copy of the sender: once the receiver learns that there is none, nothing is.
        let (in_hand, mut nothing_in_hand) = mpsc::channel(1);
        let mut workers = JoinSet::new();
        let mut phase = self.phase.clone();
        let mut looks = tokio::time::interval(window::PATIENCE / 2);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn({
            let this = self.clone();
            async move { this.adopt_pause().await }
        });
        loop {
            let claimed = tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
                () = settlements.closed() => break,
                claimed = self.claim(&mut looks) => claimed,
            };
            match claimed {
                Ok(deliveries) => {
                    while workers.try_join_next().is_some() {}
                    let wanted = self.window.put(self.calls(deliveries, &in_hand));
                    while workers.len() < wanted {
                        workers.spawn_on(self.clone().work(settlements.clone()), &self.guests);
                    }
                }
                Err(QueueError::Closed) => {
                    error!(handler = %self.name, "the queue was closed under a handler at work");
                    break;
                }
                Err(error) => {
                    error!(handler = %self.name, %error, "cannot claim; trying again in a second");
                    tokio::select! {
                        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
                        () = tokio::time::sleep(FAILURE_PAUSE) => {}
                    }
                }
            }
        }
        self.give_back(self.window.take_all()).await;
        drop((in_hand, settlements));
        nothing_in_hand.recv().await;
        self.window.close();
        while workers.join_next().await.is_some() {}
        if settler.await.is_err() {
            error!(handler = %self.name, "settling has ended early, and the handler with it: what was not settled comes back");
        }
        for version in std::iter::once(&self.version).chain(&self.candidate) {
            version.log.notice();
        }
    }

    /// Calls of the handler for these deliveries: of the version that each is for.
    fn calls(&self, deliveries: Vec<Delivery>, in_hand: &mpsc::Sender<Infallible>) -> Vec<Call> {
        let now = Instant::now();
        let (candidates, others) = match &self.candidate {
            Some(candidate) => {
                let is_for = |delivery: &Delivery| Arc::ptr_eq(self.version_for(delivery), candidate);
                let (mine, others) = deliveries.into_iter().partition(is_for);
                (Some((candidate, mine)), others)
            }
            None => (None, deliveries),
        };
        let all = candidates.into_iter().chain(std::iter::once((&self.version, others)));
        all.flat_map(|(version, deliveries)| calls_of(version, deliveries, now, in_hand)).collect()
    }

    /// The same beside whatever else is done, and to its end.
    fn give_back_beside(self: &Arc<Self>, calls: Vec<Call>) {
        if !calls.is_empty() {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.give_back(calls).await });
        }
    }

    /// Deliveries that were not begun: no attempt is spent.
    async fn give_back(&self, calls: Vec<Call>) {
        let deliveries: Vec<_> = calls.iter().flat_map(Call::deliveries).collect();
        for delivery in &deliveries {
            self.breaker.forget(&delivery.entry);
        }
        let deliveries: Vec<_> = deliveries.into_iter().map(|delivery| (delivery, None)).collect();
        if !deliveries.is_empty() {
            debug!(handler = %self.name, deliveries = deliveries.len(), "giving back what was not begun");
            let released =
                deliveries.iter().map(|(delivery, _)| Settle::new(delivery.lease, Outcome::Released)).collect();
            self.settle_all(&deliveries, released).await;
        }
    }

    /// Runs one call after the other, and gives way now and then: to other handlers, and to whoever claims and settles.
    /// What has been judged by then is settled.
    async fn work(self: Arc<Self>, settlements: mpsc::Sender<Vec<Judged>>) {
        let mut judged = Vec::new();
        let mut turn = Instant::now();
        loop {
            let next = match self.window.try_take() {
                Some(next) => Some(next),
                None => {
                    hand_over(&settlements, &mut judged).await;
                    self.window.take().await
                }
            };
            let Some((call, running)) = next else { return };
            match call {
                Call::One(run) => {
                    let mut delivering = pin!(self.deliver(run));
                    let last = match poll_fn(|cx| Poll::Ready(delivering.as_mut().poll(cx))).await {
                        Poll::Ready(last) => last,
                        // This one takes its time: the others do not wait for it.
                        Poll::Pending => tokio::join!(hand_over(&settlements, &mut judged), delivering).1,
                    };
                    judged.extend(last);
                }
                Call::Batch { version, deliveries, claimed, _in_hand } => {
                    hand_over(&settlements, &mut judged).await;
                    self.deliver_batch(&version, deliveries, claimed).await;
                }
            }
            drop(running);
            if turn.elapsed() >= TURN {
                hand_over(&settlements, &mut judged).await;
                give_way().await;
                turn = Instant::now();
            }
        }
    }

    /// Runs the handler until its run counts: what it read may have been changed before it was done. That spends no
    /// attempt, and the lease goes on, so that the queue knows who has lost three times and gives it its buckets alone.
    /// `None`: it is settled, or the lease has ended and the entry comes back by itself.
    async fn deliver(&self, mut run: Box<Run>) -> Option<Judged> {
        loop {
            let mut phase = self.phase.clone();
            // The state is held until the run is settled: that is how long the queue remembers what it is checked against.
            let (settle, _state) = tokio::select! {
                biased;
                judged = self.run_once(&mut run) => match judged {
                    Some(judged) => judged,
                    None => {
                        self.breaker.forget(&run.delivery.entry);
                        return None;
                    }
                },
                _ = phase.wait_for(|phase| *phase >= Phase::Releasing) => {
                    (Settle::new(run.delivery.lease, Outcome::Released), None)
                }
            };
            if !settlement::keeps_slot(&run.delivery, &settle) {
                return Some(Judged::new(run, settle));
            }
            if self.settle_all(&[(&run.delivery, Some(&*run.version))], vec![settle]).await != [Settled::Conflict] {
                return None;
            }
            run.conflicts += 1;
            let Run { delivery, conflicts, .. } = &*run;
            debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt, conflicts,
                "what it read of the state was changed meanwhile; running it again");
            tokio::time::sleep(pause(*conflicts)).await;
        }
    }

    async fn run_once(&self, run: &mut Run) -> Option<(Settle, Option<Arc<RunState>>)> {
        let place = self.place(run).await?;
        let Run { version, delivery, .. } = &*run;
        debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt, "delivering");
        let state = self.run_state(version);
        let report = version.handler.component.handle_in(place, invocation(version, delivery, state.clone())).await;
        Some((self.judge(run, report, state.as_deref()), state))
    }

    /// Room for the run, with a lease that lasts longer than the run may; waiting for room does not use it up. `None`:
    /// the lease has ended.
    async fn place(&self, run: &mut Run) -> Option<Place> {
        let handler = run.version.handler.clone();
        let limits = &handler.config.limits;
        // The lease of a claim is long enough by itself; that of a further run may have been used up by the last one.
        if run.conflicts > 0 {
            self.refresh(run, limits.timeout + SETTLE_GRACE).await?;
        }
        // A lease may be as short as a time-out and the grace: half of that is for waiting.
        let enough = limits.timeout + SETTLE_GRACE / 2;
        let mut admit = pin!(handler.component.admit(limits));
        loop {
            let spare = run.lease_left().saturating_sub(enough);
            let place = tokio::select! {
                biased;
                place = &mut admit => Some(place),
                () = tokio::time::sleep(spare) => None,
            };
            self.refresh(run, enough).await?;
            if place.is_some() {
                return place;
            }
        }
    }

    /// Extends the lease if less than `enough` is left of it. `None`: it has ended.
    async fn refresh(&self, run: &mut Run, enough: Duration) -> Option<()> {
        if run.lease_left() >= enough {
            return Some(());
        }
        let delivery = &run.delivery;
        let extend = Extend { lease: delivery.lease, by: delivery.lease_for };
        match self.queue.extend(vec![extend]).await.map(|replies| replies.first().copied()) {
            Ok(Some(ExtendReply::Extended)) => {
                run.lease_end = Instant::now() + delivery.lease_for;
                return Some(());
            }
            // It comes back by itself.
            Ok(reply) => warn!(handler = %delivery.queue, entry = %delivery.entry, ?reply, "the lease has ended"),
            Err(error) => error!(handler = %delivery.queue, entry = %delivery.entry, %error, "cannot extend the lease"),
        }
        None
    }

    /// What one run sees of the state, if it may see any.
    fn run_state(&self, version: &Version) -> Option<Arc<RunState>> {
        (!version.handler.config.grant.state.is_empty()).then(|| Arc::new(RunState::new(self.queue.clone())))
    }

    /// Turns what the host observed into a settlement.
    fn judge(&self, run: &Run, report: Report, state: Option<&RunState>) -> Settle {
        let Run { version, delivery, .. } = run;
        version.log.record(delivery, &report.logs);
        self.metrics.note(&self.name, &report.ledger, [report.outcome.kind()]);
        let postmortem = postmortem::of(&report.outcome, &report.ledger, &report.logs);
        Settle {
            postmortem,
            emits: report.emits.into_iter().map(|emit| self.route(emit)).collect(),
            transaction: state.and_then(|state| state.transaction(report.state)),
            ..self.verdict(version, delivery, report.outcome)
        }
    }

    fn route(&self, emit: Emit) -> Publish {
        let queues = self.router.route(&emit.event);
        if queues.is_empty() {
            let mut unrouted = self.unrouted.lock().unwrap_or_else(PoisonError::into_inner);
            if unrouted.len() < MAX_UNROUTED && unrouted.insert(emit.event.ty.clone()) {
                warn!(handler = %self.name, r#type = one_line(&emit.event.ty),
                    "emitted events of this type are dropped: no subscription matches them");
            }
        }
        Publish {
            due: emit.delay.map_or(Due::Now, Due::After),
            priority: emit.priority,
            key: emit.key,
            dedupe_key: emit.dedupe_key,
            ..Publish::new(emit.event, queues)
        }
    }
}

fn invocation(version: &Version, delivery: &Delivery, state: Option<Arc<RunState>>) -> Invocation {
    Invocation {
        delivery_id: delivery.entry.to_string(),
        queue: delivery.queue.to_string(),
        attempt: delivery.attempt,
        max_attempts: delivery.max_attempts,
        enqueued_at: delivery.enqueued_at,
        event: delivery.event.clone(),
        state: state.map(|state| state as _),
        configuration: version.handler.configuration.get(),
        limits: version.handler.config.limits.clone(),
    }
}

fn calls_of(
    version: &Arc<Version>,
    deliveries: Vec<Delivery>,
    now: Instant,
    in_hand: &mpsc::Sender<Infallible>,
) -> Vec<Call> {
    if version.handler.component.interface() != Interface::BatchHandler {
        let run = |delivery: Delivery| {
            let lease_end = now + delivery.lease_for;
            let version = version.clone();
            Call::One(Box::new(Run { version, delivery, lease_end, conflicts: 0, _in_hand: in_hand.clone() }))
        };
        return deliveries.into_iter().map(run).collect();
    }
    let mut deliveries = deliveries.into_iter();
    let batches = std::iter::repeat_with(|| deliveries.by_ref().take(version.handler.batch_size()).collect());
    let batches = batches.take_while(|batch: &Vec<_>| !batch.is_empty());
    let call =
        |deliveries| Call::Batch { version: version.clone(), deliveries, claimed: now, _in_hand: in_hand.clone() };
    batches.map(call).collect()
}

/// Hands over what is judged to whoever settles.
async fn hand_over(settlements: &mpsc::Sender<Vec<Judged>>, judged: &mut Vec<Judged>) {
    if !judged.is_empty() {
        // Nobody settles any more only after a panic: the leases end by themselves.
        let _ = settlements.send(std::mem::take(judged)).await;
    }
}

/// How long to wait after so many conflicts in a row.
fn pause(conflicts: u32) -> Duration {
    let (first, most) = PAUSES;
    match conflicts.checked_sub(RESERVED_AFTER + 1) {
        None => Duration::ZERO,
        Some(further) => first.saturating_mul(1 << further.min(10)).min(most),
    }
}
