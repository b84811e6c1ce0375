//! The transition from dead to ready.

use bytes::Bytes;
use gristmill_core::EntryId;

use super::Now;
use super::ids::EntryKey;
use super::keys::{EndKey, Family, Lane, LaneKey, ReadyKey, number_key};
use super::publish::make_ready;
use super::read;
use super::records::{EndRecord, EntryRecord, PlaceAt, PlaceRecord, Record};
use super::state::State;
use super::store::{Tx, View};
use crate::contract::{QueueError, RedriveReply};

/// Makes a dead entry ready again. Its attempts count anew; its history stays.
pub(crate) fn redrive(state: &mut State, tx: &mut Tx<'_>, id: &EntryId, now: Now) -> Result<RedriveReply, QueueError> {
    let Some(entry) = EntryKey::parse(id, state.salt) else { return Ok(RedriveReply::Unknown) };
    let key = EndKey { queue: entry.queue, number: entry.number }.encode();
    let Some(bytes) = tx.get(Family::Dead, &key)? else {
        return Ok(match read::state_of(tx, entry)? {
            Some(state) => RedriveReply::NotDead(state),
            None => RedriveReply::Unknown,
        });
    };
    let end = EndRecord::decode(&bytes)?;
    let record = EntryRecord::decode(Bytes::from(end.entry))?;
    let line = LaneKey { queue: entry.queue, priority: record.priority, lane: Lane::Normal };
    let ready = ReadyKey { line, position: state.next_number()? };
    tx.delete(Family::Dead, key);
    let place = PlaceRecord { at: PlaceAt::Ready(ready.into()), attempts: 0, history: end.history };
    tx.put(Family::Place, number_key(entry.number), place.encode());
    let queue = state.queue_mut(entry.queue)?;
    queue.counts.dead = queue.counts.dead.saturating_sub(1);
    queue.totals.redriven += 1;
    make_ready(state, tx, ready, record, now)?;
    Ok(RedriveReply::Redriven)
}
