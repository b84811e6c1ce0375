//! Text that is nobody else's business.

use std::fmt;
use std::sync::Arc;

/// Text that may be a secret: it goes to the handler that it is for, and into no log, error or listing. Neither `Display`
/// nor serialisation, and `Debug` shows an ellipsis. Cheap to clone.
///
/// ```
/// let key = gristmill_core::Secret::new("hunter2");
/// assert_eq!(format!("{key:?}"), "…");
/// assert_eq!(key.reveal(), "hunter2");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for whom it is for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
