//! `[[handler]]`.

use std::collections::BTreeMap;
use std::ops::Range;

use gristmill_core::{HandlerName, Pattern, Subscription};
use gristmill_host::Interface;

use super::configured::configured;
use super::error::Problem;
use super::grant;
use super::keys;
use super::limits::Limits;
use super::reader::{Entry, Reader, Table, Text};
use super::setting::Setting;
use super::suggest::{both, either, normal, quoted};
use super::values::Allowed;
use super::{ConfigValue, DEFAULT_BATCH_SIZE, Granted, HandlerConfig, Shared};
use crate::source::{Source, Unusable};

const BATCH_SIZE: Allowed<u32> = Allowed::within(1..=1_000, DEFAULT_BATCH_SIZE);
const REQUIRED: [&str; 3] = ["name", "component", "subscribe"];
const NAME: &str = "\"resize\"";
const COMPONENT: &str = "\"plugins/resize.wasm\"";
const SUBSCRIBE: &str = "[{ type = \"com.acme.image.*\" }]";
const DIGEST_PREFIX: &str = "sha256:";
const DIGEST_DIGITS: usize = 64;
/// Names in an event's JSON that are no attributes; `specversion` is the same in every event.
const NO_ATTRIBUTES: [&str; 3] = ["data", "data_base64", "specversion"];

/// Every `[[handler]]`.
#[derive(Default)]
pub(super) struct Handlers {
    /// Those that need no component from the plugins folder, each over the defaults.
    pub(super) whole: Vec<HandlerConfig>,
    /// All of them, as they were written.
    pub(super) written: Vec<Written>,
}

/// One `[[handler]]` as it was written; a manifest may say what it does not.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) name: HandlerName,
    /// Where it begins, from 1; 0: nowhere.
    pub(super) line: usize,
    /// `None`: it is expected from the plugins folder.
    pub(super) component: Option<Source>,
    pub(super) digest: Option<String>,
    pub(super) interface: Option<Interface>,
    pub(super) subscribe: Option<Vec<Subscription>>,
    pub(super) batch_size: Option<u32>,
    pub(super) ordering_key: Option<String>,
    pub(super) config: BTreeMap<String, ConfigValue>,
    pub(super) grant: Granted,
    pub(super) limits: Limits,
}

/// Reads every `[[handler]]`.
pub(super) fn all(reader: &mut Reader<'_>, root: &Table<'_>, shared: &Shared<'_>) -> Handlers {
    let Some(entry) = root.entry("handler") else {
        if !shared.has_plugins {
            reader.report(no_handlers(reader.end_of_first_line()));
        }
        return Handlers::default();
    };
    let entries = tables(reader, &entry, shared);
    let mut names: Vec<(HandlerName, Range<usize>)> = Vec::new();
    let mut handlers = Handlers::default();
    for table in &entries {
        let name = reader.setting(table, "name", name);
        if let Setting::Written { value, span } = &name {
            if let Some((_, first)) = names.iter().find(|(name, _)| name == value) {
                reader.report(duplicate(value, span.clone(), first.clone()));
            } else {
                names.push((value.clone(), span.clone()));
            }
        }
        let Some(written) = one(reader, table, name, shared) else { continue };
        handlers.whole.extend(written.whole(shared));
        handlers.written.push(written);
    }
    handlers
}

fn tables<'t>(reader: &mut Reader<'_>, entry: &Entry<'t>, shared: &Shared<'_>) -> Vec<Table<'t>> {
    const HELP: &str = "write `[[handler]]`, with two brackets, above the keys of each handler";
    let Some(items) = entry.items() else {
        reader.wrong_type(entry, "a list of tables", HELP);
        return Vec::new();
    };
    if items.is_empty() && !shared.has_plugins {
        reader.report(no_handlers(entry.span()));
    }
    let tables = items.iter().filter_map(|item| {
        let table = reader.table(item, &keys::HANDLER);
        if table.is_none() {
            reader.wrong_type(item, "a table", HELP);
        }
        table
    });
    tables.collect()
}

fn one(reader: &mut Reader<'_>, table: &Table<'_>, name: Setting<HandlerName>, shared: &Shared<'_>) -> Option<Written> {
    report_missing(reader, table, &name, shared);
    let component = reader.setting(table, "component", component);
    let limits = Limits::read(reader, table);
    let digest = reader.setting(table, "digest", digest);
    expect_digest(reader, &component, &digest);
    let written = Written {
        digest: digest.value(),
        interface: interface(reader, table).value(),
        subscribe: reader.setting(table, "subscribe", subscribe).value().map(without_places),
        config: reader
            .setting(table, "config", |reader, entry| configured(reader, entry, Some(shared)))
            .value_or(BTreeMap::new()),
        grant: grant::grant(reader, table, "grant", shared.folder),
        batch_size: batch_size(reader, table).value(),
        ordering_key: reader.setting(table, "ordering-key", ordering_key).value(),
        component: component.value().map(|component| match component {
            Source::Path(path) => Source::Path(shared.folder.join(path)),
            remote => remote,
        }),
        line: reader.line_and_column(&table.span).0,
        limits,
        name: name.value()?,
    };
    let limits = written.limits.over(&shared.defaults);
    limits.check(reader, shared.max_event_size.as_ref(), shared.memory.as_ref());
    Some(written)
}

