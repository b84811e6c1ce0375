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
    /// The same, and left out where every row has 0.
    Rare(&'static str),
    /// Cut to a moderate width on a terminal.
    Text(&'static str),
    /// Gets what the others leave of the terminal's width. One a table, the last.
    Rest(&'static str),
}

impl Column {
    const fn heading(self) -> &'static str {
        match self {
            Self::Key(heading)
            | Self::Number(heading)
            | Self::Rare(heading)
            | Self::Text(heading)
            | Self::Rest(heading) => heading,
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
        let columns = self.shown();
        let headings = columns.iter().map(|(_, column)| column.heading().to_owned());
        table.set_header(cells(headings, &columns, screen));
        for row in &self.rows {
            let texts = columns.iter().map(|(at, _)| row.get(*at).cloned().unwrap_or_default());
            table.add_row(cells(texts, &columns, screen));
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
        for (column, (_, kind)) in table.column_iter_mut().zip(&columns) {
            column.set_padding(if screen == Screen::Plain { (0, 2) } else { (1, 1) });
            if !matches!(kind, Column::Rest(_)) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// The columns that have something to say, each with its place in a row.
    fn shown(&self) -> Vec<(usize, Column)> {
        let is_zero = |at: usize| self.rows.iter().all(|row| row.get(at).is_none_or(|cell| cell == "0"));
        let columns = self.columns.iter().copied().enumerate();
        columns.filter(|(at, column)| !matches!(column, Column::Rare(_)) || !is_zero(*at)).collect()
    }
}

fn cells(texts: impl Iterator<Item = String>, columns: &[(usize, Column)], screen: Screen) -> Row {
    let cells = texts.zip(columns).map(|(text, (_, column))| match (column, screen) {
        (Column::Number(_) | Column::Rare(_), _) => Cell::new(text).set_alignment(CellAlignment::Right),
        (Column::Text(_), Screen::Terminal { .. }) => Cell::new(clip(&text, TEXT_WIDTH)),
        // Cut before it is laid out: a cell over several lines would break at words.
        (Column::Rest(_), Screen::Terminal { width }) => Cell::new(clip(&text, usize::from(width))),
        _ => Cell::new(text),
    });
    let mut row = Row::from(cells.collect::<Vec<_>>());
    row.max_height(1);
    row
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
    fn rare_numbers_are_left_out_until_there_are_some() {
        let render = |waiting: [&str; 2]| {
            let mut table = Table::new([Column::Key("QUEUE"), Column::Rare("WAITING"), Column::Number("DEAD")]);
            for (queue, waiting) in ["a", "b"].into_iter().zip(waiting) {
                table.row([queue.into(), waiting.into(), "3".into()]);
            }
            table.render(Screen::Plain)
        };
        assert_eq!(render(["0", "0"]), "QUEUE  DEAD\na         3\nb         3\n");
        assert_eq!(render(["0", "7"]), "QUEUE  WAITING  DEAD\na            0     3\nb            7     3\n");
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
