//! Jobs: operations on many entries, done in steps between other work.

use std::collections::VecDeque;

use gristmill_core::{EntryId, Monotonic, OutcomeKind, State as EntryState, Timestamp};

use super::Now;
use super::act::{self, Deed};
use super::body;
use super::entry::EntryRecord;
use super::event::EncodedEvent;
use super::ids::EntryKey;
use super::keys::{Family, Key, QueueId};
use super::log;
use super::moves::{self, BodyOf, InHand};
use super::page::{self, Wanted};
use super::rate::Pace;
use super::read::{self, Found, Whereabouts};
use super::records::LogRecord;
use super::state::State;
use super::store::Tx;
use super::sweep::SWEEP;
use crate::contract::{
    Act, ActReply, Action, Filter, Operated, QueueError, Rate, Replay, ReplayFrom, ReplayWhat, Selection,
};

/// An operation in progress.
pub(crate) struct Job {
    work: Work,
    /// No more than this.
    rate: Option<Rate>,
    pace: Pace,
    done: Operated,
}

/// Whether a job goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Finished,
    /// At once.
    More,
    /// At that time.
    Later(Monotonic),
}

enum Work {
    Named { action: Action, deed: Deed, entries: VecDeque<EntryId> },
    Selected(Box<Selected>),
    Replay(Box<Replaying>),
    Delete(Emptying),
}

/// Entries that match a filter.
struct Selected {
    deed: Deed,
    queue: QueueId,
    filter: Filter,
    states: VecDeque<EntryState>,
    after: Option<Key>,
    /// Those that wait for an ordering key go right after the one they wait for, to arrive in their order.
    in_order: bool,
    /// The next of those, if there were more of them than a step may move.
    next: Option<EntryKey>,
    /// Only what was there when it began.
    before: u64,
    /// There means: where it is now. Otherwise: anywhere.
    by_position: bool,
    left: u64,
}

struct Replaying {
    queue: QueueId,
    request: Replay,
    from: Timestamp,
    until: Timestamp,
    before: u64,
    after: Option<Key>,
}

/// A queue that is being deleted.
struct Emptying {
    queue: QueueId,
    stage: usize,
    after: Option<Key>,
    /// Entries that have gone since the first stage began.
    gone: u64,
}

impl Job {
    fn new(work: Work, rate: Option<Rate>) -> Self {
        Self { work, rate, pace: Pace::default(), done: Operated::default() }
    }

    /// An action on some entries.
    pub(crate) fn act(state: &mut State, act: Act) -> Result<Self, QueueError> {
        let deed = Deed::new(state, &act.action)?;
        let work = match act.on {
            Selection::Entries(entries) => Work::Named { action: act.action, deed, entries: entries.into() },
            Selection::Where(filter) => {
                let queue = state.queue_id(&filter.queue)?;
                let states = states(&act.action, &filter)?;
                let left = filter.limit.unwrap_or(u64::MAX);
                let before = state.next_number()?;
                // An entry that a redrive brings back may die again; one that waited, and is not asked for, may move up
                // because another goes; and whoever moves up is young again.
                let by_position =
                    deed == Deed::Redrive || !states.contains(&EntryState::Waiting) || filter.younger_than.is_some();
                let in_order = matches!(deed, Deed::Move(_))
                    && [EntryState::Ready, EntryState::Waiting].iter().all(|state| states.contains(state));
                let (after, next) = (None, None);
                let selected =
                    Selected { deed, queue, filter, states, after, in_order, next, before, by_position, left };
                Work::Selected(Box::new(selected))
            }
        };
        Ok(Self::new(work, act.rate))
    }

    pub(crate) fn replay(state: &mut State, request: Replay, now: Now) -> Result<Self, QueueError> {
        if state.settings.log_retention.is_none() && state.log.is_empty() {
            return Err(QueueError::InvalidRequest(
                "there is no event log to replay: set its retention first".to_owned(),
            ));
        }
        let from = match request.from {
            ReplayFrom::Start => Timestamp::EPOCH,
            ReplayFrom::Time(time) => time,
        };
        let work = Replaying {
            queue: state.queue_id(&request.into)?,
            from,
            until: request.until.unwrap_or(now.wall),
            before: state.next_number()?,
            after: None,
            request,
        };
        let rate = work.request.rate;
        Ok(Self::new(Work::Replay(Box::new(work)), rate))
    }

    /// The rest of a queue's deletion.
    pub(crate) fn delete(queue: QueueId) -> Self {
        Self::new(Work::Delete(Emptying { queue, stage: 0, after: None, gone: 0 }), None)
    }

    /// Whether it must be finished even if nobody waits for it.
    pub(crate) const fn outlives_its_caller(&self) -> bool {
        matches!(self.work, Work::Delete(_))
    }

