//! A line of ready entries as the writer knows it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::records::LaneRecord;

/// A line of ready entries, and as many of its first ones as fit into memory.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) record: LaneRecord,
    /// The first entries from the cursor on, without a gap.
    pub(crate) window: VecDeque<(u64, Bytes)>,
    window_bytes: usize,
}

impl Line {
    /// Entries, and their bytes, that a line keeps in memory.
    const MAX_ENTRIES: usize = 1_024;
    const MAX_BYTES: usize = 1 << 20;

    /// One that has not been looked at yet.
    pub(crate) fn new(record: LaneRecord) -> Self {
        Self { record, ..Self::default() }
    }

    /// How many entries more it may keep.
    pub(crate) fn room(&self) -> usize {
        Self::MAX_ENTRIES.saturating_sub(self.window.len())
    }

    pub(crate) fn has_room(&self) -> bool {
        self.window.len() < Self::MAX_ENTRIES && self.window_bytes < Self::MAX_BYTES
    }

    /// An entry that joins the end of the line.
    pub(crate) fn joined(&mut self, position: u64, entry: Bytes) {
        if self.window.len() as u64 == self.record.ready && self.has_room() {
            self.remember(position, entry);
        }
        self.record.ready += 1;
    }

    pub(crate) fn remember(&mut self, position: u64, entry: Bytes) {
        self.window_bytes += entry.len();
        self.window.push_back((position, entry));
    }

    /// Takes the first entry; it is leased from now on.
    pub(crate) fn pop(&mut self) -> Option<(u64, Bytes)> {
        let (position, entry) = self.window.pop_front()?;
        self.window_bytes -= entry.len();
        self.record.cursor = position + 1;
        self.record.ready = self.record.ready.saturating_sub(1);
        Some((position, entry))
    }

    /// An entry leaves the middle of the line.
    pub(crate) fn left(&mut self, position: u64) {
        self.record.ready = self.record.ready.saturating_sub(1);
        if let Ok(at) = self.window.binary_search_by_key(&position, |(position, _)| *position)
            && let Some((_, entry)) = self.window.remove(at)
        {
            self.window_bytes -= entry.len();
        }
    }
}
