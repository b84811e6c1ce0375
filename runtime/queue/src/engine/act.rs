//! What operators do to single entries: cancel, redrive, purge, move.

use gristmill_core::QueueName;

use super::Now;
use super::entry::EntryRecord;
use super::ids::EntryKey;
use super::keys::{EndKey, Family, Lane, QueueId};
use super::moves::{self, BodyOf, InHand};
use super::ordering;
use super::read::{self, Found, Whereabouts};
use super::records::{EndRecord, Past};
use super::state::State;
use super::store::{Tx, View};
use crate::contract::{ActReply, Action, QueueError};

/// An action, its names resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Cancel,
    Redrive,
    Purge,
    Move(QueueId),
}

impl Deed {
    pub(crate) fn new(state: &State, action: &Action) -> Result<Self, QueueError> {
        Ok(match action {
            Action::Cancel => Self::Cancel,
            Action::Redrive => Self::Redrive,
            Action::Purge => Self::Purge,
            Action::Move(to) => Self::Move(state.queue_id(to)?),
        })
    }
}

/// Does it to an entry in a state that it applies to.
pub(crate) fn act(
    state: &mut State,
    tx: &mut Tx<'_>,
    deed: Deed,
    found: Found,
    now: Now,
) -> Result<ActReply, QueueError> {
    let due = match found.at {
        Whereabouts::Due(key) => Some(key.time),
        _ => None,
    };
    let was_dead = matches!(found.at, Whereabouts::Dead(_));
    let mut hand = moves::take(state, tx, found, now)?;
    match deed {
        Deed::Cancel => moves::put_cancelled(state, tx, hand, now)?,
        Deed::Redrive => {
            state.queue_mut(hand.queue)?.totals.redriven += 1;
            (hand.past.attempts, hand.past.forgiven) = (0, 0);
            hand.past.redriven_at = Some(now.wall);
            if hand.past.holds_key {
                let (queue, key) = (hand.queue, hand.record.key().map(str::to_owned));
                moves::put_ready(state, tx, hand, Lane::Normal, now)?;
                if let Some(key) = key {
                    ordering::resumed(state, tx, queue, &key, now)?;
                }
            } else {
                moves::admit(state, tx, hand, now)?;
            }
        }
        Deed::Purge => moves::forget(state, tx, &hand, BodyOf::Entry, now)?,
        Deed::Move(to) => {
            moves::forget(state, tx, &hand, BodyOf::Another, now)?;
            // The deadline moves along, if it has one.
            let record = EntryRecord { number: state.next_number()?, ..hand.record };
            let (attempts, forgiven) = if was_dead { (0, 0) } else { (hand.past.attempts, hand.past.forgiven) };
            // Who moves out of the dead letters begins anew, as by a redrive.
            let redriven_at = if was_dead { Some(now.wall) } else { hand.past.redriven_at };
            let past = Past { attempts, forgiven, redriven_at, holds_key: false, ..hand.past };
            let key = moves::enter(state, tx, InHand::moved(to, record, past), due, now)?;
            return Ok(ActReply::Moved(state.entry_id(key)));
        }
    }
    Ok(ActReply::Done)
}

/// Dead letters that hold this key hold it no longer; how many.
pub(crate) fn free_key(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: &QueueName,
    key: &str,
    now: Now,
) -> Result<u64, QueueError> {
    let id = state.queue_id(queue)?;
    let freed: Vec<EntryKey> = ordering::free(state, tx, id, key, now)?;
    let count = freed.len() as u64;
    for entry in freed {
        let Some(Found { at: Whereabouts::Dead(at), .. }) = read::find(tx, state, entry)? else { continue };
        release_hold(tx, at)?;
    }
    Ok(count)
}

fn release_hold(tx: &mut Tx<'_>, at: EndKey) -> Result<(), QueueError> {
    let Some(value) = tx.get(Family::Dead, &at.encode())? else { return Ok(()) };
    let end = EndRecord::decode(&value)?;
    let past = Past { holds_key: false, ..end.past };
    tx.put(Family::Dead, at.encode(), EndRecord::encode(&EntryRecord::decode(end.entry)?, &past, None));
    Ok(())
}
