//! The command line's grammar and its help.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum, value_parser};
use gristmill_core::{EntryId, QueueName, entry};
use reqwest::Url;

pub use super::embed::Embed;
use super::event::EventFlags;
pub use super::invoke::Invoke;
use super::options::PublishFlags;
use super::state::State;

/// The configuration that is read when nobody names another.
const DEFAULT_CONFIG: &str = "runtime.toml";

/// Runs event handlers written as WebAssembly components, over a durable queue that it brings along.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "gristmill",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  gristmill run                              run the deployment in ./runtime.toml
  gristmill publish events.ndjson            publish a file of CloudEvents, one a line
  gristmill queues                           what waits, runs and failed, queue by queue
  gristmill dead list                        the events that no attempt could handle

Exit status: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Args {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Where the runtime answers [default: the configuration's `listen`, else http://127.0.0.1:8080]
    #[arg(long, global = true, help_heading = "Global options", value_name = "URL", env = "GRISTMILL_URL", value_parser = base_url)]
    pub url: Option<Url>,
    /// The deployment's configuration [default: runtime.toml]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE", env = "GRISTMILL_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to log: a level (error, warn, info, debug, trace) or a filter such as `info,gristmill=debug`
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "FILTER",
        env = "GRISTMILL_LOG",
        default_value = "info"
    )]
    pub log: String,
    /// How log lines look
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "FORMAT",
        env = "GRISTMILL_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

impl Global {
    /// The configuration to read: the one that was named, or `runtime.toml`.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For programs: one JSON object a line
    Json,
}

/// Every command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the deployment: queue, handlers and HTTP
    Run(Run),
    /// Check the configuration and every component it names, or some components under it, and run nothing
    Check(Check),
    /// Those that talk to a running runtime.
    #[command(flatten)]
    Client(Client),
    /// Run one component once on one event, without a queue
    Invoke(Invoke),
    /// Put a manifest into a component, show it, or take it out
    Embed(Embed),
    /// Copy the store: queues, entries and state
    Backup(Backup),
    /// Make a backup the store of a deployment that has none
    Restore(Restore),
}

/// Commands that talk to a running runtime.
#[derive(Clone, Debug, Subcommand)]
pub enum Client {
    /// Publish events
    Publish(Box<Publish>),
    /// Show every queue and its numbers
    Queues(Queues),
    /// Let nothing more be handled from a queue; publishing goes on
    Pause(Pause),
    /// Let a queue be handled again that is paused, whoever has paused it
    Resume(Resume),
    /// Look at the entries of a queue
    #[command(subcommand)]
    Entries(Entries),
    /// Look at dead letters, and make them ready again
    #[command(subcommand)]
    Dead(Dead),
    /// Look at what handlers keep in their buckets, and change it
    #[command(subcommand)]
    State(State),
    /// Show every handler and its versions
    Handlers(super::handlers::Handlers),
    /// Let a running handler go on with another component
    Deploy(super::handlers::Deploy),
    /// Let a running handler go on with a version that it had before
    Rollback(super::handlers::Rollback),
    /// Show what a runtime has loaded, and whether its configuration is in effect
    Status(super::handlers::Status),
    /// Show the calls of handlers that are going on
    Running(Running),
    /// End a call that is going on; its attempt counts
    Kill(Kill),
}

/// `running`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill running
  gristmill running --json | jq '.items[] | select(.elapsed_ms > 1000) | .number'")]
pub struct Running {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `kill`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  gristmill kill 4711     as `gristmill running` numbers it")]
pub struct Kill {
    /// The number of the call
    pub number: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `run`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill run --config shop/runtime.toml
  gristmill run --publish events.ndjson --until-idle     handle a file of events, then exit

SIGINT (Ctrl-C) and SIGTERM stop it when the handlers that run are done, or after `shutdown-grace`; a second one stops it
at once. runtime.toml is applied when it changes; SIGHUP has it, the sources of all components and all secrets read
again.")]
pub struct Run {
    /// Exit when nothing is ready, waiting, leased, or scheduled within the backoff cap
    #[arg(long)]
    pub until_idle: bool,
    /// Open a store that has lost acknowledged events (its log was damaged), and go on without them
    #[arg(long)]
    pub accept_loss: bool,
    /// Publish these events once everything is started: CloudEvents, one a line (`-`: standard input)
    #[arg(long, value_name = "FILE.ndjson")]
    pub publish: Option<PathBuf>,
}

/// `check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill check
  gristmill check --config shop/runtime.toml
  gristmill check plugins/resize.wasm                    what it would be in the folder of `[plugins]`")]
pub struct Check {
    /// Components to check as plugins of the deployment, with their manifests [default: those that the configuration names]
    #[arg(value_name = "COMPONENT")]
    pub components: Vec<PathBuf>,
}

/// `publish`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    override_usage = "\
gristmill publish [OPTIONS] <FILE.ndjson>
       gristmill publish [OPTIONS] --type <TYPE>",
    after_help = "\
Examples:
  gristmill publish events.ndjson
  generate-events | gristmill publish -
  gristmill publish --type com.acme.order.paid --source /shop --data '{\"total\": 12}'
  gristmill publish events.ndjson --key A-7 --delay 5m   one after the other, in five minutes at the earliest
  gristmill publish --offline events.ndjson              into the store of a stopped runtime

Every line is judged by itself: one that is refused is reported with its number, the others are published."
)]
pub struct Publish {
    /// CloudEvents as JSON, one a line (`-`: standard input)
    #[arg(value_name = "FILE.ndjson", required_unless_present = "ty")]
    pub file: Option<PathBuf>,
    /// The event, when there is no file.
    #[command(flatten)]
    pub event: EventFlags,
    /// How it is published, or all of the file's are.
    #[command(flatten)]
    pub options: PublishFlags,
    /// Write to the data directory of a runtime that is stopped
    #[arg(long)]
    pub offline: bool,
    /// Print what became of the events as JSON: one line for each batch that was sent, a result for each event, in order
    #[arg(long)]
    pub json: bool,
}

