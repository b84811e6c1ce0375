//! TOML: text to a tree that knows where everything was written, and what of it is no TOML.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::error::{Basis, Problem};
use super::suggest::quoted;

/// What the parser expects where a string has no end.
const STRING_ENDS: [&str; 4] = ["`\"`", "`'`", "`\"\"\"`", "`'''`"];

/// A document as it was written.
pub(super) type Tree<'t> = Spanned<DeTable<'t>>;

/// Parses as much as there is. The tree may be read even if there are problems: see [`merge`].
pub(super) fn parse(text: &str) -> (Tree<'_>, Vec<Problem>) {
    let (tree, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(|error| start(error.span()));
    // What follows on the same line is usually said because of the first.
    errors.dedup_by_key(|error| line_of(text, start(error.span())));
    let problems = errors.iter().map(|error| explain(text, error)).collect();
    (tree, problems)
}

/// Syntax errors and what the reader found, in the order of the file. A syntax error hides a part of the file: what was
/// found on its line, or follows from what is absent, is dropped, and so is all behind one that moves keys into another
/// table.
pub(super) fn merge(text: &str, syntax: Vec<Problem>, found: Vec<Problem>) -> Vec<Problem> {
    let broken: Vec<Range<usize>> =
        syntax.iter().filter_map(Problem::span).map(|span| line_of(text, span.start)).collect();
    let trusted_until =
        broken.iter().filter(|line| moves_keys(text, line)).map(|line| line.start).min().unwrap_or(usize::MAX);
    let is_trusted = |problem: &Problem| {
        let Some(span) = problem.span() else { return true };
        let on_broken_line = broken.iter().any(|line| span.start <= line.end && span.end >= line.start);
        problem.basis() == Basis::Written && !on_broken_line && span.start < trusted_until
    };
    let mut problems = syntax;
    let readable = problems.is_empty();
    problems.extend(found.into_iter().filter(|problem| readable || is_trusted(problem)));
    problems.sort_by_key(|problem| start(problem.span()));
    // A contradiction in the defaults was found once for each handler.
    problems.dedup();
    problems
}

fn start(span: Option<Range<usize>>) -> usize {
    span.map_or(0, |span| span.start)
}

/// The line around byte `at`, without its end.
fn line_of(text: &str, at: usize) -> Range<usize> {
    let (before, after) = text.split_at(text.floor_char_boundary(at));
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let end = after.find('\n').map_or(text.len(), |end| before.len() + end);
    start..end
}

/// Whether a mistake on this line leaves what follows in another table.
fn moves_keys(text: &str, line: &Range<usize>) -> bool {
    text.get(line.clone()).is_some_and(is_header)
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

fn explain(text: &str, error: &Error) -> Problem {
    let at = error.span().unwrap_or_default();
    let written = text.get(at.clone()).unwrap_or_default();
    let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), ""));
    let label = if expected.is_empty() { String::from("here") } else { format!("expected {expected}") };
    let unnamed = format!("this is not TOML: {what}");
    match what {
        "string values must be quoted" if written.is_empty() => {
            Problem::new("a value is missing", at, "expected a value").help("for example: key = \"text\"")
        }
        "string values must be quoted" => {
            let fix = format!("write \"{}\"", quoted(written).trim_matches('`'));
            Problem::new(format!("a string needs quotes: {}", quoted(written)), at, fix)
        }
        "duplicate key" => duplicate(text, at, written),
        "missing escaped value" => Problem::new("a backslash begins no known escape", at, label)
            .help("write `\\\\` for a backslash, or put the string in single quotes, where it stands for itself"),
        "missing comma between array elements" | "unclosed array" => {
            Problem::new(unnamed, at, label).help("close the list that begins above with `]`, or go on after a comma")
        }
        "missing comma between key-value pairs" | "unclosed inline table" => {
            Problem::new(unnamed, at, label).help("close the table that begins above with `}`, or go on after a comma")
        }
        "key with no value" => Problem::new("a key without a value", at, label).help("write: key = value"),
        _ if expected.contains("visible characters") => Problem::new("a control character in a string", at, "here")
            .help("write it as an escape in double quotes, such as \\t or \\u0007"),
        _ if STRING_ENDS.contains(&expected) => Problem::new("a string is not closed", at, label),
        _ => Problem::new(unnamed, at, label),
    }
}

/// A key or a table that is there twice; points at the first one where that is easy to find.
fn duplicate(text: &str, at: Range<usize>, written: &str) -> Problem {
    let line = line_of(text, at.start);
    let above = text.get(..line.start).unwrap_or_default();
    let line = text.get(line).unwrap_or_default();
    let (what, first, help) = if is_header(line) {
        (
            line.trim(),
            first_header(above, line),
            "put all its keys below the first one; only `[[handler]]` may be repeated",
        )
    } else {
        (written, first_key(above, written), "keep one of them")
    };
    let problem = Problem::new(format!("{} is written twice", quoted(what)), at, "the second one").help(help);
    match first {
        Some(first) => problem.context(first, "the first one"),
        None => problem,
    }
}

/// Where `above` has the same header.
fn first_header(above: &str, header: &str) -> Option<Range<usize>> {
    lines(above).find(|line| above.get(line.clone()).map(str::trim) == Some(header.trim()))
}

/// Where the table that `above` ends in has the key already.
fn first_key(above: &str, key: &str) -> Option<Range<usize>> {
    let mut found = None;
    for line in lines(above) {
        let written = above.get(line.clone()).unwrap_or_default();
        if is_header(written) {
            found = None;
        } else if written.split_once('=').is_some_and(|(before, _)| before.trim() == key) {
            found = found.or(Some(line.start..line.start + key.len()));
        }
    }
    found
}

/// Where the lines of `text` are, without white space around them.
fn lines(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.split_inclusive('\n').scan(0, |next, line| {
        let start = *next + line.len() - line.trim_start().len();
        *next += line.len();
        Some(start..start + line.trim().len())
    })
}