    pub(crate) fn into_result(self) -> Operated {
        self.done
    }

    /// The queue that entries move to was deleted meanwhile.
    fn lost_its_target(&self, state: &State) -> bool {
        let deed = match &self.work {
            Work::Named { deed, .. } => *deed,
            Work::Selected(selected) => selected.deed,
            Work::Replay(_) | Work::Delete(_) => return false,
        };
        matches!(deed, Deed::Move(to) if state.queues.get(&to).is_none_or(|queue| queue.deleting))
    }

    /// Does some of it.
    pub(crate) fn step(&mut self, state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<Step, QueueError> {
        let allowance = |rate| self.pace.allowance(rate, now.monotonic);
        let budget = self.rate.map_or(SWEEP, |rate| allowance(rate).min(SWEEP));
        if let Some(rate) = self.rate.filter(|_| budget == 0) {
            return Ok(Step::Later(self.pace.next(rate)));
        }
        if self.lost_its_target(state) {
            return Ok(Step::Finished);
        }
        let before = self.done.changed;
        let finished = match &mut self.work {
            Work::Named { action, deed, entries } => {
                named(state, tx, (action, *deed, entries), &mut self.done, budget, now)?
            }
            Work::Selected(selected) => selected.step(state, tx, &mut self.done, budget, now)?,
            Work::Replay(replay) => replay.step(state, tx, &mut self.done, budget, now)?,
            Work::Delete(emptying) => emptying.step(state, tx, &mut self.done, now)?,
        };
        let changed = usize::try_from(self.done.changed - before).unwrap_or(usize::MAX);
        if let Some(rate) = self.rate {
            self.pace.spend(rate, changed, now.monotonic);
        }
        Ok(if finished { Step::Finished } else { Step::More })
    }
}

fn states(action: &Action, filter: &Filter) -> Result<VecDeque<EntryState>, QueueError> {
    let possible = action.applies_to();
    if let Some(wrong) = filter.states.iter().find(|state| !possible.contains(state)) {
        let names: Vec<_> = possible.iter().map(|state| state.as_str()).collect();
        return Err(QueueError::InvalidRequest(format!(
            "the action does not apply to {wrong} entries, only to those that are {}",
            names.join(", ")
        )));
    }
    if let Action::Move(to) = action
        && *to == filter.queue
    {
        return Err(QueueError::InvalidRequest(format!("the entries are in queue `{to}` already")));
    }
    let mut states = if filter.states.is_empty() { possible.to_vec() } else { filter.states.clone() };
    // As in `STAGES`: nothing that waits moves up in between, and is handled or passed over.
    states.sort_by_key(|state| STAGES.iter().position(|stage| stage == state));
    states.dedup();
    let has = |state| states.contains(&state);
    if matches!(action, Action::Move(_)) && has(EntryState::Waiting) && has(EntryState::Ready) {
        // Those at the head of their keys take along who waits behind them; then come those whose heads stay, and at
        // last who has become a head meanwhile.
        states.insert(0, EntryState::Ready);
    }
    Ok(states.into())
}

fn named(
    state: &mut State,
    tx: &mut Tx<'_>,
    (action, deed, entries): (&Action, Deed, &mut VecDeque<EntryId>),
    done: &mut Operated,
    budget: usize,
    now: Now,
) -> Result<bool, QueueError> {
    for _ in 0..budget {
        let Some(id) = entries.pop_front() else { break };
        let key =
            EntryKey::parse(&id, state.salt).filter(|key| state.queues.get(&key.queue).is_some_and(|q| !q.deleting));
        let found = key.map(|key| read::find(tx, state, key)).transpose()?.flatten();
        let reply = match found {
            None => ActReply::Unknown,
            Some(found) if !action.applies_to().contains(&found.at.state()) => ActReply::WrongState(found.at.state()),
            Some(found) if deed == Deed::Move(found.queue) => ActReply::WrongState(found.at.state()),
            Some(found) => {
                done.changed += 1;
                act::act(state, tx, deed, found, now)?
            }
        };
        done.replies.push(reply);
    }
    Ok(entries.is_empty())
}

impl Selected {
    fn step(
        &mut self,
        state: &mut State,
        tx: &mut Tx<'_>,
        done: &mut Operated,
        budget: usize,
        now: Now,
    ) -> Result<bool, QueueError> {
        // The queue may have been deleted meanwhile.
        let (Some(&kind), Some(queue)) = (self.states.front(), state.queues.get(&self.queue)) else { return Ok(true) };
        let from = queue.from;
        let end = done.changed.saturating_add(budget as u64);
        if let Some(next) = self.next.take() {
            let found = read::find(tx, state, next)?;
            if let Some(found) = found.filter(|found| is_at_rest(found.at)) {
                self.act_in_order(state, tx, done, (found, end), now)?;
            }
            if done.changed >= end || self.left == 0 {
                return Ok(self.left == 0);
            }
        }
        let wanted = Wanted { queue: self.queue, state: kind, limit: budget, after: self.after.take(), from };
        let part = page::page(tx, state, &wanted)?;
        for found in part.found {
            if self.left == 0 {
                return Ok(true);
            }
            if !self.was_there(&found) || !matches(&self.filter, &found, now) {
                continue;
            }
            match found.at {
                Whereabouts::Ready(key) if self.in_order && found.record.key().is_some() => {
                    self.act_in_order(state, tx, done, (found, end), now)?;
                    if done.changed >= end {
                        self.after = Some(key.encode());
                        return Ok(self.left == 0);
                    }
                }
                _ => self.act(state, tx, done, found, now)?,
            }
        }
        self.after = part.next;
        if self.after.is_none() {
            self.states.pop_front();
        }
        Ok(self.states.is_empty() || self.left == 0)
    }

