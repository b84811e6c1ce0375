//! Acks every event and does nothing else: what a handler costs at least.
#![forbid(unsafe_code)]

use gristmill_sdk::{Event, Raw, handler};

#[handler]
fn ack(_event: Event<Raw>) {}
