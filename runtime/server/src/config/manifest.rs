//! The manifest of a component: what it says of itself. It comes from somebody who is not trusted: nothing in it is
//! filled in from the environment, and it takes effect only as far as runtime.toml lets it ([`Config::plugin`]).
//!
//! [`Config::plugin`]: super::Config::plugin

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use gristmill_core::Subscription;
use gristmill_host::Interface;

use super::configured::configured;
use super::error::ConfigErrors;
use super::limits::Limits;
use super::reader::{Entry, Reader};
use super::{ConfigValue, Granted, grant, handler, keys, syntax};

/// The longest `description`, in characters.
const MAX_DESCRIPTION: usize = 200;
const DESCRIPTION: &str = "\"Makes thumbnails of images.\"";
/// Keys that are no settings of one value each.
const LARGE: [&str; 4] = ["description", "subscribe", "wants", "config"];

/// A manifest without contradictions. Whether it may say what it says, a deployment decides.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub(super) origin: PathBuf,
    pub(super) text: String,
    description: Option<String>,
    /// Each with its place.
    pub(super) subscribe: Option<Vec<(Subscription, Range<usize>)>>,
    pub(super) ordering_key: Option<String>,
    pub(super) batch_size: Option<u32>,
    pub(super) interface: Option<Interface>,
    pub(super) limits: Limits,
    pub(super) config: BTreeMap<String, ConfigValue>,
    pub(super) wants: Granted,
    /// Key by key, as they were written.
    settings: Vec<(String, String)>,
}

impl Manifest {
    /// Checks `bytes`. `origin` is what messages call the file.
    ///
    /// # Errors
    /// With every problem in it.
    pub fn parse(bytes: &[u8], origin: &Path) -> Result<Self, ConfigErrors> {
        let text = String::from_utf8(bytes.to_owned()).map_err(|error| ConfigErrors::not_utf8(origin, &error))?;
        let (tree, syntax) = syntax::parse(&text);
        let mut reader = Reader::new(&text, None);
        let manifest = read(&mut reader, &tree, &text, origin);
        let problems = syntax::merge(&text, syntax, reader.into_problems());
        if problems.is_empty() { Ok(manifest) } else { Err(ConfigErrors::new(origin, &text, problems)) }
    }

    /// What messages call it: the file that it stands in, and where.
    #[must_use]
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A line for people.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// What it wants to handle; none: it does not say.
    pub fn subscribe(&self) -> impl Iterator<Item = &Subscription> {
        self.subscribe.iter().flatten().map(|(subscription, _)| subscription)
    }

    /// Its limits and what else is one value: key and value as they were written.
    #[must_use]
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// The keys that it has a default for in `config`.
    pub fn configured(&self) -> impl Iterator<Item = &str> {
        self.config.keys().map(String::as_str)
    }

    /// What it wants to be granted.
    #[must_use]
    pub fn wants(&self) -> &Granted {
        &self.wants
    }
}

/// What the tree says; where the reader found a problem, nothing stands in.
fn read(reader: &mut Reader<'_>, tree: &syntax::Tree<'_>, text: &str, origin: &Path) -> Manifest {
    let root = &reader.root(tree, &keys::MANIFEST);
    let settings = root.spans().filter(|(key, _)| !LARGE.contains(key));
    let written = |span: Range<usize>| text.get(span).unwrap_or_default().to_owned();
    Manifest {
        origin: origin.to_owned(),
        text: text.to_owned(),
        description: reader.setting(root, "description", description).value(),
        subscribe: reader.setting(root, "subscribe", handler::subscribe).value(),
        ordering_key: reader.setting(root, "ordering-key", handler::ordering_key).value(),
        batch_size: handler::batch_size(reader, root).value(),
        interface: handler::interface(reader, root).value(),
        config: reader
            .setting(root, "config", |reader, entry| configured(reader, entry, None))
            .value_or(BTreeMap::new()),
        wants: grant::grant(reader, root, "wants", Path::new("")),
        limits: Limits::read(reader, root),
        settings: settings.map(|(key, span)| (key.to_owned(), written(span))).collect(),
    }
}

fn description(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<String> {
    let text = reader.string(entry, DESCRIPTION)?;
    let wrong = if text.value.chars().any(char::is_control) {
        Some("it has a line break or another control character")
    } else if text.value.chars().count() > MAX_DESCRIPTION {
        Some("it is too long")
    } else {
        None
    };
    let Some(label) = wrong else { return Some(text.value) };
    let message = format!("`description` must be one line of at most {MAX_DESCRIPTION} characters");
    reader.report(text.problem(message, label).help(format!("for example: description = {DESCRIPTION}")));
    None
}
