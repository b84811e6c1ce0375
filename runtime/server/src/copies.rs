//! `gristmill backup` and `gristmill restore`: copies of the store of a runtime that is stopped.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use gristmill_queue::{OnLoss, Queue as _, RocksDb};

use crate::cli::args::{Backup, Restore};
use crate::config::{Config, EngineKind};
use crate::engine;

/// Writes a copy of the store.
///
/// # Errors
/// When a runtime has the store open, when there is none, and when the copy exists or cannot be written.
pub async fn backup(args: &Backup, config: &Config) -> anyhow::Result<ExitCode> {
    if !args.offline {
        bail!("this version backs up the store of a stopped runtime only: stop it, and pass --offline");
    }
    check_engine(config)?;
    let store = engine::directory(config);
    if !store.exists() {
        bail!("there is no store at {}: nothing to back up", store.display());
    }
    let engine = engine::open_store(config, OnLoss::Refuse).await?;
    let copied = engine.backup(&args.directory).await;
    engine.close().await?;
    copied?;
    eprintln!("backed up {} to {}", store.display(), args.directory.display());
    Ok(ExitCode::SUCCESS)
}

/// Makes a copy the store.
///
/// # Errors
/// When there is a store already, when the copy is none, and when the store cannot be written.
pub async fn restore(args: &Restore, config: &Config) -> anyhow::Result<ExitCode> {
    check_engine(config)?;
    let (copy, store) = (args.directory.clone(), engine::directory(config));
    if holds_anything(&store) {
        bail!("there is a store at {} already: move it away, or choose another `data-dir`", store.display());
    }
    let restored = tokio::task::spawn_blocking({
        let store = store.clone();
        move || RocksDb::restore(&copy, &store)
    });
    restored.await.context("restoring was interrupted")??;
    eprintln!("restored {} from {}", store.display(), args.directory.display());
    Ok(ExitCode::SUCCESS)
}

fn holds_anything(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

fn check_engine(config: &Config) -> anyhow::Result<()> {
    if config.queue.engine == EngineKind::Memory {
        bail!("the memory engine keeps nothing that could be copied; write: engine = \"rocksdb\"");
    }
    Ok(())
}
