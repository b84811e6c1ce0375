//! `runtime.toml`: what was written, turned into what the runtime needs.
//!
//! [`load`] and [`parse`] give a [`Config`] that holds no contradiction, or [`ConfigErrors`] with every problem of the
//! file, each with its place, the allowed values and the fix.
//!
//! | file | holds |
//! | --- | --- |
//! | [`mod@error`] | problems, and how people read them |
//! | `syntax` | text to a tree that knows where everything was written |
//! | `keys` | which keys a table has, and what an unknown one may have meant |
//! | `reader` | walks the tree and collects problems |
//! | `setting` | a value, and whether somebody wrote it |
//! | `values` | durations, sizes, numbers and words |
//! | `expand` | `${NAME}` in strings |
//! | `sections` | `[runtime]`, `[http]`, `[http-client]`, `[queue]`, `[log]` |
//! | `limits` | `[defaults]`, and their overrides in a handler |
//! | `sandbox` | those of them that say what one call may use |
//! | `options` | those of them that say how a queue treats its entries |
//! | `rollout` | those of them that say how far a version is trusted |
//! | `handler` | `[[handler]]` |
//! | `plugins` | `[plugins]` |
//! | [`mod@manifest`] | what a component says of itself |
//! | `lowered` | what of it is less than the defaults, and what is not |
//! | [`mod@plugin`] | the handler that a component of the plugins folder becomes |
//! | `wants` | what a component wants, and was not granted |
//! | `configured` | `config` of a handler |
//! | `grant` | what a handler may do, and `[[bucket]]` |
//! | `surroundings` | those grants that are about the machine and the network |

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gristmill_core::{DirectoryGrant, HandlerName, HttpGrant, Pattern, Secret, SocketGrant, StateGrant, Subscription};
use gristmill_host::{Instances, Interface, Limits};
use gristmill_queue::{QueueOptions, Rate};

pub use self::error::{Color, ConfigErrors, Problem};
pub use self::manifest::Manifest;
pub use self::plugin::Plugin;
use self::reader::Reader;
pub use self::rollout::{BreakerOptions, CanaryOptions};
pub use self::sections::LISTEN;
pub(crate) use self::suggest::quoted;
use crate::source::Source;

mod configured;
pub mod error;
mod expand;
mod grant;
mod handler;
mod keys;
mod limits;
mod lowered;
pub mod manifest;
mod options;
pub mod plugin;
mod plugins;
mod reader;
mod rollout;
mod sandbox;
mod sections;
mod setting;
mod suggest;
mod surroundings;
mod syntax;
mod values;
mod wants;

/// Looks up a variable of the environment; `None` when it is not set.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Reads and checks the file at `path`.
///
/// # Errors
/// When the file cannot be read, and with every problem that is in it.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let bytes = std::fs::read(path).map_err(|error| ConfigErrors::unreadable(path, error))?;
    let text = String::from_utf8(bytes).map_err(|error| ConfigErrors::not_utf8(path, &error))?;
    parse(&text, path)
}

/// Checks `text`. `origin` is the path that messages show, and its folder is what relative paths start from;
/// `${NAME}` is looked up in the environment of the process.
///
/// # Errors
/// With every problem in `text`.
pub fn parse(text: &str, origin: &Path) -> Result<Config, ConfigErrors> {
    parse_with(text, origin, &|name| std::env::var(name).ok())
}

/// [`parse`] with another environment.
///
/// # Errors
/// With every problem in `text`.
pub fn parse_with(text: &str, origin: &Path, environment: &Environment<'_>) -> Result<Config, ConfigErrors> {
    let (tree, syntax) = syntax::parse(text);
    let mut reader = Reader::new(text, Some(environment));
    let config = read(&mut reader, &tree, origin);
    let problems = syntax::merge(text, syntax, reader.into_problems());
    if problems.is_empty() { Ok(config) } else { Err(ConfigErrors::new(origin, text, problems)) }
}

