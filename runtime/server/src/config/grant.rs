//! `grant` of a handler, and `[[bucket]]`.

use std::path::Path;

use gristmill_core::state::{StateGrant, StateGrantError, is_bucket_name};
use gristmill_core::{HttpGrant, HttpGrantError, Pattern};

use super::error::Problem;
use super::handler::pattern;
use super::keys;
use super::reader::{Entry, Reader, Table, Text};
use super::setting::Setting;
use super::suggest::quoted;
use super::surroundings;
use super::values::Allowed;
use super::{BucketConfig, Granted};

const EMIT: &str = "[\"com.acme.thumbnail.*\"]";
const STATE: &str = "[\"thumbnails\", \"prices:read\"]";
const HTTP: &str = "[\"GET,POST https://api.example.com\"]";
const BUCKET: &str = "\"thumbnails\"";
const MAX_BYTES: Allowed<u64> = Allowed::unlimited(1 << 10..=1 << 44, 1 << 30);

/// Reads a grant, which is `grant` of a handler or `wants` of a manifest; paths start from `folder`.
pub(super) fn grant(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str, folder: &Path) -> Granted {
    let Some(entry) = table.entry(key) else { return Granted::default() };
    let Some(grant) = reader.table(&entry, &keys::GRANT) else {
        reader.wrong_type(&entry, "a table", &format!("for example: {key} = {{ emit = {EMIT}, state = {STATE} }}"));
        return Granted::default();
    };
    Granted {
        emit: reader.setting(&grant, "emit", emit).value_or(Vec::new()),
        state: reader.setting(&grant, "state", state).value_or(Vec::new()),
        env: reader.setting(&grant, "env", surroundings::env).value_or(Vec::new()),
        files: reader
            .setting(&grant, "files", |reader, entry| surroundings::files(reader, entry, folder))
            .value_or(Vec::new()),
        sockets: reader.setting(&grant, "sockets", surroundings::sockets).value_or(Vec::new()),
        http: reader.setting(&grant, "http", http).value_or(Vec::new()),
    }
}

fn emit(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Vec<Pattern>> {
    let items = reader.list(entry, EMIT)?;
    let patterns = items.iter().filter_map(|item| {
        let text = reader.string(item, EMIT)?;
        pattern(reader, "emit", text)
    });
    Some(patterns.collect())
}

fn state(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Vec<StateGrant>> {
    let items = reader.list(entry, STATE)?;
    let mut grants: Vec<(StateGrant, Text)> = Vec::new();
    for item in &items {
        let Some(text) = reader.string(item, STATE) else { continue };
        match text.value.parse::<StateGrant>() {
            Err(error) => reader.report(no_grant(&text, &error)),
            Ok(grant) => match grants.iter().find(|(other, _)| other.bucket == grant.bucket) {
                Some((_, first)) => reader.report(granted_twice(&grant, &text, first)),
                None => grants.push((grant, text)),
            },
        }
    }
    Some(grants.into_iter().map(|(grant, _)| grant).collect())
}

fn no_grant(text: &Text, error: &StateGrantError) -> Problem {
    let label = match error {
        StateGrantError::Name(_) => "not a name",
        StateGrantError::Access(access) if ["write", "rw", "read-write", "readwrite"].contains(&access.as_str()) => {
            "leave out the colon and what follows"
        }
        StateGrantError::Access(_) => "expected `read`",
    };
    text.problem(error.to_string(), label).help(format!("for example: state = {STATE}"))
}

fn granted_twice(grant: &StateGrant, text: &Text, first: &Text) -> Problem {
    text.problem(format!("the bucket `{}` is granted twice", grant.bucket), "and again here")
        .context(first.span.clone(), "granted here")
        .help("`NAME` covers reading too: keep one of them")
}

fn http(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Vec<HttpGrant>> {
    let items = reader.list(entry, HTTP)?;
    let mut grants = Vec::with_capacity(items.len());
    for item in &items {
        let Some(text) = reader.string(item, HTTP) else { continue };
        match text.value.parse::<HttpGrant>() {
            Ok(grant) => grants.push(grant),
            Err(error) => {
                let problem = text.problem(error.to_string(), http_label(&error));
                reader.report(problem.help(format!("for example: http = {HTTP}")));
            }
        }
    }
    Some(grants)
}

fn http_label(error: &HttpGrantError) -> &'static str {
    match error {
        HttpGrantError::Url(_) => "expected a URL",
        HttpGrantError::Scheme(_) => "expected `http` or `https`",
        HttpGrantError::Method(_) => "expected methods such as `GET,POST`",
        HttpGrantError::Connect => "leave out `CONNECT`",
        HttpGrantError::Host(host) if host == "*" => "every host at once cannot be granted",
        HttpGrantError::Host(_) => "not a host",
        HttpGrantError::Port(_) => "not a port",
        HttpGrantError::Path(_) => "not a path to begin with",
        HttpGrantError::Word(_) => "expected `private` or nothing",
    }
}

/// Reads every `[[bucket]]`.
pub(super) fn buckets(reader: &mut Reader<'_>, root: &Table<'_>) -> Vec<BucketConfig> {
    const HELP: &str = "write `[[bucket]]`, with two brackets, above the keys of each bucket";
    let Some(entry) = root.entry("bucket") else { return Vec::new() };
    let Some(items) = entry.items() else {
        reader.wrong_type(&entry, "a list of tables", HELP);
        return Vec::new();
    };
    let mut buckets = Vec::new();
    let mut places = Vec::new();
    for item in &items {
        let Some(table) = reader.table(item, &keys::BUCKET) else {
            reader.wrong_type(item, "a table", HELP);
            continue;
        };
        let name = reader.setting(&table, "name", name);
        let max_bytes = reader.setting(&table, "max-bytes", |reader, entry| {
            reader.unless_unlimited(entry, |reader, entry| reader.size(entry, &MAX_BYTES))
        });
        let Setting::Written { value: name, span } = name else {
            if table.entry("name").is_none() {
                let problem = Problem::new("a bucket lacks `name`", table.span.clone(), "a key is missing here");
                reader.report(problem.help(format!("add, for example:\n  name = {BUCKET}")).because_absent());
            }
            continue;
        };
        if let Some((_, first)) = places.iter().find(|(other, _)| *other == name) {
            let problem = Problem::new(format!("two buckets are called `{name}`"), span, "and again here");
            reader.report(problem.context(std::ops::Range::clone(first), "first here"));
            continue;
        }
        places.push((name.clone(), span));
        buckets.push(BucketConfig { name, max_bytes: max_bytes.value_or(None) });
    }
    buckets
}

fn name(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<String> {
    let text = reader.string(entry, BUCKET)?;
    if is_bucket_name(&text.value) {
        return Some(text.value);
    }
    let problem = text.problem(format!("{} is not the name of a bucket", quoted(&text.value)), "not a name");
    reader.report(problem.help("1 to 128 letters, digits, `-`, `_` and `.`"));
    None
}
