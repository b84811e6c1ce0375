//! Done entries, which are kept in the order of completion until retention takes them.

use std::collections::HashMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use gristmill_core::Timestamp;

use super::Now;
use super::body;
use super::entry::EntryRecord;
use super::event::EncodedEvent;
use super::keys::{EndKey, Family, QueueId, after_prefix};
use super::records::{DoneOrderRecord, EndRecord, Record};
use super::state::State;
use super::store::{Tx, View};
use super::sweep::excess;
use crate::contract::{QueueError, Retention};

/// Numbers that are no further apart than this are looked for in one scan, which may pass what was reaped or belongs
/// elsewhere in between; a look-up by itself costs more than that.
const NEAR: u64 = 16;
/// Fewer than this are looked up one by one.
const FEW: usize = 3;

/// Reaps done entries that are too many or too old. How many numbers were looked at, which is what `budget` is about:
/// those of purged entries are passed over, and do not count as reaped.
pub(crate) fn reap(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    budget: usize,
    now: Now,
) -> Result<usize, QueueError> {
    let mut looked = 0;
    while looked < budget {
        let reaping = Reaping::plan(state, tx, queue, budget - looked, now)?;
        let (count, is_over) = reaping.carry_out(state, tx)?;
        looked += count;
        if is_over {
            break;
        }
    }
    Ok(looked)
}

/// The first records of the order of completion, and what they name.
struct Reaping {
    queue: QueueId,
    /// Those that may go, at least in part.
    front: Vec<Order>,
    /// The first one that stays, and how many of its numbers, from the first on, name nothing any more.
    behind: Option<(Order, usize)>,
    /// The entries of `front` that are there.
    there: HashMap<u64, There>,
    /// How many go although they are not too old.
    excess: usize,
    budget: usize,
}

/// What one commit has completed.
struct Order {
    key: EndKey,
    record: DoneOrderRecord,
    is_old: bool,
}

/// A done entry's event; `None`: the entry cannot be read.
type There = Option<EncodedEvent>;

