//! What is wrong with a configuration, and how people read it.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::string::FromUtf8Error;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// More problems than this are counted, not shown.
const MAX_SHOWN: usize = 50;

/// The smallest file that works, for whoever has none.
const EXAMPLE: &str =
    "\n  [[handler]]\n  name = \"hello\"\n  component = \"hello.wasm\"\n  subscribe = [{ type = \"*\" }]";

/// Every problem in one configuration, in the order of the file. Never empty. Displayed without colour.
#[derive(Debug)]
pub struct ConfigErrors {
    origin: String,
    text: String,
    problems: Vec<Problem>,
    source: Option<std::io::Error>,
}

/// Whether a rendering carries the colours of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Text alone.
    Plain,
    /// With ANSI escapes.
    Ansi,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    message: String,
    place: Option<Place>,
    context: Vec<Place>,
    help: Vec<String>,
    basis: Basis,
}

/// A range of bytes and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    span: Range<usize>,
    label: String,
}

/// What a problem follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// From what is written at its place.
    Written,
    /// Also from what is absent elsewhere: no finding while a syntax error hides a part of the file.
    Absent,
}

impl ConfigErrors {
    pub(super) fn new(origin: &Path, text: &str, problems: Vec<Problem>) -> Self {
        Self { origin: origin.display().to_string(), text: text.to_owned(), problems, source: None }
    }

    pub(super) fn unreadable(path: &Path, source: std::io::Error) -> Self {
        let shown = path.display();
        let problem = match source.kind() {
            std::io::ErrorKind::NotFound => Problem::without_place(format!("there is no configuration file `{shown}`"))
                .help("pass another with `--config FILE`")
                .help(format!("or create it; this is a whole one:{EXAMPLE}")),
            std::io::ErrorKind::IsADirectory => {
                Problem::without_place(format!("`{shown}` is a folder")).help("pass the file itself: `--config FILE`")
            }
            _ => Problem::without_place(format!("cannot read the configuration file `{shown}`: {source}"))
                .help("check its permissions, or pass another with `--config FILE`"),
        };
        Self { source: Some(source), ..Self::new(path, "", vec![problem]) }
    }

    pub(super) fn not_utf8(path: &Path, error: &FromUtf8Error) -> Self {
        let text = String::from_utf8_lossy(error.as_bytes());
        let at = error.utf8_error().valid_up_to();
        let problem = Problem::new("the file is not UTF-8", at..at + '\u{fffd}'.len_utf8(), "not a character")
            .help("save the file as UTF-8");
        Self::new(path, &text, vec![problem])
    }

    /// The problems, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// All problems as people read them: message, line, column, the line itself with carets, and help.
    #[must_use]
    pub fn render(&self, color: Color) -> String {
        let renderer = match color {
            Color::Plain => Renderer::plain(),
            Color::Ansi => Renderer::styled(),
        };
        let mut parts: Vec<String> =
            self.problems.iter().take(MAX_SHOWN).map(|problem| renderer.render(&[self.report(problem)])).collect();
        let count = self.problems.len();
        if count > 1 {
            let shown = if count > MAX_SHOWN { format!("; the first {MAX_SHOWN} are shown") } else { String::new() };
            let summary = format!("{count} errors in `{}`{shown}", self.origin);
            parts.push(renderer.render(&[Group::with_title(Level::ERROR.primary_title(summary))]));
        }
        parts.join("\n\n") + "\n"
    }

    fn report<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let mut group = Group::with_title(Level::ERROR.primary_title(&problem.message));
        if let Some(place) = &problem.place {
            let primary = AnnotationKind::Primary.span(self.inside(&place.span)).label(&place.label);
            let context = problem
                .context
                .iter()
                .map(|place| AnnotationKind::Context.span(self.inside(&place.span)).label(&place.label));
            group =
                group.element(Snippet::source(&self.text).path(&self.origin).annotation(primary).annotations(context));
        }
        group.elements(problem.help.iter().map(|help| Level::HELP.message(help)))
    }

    /// `span`, moved to boundaries of characters inside the text.
    fn inside(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        start..self.text.ceil_char_boundary(span.end).max(start)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Color::Plain).trim_end())
    }
}

impl std::error::Error for ConfigErrors {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl Problem {
    pub(super) fn new(message: impl Into<String>, span: Range<usize>, label: impl Into<String>) -> Self {
        let place = Place { span, label: label.into() };
        Self { place: Some(place), ..Self::without_place(message.into()) }
    }

    /// One that no line of the text is to blame for.
    pub(super) fn without_place(message: String) -> Self {
        Self { message, place: None, context: Vec::new(), help: Vec::new(), basis: Basis::Written }
    }

    /// Adds a place that explains the first one.
    #[must_use]
    pub(super) fn context(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.context.push(Place { span, label: label.into() });
        self
    }

    /// Adds what is allowed, or what to do.
    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Says that it follows also from what is absent.
    #[must_use]
    pub(super) fn because_absent(mut self) -> Self {
        self.basis = Basis::Absent;
        self
    }

    pub(super) fn basis(&self) -> Basis {
        self.basis
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where, in bytes of the file; `None` when the file could not be read.
    #[must_use]
    pub fn span(&self) -> Option<Range<usize>> {
        self.place.as_ref().map(|place| place.span.clone())
    }

    /// What is said at the caret.
    #[must_use]
    pub fn label(&self) -> &str {
        self.place.as_ref().map_or("", |place| &place.label)
    }

    /// What is allowed and what would mend it, one line or more.
    #[must_use]
    pub fn help_lines(&self) -> &[String] {
        &self.help
    }
}