/// What the tree says; where the reader found a problem, a default stands in.
fn read(reader: &mut Reader<'_>, tree: &syntax::Tree<'_>, origin: &Path) -> Config {
    let folder = origin.parent().unwrap_or(Path::new(""));
    let root = reader.root(tree, &keys::ROOT);
    let runtime = sections::runtime(reader, &root);
    let listen = sections::http(reader, &root);
    let ca_file = sections::http_client(reader, &root, folder);
    let queue = sections::queue(reader, &root);
    let log_retention = sections::log(reader, &root);
    let plugins = plugins::plugins(reader, &root, folder);
    let shared = Shared {
        defaults: limits::defaults(reader, &root),
        max_event_size: queue.max_event_size(),
        memory: runtime.memory(),
        has_plugins: root.entry("plugins").is_some_and(|plugins| plugins.has("dir")),
        origin,
        folder,
    };
    let handlers = handler::all(reader, &root, &shared);
    let buckets = grant::buckets(reader, &root);
    Config {
        written: gristmill_host::digest(reader.text().as_bytes()),
        data_dir: runtime.data_dir(folder),
        shutdown_grace: runtime.shutdown_grace(),
        keep_versions: runtime.keep_versions(),
        host: runtime.host(folder),
        listen,
        ca_file,
        queue: queue.config(),
        log_retention,
        handlers: handlers.whole,
        plugins,
        buckets,
        base: plugin::Base::new(origin, shared.defaults, queue.config().max_event_size, handlers.written),
    }
}

/// What every handler is read with.
struct Shared<'a> {
    defaults: limits::Limits,
    max_event_size: Option<setting::Effective<u64>>,
    /// Of all instances together.
    memory: Option<setting::Effective<u64>>,
    /// Whether components may come from a folder.
    has_plugins: bool,
    /// What messages call the file.
    origin: &'a Path,
    /// Paths start here.
    folder: &'a Path,
}

/// A deployment, checked: every value is in range and every contradiction was reported.
#[derive(Clone, Debug)]
pub struct Config {
    /// What identifies the text that this was read from: its digest.
    pub written: String,
    /// Where the store lives. Default: `data`, beside the file.
    pub data_dir: PathBuf,
    /// What all components share.
    pub host: HostConfig,
    /// How long running handlers may go on after a stop was asked for. Default: 10 s.
    pub shutdown_grace: Duration,
    /// Where HTTP is served; a loopback address. Default: 127.0.0.1:8080. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Certificate authorities that handlers' requests trust besides the public ones: a file of PEM. Default: none.
    pub ca_file: Option<PathBuf>,
    /// The engine and its durability.
    pub queue: QueueConfig,
    /// For how long published events are kept in the log. Default: there is no log.
    pub log_retention: Option<Duration>,
    /// How many versions of a handler are kept, so that one can be gone back to. Default: 5.
    pub keep_versions: u32,
    /// Every `[[handler]]` that names its component, in the order of the file. For the others see [`Config::expected`].
    pub handlers: Vec<HandlerConfig>,
    /// The folder whose components become handlers. Default: there is none.
    pub plugins: PluginsConfig,
    /// Every `[[bucket]]`, in the order of the file.
    pub buckets: Vec<BucketConfig>,
    /// What plugins are read over.
    base: plugin::Base,
}

/// `[plugins]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginsConfig {
    /// The folder, resolved against that of `runtime.toml`. Default: there is none.
    pub dir: Option<PathBuf>,
    /// Types of events that a manifest may subscribe to. Default: none.
    pub allow_subscribe: Vec<Pattern>,
    /// Whether each plugin needs a `digest` in runtime.toml. Default: no.
    pub require_digest: bool,
}

/// What `[runtime]` says of components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Bytes for all instances together. Default: 1 GiB.
    pub memory: u64,
    /// Bytes of stack that a call may use. Default: 1 MiB.
    pub stack: u64,
    /// Bytes of the largest component. Default: 64 MiB.
    pub max_component_size: u64,
    /// Time on a processor that compiling a component may take. Default: 2 minutes.
    pub compile_time: Duration,
    /// Bytes of memory that compiling a component may need. Default: 2 GiB.
    pub compile_memory: u64,
    /// How many instances there may be. Default: four for each call that may run at once.
    pub max_instances: Option<u32>,
    /// Where compiled code is kept.
    pub code_cache: CodeCache,
    /// Bytes of compiled code that are kept. Default: 1 GiB.
    pub code_cache_size: u64,
}

/// `code-cache = …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CodeCache {
    /// In `gristmill` below the user's folder for caches: `$XDG_CACHE_HOME`, or `~/.cache`. Nowhere if there is neither.
    #[default]
    Usual,
    /// In this folder.
    Folder(PathBuf),
    /// Nowhere.
    Off,
}