impl Written {
    /// Nothing at all.
    pub(super) fn nothing(name: HandlerName) -> Self {
        Self {
            name,
            line: 0,
            component: None,
            digest: None,
            interface: None,
            subscribe: None,
            batch_size: None,
            ordering_key: None,
            config: BTreeMap::new(),
            grant: Granted::default(),
            limits: Limits::default(),
        }
    }

    /// The handler, if it needs no component from the plugins folder.
    fn whole(&self, shared: &Shared<'_>) -> Option<HandlerConfig> {
        let (component, subscribe) = (self.component.clone()?, self.subscribe.clone()?);
        let max_event_size = shared.max_event_size.as_ref().map_or(0, |size| size.value);
        Some(self.handler(component, subscribe, &self.limits.over(&shared.defaults), max_event_size))
    }

    /// The handler with `limits`, the defaults among them.
    pub(super) fn handler(
        &self,
        component: Source,
        subscribe: Vec<Subscription>,
        limits: &Limits,
        max_event_size: u64,
    ) -> HandlerConfig {
        HandlerConfig {
            name: self.name.clone(),
            component,
            digest: self.digest.clone(),
            interface: self.interface,
            subscribe,
            concurrency: limits.concurrency(),
            batch_size: self.batch_size,
            limits: limits.call(max_event_size),
            instances: limits.instances(),
            queue: limits.queue(self.ordering_key.clone()),
            max_log_rate: limits.max_log_rate(),
            canary: limits.canary(),
            breaker: limits.breaker(),
            config: self.config.clone(),
            grant: self.grant.clone(),
            wants: Granted::default(),
        }
    }
}

/// Reads `interface`.
pub(super) fn interface(reader: &mut Reader<'_>, table: &Table<'_>) -> Setting<Interface> {
    reader.setting(table, "interface", |reader, entry| {
        reader.choice(entry, &Interface::ALL.map(|interface| (interface.name(), interface)))
    })
}

/// Reads `batch-size`.
pub(super) fn batch_size(reader: &mut Reader<'_>, table: &Table<'_>) -> Setting<u32> {
    reader.setting(table, "batch-size", |reader, entry| reader.integer(entry, &BATCH_SIZE, |count| count.to_string()))
}

fn report_missing(reader: &mut Reader<'_>, table: &Table<'_>, name: &Setting<HandlerName>, shared: &Shared<'_>) {
    let comes_from_folder = shared.has_plugins && table.entry("component").is_none();
    let required = if comes_from_folder { &REQUIRED[..1] } else { &REQUIRED[..] };
    let missing: Vec<&str> = required.iter().copied().filter(|key| table.entry(key).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let whose = match name {
        Setting::Written { value, .. } => format!("the handler `{value}`"),
        _ => String::from("a handler"),
    };
    let lines: Vec<String> = missing.iter().map(|key| format!("\n  {key} = {}", example(key))).collect();
    let message = format!("{whose} lacks {}", both(&missing));
    let label = if missing.len() == 1 { "a key is missing here" } else { "keys are missing here" };
    let problem = Problem::new(message, table.span.clone(), label);
    reader.report(problem.help(format!("add, for example:{}", lines.concat())).because_absent());
}

fn example(key: &str) -> &'static str {
    match key {
        "name" => NAME,
        "component" => COMPONENT,
        _ => SUBSCRIBE,
    }
}

fn no_handlers(span: Range<usize>) -> Problem {
    let lines: Vec<String> = REQUIRED.iter().map(|key| format!("\n  {key} = {}", example(key))).collect();
    Problem::new("no handlers: nothing would receive an event", span, "expected at least one `[[handler]]`")
        .help(format!("add, for example:\n  [[handler]]{}", lines.concat()))
        .because_absent()
}

fn duplicate(name: &HandlerName, span: Range<usize>, first: Range<usize>) -> Problem {
    Problem::new(format!("two handlers are called `{name}`"), span, "the second one")
        .context(first, "the first one")
        .help("a handler's queue has its name, so each needs a name of its own")
}

