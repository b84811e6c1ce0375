//! The functions that a handler may call, besides WASI.

use std::time::Instant;

use crate::bindings::{context, emitter, logging, types};
use crate::log::LogLevel;
use crate::state::State;

impl types::Host for State {}

impl emitter::Host for State {
    fn emit(&mut self, event: emitter::NewEvent) -> Result<String, emitter::EmitError> {
        self.outbox.emit(event, &self.identity.name, &self.identity.grants.emit)
    }
}

impl context::Host for State {
    fn handler_name(&mut self) -> String {
        self.identity.name.as_str().to_owned()
    }

    fn component_digest(&mut self) -> String {
        self.identity.digest.clone()
    }

    fn remaining(&mut self) -> types::Duration {
        if let Some(scene) = &self.scene {
            let left = self.timeout.saturating_sub(scene.clock().waited());
            return types::Duration::try_from(left.as_millis()).unwrap_or(types::Duration::MAX);
        }
        let Some(deadline) = self.deadline else { return types::Duration::MAX };
        let left = deadline.saturating_duration_since(Instant::now());
        types::Duration::try_from(left.as_millis()).unwrap_or(types::Duration::MAX)
    }
}

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, context: String, message: String) {
        let level = match level {
            logging::Level::Trace => LogLevel::Trace,
            logging::Level::Debug => LogLevel::Debug,
            logging::Level::Info => LogLevel::Info,
            logging::Level::Warn => LogLevel::Warn,
            logging::Level::Error => LogLevel::Error,
            logging::Level::Critical => LogLevel::Critical,
        };
        self.log.lock().push(level, &context, &message);
    }
}