/// One `[[bucket]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// Its name; each once.
    pub name: String,
    /// How much it may hold, in bytes of keys and values. Default: no limit.
    pub max_bytes: Option<u64>,
}

/// `[queue]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Which engine. Default: RocksDB.
    pub engine: EngineKind,
    /// When a publish is acknowledged. Default: fsync.
    pub durability: DurabilityKind,
    /// The largest event, in bytes. Default: 1 MiB.
    pub max_event_size: u64,
    /// For how long a publish is remembered, so that it is not repeated; zero: not at all. Default: 10 minutes.
    pub idempotency_window: Duration,
    /// Free disk space below which publishes are refused, in bytes. Default: 256 MiB.
    pub disk_reserve: u64,
    /// Memory for what is not yet in sorted files, in bytes. Default: 64 MiB.
    pub write_buffer: u64,
    /// Memory for what is read, in bytes. Default: 32 MiB.
    pub cache: u64,
}

/// `engine = …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// The embedded, durable one.
    Rocksdb,
    /// For tests and trials: everything ends with the process.
    Memory,
}

/// `durability = …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityKind {
    /// After an fsync.
    Fsync,
    /// After the write to the operating system.
    Os,
}

/// How many deliveries a batch handler gets in one call, if nobody says it.
pub const DEFAULT_BATCH_SIZE: u32 = 16;

/// One `[[handler]]`, with `[defaults]` filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerConfig {
    /// Its name, and its queue's.
    pub name: HandlerName,
    /// Where its component comes from; a path is resolved against the folder of `runtime.toml`.
    pub component: Source,
    /// `sha256:` and 64 hexadecimal digits that the component's bytes must have. There is one for `https://`.
    pub digest: Option<String>,
    /// Which of its interfaces is called. Default: the first that it has.
    pub interface: Option<Interface>,
    /// What it wants to handle; never empty.
    pub subscribe: Vec<Subscription>,
    /// How many calls run at once. Default: 4.
    pub concurrency: usize,
    /// How many deliveries a batch handler gets in one call at most; others get one. Default:
    /// [`DEFAULT_BATCH_SIZE`].
    pub batch_size: Option<u32>,
    /// What one call may use.
    pub limits: Limits,
    /// For how many events an instance lives. Default: one.
    pub instances: Instances,
    /// How its queue treats entries. The lease is longer than `timeout` and some grace.
    pub queue: QueueOptions,
    /// How many lines all its calls may log. Default: 100 a second, and 1,000 at once after a pause.
    pub max_log_rate: Option<Rate>,
    /// How a new version of it is tried. Default: not; it takes over at once.
    pub canary: Option<CanaryOptions>,
    /// When it gets no more deliveries until it is better. Default: see [`BreakerOptions`]; `None`: never.
    pub breaker: Option<BreakerOptions>,
    /// What it can ask for through `wasi:config`.
    pub config: BTreeMap<String, ConfigValue>,
    /// What it may do beyond computing.
    pub grant: Granted,
    /// What its manifest says that it wants to do; never in effect. Default: nothing.
    pub wants: Granted,
}

/// One value of `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigValue {
    /// It was written there.
    Text(Secret),
    /// It is read from the environment, when the runtime starts.
    Env {
        /// The variable.
        name: String,
        /// Where that was written: `FILE:LINE:COLUMN`.
        place: String,
    },
    /// It is read from a file, when the runtime starts and on SIGHUP.
    File {
        /// The file, resolved against the folder of `runtime.toml`.
        path: PathBuf,
        /// Where that was written: `FILE:LINE:COLUMN`.
        place: String,
    },
}

/// `grant`. Default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Types of events that it may emit.
    pub emit: Vec<Pattern>,
    /// Buckets that it may use; each once.
    pub state: Vec<StateGrant>,
    /// Names of variables of the environment that it sees; each once.
    pub env: Vec<String>,
    /// Directories that it may use, resolved against the folder of `runtime.toml`; what it calls them, each once.
    pub files: Vec<DirectoryGrant>,
    /// Addresses that it may talk to.
    pub sockets: Vec<SocketGrant>,
    /// Requests that it may send.
    pub http: Vec<HttpGrant>,
}
