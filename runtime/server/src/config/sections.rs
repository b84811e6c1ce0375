//! `[runtime]`, `[http]` and `[queue]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Problem;
use super::keys;
use super::reader::{Entry, Reader, Table};
use super::setting::Setting;
use super::suggest::quoted;
use super::values::Allowed;
use super::{DurabilityKind, EngineKind, QueueConfig};

const DATA_DIR: &str = "data";
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const SHUTDOWN_GRACE: Allowed<Duration> =
    Allowed { range: Duration::ZERO..=Duration::from_hours(1), default: Duration::from_secs(10) };
const MAX_EVENT_SIZE: Allowed<u64> = Allowed { range: 1 << 10..=16 << 20, default: 1 << 20 };
const ENGINES: [(&str, EngineKind); 2] = [("rocksdb", EngineKind::Rocksdb), ("memory", EngineKind::Memory)];
const DURABILITIES: [(&str, DurabilityKind); 2] = [("fsync", DurabilityKind::Fsync), ("os", DurabilityKind::Os)];
/// Engines that have a name already, and nothing else.
const LATER_ENGINES: [&str; 3] = ["postgres", "nats", "redis"];

/// `[runtime]`.
pub(super) struct RuntimeSection {
    /// `data-dir`, resolved.
    pub(super) data_dir: PathBuf,
    /// `shutdown-grace`.
    pub(super) shutdown_grace: Duration,
}

/// Reads `[runtime]`; paths start from `folder`.
pub(super) fn runtime(reader: &mut Reader<'_>, root: &Table<'_>, folder: &Path) -> RuntimeSection {
    let (mut data_dir, mut grace) = (Setting::Absent, Setting::Absent);
    if let Some(table) = reader.section(root, "runtime", &keys::RUNTIME) {
        data_dir = reader.setting(&table, "data-dir", path);
        grace = reader.setting(&table, "shutdown-grace", |reader, entry| reader.duration(entry, &SHUTDOWN_GRACE));
    }
    RuntimeSection {
        data_dir: folder.join(data_dir.value_or(DATA_DIR.into())),
        shutdown_grace: grace.value_or(SHUTDOWN_GRACE.default),
    }
}

/// Reads `[http]`: where to listen.
pub(super) fn http(reader: &mut Reader<'_>, root: &Table<'_>) -> SocketAddr {
    match reader.section(root, "http", &keys::HTTP) {
        Some(table) => reader.setting(&table, "listen", listen).value_or(LISTEN),
        None => LISTEN,
    }
}

/// Reads `[queue]`.
pub(super) fn queue(reader: &mut Reader<'_>, root: &Table<'_>) -> QueueConfig {
    let (mut chosen, mut durability, mut size) = (Setting::Absent, Setting::Absent, Setting::Absent);
    if let Some(table) = reader.section(root, "queue", &keys::QUEUE) {
        chosen = reader.setting(&table, "engine", engine);
        durability = reader.setting(&table, "durability", |reader, entry| reader.choice(entry, &DURABILITIES));
        size = reader.setting(&table, "max-event-size", |reader, entry| reader.size(entry, &MAX_EVENT_SIZE));
    }
    if let (Setting::Written { value: EngineKind::Memory, span: engine }, Setting::Written { span, .. }) =
        (&chosen, &durability)
    {
        let problem = Problem::new("the memory engine has no durability", span.clone(), "contradicts the engine")
            .context(engine.clone(), "everything ends with the process")
            .help("remove `durability`, or write: engine = \"rocksdb\"");
        reader.report(problem);
    }
    QueueConfig {
        engine: chosen.value_or(EngineKind::Rocksdb),
        durability: durability.value_or(DurabilityKind::Fsync),
        max_event_size: size.value_or(MAX_EVENT_SIZE.default),
    }
}

/// A path, as written.
fn path(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<PathBuf> {
    let text = reader.string(entry, &format!("\"{DATA_DIR}\""))?;
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
