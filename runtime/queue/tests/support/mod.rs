//! What several tests do with stores and their files.
#![allow(clippy::unwrap_used, reason = "a test's helpers: whatever fails, fails the test")]
#![allow(dead_code, reason = "no test needs all of it")]

use std::path::Path;

use gristmill_core::{QueueName, State};
use gristmill_queue::{Entry, List, Queue};

/// Every entry of a queue, state by state, page by page.
pub(crate) async fn all_entries(queue: &dyn Queue, name: &QueueName) -> Vec<Entry> {
    let mut entries = Vec::new();
    for state in State::ALL {
        let mut list = List::new(name.clone(), state);
        loop {
            let page = queue.list(list.clone()).await.unwrap();
            entries.extend(page.entries);
            list.cursor = page.next;
            if list.cursor.is_none() {
                break;
            }
        }
    }
    entries
}

/// Copies the files of a store into a directory, and makes that first if need be.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// How long a log is without the room that was taken ahead.
pub(crate) fn end_of_log(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}
