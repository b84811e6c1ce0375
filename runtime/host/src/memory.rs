//! How much memory an invocation has, and the refusal of more.

use std::sync::Arc;

use gristmill_core::units::format_size;
use wasmtime::ResourceLimiter;

use crate::live::Call;

/// Counts all memories and tables of one store together. Asking for more than the limit ends the invocation: most
/// guests answer a failed allocation with a trap that says nothing of memory.
#[derive(Debug)]
pub(crate) struct MemoryMeter {
    limit: u64,
    used: u64,
    call: Option<Arc<Call>>,
}

/// The guest asked for more than the limit.
#[derive(Debug, thiserror::Error)]
#[error("the handler asked for {} KiB of memory; its limit is {}", .asked.div_ceil(1_024), format_size(*.limit))]
pub(crate) struct OverLimit {
    asked: u64,
    limit: u64,
}

impl MemoryMeter {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: 0, call: None }
    }

    /// Another invocation begins, with a limit of its own, in what is there already.
    pub(crate) fn begin(&mut self, limit: u64, call: Arc<Call>) {
        call.set_memory(self.used);
        (self.limit, self.call) = (limit, Some(call));
    }

    /// The most that was used so far. Nothing is ever given back, so that it is also what is used.
    pub(crate) fn peak(&self) -> u64 {
        self.used
    }

    /// Accounts for growth from `current` to `desired` units of `size` bytes. Growth that is granted and then fails
    /// for want of address space stays accounted for; it leaves an invocation with less, never with more.
    fn grow(&mut self, current: usize, desired: usize, size: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = (desired.saturating_sub(current) as u64).saturating_mul(size as u64);
        let asked = self.used.saturating_add(more);
        if asked > self.limit {
            return Err(OverLimit { asked, limit: self.limit }.into());
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The guest's own limit: it expects to be told.
            return Ok(false);
        }
        self.used = asked;
        if let Some(call) = &self.call {
            call.set_memory(asked);
        }
        Ok(true)
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(current, desired, 1, maximum)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(current, desired, size_of::<usize>(), maximum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_count_together() {
        let mut meter = MemoryMeter::new(1_000);
        assert!(meter.memory_growing(0, 500, None).unwrap());
        assert!(meter.table_growing(0, 50, None).unwrap());
        assert_eq!(meter.peak(), 900);
        let error = meter.memory_growing(500, 601, None).unwrap_err();
        assert_eq!(error.to_string(), "the handler asked for 1 KiB of memory; its limit is 1000B");
        assert!(meter.memory_growing(500, 600, None).unwrap());
    }

    #[test]
    fn a_guests_own_maximum_is_no_error_and_costs_nothing() {
        let mut meter = MemoryMeter::new(1_000);
        assert!(!meter.memory_growing(0, 500, Some(400)).unwrap());
        assert_eq!(meter.peak(), 0);
        assert!(meter.memory_growing(0, usize::MAX, Some(1)).is_err());
    }
}
