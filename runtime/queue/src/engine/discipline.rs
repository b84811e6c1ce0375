//! The rule behind single-deletes, checked at every commit of a build with debug assertions.

use std::collections::HashMap;

use super::store::{View, Write, Writes};
use crate::contract::QueueError;

/// Whether `writes` puts only keys that are not there and deletes only keys that are, in the families with
/// single-deletes. A store does not notice a violation until much later, when an old value is back or a file is
/// unreadable.
pub(super) fn check(view: &dyn View, writes: &Writes) -> Result<(), QueueError> {
    let mut written = HashMap::new();
    for (family, key, write) in writes.iter().filter(|(family, ..)| family.is_single_delete()) {
        let puts = matches!(write, Write::Put(_));
        let exists = match written.insert((family, key), puts) {
            Some(exists) => exists,
            None => view.get(family, key)?.is_some(),
        };
        let mistake = match write {
            Write::Put(_) if exists => "put, and exists already",
            Write::Delete if !exists => "deleted, and does not exist",
            _ => continue,
        };
        let name = family.stored_name();
        return Err(QueueError::Corrupt(format!(
            "a commit breaks the rule of the family `{name}`: {key:02x?} is {mistake}"
        )));
    }
    match writes.ranges().iter().find(|(family, ..)| family.is_single_delete()) {
        Some((family, ..)) => {
            let name = family.stored_name();
            Err(QueueError::Corrupt(format!("a commit breaks the rule of the family `{name}`: a range is deleted")))
        }
        None => Ok(()),
    }
}