impl Reaping {
    /// Looks before anything is changed: a commit that reads what it has written is slower from then on.
    fn plan(state: &State, tx: &Tx<'_>, id: QueueId, budget: usize, now: Now) -> Result<Self, QueueError> {
        let queue = state.queue(id)?;
        let retention = queue.options.done;
        let excess = excess(queue.counts.done, retention);
        let mut plan = Self { queue: id, front: Vec::new(), behind: None, there: HashMap::new(), excess, budget };
        if retention == Retention::default() {
            return Ok(plan);
        }
        let is_old = |at: Timestamp| retention.age.is_some_and(|age| now.wall.since(at) >= age);
        let from = EndKey { queue: id, position: queue.from.done }.encode();
        let mut seen = 0;
        tx.scan(Family::DoneOrder, &from, &after_prefix(&id.to_be_bytes()), &mut |key, value| {
            let Some((key, record)) = read(key, value) else { return ControlFlow::Continue(()) };
            let order = Order { key, is_old: is_old(record.at), record };
            if !order.is_old && seen >= excess {
                plan.behind = Some((order, 0));
                return ControlFlow::Break(());
            }
            seen += order.record.numbers.len();
            plan.front.push(order);
            if seen < budget { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let numbers = plan.front.iter().flat_map(|order| &order.record.numbers).copied().take(budget);
        plan.there = find(tx, id, numbers.collect())?;
        if let Some((order, gone)) = &mut plan.behind {
            // Usually the first one is there, and that is all. One that names nothing must not stand in the way of those
            // behind it: it is younger than they are if the clock was set back.
            for number in order.record.numbers.iter().take(budget.saturating_sub(seen)) {
                if tx.get(Family::Done, &EndKey { queue: id, position: *number }.encode())?.is_some() {
                    break;
                }
                *gone += 1;
            }
        }
        Ok(plan)
    }

    /// How many numbers were looked at, and whether that was all there is to do.
    fn carry_out(mut self, state: &mut State, tx: &mut Tx<'_>) -> Result<(usize, bool), QueueError> {
        let mut looked = 0;
        let mut has_passed = false;
        for mut order in self.front {
            let count = order.record.numbers.len().min(self.budget - looked);
            looked += count;
            let rest = order.record.numbers.split_off(count);
            let mut stays = Vec::new();
            for number in std::mem::take(&mut order.record.numbers) {
                match self.there.remove(&number) {
                    None => has_passed = true,
                    Some(_) if !order.is_old && self.excess == 0 => stays.push(number),
                    Some(there) => {
                        forget(state, tx, EndKey { queue: self.queue, position: number }, there)?;
                        self.excess = self.excess.saturating_sub(1);
                    }
                }
            }
            order.record.numbers = stays;
            order.record.numbers.extend(rest);
            if !put_back(state, tx, &order)? {
                return Ok((looked, true));
            }
        }
        if let Some((mut order, gone)) = self.behind
            && gone > 0
        {
            looked += gone;
            has_passed = true;
            order.record.numbers.drain(..gone);
            put_back(state, tx, &order)?;
        }
        Ok((looked, !has_passed))
    }
}

/// A record of the order. One that cannot be read names nobody: it is passed over, and its entries stay where they are.
fn read(key: &[u8], value: &[u8]) -> Option<(EndKey, DoneOrderRecord)> {
    let read = EndKey::decode(key).map_err(QueueError::from);
    match read.and_then(|key| Ok((key, DoneOrderRecord::decode(value)?))) {
        Ok(read) => Some(read),
        Err(error) => {
            tracing::error!(?key, %error, "a record of the order of completion cannot be read, and is passed over");
            None
        }
    }
}

/// What is left of a record; true: nothing, and the order begins behind it.
fn put_back(state: &mut State, tx: &mut Tx<'_>, order: &Order) -> Result<bool, QueueError> {
    let is_empty = order.record.numbers.is_empty();
    if is_empty {
        tx.delete(Family::DoneOrder, order.key.encode());
        state.queue_mut(order.key.queue)?.from.done = order.key.position + 1;
    } else {
        tx.put(Family::DoneOrder, order.key.encode(), order.record.encode());
    }
    Ok(is_empty)
}

fn forget(state: &mut State, tx: &mut Tx<'_>, key: EndKey, there: There) -> Result<(), QueueError> {
    match there {
        Some(event) => {
            body::release(state, tx, &event)?;
            tx.delete(Family::Done, key.encode());
        }
        None => tracing::error!(?key, "a done entry cannot be read; it is left where it is"),
    }
    let counts = &mut state.queue_mut(key.queue)?.counts;
    counts.done = counts.done.saturating_sub(1);
    Ok(())
}

/// Those of these entries that are there. What completes together was mostly published together, so that few scans find
/// all of them. No scan begins before the first wanted number or passes a wide gap: what was reaped lies there.
fn find(view: &dyn View, queue: QueueId, mut numbers: Vec<u64>) -> Result<HashMap<u64, There>, QueueError> {
    numbers.sort_unstable();
    let mut there = HashMap::with_capacity(numbers.len());
    for run in numbers.chunk_by(|one, next| next - one <= NEAR) {
        let key = |position| EndKey { queue, position }.encode();
        match run {
            [first, .., last] if run.len() >= FEW => {
                let mut wanted = run.iter().copied().peekable();
                view.scan(Family::Done, &key(*first), &key(last.saturating_add(1)), &mut |key, value| {
                    if let Ok(EndKey { position, .. }) = EndKey::decode(key) {
                        while wanted.next_if(|number| *number < position).is_some() {}
                        if wanted.next_if_eq(&position).is_some() {
                            there.insert(position, event(value));
                        }
                    }
                    ControlFlow::Continue(())
                })?;
            }
            few => {
                for number in few {
                    if let Some(value) = view.get(Family::Done, &key(*number))? {
                        there.insert(*number, event(&value));
                    }
                }
            }
        }
    }
    Ok(there)
}

fn event(value: &[u8]) -> There {
    let (entry, _) = EndRecord::split(value).ok()?;
    EntryRecord::decode(Bytes::copy_from_slice(entry)).ok().map(|record| record.event)
}
