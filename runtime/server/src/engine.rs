//! Opening the engine that the configuration names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use gristmill_queue::{Durability, Engine, EngineOptions, Memory, OnLoss, Operation, Queue, QueueError, RocksDb};

use crate::config::{Config, DurabilityKind, EngineKind};
use crate::registry;

/// Opens the store and makes sure that every handler has its queue.
///
/// # Errors
/// When the data directory cannot be made, or the store cannot be opened.
pub async fn open(config: &Config, on_loss: OnLoss) -> anyhow::Result<Arc<dyn Queue>> {
    let engine = match config.queue.engine {
        EngineKind::Memory => Memory::default().open(options(config, on_loss))?,
        EngineKind::Rocksdb => open_store(config, on_loss).await?,
    };
    let queue: Arc<dyn Queue> = Arc::new(engine);
    configure(&*queue, config).await?;
    Ok(queue)
}

/// Makes sure that every handler has its queue, with the options that the file gives it, and every bucket its limit.
///
/// # Errors
/// When the store cannot be written.
pub async fn configure(queue: &dyn Queue, config: &Config) -> Result<(), QueueError> {
    for (name, options) in registry::queues(config) {
        queue.configure(name, options).await?;
    }
    limit_buckets(queue, config).await
}

/// Gives every bucket that the file names the limit that it has there, or none: what the file says holds, not what it
/// said when the store was last opened.
async fn limit_buckets(queue: &dyn Queue, config: &Config) -> Result<(), QueueError> {
    let granted = config.handlers.iter().flat_map(|handler| &handler.grant.state).map(|grant| (&grant.bucket, None));
    let limited = config.buckets.iter().map(|bucket| (&bucket.name, bucket.max_bytes));
    let buckets: BTreeMap<_, _> = granted.chain(limited).collect();
    for (bucket, max_bytes) in buckets {
        queue.operate(Operation::LimitBucket { bucket: bucket.clone(), max_bytes }).await?;
    }
    Ok(())
}

/// Opens the store on disk as it is; creates it if there is none.
///
/// # Errors
/// When the data directory cannot be made, or the store cannot be opened.
pub async fn open_store(config: &Config, on_loss: OnLoss) -> anyhow::Result<Engine> {
    let (directory, options) = (directory(config), options(config, on_loss));
    let display = directory.display().to_string();
    tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&directory).with_context(|| {
            format!("cannot create {}; choose another place with `[runtime] data-dir`", directory.display())
        })?;
        anyhow::Ok(RocksDb::open(&directory, options)?)
    })
    .await
    .with_context(|| format!("opening {display} was interrupted"))?
}

/// Where the store is.
#[must_use]
pub fn directory(config: &Config) -> PathBuf {
    config.data_dir.join("queue")
}

fn options(config: &Config, on_loss: OnLoss) -> EngineOptions {
    EngineOptions {
        durability: match config.queue.durability {
            DurabilityKind::Fsync => Durability::Fsync,
            DurabilityKind::Os => Durability::Os,
        },
        max_event_size: config.queue.max_event_size,
        idempotency_window: config.queue.idempotency_window,
        log_retention: config.log_retention,
        disk_reserve: config.queue.disk_reserve,
        on_loss,
        write_buffer: config.queue.write_buffer,
        cache: config.queue.cache,
        ..EngineOptions::default()
    }
}