    fn act(
        &mut self,
        state: &mut State,
        tx: &mut Tx<'_>,
        done: &mut Operated,
        found: Found,
        now: Now,
    ) -> Result<(), QueueError> {
        act::act(state, tx, self.deed, found, now)?;
        done.changed += 1;
        self.left -= 1;
        Ok(())
    }

    /// The head of an ordering key, and after it those that wait behind, until so many are done.
    fn act_in_order(
        &mut self,
        state: &mut State,
        tx: &mut Tx<'_>,
        done: &mut Operated,
        (head, end): (Found, u64),
        now: Now,
    ) -> Result<(), QueueError> {
        // Before the head goes, which makes the next one ready.
        let room = usize::try_from(end.saturating_sub(done.changed)).unwrap_or(usize::MAX);
        let behind = match head.record.key() {
            Some(name) => page::waiting_for(tx, self.queue, name, room, |found| {
                self.was_there(found) && matches(&self.filter, found, now)
            })?,
            None => Vec::new(),
        };
        self.act(state, tx, done, head, now)?;
        for entry in behind {
            if self.left == 0 {
                break;
            }
            if done.changed >= end {
                self.next = Some(entry);
                break;
            }
            let found = read::find(tx, state, entry)?;
            if let Some(found) = found.filter(|found| is_at_rest(found.at)) {
                self.act(state, tx, done, found, now)?;
            }
        }
        Ok(())
    }

    /// Whether it was there when the job began.
    fn was_there(&self, found: &Found) -> bool {
        let number = if self.by_position { position(found.at) } else { found.record.number };
        number < self.before
    }
}

/// Whether an entry waits for its turn, and is in nobody's hands.
const fn is_at_rest(at: Whereabouts) -> bool {
    matches!(at, Whereabouts::Ready(_) | Whereabouts::Waiting(_))
}

/// The number that an entry got when it came to where it is.
const fn position(at: Whereabouts) -> u64 {
    match at {
        Whereabouts::Ready(key) | Whereabouts::Leased(key) => key.position,
        Whereabouts::Due(key) => key.position,
        Whereabouts::Waiting(key) => key.position,
        Whereabouts::Done(key) | Whereabouts::Dead(key) | Whereabouts::Cancelled(key) => key.position,
    }
}

fn matches(filter: &Filter, found: &Found, now: Now) -> bool {
    let last = found.past.history.last();
    let age = now.wall.since(found.record.at);
    let is = |outcome: &OutcomeKind| last.is_some_and(|last| last.outcome == *outcome);
    let has_type = || {
        let head = found.record.event.head();
        head.is_ok_and(|head| filter.types.iter().any(|pattern| pattern.matches(head.ty)))
    };
    // A note at the end (its age, its time to live) is no attempt: the version is that of the last real one, if whoever
    // ended it knew.
    let version = || {
        let attempts = found.past.history.attempts();
        attempts.iter().rfind(|attempt| attempt.outcome.is_attempt())?.version.as_deref()
    };
    let reason = || last.and_then(|last| last.reason.as_deref());
    (filter.types.is_empty() || has_type())
        && (filter.outcomes.is_empty() || filter.outcomes.iter().any(is))
        && filter.reason.as_deref().is_none_or(|wanted| reason().is_some_and(|reason| reason.contains(wanted)))
        && filter.version.as_deref().is_none_or(|wanted| version() == Some(wanted))
        && filter.key.as_deref().is_none_or(|wanted| found.record.key() == Some(wanted))
        && filter.older_than.is_none_or(|limit| age >= limit)
        && filter.younger_than.is_none_or(|limit| age <= limit)
}

impl Replaying {
    fn step(
        &mut self,
        state: &mut State,
        tx: &mut Tx<'_>,
        done: &mut Operated,
        budget: usize,
        now: Now,
    ) -> Result<bool, QueueError> {
        if state.queue(self.queue).is_ok_and(|queue| queue.deleting) || !state.queues.contains_key(&self.queue) {
            return Ok(true);
        }
        let (records, next) = log::part(state, tx, (self.from, self.after.as_ref()), budget)?;
        for record in records {
            let event = EncodedEvent::from_bytes(record.event.clone());
            if self.wants(&record, &event)? {
                enter(state, tx, self.queue, &record, event, now)?;
                done.changed += 1;
            }
        }
        self.after = next;
        // What was published after it began has larger numbers.
        let is_past = |key: &Key| super::keys::LogKey::decode(key).is_ok_and(|key| key.position >= self.before);
        Ok(self.after.as_ref().is_none_or(is_past))
    }

