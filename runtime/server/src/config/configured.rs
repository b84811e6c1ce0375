//! `config` of a handler: keys and values of its own, and secrets that stand elsewhere.

use std::collections::BTreeMap;

use gristmill_core::Secret;
use toml::de::{DeInteger, DeValue};

use super::error::Problem;
use super::keys;
use super::reader::{Entry, Reader, Table};
use super::suggest::quoted;
use super::surroundings::is_variable;
use super::{ConfigValue, Shared};

const EXAMPLE: &str = "config = { width = \"640\", api-key = { env = \"API_KEY\" } }";
const SECRET: &str = "a secret is { env = \"API_KEY\" } or { file = \"secrets/api-key\" }";

/// Reads `config`. Without `shared` there are no secrets in it.
pub(super) fn configured(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    shared: Option<&Shared<'_>>,
) -> Option<BTreeMap<String, ConfigValue>> {
    let Some(members) = entry.members() else {
        reader.wrong_type(entry, "a table", &format!("for example: {EXAMPLE}"));
        return None;
    };
    let mut values = BTreeMap::new();
    for (key, member) in &members {
        let name: &str = key.get_ref();
        if name.is_empty() || name.chars().any(char::is_control) {
            let problem =
                Problem::new(format!("{} cannot be a key of `config`", quoted(name)), key.span(), "not a key");
            reader.report(problem.help("a key has at least one character, and no control characters"));
        } else if let Some(value) = value(reader, name, member, shared) {
            values.insert(name.to_owned(), value);
        }
    }
    Some(values)
}

fn value(reader: &mut Reader<'_>, key: &str, member: &Entry<'_>, shared: Option<&Shared<'_>>) -> Option<ConfigValue> {
    let text = match member.value.get_ref() {
        DeValue::String(_) => reader.string(member, "\"640\"")?.value,
        DeValue::Integer(number) => decimal(number)?,
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Table(_) => {
            let Some(shared) = shared else {
                let message = format!("{} in `config` must be text: a manifest has no secrets", quoted(key));
                let problem = Problem::new(message, member.span(), "expected text, a number, true or false");
                reader.report(problem.help("runtime.toml has them: in `config` of the `[[handler]]`"));
                return None;
            };
            let table = reader.table(member, &keys::SECRET)?;
            return secret(reader, key, &table, shared);
        }
        DeValue::Array(_) | DeValue::Datetime(_) => {
            let message = format!("{} in `config` must be text, not {}", quoted(key), member.found());
            let problem = Problem::new(message, member.span(), "expected text, a number, true or false");
            reader.report(problem.help(match shared {
                Some(_) => format!("write it as text, such as JSON, in quotes; {SECRET}"),
                None => String::from("write it as text, such as JSON, in quotes"),
            }));
            return None;
        }
    };
    Some(ConfigValue::Text(Secret::new(text)))
}

/// As a handler reads it, however it was written.
fn decimal(number: &DeInteger<'_>) -> Option<String> {
    i128::from_str_radix(number.as_str(), number.radix()).ok().map(|value| value.to_string())
}

fn secret(reader: &mut Reader<'_>, key: &str, table: &Table<'_>, shared: &Shared<'_>) -> Option<ConfigValue> {
    let (env, file) = (table.entry("env"), table.entry("file"));
    let place = |reader: &Reader<'_>, entry: &Entry<'_>| {
        let (line, column) = reader.line_and_column(&entry.span());
        format!("{}:{line}:{column}", shared.origin.display())
    };
    match (env, file) {
        (Some(env), None) => {
            let place = place(reader, &env);
            let text = reader.string(&env, "\"API_KEY\"")?;
            if !is_variable(&text.value) {
                let message = format!("{} names no environment variable", quoted(&text.value));
                reader.report(text.problem(message, "not a name").help(SECRET));
                return None;
            }
            Some(ConfigValue::Env { name: text.value, place })
        }
        (None, Some(file)) => {
            let place = place(reader, &file);
            let text = reader.string(&file, "\"secrets/api-key\"")?;
            if text.value.is_empty() {
                reader.report(text.problem("`file` is empty", "expected a path").help(SECRET));
                return None;
            }
            Some(ConfigValue::File { path: shared.folder.join(text.value), place })
        }
        (Some(_), Some(_)) => {
            let message = format!("{} in `config` has two sources", quoted(key));
            reader.report(Problem::new(message, table.span.clone(), "`env` and `file`").help("keep one of them"));
            None
        }
        (None, None) => {
            let message = format!("{} in `config` has no value", quoted(key));
            let problem = Problem::new(message, table.span.clone(), "expected `env` or `file`");
            reader.report(problem.help(format!("a value is text, a number, true or false; {SECRET}")).because_absent());
            None
        }
    }
}