/// `queues`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill queues
  gristmill queues --json | jq '.items[] | select(.dead > 0) | .name'")]
pub struct Queues {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `pause`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  gristmill pause orders --reason 'the shop is closed until Monday'")]
pub struct Pause {
    /// The queue
    pub queue: QueueName,
    /// Why, for others to see [default: by hand]
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `resume`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  gristmill resume orders                                also closes a circuit that is open")]
pub struct Resume {
    /// The queue
    pub queue: QueueName,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `entries …`.
#[derive(Clone, Debug, Subcommand)]
pub enum Entries {
    /// List the entries of a queue that are in one state
    #[command(after_help = "\
Examples:
  gristmill entries list orders --state ready
  gristmill entries list orders --state done --limit 10 --json")]
    List(ListEntries),
    /// Show an entry: its event, its attempts, its result
    #[command(after_help = "\
Examples:
  gristmill entries show ENTRY
  gristmill entries show ENTRY --json | jq .event.data")]
    Show(Show),
}

/// `entries list`.
#[derive(Clone, Debug, clap::Args)]
pub struct ListEntries {
    /// The queue
    pub queue: QueueName,
    /// The state
    #[arg(long, value_parser = state_parser())]
    pub state: entry::State,
    /// Which page
    #[command(flatten)]
    pub page: PageFlags,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which page of a list.
#[derive(Clone, Debug, clap::Args)]
pub struct PageFlags {
    /// How many to list at most, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u16).range(1..=1_000))]
    pub limit: u16,
    /// Go on where the page before ended
    #[arg(long)]
    pub cursor: Option<String>,
}

/// `entries show` and `dead show`.
#[derive(Clone, Debug, clap::Args)]
pub struct Show {
    /// The entry's id, as lists show it
    pub entry: EntryId,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `dead …`.
#[derive(Clone, Debug, Subcommand)]
pub enum Dead {
    /// List dead letters, of one queue or of all
    #[command(after_help = "\
Examples:
  gristmill dead list
  gristmill dead list orders --limit 10")]
    List(ListDead),
    /// Show a dead letter: its event, its attempts, its last error
    #[command(after_help = "\
Example:
  gristmill dead show ENTRY")]
    Show(Show),
    /// Make dead letters ready again, their attempts counted anew
    #[command(
        override_usage = "\
gristmill dead redrive [OPTIONS] <ENTRY>...
       gristmill dead redrive [OPTIONS] --queue <QUEUE> [--all]",
        after_help = "\
Examples:
  gristmill dead redrive ENTRY
  gristmill dead redrive --queue orders                  the oldest hundred
  gristmill dead redrive --queue orders --all
  gristmill dead redrive --queue orders --all --version-of-failure sha256:3b1f0c9a77de"
    )]
    Redrive(Redrive),
}

/// `dead list`.
#[derive(Clone, Debug, clap::Args)]
pub struct ListDead {
    /// The queue [default: all of them]
    pub queue: Option<QueueName>,
    /// Which page
    #[command(flatten)]
    pub page: PageFlags,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `dead redrive`.
#[derive(Clone, Debug, clap::Args)]
pub struct Redrive {
    /// The entries' ids, as lists show them
    #[arg(required_unless_present = "queue", value_name = "ENTRY")]
    pub entries: Vec<EntryId>,
    /// Redrive the dead letters of this queue, oldest first, a hundred at most
    #[arg(long, conflicts_with = "entries")]
    pub queue: Option<QueueName>,
    /// Redrive all that are dead now
    #[arg(long, requires = "queue", conflicts_with = "entries")]
    pub all: bool,
    /// Of those, the ones whose last attempt this version handled: its digest, or the beginning that `dead show` prints
    #[arg(long, value_name = "DIGEST", requires = "queue", conflicts_with = "entries", value_parser = digest)]
    pub version_of_failure: Option<String>,
    /// Print JSON, one answer a line
    #[arg(long)]
    pub json: bool,
}

/// `backup`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  gristmill backup --offline /backups/monday             the store of a runtime that is stopped")]
pub struct Backup {
    /// Where the copy goes: a directory that does not exist yet
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Read the data directory of a runtime that is stopped; the only way so far
    #[arg(long)]
    pub offline: bool,
}

/// `restore`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  gristmill restore /backups/monday --config shop/runtime.toml

What was handled after the backup was taken is handled again.")]
pub struct Restore {
    /// The backup
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

fn state_parser() -> impl TypedValueParser<Value = entry::State> {
    PossibleValuesParser::new(entry::State::ALL.map(entry::State::as_str))
        .try_map(|state| state.parse::<entry::State>())
}

fn base_url(text: &str) -> Result<Url, String> {
    match text.parse::<Url>() {
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(url),
        _ => Err("expected a URL such as http://127.0.0.1:8080".to_owned()),
    }
}

/// As few digits of a digest as a beginning may have.
const MIN_DIGITS: usize = 8;

/// A component's digest, or its beginning.
fn digest(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    let are_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !are_hex || !(MIN_DIGITS..=64).contains(&digits.len()) {
        return Err(format!("expected `sha256:` and {MIN_DIGITS} to 64 hexadecimal digits in lower case"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::error::ErrorKind> {
        Args::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn the_grammar_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_is_documented_is_understood() {
        for line in [
            "gristmill run --config a.toml --until-idle --publish - --accept-loss",
            "gristmill check --config a.toml",
            "gristmill check a.wasm b.wasm",
            "gristmill embed a.wasm --manifest a.toml",
            "gristmill embed a.wasm --manifest a.toml --output b.wasm",
            "gristmill embed a.wasm --show",
            "gristmill embed a.wasm --remove --output b.wasm",
            "gristmill publish events.ndjson --offline",
            "gristmill publish - --json --url http://localhost:1",
            "gristmill publish - --key k --dedupe-key d --priority 255 --delay 5s --ttl 1h --on-duplicate refuse",
            "gristmill publish --type t --not-before 2026-05-04T12:00:00+02:00 --on-duplicate allow-after-failure",
            "gristmill publish --type t --source /s --id 1 --subject x --data {} --extension a=1 --extension b=2",
            "gristmill queues --json",
            "gristmill entries list orders --state dead --limit 1000 --cursor c",
            "gristmill entries list orders --state waiting",
            "gristmill entries list orders --state cancelled",
            "gristmill entries show 0-1",
            "gristmill dead list",
            "gristmill dead list orders --cursor c",
            "gristmill dead list --cursor orders:c",
            "gristmill dead show 0-1",
            "gristmill dead redrive 0-1 0-2",
            "gristmill dead redrive --queue orders --all",
            "gristmill dead redrive --queue orders --version-of-failure sha256:0123abcd",
            "gristmill invoke a.wasm --event e.json --emit a.* --emit b --timeout 1s --memory 1MiB",
            "gristmill invoke a.wasm --event e.json --state thumbnails --state prices:read",
            "gristmill state list",
            "gristmill state list --offline",
            "gristmill state get prices apple --json",
            "gristmill state list --offline prices --prefix a --json",
            "gristmill state get --offline prices apple",
            "gristmill state set --offline prices apple 12",
            "gristmill state set --offline prices apple --delete",
            "gristmill state export --offline prices",
            "gristmill backup --offline copy",
            "gristmill restore copy --config a.toml",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn contradictions_are_wrong_usage() {
        for line in [
            "gristmill backup",
            "gristmill embed a.wasm",
            "gristmill embed a.wasm --manifest a.toml --show",
            "gristmill embed a.wasm --manifest a.toml --remove",
            "gristmill embed a.wasm --show --output b.wasm",
            "gristmill restore --offline copy",
            "gristmill state list --offline --prefix a",
            "gristmill state set --offline prices apple",
            "gristmill state set --offline prices apple 12 --delete",
            "gristmill publish",
            "gristmill publish events.ndjson --type t",
            "gristmill publish events.ndjson --data x",
            "gristmill publish --type t --extension novalue",
            "gristmill publish - --priority 256",
            "gristmill publish - --delay 5",
            "gristmill publish - --delay 5s --not-before 2026-05-04T12:00:00Z",
            "gristmill publish - --not-before 2026-05-04",
            "gristmill publish - --ttl 0s",
            "gristmill publish - --on-duplicate return_existing",
            "gristmill entries list orders",
            "gristmill entries list orders --state gone",
            "gristmill entries list orders --state dead --limit 1001",
            "gristmill dead redrive",
            "gristmill dead redrive 0-1 --all",
            "gristmill dead redrive 0-1 --queue orders",
            "gristmill queues --url localhost:8080",
            "gristmill invoke a.wasm --event e.json --timeout 5",
            "gristmill invoke a.wasm --event e.json --state prices:write",
            "gristmill invoke a.wasm --event e.json --timeout 0s",
            "gristmill invoke a.wasm --event e.json --memory 5",
            "gristmill publish --type t --source a^b",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
