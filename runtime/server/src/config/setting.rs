//! A value, and whether somebody wrote it.

use std::ops::Range;

/// What became of a key.
#[derive(Clone, Debug, Default)]
pub(super) enum Setting<T> {
    /// Nobody wrote it.
    #[default]
    Absent,
    /// It was written, and is wrong; that was reported.
    Invalid,
    /// It was written.
    Written {
        /// The value.
        value: T,
        /// Where.
        span: Range<usize>,
    },
}

/// The value that counts, and where it was written unless it is the default.
#[derive(Clone, Debug)]
pub(super) struct Effective<T> {
    pub(super) value: T,
    pub(super) span: Option<Range<usize>>,
}

impl<T: Clone> Setting<T> {
    /// This one, or `fallback` where it is absent.
    pub(super) fn or(&self, fallback: &Self) -> Self {
        match self {
            Self::Absent => fallback.clone(),
            written => written.clone(),
        }
    }

    /// The value, if somebody wrote a right one.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Written { value, .. } => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    /// The value, or `default` where there is none.
    pub(super) fn value_or(&self, default: T) -> T {
        match self {
            Self::Written { value, .. } => value.clone(),
            Self::Absent | Self::Invalid => default,
        }
    }

    /// Where it was written, if somebody wrote a right one.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        match self {
            Self::Written { span, .. } => Some(span.clone()),
            Self::Absent | Self::Invalid => None,
        }
    }

    /// What counts, to be compared with others; `None` when it is unknown because it is wrong.
    pub(super) fn effective(&self, default: T) -> Option<Effective<T>> {
        match self {
            Self::Absent => Some(Effective { value: default, span: None }),
            Self::Invalid => None,
            Self::Written { value, span } => Some(Effective { value: value.clone(), span: Some(span.clone()) }),
        }
    }
}
