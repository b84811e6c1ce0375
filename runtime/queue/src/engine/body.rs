//! Bodies: data that is too large to move with its entries. Stored once, referred to by entries and by the log, and
//! counted; the last reference takes the body with it.

use bytes::Bytes;

use super::event::EncodedEvent;
use super::keys::{Family, number_key};
use super::records::{NumberRecord, Record};
use super::state::State;
use super::store::{Tx, View};
use crate::contract::QueueError;

/// Stores data for so many references; its number.
pub(crate) fn add(state: &mut State, tx: &mut Tx<'_>, data: Bytes, references: u64) -> Result<u64, QueueError> {
    let number = state.next_number()?;
    tx.put(Family::Body, number_key(number), data);
    if references > 1 {
        tx.put(Family::BodyCount, number_key(number), NumberRecord(references).encode());
    }
    Ok(number)
}

/// One reference more to the event's body, if it has one.
pub(crate) fn share(tx: &mut Tx<'_>, event: &EncodedEvent) -> Result<(), QueueError> {
    let Some(body) = event.body()? else { return Ok(()) };
    let count = references(tx, body.number)?.saturating_add(1);
    tx.put(Family::BodyCount, number_key(body.number), NumberRecord(count).encode());
    Ok(())
}

/// One reference less to the event's body, if it has one.
pub(crate) fn release(state: &mut State, tx: &mut Tx<'_>, event: &EncodedEvent) -> Result<(), QueueError> {
    match event.body() {
        Ok(Some(body)) => release_number(state, tx, body.number),
        Ok(None) => Ok(()),
        Err(error) => {
            tracing::error!(%error, "an event cannot be read; its data, if it has any, is left where it is");
            Ok(())
        }
    }
}

/// One reference less to this body.
pub(crate) fn release_number(state: &mut State, tx: &mut Tx<'_>, number: u64) -> Result<(), QueueError> {
    let left = references(tx, number)?.saturating_sub(1);
    match left {
        0 => {
            tx.delete(Family::Body, number_key(number));
            state.effects.freed = true;
        }
        1 => tx.delete(Family::BodyCount, number_key(number)),
        left => tx.put(Family::BodyCount, number_key(number), NumberRecord(left).encode()),
    }
    Ok(())
}

/// How many references a body has: one, unless it is counted.
pub(crate) fn references(view: &dyn View, number: u64) -> Result<u64, QueueError> {
    match view.get(Family::BodyCount, &number_key(number))? {
        Some(bytes) => Ok(NumberRecord::decode(&bytes)?.0),
        None => Ok(1),
    }
}

/// The data that an event has apart from its attributes, if any.
pub(crate) fn load(view: &dyn View, event: &EncodedEvent) -> Result<Option<Bytes>, QueueError> {
    let Some(body) = event.body()? else { return Ok(None) };
    match view.get(Family::Body, &number_key(body.number))? {
        Some(data) => Ok(Some(data)),
        None => Err(QueueError::Corrupt(format!("body number {} is missing", body.number))),
    }
}
