//! `[runtime]`, `[http]`, `[http-client]`, `[queue]` and `[log]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gristmill_host::ChildCompiler;

use super::error::Problem;
use super::keys;
use super::reader::{Entry, Reader, Table};
use super::setting::{Effective, Setting};
use super::suggest::quoted;
use super::values::Allowed;
use super::{CodeCache, DurabilityKind, EngineKind, HostConfig, QueueConfig};

const DATA_DIR: &str = "data";
const CA_FILE: &str = "ca.pem";
/// Where HTTP is served, if nobody says it.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const SHUTDOWN_GRACE: Allowed<Duration> =
    Allowed::within(Duration::ZERO..=Duration::from_hours(1), Duration::from_secs(10));
const MEMORY: Allowed<u64> = Allowed::within(16 << 20..=1 << 42, 1 << 30);
const MAX_INSTANCES: Allowed<u32> = Allowed::unset(
    1..=gristmill_host::MAX_INSTANCES,
    256,
    "without it there are four for each call that may run at once",
);
const STACK: Allowed<u64> = Allowed::within(64 << 10..=64 << 20, 1 << 20);
const MAX_COMPONENT_SIZE: Allowed<u64> = Allowed::within(1 << 10..=1 << 30, 64 << 20);
const COMPILE_TIME: Allowed<Duration> =
    Allowed::within(Duration::from_secs(1)..=Duration::from_hours(1), ChildCompiler::DEFAULT_CPU);
const COMPILE_MEMORY: Allowed<u64> = Allowed::within(256 << 20..=1 << 40, ChildCompiler::DEFAULT_MEMORY);
const MAX_EVENT_SIZE: Allowed<u64> = Allowed::within(1 << 10..=16 << 20, 1 << 20);
const CODE_CACHE_SIZE: Allowed<u64> = Allowed::within(1 << 20..=1 << 40, 1 << 30);
const KEEP_VERSIONS: Allowed<u32> = Allowed::within(1..=100, 5);
const IDEMPOTENCY_WINDOW: Allowed<Duration> =
    Allowed::within(Duration::ZERO..=Duration::from_hours(30 * 24), Duration::from_mins(10));
const DISK_RESERVE: Allowed<u64> = Allowed::within(0..=1 << 40, 256 << 20);
const WRITE_BUFFER: Allowed<u64> = Allowed::within(1 << 20..=4 << 30, 64 << 20);
const CACHE: Allowed<u64> = Allowed::within(1 << 20..=64 << 30, 32 << 20);
const KEPT_FOR: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(3_650 * 24);
const LOG_RETENTION: Allowed<Duration> =
    Allowed::unset(KEPT_FOR, Duration::from_hours(7 * 24), "without it there is no log");
const ENGINES: [(&str, EngineKind); 2] = [("rocksdb", EngineKind::Rocksdb), ("memory", EngineKind::Memory)];
const DURABILITIES: [(&str, DurabilityKind); 2] = [("fsync", DurabilityKind::Fsync), ("os", DurabilityKind::Os)];
/// Engines that have a name already, and nothing else.
const LATER_ENGINES: [&str; 3] = ["postgres", "nats", "redis"];

/// What was written of `[runtime]`.
#[derive(Default)]
pub(super) struct RuntimeSection {
    data_dir: Setting<PathBuf>,
    shutdown_grace: Setting<Duration>,
    memory: Setting<u64>,
    stack: Setting<u64>,
    max_component_size: Setting<u64>,
    compile_time: Setting<Duration>,
    compile_memory: Setting<u64>,
    max_instances: Setting<u32>,
    code_cache: Setting<CodeCache>,
    code_cache_size: Setting<u64>,
    keep_versions: Setting<u32>,
}

