//! Entry ids: the store's salt, the entry's number, its queue, and its priority unless that is 0, between dashes and in
//! Crockford's base 32: `k3f9qz-1a4-2`.
//!
//! The id names the entry's first ready key, so that an entry needs no index while it is there.

use gristmill_core::EntryId;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::keys::QueueId;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SALT_DIGITS: u32 = 6;
/// Salts fit into their digits.
pub(crate) const SALT_MASK: u32 = (1 << (5 * SALT_DIGITS)) - 1;

/// An id in the making.
type Text = SmallVec<[u8; 32]>;

/// What an entry's id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct EntryKey {
    pub(crate) queue: QueueId,
    /// The priority that it was published with.
    pub(crate) priority: u8,
    pub(crate) number: u64,
}

impl EntryKey {
    /// The id in the store with this salt.
    #[expect(clippy::expect_used, reason = "31 characters at most, all of them from the alphabet or dashes")]
    pub(crate) fn id(self, salt: u32) -> EntryId {
        let mut text = Text::new();
        push_digits(&mut text, u64::from(salt & SALT_MASK), SALT_DIGITS);
        text.push(b'-');
        push_number(&mut text, self.number);
        text.push(b'-');
        push_number(&mut text, u64::from(self.queue));
        if self.priority > 0 {
            text.push(b'-');
            push_number(&mut text, u64::from(self.priority));
        }
        let id = std::str::from_utf8(&text).ok().and_then(|text| EntryId::new(text).ok());
        id.expect("digits and dashes make an id")
    }

    /// What `id` says, if the store with this salt issued it.
    pub(crate) fn parse(id: &EntryId, salt: u32) -> Option<Self> {
        let mut parts = id.as_str().split('-');
        if value(parts.next()?)? != u64::from(salt & SALT_MASK) {
            return None;
        }
        let key = Self {
            number: value(parts.next()?)?,
            queue: u32::try_from(value(parts.next()?)?).ok()?,
            priority: u8::try_from(parts.next().map_or(Some(0), value)?).ok()?,
        };
        // One entry, one id: no leading zeros, nothing behind it.
        (key.id(salt) == *id).then_some(key)
    }
}

fn push_number(text: &mut Text, number: u64) {
    push_digits(text, number, (u64::BITS - number.leading_zeros()).div_ceil(5).max(1));
}

fn push_digits(text: &mut Text, value: u64, digits: u32) {
    for digit in (0..digits).rev() {
        let index = (value >> (5 * digit) & 31) as usize;
        text.push(ALPHABET.get(index).copied().unwrap_or(b'0'));
    }
}

fn value(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 13 {
        return None;
    }
    let value = text.bytes().try_fold(0u128, |value, byte| {
        let digit = ALPHABET.iter().position(|&letter| letter == byte)?;
        Some(value << 5 | digit as u128)
    })?;
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_survive_the_round_trip(queue in any::<u32>(), priority in any::<u8>(), number in any::<u64>(), salt in any::<u32>()) {
            let key = EntryKey { queue, priority, number };
            let id = key.id(salt);
            prop_assert_eq!(EntryKey::parse(&id, salt), Some(key));
            prop_assert_eq!(EntryKey::parse(&id, salt ^ 1), None, "another store's id");
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9a-z-]{1,64}") {
            let id = EntryId::new(&text).unwrap();
            if let Some(key) = EntryKey::parse(&id, 5) {
                prop_assert_eq!(key.id(5), id);
            }
        }
    }
}
