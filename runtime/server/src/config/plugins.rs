//! `[plugins]`: the folder whose components become handlers.

use std::path::Path;

use gristmill_core::Pattern;

use super::PluginsConfig;
use super::handler::pattern;
use super::keys;
use super::reader::{Entry, Reader, Table};
use super::sections::path;

const DIR: &str = "plugins";
const ALLOW_SUBSCRIBE: &str = "[\"com.acme.*\"]";

/// Reads `[plugins]`; the folder starts from `folder`.
pub(super) fn plugins(reader: &mut Reader<'_>, root: &Table<'_>, folder: &Path) -> PluginsConfig {
    let Some(table) = reader.section(root, "plugins", &keys::PLUGINS) else { return PluginsConfig::default() };
    let dir = reader.setting(&table, "dir", |reader, entry| path(reader, entry, DIR));
    let allow_subscribe = reader.setting(&table, "allow-subscribe", allow_subscribe);
    let require_digest = reader.setting(&table, "require-digest", |reader, entry| reader.boolean(entry, true));
    PluginsConfig {
        dir: dir.value().map(|dir| folder.join(dir)),
        allow_subscribe: allow_subscribe.value_or(Vec::new()),
        require_digest: require_digest.value_or(false),
    }
}

fn allow_subscribe(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Vec<Pattern>> {
    let items = reader.list(entry, ALLOW_SUBSCRIBE)?;
    let patterns = items.iter().filter_map(|item| {
        let text = reader.string(item, ALLOW_SUBSCRIBE)?;
        pattern(reader, "allow-subscribe", text)
    });
    Some(patterns.collect())
}
