//! Tables for people: columns apart by spaces, numbers to the right.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Color, Table};

use crate::style::Style;

/// How a cell is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// What matters least.
    Faint,
    /// What went well.
    Good,
    /// What is new.
    Changed,
    /// What went wrong.
    Bad,
}

/// A table that is built row by row.
pub struct Rows {
    style: Style,
    table: Table,
}

impl Rows {
    /// A table with these columns; those whose name begins with `>` are set to the right.
    pub fn new(style: Style, columns: &[&str]) -> Self {
        let mut rows = Self::bare(style);
        let header: Vec<Cell> = columns
            .iter()
            .map(|name| rows.cell(name.trim_start_matches('>'), Tone::Faint))
            .collect();
        rows.table.set_header(header);
        for (index, name) in columns.iter().enumerate() {
            if name.starts_with('>')
                && let Some(column) = rows.table.column_mut(index)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        rows
    }

    /// A table without names of columns.
    pub fn bare(style: Style) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.force_no_tty();
        if style.colours() {
            table.enforce_styling();
        }
        Self { style, table }
    }

    /// Adds a row.
    pub fn row<'a>(&mut self, cells: impl IntoIterator<Item = (&'a str, Tone)>) {
        let cells: Vec<Cell> = cells
            .into_iter()
            .map(|(text, tone)| self.cell(text, tone))
            .collect();
        self.table.add_row(cells);
    }

    fn cell(&self, text: &str, tone: Tone) -> Cell {
        let cell = Cell::new(text);
        if !self.style.colours() {
            return cell;
        }
        match tone {
            Tone::Plain => cell,
            Tone::Faint => cell.add_attribute(comfy_table::Attribute::Dim),
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Changed => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed),
        }
    }

    /// The table as text, no spaces at the ends of its lines.
    pub fn finish(mut self) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for line in self.table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A time for people.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 59.95 => format!("{s:.1} s"),
        s => {
            let whole = s.round() as u64;
            match whole / 3600 {
                0 => format!("{} min {:02} s", whole / 60, whole % 60),
                hours => format!("{hours} h {:02} min", whole / 60 % 60),
            }
        }
    }
}

/// A number of bytes for people.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} {}", UNITS[0]),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// So many of what there is more than one of: `1 file`, `2 files`.
pub fn count(number: usize, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}

/// A measure for people: four decimals, fewer where they are zeros.
pub fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.4}");
    if value.fract() == 0.0 {
        return format!("{value:.0}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        let times = [0.0, 0.0126, 1.0, 12.34, 61.0, 3720.0].map(seconds);
        assert_eq!(
            times.join(", "),
            "0 ms, 13 ms, 1.0 s, 12.3 s, 1 min 01 s, 1 h 02 min"
        );
        let sizes = [0, 1023, 1024, 5 << 20, 3 << 40].map(bytes);
        assert_eq!(
            sizes.join(", "),
            "0 bytes, 1023 bytes, 1.0 KiB, 5.0 MiB, 3.0 TiB"
        );
        let numbers = [0.5, 1.0, 0.00012, 0.91234567].map(number);
        assert_eq!(numbers.join(", "), "0.5000, 1, 1.20e-4, 0.9123");
    }

    #[test]
    fn tables_align_and_end_without_spaces() {
        let mut rows = Rows::new(
            Style::stdout(crate::style::When::Never),
            &["stage", ">time"],
        );
        rows.row([("corpus", Tone::Good), ("1.0 s", Tone::Plain)]);
        rows.row([("a", Tone::Good), ("120 ms", Tone::Plain)]);
        insta::assert_snapshot!(rows.finish(), @r"
        stage     time
        corpus   1.0 s
        a       120 ms
        ");
    }
}
