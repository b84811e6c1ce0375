//! Sends what `log` and `tracing` collect to the host.

use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::host;
use crate::spans::Collector;

/// Installs both collectors, once. Whoever came first keeps the place.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        if log::set_logger(&HostLog).is_ok() {
            log::set_max_level(LevelFilter::Trace);
        }
        let dispatch = tracing_core::Dispatch::new(Collector);
        // Fails when the handler has set a subscriber of its own, which then collects.
        let _ = tracing_core::dispatcher::set_global_default(dispatch);
    });
}

struct HostLog;

impl Log for HostLog {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        host::log(record.level(), record.target(), &record.args().to_string());
    }

    fn flush(&self) {}
}

/// The level of a `tracing` event, in the words of `log`.
pub(crate) fn level(level: tracing_core::Level) -> Level {
    match level {
        tracing_core::Level::ERROR => Level::Error,
        tracing_core::Level::WARN => Level::Warn,
        tracing_core::Level::INFO => Level::Info,
        tracing_core::Level::DEBUG => Level::Debug,
        tracing_core::Level::TRACE => Level::Trace,
    }
}