/// Reads `[runtime]`.
pub(super) fn runtime(reader: &mut Reader<'_>, root: &Table<'_>) -> RuntimeSection {
    let Some(table) = reader.section(root, "runtime", &keys::RUNTIME) else { return RuntimeSection::default() };
    let table = &table;
    RuntimeSection {
        data_dir: reader.setting(table, "data-dir", |reader, entry| path(reader, entry, DATA_DIR)),
        shutdown_grace: reader
            .setting(table, "shutdown-grace", |reader, entry| reader.duration(entry, &SHUTDOWN_GRACE)),
        memory: reader.setting(table, "memory", |reader, entry| reader.size(entry, &MEMORY)),
        stack: reader.setting(table, "stack", |reader, entry| reader.size(entry, &STACK)),
        max_component_size: reader
            .setting(table, "max-component-size", |reader, entry| reader.size(entry, &MAX_COMPONENT_SIZE)),
        compile_time: reader.setting(table, "compile-time", |reader, entry| reader.duration(entry, &COMPILE_TIME)),
        compile_memory: reader.setting(table, "compile-memory", |reader, entry| reader.size(entry, &COMPILE_MEMORY)),
        max_instances: reader.setting(table, "max-instances", |reader, entry| {
            reader.integer(entry, &MAX_INSTANCES, |count| count.to_string())
        }),
        code_cache: reader.setting(table, "code-cache", code_cache),
        code_cache_size: reader.setting(table, "code-cache-size", |reader, entry| reader.size(entry, &CODE_CACHE_SIZE)),
        keep_versions: reader.setting(table, "keep-versions", |reader, entry| {
            reader.integer(entry, &KEEP_VERSIONS, |count| count.to_string())
        }),
    }
}

impl RuntimeSection {
    /// `memory`, to be compared with others.
    pub(super) fn memory(&self) -> Option<Effective<u64>> {
        self.memory.effective(MEMORY.default)
    }

    /// `data-dir`; paths start from `folder`.
    pub(super) fn data_dir(&self, folder: &Path) -> PathBuf {
        folder.join(self.data_dir.value_or(DATA_DIR.into()))
    }

    /// `shutdown-grace`.
    pub(super) fn shutdown_grace(&self) -> Duration {
        self.shutdown_grace.value_or(SHUTDOWN_GRACE.default)
    }

    /// `keep-versions`.
    pub(super) fn keep_versions(&self) -> u32 {
        self.keep_versions.value_or(KEEP_VERSIONS.default)
    }

    /// What all components share; paths start from `folder`.
    pub(super) fn host(self, folder: &Path) -> HostConfig {
        HostConfig {
            memory: self.memory.value_or(MEMORY.default),
            stack: self.stack.value_or(STACK.default),
            max_component_size: self.max_component_size.value_or(MAX_COMPONENT_SIZE.default),
            compile_time: self.compile_time.value_or(COMPILE_TIME.default),
            compile_memory: self.compile_memory.value_or(COMPILE_MEMORY.default),
            max_instances: self.max_instances.value(),
            code_cache: match self.code_cache.value_or(CodeCache::Usual) {
                CodeCache::Folder(path) => CodeCache::Folder(folder.join(path)),
                cache => cache,
            },
            code_cache_size: self.code_cache_size.value_or(CODE_CACHE_SIZE.default),
        }
    }
}

/// Reads `[http]`: where to listen.
pub(super) fn http(reader: &mut Reader<'_>, root: &Table<'_>) -> SocketAddr {
    match reader.section(root, "http", &keys::HTTP) {
        Some(table) => reader.setting(&table, "listen", listen).value_or(LISTEN),
        None => LISTEN,
    }
}

/// Reads `[http-client]`: the file of further authorities; it starts from `folder`.
pub(super) fn http_client(reader: &mut Reader<'_>, root: &Table<'_>, folder: &Path) -> Option<PathBuf> {
    let table = reader.section(root, "http-client", &keys::HTTP_CLIENT)?;
    let ca_file = reader.setting(&table, "ca-file", |reader, entry| path(reader, entry, CA_FILE));
    ca_file.value().map(|file| folder.join(file))
}

/// What was written of `[queue]`.
#[derive(Default)]
pub(super) struct QueueSection {
    engine: Setting<EngineKind>,
    durability: Setting<DurabilityKind>,
    max_event_size: Setting<u64>,
    idempotency_window: Setting<Duration>,
    disk_reserve: Setting<u64>,
    write_buffer: Setting<u64>,
    cache: Setting<u64>,
}

/// Reads `[queue]`.
pub(super) fn queue(reader: &mut Reader<'_>, root: &Table<'_>) -> QueueSection {
    let Some(table) = reader.section(root, "queue", &keys::QUEUE) else { return QueueSection::default() };
    let section = QueueSection {
        engine: reader.setting(&table, "engine", engine),
        durability: reader.setting(&table, "durability", |reader, entry| reader.choice(entry, &DURABILITIES)),
        max_event_size: reader.setting(&table, "max-event-size", |reader, entry| reader.size(entry, &MAX_EVENT_SIZE)),
        idempotency_window: reader
            .setting(&table, "idempotency-window", |reader, entry| reader.duration(entry, &IDEMPOTENCY_WINDOW)),
        disk_reserve: reader.setting(&table, "disk-reserve", |reader, entry| reader.size(entry, &DISK_RESERVE)),
        write_buffer: reader.setting(&table, "write-buffer", |reader, entry| reader.size(entry, &WRITE_BUFFER)),
        cache: reader.setting(&table, "cache", |reader, entry| reader.size(entry, &CACHE)),
    };
    section.check(reader);
    section
}

