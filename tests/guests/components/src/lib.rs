//! The guests are this package's examples.
