//! Opening the engine that the configuration names.

use std::sync::Arc;

use anyhow::Context as _;
use gristmill_queue::{Durability, EngineOptions, Memory, Queue, RocksDb};

use crate::config::{Config, DurabilityKind, EngineKind};
use crate::registry;

/// Opens the store and makes sure that every handler has its queue.
///
/// # Errors
/// When the data directory cannot be made, or the store cannot be opened.
pub async fn open(config: &Config) -> anyhow::Result<Arc<dyn Queue>> {
    let durability = match config.queue.durability {
        DurabilityKind::Fsync => Durability::Fsync,
        DurabilityKind::Os => Durability::Os,
    };
    let options = EngineOptions { durability, max_event_size: config.queue.max_event_size, ..EngineOptions::default() };
    let engine = match config.queue.engine {
        EngineKind::Memory => Memory::default().open(options)?,
        EngineKind::Rocksdb => {
            let directory = config.data_dir.join("queue");
            let display = directory.display().to_string();
            tokio::task::spawn_blocking(move || {
                std::fs::create_dir_all(&directory)
                    .with_context(|| format!("cannot create the data directory {}", directory.display()))?;
                anyhow::Ok(RocksDb::open(&directory, options)?)
            })
            .await
            .with_context(|| format!("opening {display} was interrupted"))??
        }
    };
    let queue: Arc<dyn Queue> = Arc::new(engine);
    for (name, options) in registry::queues(config) {
        queue.configure(name, options).await?;
    }
    Ok(queue)
}
