//! `gristmill state`: what handlers keep, asked of a running runtime or, with `--offline`, looked up in the store of one
//! that is stopped.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Subcommand;
use gristmill_core::state::{Change, StateWrite};
use gristmill_queue::{Queue, StateSnapshot, Transacted, Transaction};
use serde_json::{Value, json};

use super::runtime::Runtime;
use super::screen::{Screen, print};
use super::text::{one_line, safe_json};

/// Keys that are read at a time.
const KEYS_AT_ONCE: usize = 1_000;

/// `state …`.
#[derive(Clone, Debug, Subcommand)]
pub enum State {
    /// List the buckets that hold anything, or the keys of one
    #[command(after_help = "\
Examples:
  gristmill state list
  gristmill state list thumbnails --prefix 2026/")]
    List(StateList),
    /// Print a value as it is
    #[command(after_help = "\
Example:
  gristmill state get thumbnails 2026/cat.png > cat.png")]
    Get(StateGet),
    /// Write a value, or delete a key
    #[command(after_help = "\
Examples:
  gristmill state set --offline prices apple 12
  gristmill state set --offline prices apple --delete")]
    Set(StateSet),
    /// Print all keys and values as JSON, one a line: text as `value`, anything else as `value_base64`
    #[command(after_help = "\
Examples:
  gristmill state export --offline > state.ndjson
  gristmill state export --offline prices | jq .key")]
    Export(StateExport),
}

impl State {
    /// Whether the store of a stopped runtime is meant.
    #[must_use]
    pub const fn is_offline(&self) -> bool {
        match self {
            Self::List(args) => args.offline,
            Self::Get(args) => args.offline,
            Self::Set(args) => args.offline,
            Self::Export(args) => args.offline,
        }
    }
}

