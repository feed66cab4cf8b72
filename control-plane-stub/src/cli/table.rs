//! Output for people: aligned columns, text made safe, and a standard output that may close early.

use std::io::{self, ErrorKind, Write};

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Renders rows under a heading, columns padded to their widest cell.
pub(super) fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A text from a peer, made safe for a terminal and cut to one line.
pub(super) fn one_line(text: &str, max: usize) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max).collect();
    if text.chars().nth(max).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_align_and_text_is_tamed() {
        let rows = [vec!["ID".to_owned(), "KIND".to_owned()], vec!["long-id".to_owned(), "x".to_owned()]];
        assert_eq!(super::render(&rows), "ID       KIND\nlong-id  x\n");
        assert_eq!(super::one_line("a\x1b[2J\nb", 80), "a [2J b");
        assert_eq!(super::one_line("abcdef", 3), "abc…");
    }
}