fn name(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<HandlerName> {
    let text = reader.string(entry, NAME)?;
    match HandlerName::new(&text.value) {
        Ok(name) => Some(name),
        Err(_) => {
            let label = match HandlerName::new(&normal(&text.value)) {
                Ok(near) => format!("did you mean \"{near}\"?"),
                Err(_) => String::from("not a name"),
            };
            let problem = text.problem(format!("{} is not a name for a handler", quoted(&text.value)), label);
            reader.report(
                problem.help("a name is 1 to 63 of a-z, 0-9, `-`, `_` and `.`, and begins with a letter or digit"),
            );
            None
        }
    }
}

/// Where the component comes from; a path as written.
fn component(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Source> {
    let text = reader.string(entry, COMPONENT)?;
    match Source::parse(&text.value) {
        Ok(source) => Some(source),
        Err(Unusable { message, expected, help }) => {
            reader.report(text.problem(message, expected).help(help));
            None
        }
    }
}

/// What a web server sends is whatever it likes.
fn expect_digest(reader: &mut Reader<'_>, component: &Setting<Source>, digest: &Setting<String>) {
    if let (Setting::Written { value: Source::Https { .. }, span }, Setting::Absent) = (component, digest) {
        let label = "this handler has no `digest`";
        let problem = Problem::new("a component from `https://` has to be pinned", span.clone(), label);
        let help = "add its digest, `digest = \"sha256:…\"`; `curl -fsSL URL | sha256sum` prints the digits";
        reader.report(problem.help(help).because_absent());
    }
}

fn digest(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<String> {
    let text = reader.string(entry, "\"sha256:…\"")?;
    let wrong = match text.value.strip_prefix(DIGEST_PREFIX) {
        None => String::from("expected `sha256:` first"),
        Some(digits) if digits.bytes().any(|b| b.is_ascii_uppercase()) => String::from("write it in lower case"),
        Some(digits) if !digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            String::from("not a hexadecimal digit among these")
        }
        Some(digits) if digits.len() != DIGEST_DIGITS => format!("these are {} digits", digits.len()),
        Some(_) => return Some(text.value),
    };
    let problem = text.problem("`digest` must be `sha256:` and 64 hexadecimal digits in lower case", wrong);
    reader.report(problem.help("`sha256sum FILE` prints the digits; without `digest` any file is accepted"));
    None
}

/// The name of an attribute or an extension.
pub(super) fn ordering_key(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<String> {
    const HELP: &str = "name an attribute of the event, such as \"subject\", or an extension: a-z and 0-9";
    let text = reader.string(entry, "\"subject\"")?;
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if NO_ATTRIBUTES.contains(&text.value.as_str()) {
        let message = format!("{} cannot be the ordering key: it is no attribute of an event", quoted(&text.value));
        reader.report(text.problem(message, "not an attribute").help(HELP));
        return None;
    }
    if !is_name(&text.value) {
        let near = text.value.trim().to_lowercase();
        let label = if is_name(&near) { format!("did you mean \"{near}\"?") } else { String::from("not a name") };
        let problem = text.problem(format!("{} is not the name of an attribute", quoted(&text.value)), label);
        reader.report(problem.help(HELP));
        return None;
    }
    Some(text.value)
}

/// Reads `subscribe`: each subscription, and where it was written.
pub(super) fn subscribe(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Vec<(Subscription, Range<usize>)>> {
    let items = reader.list(entry, SUBSCRIBE)?;
    if items.is_empty() {
        let problem =
            Problem::new("`subscribe` is empty: no event would arrive", entry.span(), "expected a pattern or more");
        reader.report(problem.help(format!("for example: subscribe = {SUBSCRIBE}; `*` stands for any characters")));
        return None;
    }
    let subscriptions: Vec<_> =
        items.iter().map(|item| subscription(reader, item).map(|subscription| (subscription, item.span()))).collect();
    subscriptions.into_iter().collect()
}

fn without_places(subscriptions: Vec<(Subscription, Range<usize>)>) -> Vec<Subscription> {
    subscriptions.into_iter().map(|(subscription, _)| subscription).collect()
}

fn subscription(reader: &mut Reader<'_>, item: &Entry<'_>) -> Option<Subscription> {
    let Some(table) = reader.table(item, &keys::SUBSCRIBE) else {
        let help = match item.value.get_ref().as_str() {
            Some(pattern) => {
                format!("for the type of an event, write: {{ type = \"{}\" }}", quoted(pattern).trim_matches('`'))
            }
            None => format!("for example: subscribe = {SUBSCRIBE}"),
        };
        reader.wrong_type(item, "a table", &help);
        return None;
    };
    let keys = ["type", "source", "subject"];
    let [ty, source, subject] = keys.map(|key| {
        reader.setting(&table, key, |reader, entry| {
            let text = reader.string(entry, "\"com.acme.*\"")?;
            pattern(reader, entry.key, text)
        })
    });
    if keys.iter().all(|key| table.entry(key).is_none()) {
        let problem =
            Problem::new("a subscription without a pattern", table.span.clone(), format!("expected {}", either(&keys)));
        reader.report(problem.help("to receive every event, write: { type = \"*\" }").because_absent());
        return None;
    }
    Some(Subscription { ty: ty.value(), source: source.value(), subject: subject.value() })
}

/// `text` as a pattern; `key` says whose.
pub(super) fn pattern(reader: &mut Reader<'_>, key: &str, text: Text) -> Option<Pattern> {
    if text.value.is_empty() {
        let problem = text.problem(format!("an empty pattern in `{key}` matches nothing"), "expected a pattern");
        reader.report(problem.help("`*` stands for any characters; everything else for itself"));
        return None;
    }
    Some(Pattern::new(&text.value))
}