/// `state list`.
#[derive(Clone, Debug, clap::Args)]
pub struct StateList {
    /// The bucket whose keys to list [default: list the buckets]
    pub bucket: Option<String>,
    /// Only keys that begin like this
    #[arg(long, default_value = "", requires = "bucket", hide_default_value = true)]
    pub prefix: String,
    /// Open the data directory of a runtime that is stopped
    #[arg(long)]
    pub offline: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `state get`.
#[derive(Clone, Debug, clap::Args)]
pub struct StateGet {
    /// The bucket
    pub bucket: String,
    /// The key
    pub key: String,
    /// Open the data directory of a runtime that is stopped
    #[arg(long)]
    pub offline: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `state set`.
#[derive(Clone, Debug, clap::Args)]
pub struct StateSet {
    /// The bucket; the first key makes it
    pub bucket: String,
    /// The key
    pub key: String,
    /// The value
    #[arg(required_unless_present = "delete")]
    pub value: Option<String>,
    /// Delete the key
    #[arg(long, conflicts_with = "value")]
    pub delete: bool,
    /// Open the data directory of a runtime that is stopped; the only way so far
    #[arg(long)]
    pub offline: bool,
}

/// `state export`.
#[derive(Clone, Debug, clap::Args)]
pub struct StateExport {
    /// The bucket [default: all of them]
    pub bucket: Option<String>,
    /// Open the data directory of a runtime that is stopped; the only way so far
    #[arg(long)]
    pub offline: bool,
}

/// Looks at the state of an open store, or changes it.
///
/// # Errors
/// When the store fails or refuses, or what was asked for is not there.
pub async fn state(command: &State, queue: &dyn Queue) -> anyhow::Result<ExitCode> {
    let look: Box<Look> = match command.clone() {
        State::Set(args) => return set(&args, queue).await,
        State::List(args) => Box::new(move |snapshot| list(&args, snapshot)),
        State::Get(args) => Box::new(move |snapshot| get(&args, snapshot)),
        State::Export(args) => Box::new(move |snapshot| export(&args, snapshot)),
    };
    let snapshot = queue.snapshot().await?;
    // It reads from the disk.
    tokio::task::spawn_blocking(move || look(&*snapshot)).await??;
    Ok(ExitCode::SUCCESS)
}

/// Asks a running runtime.
///
/// # Errors
/// When it cannot be reached, refuses, or is not asked this.
pub(super) async fn ask(command: &State, runtime: &Runtime) -> anyhow::Result<ExitCode> {
    match command {
        State::List(args) => {
            let Some(bucket) = &args.bucket else {
                show_names(args, &runtime.buckets().await?.items)?;
                return Ok(ExitCode::SUCCESS);
            };
            let (mut keys, mut cursor) = (Vec::new(), None);
            loop {
                let page = runtime.keys(bucket, &args.prefix, cursor.as_deref()).await?;
                keys.extend(page.items);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            show_names(args, &keys)?;
        }
        State::Get(args) => show_value(args, &runtime.value(&args.bucket, &args.key).await?)?,
        State::Set(_) | State::Export(_) => {
            bail!("this version does that with the store of a stopped runtime only: stop it, and pass --offline");
        }
    }
    Ok(ExitCode::SUCCESS)
}

type Look = dyn FnOnce(&dyn StateSnapshot) -> anyhow::Result<()> + Send;

fn list(args: &StateList, snapshot: &dyn StateSnapshot) -> anyhow::Result<()> {
    let names = match &args.bucket {
        None => snapshot.buckets()?,
        Some(bucket) => {
            let mut keys = Vec::new();
            each_key(snapshot, bucket, &args.prefix, |key| {
                keys.push(key);
                Ok(())
            })?;
            keys
        }
    };
    show_names(args, &names)
}

fn show_names(args: &StateList, names: &[String]) -> anyhow::Result<()> {
    if args.json {
        Screen::stdout().json(&json!({ "items": names, "next": null }))?;
    } else if names.is_empty() {
        eprintln!("there are no {}", if args.bucket.is_some() { "keys" } else { "buckets" });
    } else {
        print(&names.iter().map(|name| one_line(name) + "\n").collect::<String>())?;
    }
    Ok(())
}

fn get(args: &StateGet, snapshot: &dyn StateSnapshot) -> anyhow::Result<()> {
    let value = snapshot.get(&args.bucket, &args.key)?;
    let value = value.ok_or_else(|| anyhow!("there is no key `{}` in bucket `{}`", args.key, args.bucket))?;
    show_value(args, &value)
}

fn show_value(args: &StateGet, value: &Bytes) -> anyhow::Result<()> {
    if args.json {
        Screen::stdout().json(&item(&args.bucket, &args.key, value))?;
    } else {
        // As it is: somebody asked for just this value.
        std::io::stdout().lock().write_all(value)?;
    }
    Ok(())
}

fn export(args: &StateExport, snapshot: &dyn StateSnapshot) -> anyhow::Result<()> {
    let buckets = match &args.bucket {
        Some(bucket) => vec![bucket.clone()],
        None => snapshot.buckets()?,
    };
    for bucket in &buckets {
        each_key(snapshot, bucket, "", |key| {
            if let Some(value) = snapshot.get(bucket, &key)? {
                print(&(safe_json(&item(bucket, &key, &value).to_string()) + "\n"))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn each_key(
    snapshot: &dyn StateSnapshot,
    bucket: &str,
    prefix: &str,
    mut each: impl FnMut(String) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut after: Option<String> = None;
    loop {
        let keys = snapshot.keys(bucket, prefix, after.as_deref(), KEYS_AT_ONCE)?;
        let Some(last) = keys.last() else { return Ok(()) };
        after = Some(last.clone());
        keys.into_iter().try_for_each(&mut each)?;
    }
}

/// A key and its value: as text where it is some, in base64 where it is not.
fn item(bucket: &str, key: &str, value: &Bytes) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => json!({ "bucket": bucket, "key": key, "value": text }),
        Err(_) => json!({ "bucket": bucket, "key": key, "value_base64": STANDARD.encode(value) }),
    }
}

async fn set(args: &StateSet, queue: &dyn Queue) -> anyhow::Result<ExitCode> {
    let change = match &args.value {
        Some(value) => Change::Set(Bytes::from(value.clone())),
        None => Change::Delete,
    };
    let write = StateWrite { bucket: args.bucket.clone(), key: args.key.clone(), change };
    let transaction = Transaction { writes: vec![write], ..Transaction::default() };
    match queue.transact(transaction).await? {
        Transacted::Committed(_) => Ok(ExitCode::SUCCESS),
        Transacted::Refused(refused) => bail!("{refused}"),
        Transacted::Conflict => bail!("a handler has the bucket to itself right now: try again"),
    }
}