    fn wants(&self, record: &LogRecord, event: &EncodedEvent) -> Result<bool, QueueError> {
        if record.at < self.from || record.at > self.until {
            return Ok(false);
        }
        if self.request.what == ReplayWhat::Missing && record.queues.contains(&self.queue) {
            return Ok(false);
        }
        if self.request.matching.is_empty() {
            return Ok(true);
        }
        let event = event.decode(None)?;
        Ok(self.request.matching.iter().any(|subscription| subscription.matches(&event)))
    }
}

fn enter(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    record: &LogRecord,
    event: EncodedEvent,
    now: Now,
) -> Result<(), QueueError> {
    let key = match (&record.key, &state.queue(queue)?.options.key.attribute) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(attribute)) => event.decode(None)?.attribute(attribute).map(str::to_owned),
        (None, None) => None,
    };
    body::share(tx, &event)?;
    let number = state.next_number()?;
    let entry = EntryRecord::new(number, record.priority, now.wall, key.as_deref(), event);
    let dies_at = state.queue(queue)?.options.time_to_live.map(|time_to_live| now.wall.after(time_to_live));
    let entry = EntryRecord { dies_at, ..entry };
    moves::enter(state, tx, InHand::new(queue, entry), None, now)?;
    Ok(())
}

/// In which order a queue is emptied: what waits goes before that which it waits for.
const STAGES: [EntryState; 6] = [
    EntryState::Waiting,
    EntryState::Scheduled,
    EntryState::Ready,
    EntryState::Done,
    EntryState::Dead,
    EntryState::Cancelled,
];

impl Emptying {
    fn step(&mut self, state: &mut State, tx: &mut Tx<'_>, done: &mut Operated, now: Now) -> Result<bool, QueueError> {
        let queue = self.queue;
        let leased = state.flight.select(SWEEP, |_, lease| lease.queue() == queue);
        for delivery in &leased {
            drop_leased(state, tx, *delivery, now)?;
            done.changed += 1;
        }
        if !leased.is_empty() {
            return Ok(false);
        }
        if let Some(&kind) = STAGES.get(self.stage) {
            let after = self.after.take();
            let wanted = Wanted { queue, state: kind, limit: SWEEP, after, from: state.queue(queue)?.from };
            let part = page::page(tx, state, &wanted)?;
            for found in part.found {
                let hand = moves::take(state, tx, found, now)?;
                moves::forget(state, tx, &hand, BodyOf::Entry, now)?;
                done.changed += 1;
                self.gone += 1;
            }
            self.after = part.next;
            if self.after.is_none() {
                self.stage += 1;
            }
            return Ok(false);
        }
        let counts = &state.queue(queue)?.counts;
        let is_left = counts.live() > 0 || counts.done > 0 || counts.dead > 0 || counts.cancelled > 0;
        if is_left && std::mem::take(&mut self.gone) > 0 {
            // One became due in the meantime, and waits where the stage had passed. If nothing more goes, what is left
            // cannot be read.
            self.stage = 0;
            return Ok(false);
        }
        for family in [Family::DoneOrder, Family::Key] {
            if !page::delete_some(tx, family, &queue.to_be_bytes(), SWEEP)? {
                return Ok(false);
            }
        }
        state.forget_queue(tx, queue);
        Ok(true)
    }
}

fn drop_leased(state: &mut State, tx: &mut Tx<'_>, delivery: u64, now: Now) -> Result<(), QueueError> {
    let Some(lease) = state.remove_lease(tx, delivery) else { return Ok(()) };
    let hand = moves::take_leased(state, tx, lease.key, (lease.record, lease.past))?;
    moves::forget(state, tx, &hand, BodyOf::Entry, now)
}

#[cfg(test)]
mod tests;
