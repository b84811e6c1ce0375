//! Walks what was written and collects every problem on the way.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Environment;
use super::error::Problem;
use super::expand::{ExpandError, expand};
use super::keys::Keys;
use super::setting::Setting;
use super::suggest::quoted;
use super::syntax::Tree;
use super::values::UNLIMITED;

/// Reads values, and remembers what is wrong with them.
pub(super) struct Reader<'a> {
    text: &'a str,
    /// What `${NAME}` is looked up in; `None`: it stands for itself.
    environment: Option<&'a Environment<'a>>,
    problems: Vec<Problem>,
}

/// A table whose keys were checked.
pub(super) struct Table<'t> {
    /// Its header, or its braces.
    pub(super) span: Range<usize>,
    tree: &'t DeTable<'t>,
}

/// A value and what it belongs to.
pub(super) struct Entry<'t> {
    /// Its key, or that of the list it stands in.
    pub(super) key: &'static str,
    /// The value.
    pub(super) value: &'t Spanned<DeValue<'t>>,
    role: Role,
}

/// How a value belongs to its key.
enum Role {
    Value,
    Item,
}

/// A string with its variables filled in.
#[derive(Clone)]
pub(super) struct Text {
    /// What it says.
    pub(super) value: String,
    /// Where it was written, quotes included.
    pub(super) span: Range<usize>,
    was_expanded: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, environment: Option<&'a Environment<'a>>) -> Self {
        Self { text, environment, problems: Vec::new() }
    }

    /// What is read.
    pub(super) const fn text(&self) -> &'a str {
        self.text
    }

    pub(super) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The end of the first line, for what is missing from the file as a whole.
    pub(super) fn end_of_first_line(&self) -> Range<usize> {
        let end = self.text.lines().next().map_or(0, str::len);
        end..end
    }

    /// The line and the column of a place, from 1.
    pub(super) fn line_and_column(&self, span: &Range<usize>) -> (usize, usize) {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }

    /// The file as a table with `keys`.
    pub(super) fn root<'t>(&mut self, tree: &'t Tree<'t>, keys: &Keys) -> Table<'t> {
        self.checked(tree.get_ref(), tree.span(), keys)
    }

    /// `entry` as a table with `keys`.
    pub(super) fn table<'t>(&mut self, entry: &Entry<'t>, keys: &Keys) -> Option<Table<'t>> {
        match entry.value.get_ref() {
            DeValue::Table(table) => Some(self.checked(table, entry.span(), keys)),
            _ => None,
        }
    }

    fn checked<'t>(&mut self, tree: &'t DeTable<'t>, span: Range<usize>, keys: &Keys) -> Table<'t> {
        let unknown = tree.keys().filter_map(|key| keys.check(key.get_ref(), key.span()));
        self.problems.extend(unknown);
        Table { span, tree }
    }

    /// The section `[key]`; `None` if it is absent, or is no table, which is reported.
    pub(super) fn section<'t>(&mut self, root: &Table<'t>, key: &'static str, keys: &Keys) -> Option<Table<'t>> {
        let entry = root.entry(key)?;
        let table = self.table(&entry, keys);
        if table.is_none() {
            self.wrong_type(&entry, "a table", &format!("write `[{key}]` once, and the keys below it"));
        }
        table
    }

    /// What `read` makes of `key`. It reports what it cannot read.
    pub(super) fn setting<T>(
        &mut self,
        table: &Table<'_>,
        key: &'static str,
        read: impl FnOnce(&mut Self, &Entry<'_>) -> Option<T>,
    ) -> Setting<T> {
        let Some(entry) = table.entry(key) else { return Setting::Absent };
        match read(self, &entry) {
            Some(value) => Setting::Written { value, span: entry.span() },
            None => Setting::Invalid,
        }
    }

    /// `entry` as a string, expanded. `example` is a value in TOML that would do.
    pub(super) fn string(&mut self, entry: &Entry<'_>, example: &str) -> Option<Text> {
        match entry.value.get_ref() {
            DeValue::String(text) => self.expanded(text, entry.span()),
            _ => {
                self.wrong_type(entry, "a string", &format!("for example: {} = {example}", entry.key));
                None
            }
        }
    }

    /// What `read` makes of `entry`; `Some(None)` where it says "unlimited".
    pub(super) fn unless_unlimited<T>(
        &mut self,
        entry: &Entry<'_>,
        read: impl FnOnce(&mut Self, &Entry<'_>) -> Option<T>,
    ) -> Option<Option<T>> {
        let is_unlimited = match (entry.value.get_ref().as_str(), self.environment) {
            (Some(text), Some(environment)) => expand(text, environment).is_ok_and(|text| text == UNLIMITED),
            (text, _) => text == Some(UNLIMITED),
        };
        if is_unlimited {
            return Some(None);
        }
        read(self, entry).map(Some)
    }

    /// The entries of a list, each with the list's key.
    pub(super) fn list<'t>(&mut self, entry: &Entry<'t>, example: &str) -> Option<Vec<Entry<'t>>> {
        let items = entry.items();
        if items.is_none() {
            self.wrong_type(entry, "a list", &format!("for example: {} = {example}", entry.key));
        }
        items
    }

    /// Reports that `entry` is not `wanted`.
    pub(super) fn wrong_type(&mut self, entry: &Entry<'_>, wanted: &str, help: &str) {
        let found = with_article(entry.value.get_ref());
        let problem = Problem::new(
            format!("{} must be {wanted}, not {found}", entry.subject()),
            entry.span(),
            format!("expected {wanted}"),
        );
        self.report(problem.help(help));
    }

    fn expanded(&mut self, text: &str, span: Range<usize>) -> Option<Text> {
        let Some(environment) = self.environment else {
            return Some(Text { value: text.to_owned(), span, was_expanded: false });
        };
        match expand(text, environment) {
            Ok(value) => Some(Text { was_expanded: text.contains("${"), value, span }),
            Err(errors) => {
                for error in errors {
                    let problem = self.not_expanded(error, text, &span);
                    self.report(problem);
                }
                None
            }
        }
    }

    fn not_expanded(&self, error: ExpandError, text: &str, span: &Range<usize>) -> Problem {
        const HELP: &str = "to write `${` itself, double the dollar sign: `$${`";
        let place = |at| self.within(text, span, at);
        match error {
            ExpandError::Unset { name, at } => {
                Problem::new(format!("the environment variable `{name}` is not set"), place(at), "used here")
                    .help(format!("set {name} before the start, or write the value itself"))
                    .help(HELP)
            }
            ExpandError::NotAName { at } => {
                let shown = quoted(text.get(at.clone()).unwrap_or_default());
                Problem::new(format!("{shown} names no environment variable"), place(at), "expected `${NAME}`")
                    .help("a name has letters, digits and `_`; there are no defaults inside the braces")
                    .help(HELP)
            }
            ExpandError::Unclosed { at } => {
                Problem::new("a `}` is missing after `${`", place(at), "opened here").help("write `${NAME}`").help(HELP)
            }
        }
    }

    /// Where byte range `at` of the string `text`, written at `span`, is in the file: exact unless the string has escapes.
    fn within(&self, text: &str, span: &Range<usize>, at: Range<usize>) -> Range<usize> {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let content = written.trim_matches(['"', '\'']);
        if content != text {
            return span.clone();
        }
        let offset = span.start + written.find(content).unwrap_or_default();
        offset + at.start..offset + at.end
    }
}