impl QueueSection {
    /// Reports what means nothing to the memory engine.
    fn check(&self, reader: &mut Reader<'_>) {
        let Setting::Written { value: EngineKind::Memory, span: engine } = &self.engine else { return };
        let on_disk = [
            ("durability", "durability", self.durability.span()),
            ("disk-reserve", "disk", self.disk_reserve.span()),
            ("write-buffer", "write buffer", self.write_buffer.span()),
            ("cache", "cache", self.cache.span()),
        ];
        for (key, what, span) in on_disk {
            if let Some(span) = span {
                let problem = Problem::new(format!("the memory engine has no {what}"), span, "contradicts the engine")
                    .context(engine.clone(), "everything ends with the process")
                    .help(format!("remove `{key}`, or write: engine = \"rocksdb\""));
                reader.report(problem);
            }
        }
    }

    /// `max-event-size`, to be compared with others.
    pub(super) fn max_event_size(&self) -> Option<Effective<u64>> {
        self.max_event_size.effective(MAX_EVENT_SIZE.default)
    }

    /// What counts.
    pub(super) fn config(&self) -> QueueConfig {
        QueueConfig {
            engine: self.engine.value_or(EngineKind::Rocksdb),
            durability: self.durability.value_or(DurabilityKind::Fsync),
            max_event_size: self.max_event_size.value_or(MAX_EVENT_SIZE.default),
            idempotency_window: self.idempotency_window.value_or(IDEMPOTENCY_WINDOW.default),
            disk_reserve: self.disk_reserve.value_or(DISK_RESERVE.default),
            write_buffer: self.write_buffer.value_or(WRITE_BUFFER.default),
            cache: self.cache.value_or(CACHE.default),
        }
    }
}

/// Reads `[log]`: for how long published events are kept in the log; `None`: there is none.
pub(super) fn log(reader: &mut Reader<'_>, root: &Table<'_>) -> Option<Duration> {
    let table = reader.section(root, "log", &keys::LOG)?;
    reader.setting(&table, "retention", |reader, entry| reader.duration(entry, &LOG_RETENTION)).value()
}

/// `false`, or a path.
fn code_cache(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<CodeCache> {
    match entry.value.get_ref().as_bool() {
        Some(false) => Some(CodeCache::Off),
        Some(true) => Some(CodeCache::Usual),
        None => path(reader, entry, "/var/cache/gristmill").map(CodeCache::Folder),
    }
}

/// A path, as written.
pub(super) fn path(reader: &mut Reader<'_>, entry: &Entry<'_>, example: &str) -> Option<PathBuf> {
    let text = reader.string(entry, &format!("\"{example}\""))?;
    if text.value.is_empty() {
        reader.report(
            text.problem(format!("`{}` is empty", entry.key), "expected a path")
                .help("a relative path starts from the folder of this file"),
        );
        return None;
    }
    Some(PathBuf::from(text.value))
}

fn listen(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<SocketAddr> {
    let text = reader.string(entry, &format!("\"{LISTEN}\""))?;
    match text.value.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(address),
        Ok(address) => {
            let problem = text
                .problem("this version serves loopback only, as there is no authentication yet", "not a loopback address")
                .help(format!(
                    "write \"127.0.0.1:{port}\" or \"[::1]:{port}\"; to reach it from elsewhere, put a proxy that checks who calls in front",
                    port = address.port(),
                ));
            reader.report(problem);
            None
        }
        Err(_) => {
            let problem = text
                .problem(format!("{} is not an address to listen on", quoted(&text.value)), "expected IP:PORT")
                .help(format!(
                    "for example: listen = \"{LISTEN}\" (port 0 takes any free one; host names are not resolved)"
                ));
            reader.report(problem);
            None
        }
    }
}

fn engine(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<EngineKind> {
    let text = reader.string(entry, "\"rocksdb\"")?;
    if let Some(later) = LATER_ENGINES.iter().find(|later| **later == text.value) {
        let message = format!("the engine `{later}` is not supported by this version");
        let problem = text.problem(message, "expected `rocksdb` or `memory`");
        reader.report(problem.help("remove the line for the default: engine = \"rocksdb\""));
        return None;
    }
    reader.one_of(entry, &text, &ENGINES)
}
