//! Runs event handlers that are WebAssembly components: component and delivery in, outcome out.
mod backtrace;
mod bindings;
mod component;
mod engine;
mod error;
mod imports;
mod inspect;
mod invocation;
mod log;
mod memory;
mod options;
mod outbox;
mod outcome;
mod provided;
mod state;
mod stdio;

pub use component::{Component, Interface, LoadRequest};
pub use engine::Host;
pub use error::{HostError, LoadError};
pub use inspect::Import;
pub use invocation::{Invocation, Report};
pub use log::{LogLevel, LogLine, MAX_LINE_LEN};
pub use options::{Grants, HostOptions, Limits, MAX_INSTANCES};
pub use outbox::Emit;
pub use provided::ImportStatus;