impl<'t> Table<'t> {
    /// Where everything in it was written, key by key.
    pub(super) fn spans(&self) -> impl Iterator<Item = (&'t str, Range<usize>)> {
        self.tree.iter().map(|(key, value)| (key.get_ref().as_ref(), value.span()))
    }

    /// The entry of `key`.
    pub(super) fn entry(&self, key: &'static str) -> Option<Entry<'t>> {
        self.tree.get(key).map(|value| Entry { key, value, role: Role::Value })
    }
}

impl<'t> Entry<'t> {
    /// What messages call it.
    fn subject(&self) -> String {
        match self.role {
            Role::Value => format!("`{}`", self.key),
            Role::Item => format!("an item of `{}`", self.key),
        }
    }

    /// Its items; `None` if it is no list.
    pub(super) fn items(&self) -> Option<Vec<Entry<'t>>> {
        let items = self.value.get_ref().as_array()?;
        Some(items.iter().map(|value| Entry { key: self.key, value, role: Role::Item }).collect())
    }

    /// Its keys, whatever they are, and their values; `None` if it is no table.
    pub(super) fn members(&self) -> Option<Vec<(&'t Spanned<DeString<'t>>, Self)>> {
        let table = self.value.get_ref().as_table()?;
        Some(table.iter().map(|(key, value)| (key, Entry { key: self.key, value, role: Role::Item })).collect())
    }

    /// Whether it is a table that has `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value.get_ref().as_table().is_some_and(|table| table.contains_key(key))
    }

    /// What it is, with its article.
    pub(super) fn found(&self) -> String {
        with_article(self.value.get_ref())
    }

    /// Where the value was written.
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }
}

impl Text {
    /// A number, as it was written, where a text with a unit is wanted.
    pub(super) fn bare(number: String, entry: &Entry<'_>) -> Self {
        Self { value: number, span: entry.span(), was_expanded: false }
    }

    /// A problem with this string; says what it was expanded to.
    pub(super) fn problem(&self, message: impl Into<String>, label: impl Into<String>) -> Problem {
        let problem = Problem::new(message, self.span.clone(), label);
        if self.was_expanded {
            problem.help(format!("with its variables filled in, the value is {}", quoted(&self.value)))
        } else {
            problem
        }
    }
}

fn with_article(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(_) => String::from("an integer"),
        DeValue::Array(_) => String::from("a list"),
        DeValue::Datetime(_) => String::from("a date"),
        other => format!("a {}", other.type_str()),
    }
}
