//! What handlers are configured with, its secrets read: at the start, and again when somebody asks for it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use gristmill_core::Secret;
use gristmill_host::Configuration;

use crate::config::ConfigValue;

/// The longest secret, in bytes.
const MAX_SECRET: u64 = 1 << 20;

/// A secret that cannot be read. Its words never have the secret in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its key in `config`.
    pub key: String,
    /// Where that was written: `FILE:LINE:COLUMN`.
    pub place: String,
    /// Why not.
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` in `config`: {}", self.place, self.key, self.reason)
    }
}

/// Reads every value. Touches the disk.
///
/// # Errors
/// With every secret that cannot be read.
pub fn read(values: &BTreeMap<String, ConfigValue>) -> Result<Configuration, Vec<Unreadable>> {
    let (configuration, unreadable) = refresh(values, &Configuration::default());
    if unreadable.is_empty() { Ok(configuration) } else { Err(unreadable) }
}

/// Reads every value; a secret that cannot be read stays as it was. Touches the disk.
#[must_use]
pub fn refresh(values: &BTreeMap<String, ConfigValue>, old: &Configuration) -> (Configuration, Vec<Unreadable>) {
    let mut unreadable = Vec::new();
    let values = values.iter().filter_map(|(key, value)| match read_one(value) {
        Ok(value) => Some((key.clone(), value)),
        Err((place, reason)) => {
            unreadable.push(Unreadable { key: key.clone(), place: place.to_owned(), reason });
            old.get(key).map(|value| (key.clone(), value.clone()))
        }
    });
    let configuration = values.collect();
    (configuration, unreadable)
}

/// The value; or where it was asked for, and why there is none.
fn read_one(value: &ConfigValue) -> Result<Secret, (&str, String)> {
    match value {
        ConfigValue::Text(text) => Ok(text.clone()),
        ConfigValue::Env { name, place } => match std::env::var(name) {
            Ok(value) => Ok(Secret::new(value)),
            Err(std::env::VarError::NotPresent) => {
                Err((place, format!("the environment variable `{name}` is not set: set it before the start")))
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                Err((place, format!("the environment variable `{name}` is not UTF-8")))
            }
        },
        ConfigValue::File { path, place } => {
            read_file(path).map_err(|error| (place.as_str(), format!("cannot read {}: {error}", path.display())))
        }
    }
}

/// A file as text, without the line break at its end.
fn read_file(path: &Path) -> std::io::Result<Secret> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(MAX_SECRET + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_SECRET {
        return Err(std::io::Error::other(format!("a secret has at most {MAX_SECRET} bytes")));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret::new(text.strip_suffix('\r').unwrap_or(text)))
}

/// The configuration of a handler at work: whoever starts a run takes it as it is then.
#[derive(Debug, Default)]
pub struct Current(RwLock<Configuration>);

impl Current {
    /// Begins with `configuration`.
    #[must_use]
    pub fn new(configuration: Configuration) -> Self {
        Self(RwLock::new(configuration))
    }

    /// As it is now.
    #[must_use]
    pub fn get(&self) -> Configuration {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the place of the one before.
    pub fn set(&self, configuration: Configuration) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = configuration;
    }
}
