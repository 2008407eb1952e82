//! Text in columns.

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// Returns `rows` in columns as wide as their longest cell, with a line of names first. No line ends
/// in blanks.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let names = columns.iter().map(|(Column::Left(name) | Column::Right(name))| (*name).to_owned());
    let lines: Vec<Vec<String>> = std::iter::once(names.collect()).chain(rows.to_vec()).collect();
    let width = |index: usize| {
        let cells = lines.iter().filter_map(|line| line.get(index));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let shown = lines.iter().map(|line| {
        let cells =
            line.iter().zip(columns).zip(&widths).map(|((cell, column), width)| match column {
                Column::Left(_) => format!("{cell:width$}"),
                Column::Right(_) => format!("{cell:>width$}"),
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    shown.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["bcd".to_owned(), "7".to_owned()]];
        let shown = table(&[Column::Left("NAME"), Column::Right("N")], &rows);
        assert_eq!(shown, "NAME   N\na     10\nbcd    7");
    }
}
