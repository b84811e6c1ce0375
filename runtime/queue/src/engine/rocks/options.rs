//! How RocksDB is set up, and why.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gristmill_core::Timestamp;
use rocksdb::compaction_filter::Decision;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, MemtableFactory, Options,
};

use super::Settings;
use crate::engine::keys::Family;
use crate::engine::records::OriginRecord;

/// The log is cut when it gets longer than this, in bytes.
const MAX_LOG: u64 = 256 << 20;
/// What the families' buffers take in any case, in bytes.
const BLOCKS: u64 = 32 << 20;
/// Files that are kept open.
const MAX_OPEN_FILES: i32 = 512;
/// Expired origins go within this time, in seconds, even where nothing new is written.
const ORIGIN_COMPACTION: u64 = 3_600;
/// The size of a file of bodies, in bytes.
const BODY_FILE: u64 = 64 << 20;

/// The time before which records of the `Origin` family have expired, in microseconds.
pub(super) type ExpiredBefore = Arc<AtomicU64>;

pub(super) fn database(settings: &Settings) -> Options {
    let mut options = Options::default();
    options.create_if_missing(settings.create);
    options.create_missing_column_families(true);
    // More than ever comes together: the store begins a new log before that (see `Rocks::begin_log`).
    let limit = settings.write_buffer.saturating_mul(2).saturating_add(BLOCKS);
    options.set_db_write_buffer_size(usize::try_from(limit).unwrap_or(usize::MAX));
    options.set_max_total_wal_size(MAX_LOG.max(settings.write_buffer.saturating_mul(4)));
    // What follows the first damaged record of the log is dropped; that nothing synced was among it is checked apart.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // Logs are not recycled: they would keep the size of the largest body that ever was in them (see `room`).
    // All families are written out together. Their files then always show one moment of the store, and a log that is
    // damaged can be cut off where the damage begins; otherwise a family may be ahead of it, and RocksDB opens nothing.
    options.set_atomic_flush(true);
    // One thread writes.
    options.set_allow_concurrent_memtable_write(false);
    options.set_keep_log_file_num(4);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options
}

pub(super) fn families(settings: &Settings, expired: &ExpiredBefore) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(usize::try_from(settings.cache).unwrap_or(usize::MAX));
    let descriptor = |family: Family| {
        let options = family_options(family, settings, &cache, expired);
        ColumnFamilyDescriptor::new(family.stored_name(), options)
    };
    Family::ALL.into_iter().map(descriptor).collect()
}

fn family_options(family: Family, settings: &Settings, cache: &Cache, expired: &ExpiredBefore) -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(usize::try_from(settings.write_buffer).unwrap_or(usize::MAX));
    options.set_compression_type(DBCompressionType::Lz4);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // Indexes and filters count against the cache, so that memory does not grow with the backlog.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    if is_looked_up(family) {
        table.set_bloom_filter(10.0, false);
    }
    options.set_block_based_table_factory(&table);
    match family {
        Family::Body => {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(1);
            options.set_blob_file_size(BODY_FILE);
            // Any compaction would copy all live bodies that it meets. `reclaim` switches it on when that pays.
            options.set_enable_blob_gc(false);
            options.set_blob_gc_age_cutoff(1.0);
        }
        Family::Origin => {
            let expired = expired.clone();
            options.set_compaction_filter("expired-origins", move |_, _, value| {
                let now = Timestamp::from_micros(expired.load(Ordering::Relaxed));
                if OriginRecord::is_expired(value, now) { Decision::Remove } else { Decision::Keep }
            });
            options.set_periodic_compaction_seconds(ORIGIN_COMPACTION);
        }
        _ => {}
    }
    options
}

/// Families whose keys are looked up one by one, and are mostly not there.
const fn is_looked_up(family: Family) -> bool {
    matches!(
        family,
        Family::Place | Family::Done | Family::Origin | Family::Key | Family::State | Family::Body | Family::BodyCount
    )
}

/// For a look at a store that changes nothing.
pub(super) fn inspection() -> Options {
    let mut options = Options::default();
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_open_files(MAX_OPEN_FILES);
    options
}

/// The families for such a look: what is in the log is only counted, so it is held in no order.
pub(super) fn inspected(names: Vec<String>) -> Vec<ColumnFamilyDescriptor> {
    let descriptor = |name: String| {
        let mut options = Options::default();
        options.set_memtable_factory(MemtableFactory::Vector);
        if name == Family::Body.stored_name() {
            options.set_enable_blob_files(true);
        }
        ColumnFamilyDescriptor::new(name, options)
    };
    names.into_iter().map(descriptor).collect()
}
