//! Output for people: aligned columns, text made safe, and a standard output that may close early.

use std::io::{self, ErrorKind, Write};

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    offer(text).map(drop)
}

/// Writes to standard output; `false`: the reader has seen enough.
pub(super) fn offer(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        outcome => outcome.map(|()| true),
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
            line.extend(cell.chars().map(tame));
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A text from a peer, made safe for a terminal and cut to one line.
pub(super) fn one_line(text: &str, max: usize) -> String {
    let mut line: String = text.chars().map(tame).take(max).collect();
    if text.chars().nth(max).is_some() {
        line.push('…');
    }
    line
}

/// A text of several lines from a peer, made safe for a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c } else { tame(c) }).collect()
}

/// What would steer the terminal, or show text in another order than it is, is a blank.
fn tame(c: char) -> char {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    if c.is_control() || reorders || breaks { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_align_and_text_is_tamed() {
        let rows = [vec!["ID".to_owned(), "KIND".to_owned()], vec!["long-id".to_owned(), "x".to_owned()]];
        assert_eq!(super::render(&rows), "ID       KIND\nlong-id  x\n");
        assert_eq!(super::one_line("a\x1b[2J\nb", 80), "a [2J b");
        assert_eq!(super::one_line("abcdef", 3), "abc…");
        assert_eq!(super::one_line("a\u{9b}b\u{7f}c\u{202e}d\u{2066}e", 80), "a b c d e");
        assert_eq!(super::plain("a\n\x1b]0;x\x07b"), "a\n ]0;x b");
    }
}
