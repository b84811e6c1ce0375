//! About the running invocation.

use std::time::Duration;

use crate::host;

/// The name of this handler in `runtime.toml`.
#[must_use]
pub fn handler_name() -> String {
    host::handler_name()
}

/// The digest of the component that runs, such as `sha256:6b…`.
#[must_use]
pub fn component_digest() -> String {
    host::component_digest()
}

/// The time left before the host stops this invocation and counts the attempt as timed out.
#[must_use]
pub fn remaining() -> Duration {
    host::remaining()
}
