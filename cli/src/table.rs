//! Columns for people, as kubectl prints them.

use std::io::{Result, Write};

/// Prints rows under headings; without rows nothing.
pub fn print(out: &mut dyn Write, headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
        cells.chain([headings[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let text: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", text.join("   ").trim_end())
    };
    if rows.is_empty() {
        return Ok(());
    }
    line(&mut headings.iter().copied())?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        super::print(&mut out, &["NAME", "X"], &[vec!["añb".into(), "1".into()], vec!["longer".into(), String::new()]]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME     X\nañb      1\nlonger\n");
    }
}
