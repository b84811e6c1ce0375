//! Names of queues and handlers.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub const MAX_NAME_LEN: usize = 63;

/// Why a string is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a name: 1 to 63 of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or digit", .0.escape_debug())]
pub struct NameError(pub String);

/// The name of a queue: 1 to 63 of `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName(Arc<str>);

/// The name of a handler. A handler's queue has the same name, so the two are one type.
pub type HandlerName = QueueName;

impl QueueName {
    /// Parses a name.
    ///
    /// # Errors
    /// When it is empty, too long, or holds another character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let first_ok = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let all_ok = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
        if first_ok && all_ok && name.len() <= MAX_NAME_LEN {
            Ok(Self(Arc::from(name)))
        } else {
            Err(NameError(name.to_owned()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for QueueName {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for QueueName {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Borrow<str> for QueueName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_words() {
        for good in ["a", "resize", "order-2.paid_v1", "0", &"x".repeat(63)] {
            assert!(QueueName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".", "A", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(QueueName::new(bad).is_err(), "{bad}");
        }
    }
}
