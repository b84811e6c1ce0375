//! `env`, `files` and `sockets` of a grant.

use std::path::Path;

use gristmill_core::directory::{DirectoryAccess, DirectoryGrant, DirectoryGrantError};
use gristmill_core::socket::{SocketGrant, SocketGrantError};

use super::error::Problem;
use super::keys;
use super::reader::{Entry, Reader, Text};
use super::suggest::quoted;

const ENV: &str = "[\"TZ\"]";
const FILES: &str = "[\"in:read\", \"../common:/out:write\"]";
const DIRECTORY: &str = "{ path = \"../common\", as = \"/out\", access = \"write\" }";
const SOCKETS: &str = "[\"tcp://db.internal:5432\", \"udp://10.0.0.0/8:8125\"]";
const ACCESS: [(&str, DirectoryAccess); 2] = [("read", DirectoryAccess::Read), ("write", DirectoryAccess::Write)];

/// Reads `env`: names of variables.
pub(super) fn env(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Vec<String>> {
    let mut names: Vec<Text> = Vec::new();
    for item in &reader.list(entry, ENV)? {
        let Some(text) = reader.string(item, ENV) else { continue };
        if !is_variable(&text.value) {
            let message = format!("{} names no environment variable", quoted(&text.value));
            let help = format!("name the variable, its value is that of the runtime's: env = {ENV}");
            reader.report(text.problem(message, "not a name").help(help));
        } else if let Some(first) = names.iter().find(|first| first.value == text.value) {
            let problem = text.problem(format!("the variable `{}` is granted twice", text.value), "and again here");
            reader.report(problem.context(first.span.clone(), "granted here"));
        } else {
            names.push(text);
        }
    }
    Some(names.into_iter().map(|text| text.value).collect())
}

/// Whether an environment can have a variable of this name.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '=' || c.is_control())
}

/// Reads `files`: directories, whose paths start from `folder`.
pub(super) fn files(reader: &mut Reader<'_>, entry: &Entry<'_>, folder: &Path) -> Option<Vec<DirectoryGrant>> {
    let mut grants: Vec<(DirectoryGrant, std::ops::Range<usize>)> = Vec::new();
    for item in &reader.list(entry, FILES)? {
        let Some(grant) = directory(reader, item) else { continue };
        match grants.iter().find(|(other, _)| other.guest == grant.guest) {
            Some((_, first)) => {
                let message = format!("the handler would call two directories {}", quoted(&grant.guest));
                let problem = Problem::new(message, item.span(), "and this one");
                let help = format!("give one of them another name: \"PATH:/NAME:read\", or {DIRECTORY}");
                reader.report(problem.context(first.clone(), "this one").help(help));
            }
            None => grants.push((DirectoryGrant { host: folder.join(&grant.host), ..grant }, item.span())),
        }
    }
    Some(grants.into_iter().map(|(grant, _)| grant).collect())
}

fn directory(reader: &mut Reader<'_>, item: &Entry<'_>) -> Option<DirectoryGrant> {
    let Some(table) = reader.table(item, &keys::DIRECTORY) else {
        let text = reader.string(item, FILES)?;
        return text.value.parse().map_err(|error| reader.report(no_directory(&text, &error))).ok();
    };
    let path = reader.setting(&table, "path", |reader, entry| reader.string(entry, "\"in\""));
    let name = reader.setting(&table, "as", |reader, entry| reader.string(entry, "\"/in\""));
    let access = reader.setting(&table, "access", |reader, entry| reader.choice(entry, &ACCESS));
    if table.entry("path").is_none() {
        let problem = Problem::new("a directory lacks `path`", table.span.clone(), "a key is missing here");
        reader.report(problem.help(format!("for example: {DIRECTORY}")).because_absent());
    }
    let (path, name) = (path.value()?, name.value());
    let grant = DirectoryGrant::new(
        &path.value,
        name.as_ref().map(|name| name.value.as_str()),
        access.value_or(DirectoryAccess::Read),
    );
    grant.map_err(|error| reader.report(no_directory(name.as_ref().unwrap_or(&path), &error))).ok()
}

fn no_directory(text: &Text, error: &DirectoryGrantError) -> Problem {
    let (label, help) = match error {
        DirectoryGrantError::NoAccess(_) | DirectoryGrantError::Access(_) => {
            ("end it with `:read` or `:write`", "`write` covers reading too")
        }
        DirectoryGrantError::NoPath => ("expected a path", "a relative path starts from the folder of this file"),
        DirectoryGrantError::Guest(_) => (
            "say what the handler calls it",
            "that is an absolute path without `.` and `..`: \"../common:/common:read\"",
        ),
    };
    text.problem(error.to_string(), label).help(help).help(format!("for example: files = {FILES}"))
}

/// Reads `sockets`: addresses.
pub(super) fn sockets(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Vec<SocketGrant>> {
    let items = reader.list(entry, SOCKETS)?;
    let grants = items.iter().filter_map(|item| {
        let text = reader.string(item, SOCKETS)?;
        text.value.parse().map_err(|error| reader.report(no_sockets(&text, &error))).ok()
    });
    Some(grants.collect())
}

fn no_sockets(text: &Text, error: &SocketGrantError) -> Problem {
    let (label, help) = match error {
        SocketGrantError::Protocol(_) => ("expected `tcp://` or `udp://`", "write \"tcp://HOST:PORT\""),
        SocketGrantError::NoPort(_) => (
            "expected `:PORT` at the end",
            "`*` stands for any port; an IPv6 address stands in brackets: \"tcp://[::1]:5432\"",
        ),
        SocketGrantError::Port(_) => ("expected 1 to 65535", "`*` stands for any port"),
        SocketGrantError::Peer(_) => (
            "expected an address, a network or a name",
            "a name stands for itself, without `*`; a network is 10.0.0.0/8 or [fd00::/8]",
        ),
    };
    text.problem(error.to_string(), label).help(help).help(format!("for example: sockets = {SOCKETS}"))
}
