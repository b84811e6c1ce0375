//! Tables: lines and truncation on a terminal, plain aligned columns anywhere else.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Row, TableStyle};

use super::screen::Screen;
use super::text::{clip, one_line};

/// The widest a [`Column::Text`] gets on a terminal.
const TEXT_WIDTH: usize = 32;

/// A rule under the headings, and no other line.
const RULED: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A column: its heading, and how its cells stand.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Never cut: names and ids, which people copy.
    Key(&'static str),
    /// Right-aligned.
    Number(&'static str),
    /// Cut to a moderate width on a terminal.
    Text(&'static str),
    /// Gets what the others leave of the terminal's width. One a table, the last.
    Rest(&'static str),
}

impl Column {
    const fn heading(self) -> &'static str {
        match self {
            Self::Key(heading) | Self::Number(heading) | Self::Text(heading) | Self::Rest(heading) => heading,
        }
    }
}

/// Rows under headings. Cells may hold anything: they are escaped here.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row, a cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// The lines of the table, each with its line break.
    #[must_use]
    pub fn render(&self, screen: Screen) -> String {
        let mut table = comfy_table::Table::new();
        let headings = self.columns.iter().map(|column| column.heading().to_owned());
        table.set_header(self.cells(headings, screen));
        for row in &self.rows {
            table.add_row(self.cells(row.iter().cloned(), screen));
        }
        match screen {
            Screen::Terminal { width } => {
                table.load_style(RULED).set_truncation_indicator("…");
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            }
            Screen::Plain => {
                table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        for (column, kind) in table.column_iter_mut().zip(&self.columns) {
            column.set_padding(if screen == Screen::Plain { (0, 2) } else { (1, 1) });
            if !matches!(kind, Column::Rest(_)) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    fn cells(&self, texts: impl Iterator<Item = String>, screen: Screen) -> Row {
        let cells = texts.zip(&self.columns).map(|(text, column)| match (column, screen) {
            (Column::Number(_), _) => Cell::new(text).set_alignment(CellAlignment::Right),
            (Column::Text(_), Screen::Terminal { .. }) => Cell::new(clip(&text, TEXT_WIDTH)),
            // Cut before it is laid out: a cell over several lines would break at words.
            (Column::Rest(_), Screen::Terminal { width }) => Cell::new(clip(&text, usize::from(width))),
            _ => Cell::new(text),
        });
        let mut row = Row::from(cells.collect::<Vec<_>>());
        row.max_height(1);
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([Column::Key("QUEUE"), Column::Number("DEAD"), Column::Rest("REASON")]);
        table.row(["orders".into(), "12".into(), "no such thing: \u{1b}[31m and a long story\nin lines".into()]);
        table.row(["a".into(), "3".into(), String::new()]);
        table
    }

    #[test]
    fn plain_columns_are_aligned_and_whole() {
        let expected = "\
QUEUE   DEAD  REASON
orders    12  no such thing: \\u{1b}[31m and a long story\\nin lines
a          3
";
        assert_eq!(table().render(Screen::Plain), expected);
    }

    #[test]
    fn a_terminal_gets_lines_and_what_fits() {
        let rendered = table().render(Screen::Terminal { width: 40 });
        assert!(rendered.contains('─'), "{rendered}");
        assert!(rendered.contains("orders") && rendered.contains("no such") && rendered.contains('…'), "{rendered}");
        assert!(!rendered.contains('\u{1b}'), "{rendered}");
        for line in rendered.lines() {
            assert!(line.chars().count() <= 40, "{line:?} of\n{rendered}");
        }
        assert_eq!(rendered.lines().filter(|line| line.contains("orders")).count(), 1);
    }

    #[test]
    fn ids_are_never_cut() {
        let mut table = Table::new([Column::Key("ENTRY"), Column::Text("TYPE"), Column::Rest("REASON")]);
        let id = "0".repeat(60);
        table.row([id.clone(), "t".repeat(100), "because".into()]);
        let rendered = table.render(Screen::Terminal { width: 40 });
        assert!(rendered.contains(&id) && rendered.contains(&"t".repeat(31)), "{rendered}");
        assert!(!rendered.contains(&"t".repeat(32)));
    }
}
