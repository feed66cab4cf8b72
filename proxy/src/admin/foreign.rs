//! Metrics that somebody else wrote, checked line by line: a scraper drops an answer whole for one line that it cannot
//! read.
//!
//! OpenMetrics is strict, the older format takes blanks between any two things, and a comma behind the last label.
//! Comments and empty lines mean nothing and are left out. Pure.

use super::exposition::Format;

/// A line that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Of the family or the sample.
    pub name: &'a str,
    pub text: &'a str,
}

/// The lines that mean something, or the number of the first that nobody can read.
pub(super) fn lines(text: &str, format: Format) -> impl Iterator<Item = Result<Line<'_>, usize>> {
    let mut ended = false;
    text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate().filter_map(move |(at, text)| {
        if ended && !text.is_empty() {
            // `# EOF` was not the end.
            return Some(Err(at + 1));
        }
        let read = if let Some(comment) = text.strip_prefix('#') {
            ended = format == Format::OpenMetrics && comment == " EOF";
            about(comment, format)
        } else if text.trim().is_empty() {
            Ok(None)
        } else {
            sample(text, format).map(Some)
        };
        match read {
            Ok(name) => name.map(|name| Ok(Line { name, text })),
            Err(Unread) => Some(Err(at + 1)),
        }
    })
}

struct Unread;

/// The name that a comment tells something of, if it is more than a comment.
fn about(comment: &str, format: Format) -> Result<Option<&str>, Unread> {
    let Some((keyword, rest)) = comment.strip_prefix(' ').and_then(|c| c.split_once(' ')) else { return Ok(None) };
    if !matches!(keyword, "HELP" | "TYPE" | "UNIT") {
        return Ok(None);
    }
    let (name, said) = rest.split_once(' ').unwrap_or((rest, ""));
    let said = skip(said, format);
    if !is_name(name, true) || said.contains('\0') {
        return Err(Unread);
    }
    let known = match (keyword, format) {
        ("HELP", _) => true,
        ("TYPE", Format::Text) => matches!(said.trim_end(), "counter" | "gauge" | "histogram" | "summary" | "untyped"),
        ("TYPE", Format::OpenMetrics) => matches!(
            said,
            "counter" | "gauge" | "histogram" | "gaugehistogram" | "stateset" | "info" | "summary" | "unknown"
        ),
        // A comment there.
        (_, Format::Text) => return Ok(None),
        (_, Format::OpenMetrics) => {
            said.is_empty() || name.strip_suffix(said).is_some_and(|rest| rest.len() > 1 && rest.ends_with('_'))
        }
    };
    if known { Ok(Some(name)) } else { Err(Unread) }
}

/// The name of a sample.
fn sample(line: &str, format: Format) -> Result<&str, Unread> {
    let length = line.find(['{', ' ', '\t']).ok_or(Unread)?;
    let (name, rest) = line.split_at(length);
    let mut rest = if skip(rest, format).starts_with('{') { skip(rest, format) } else { rest };
    if !is_name(name, true) {
        return Err(Unread);
    }
    if let Some(open) = rest.strip_prefix('{') {
        rest = labels(open, format).ok_or(Unread)?;
    }
    let (rest, exemplar) = match (format, rest.split_once(" # ")) {
        (Format::OpenMetrics, Some((rest, exemplar))) => (rest, Some(exemplar)),
        _ => (rest, None),
    };
    numbers(rest, format).ok_or(Unread)?;
    if let Some(exemplar) = exemplar {
        let rest = exemplar.strip_prefix('{').and_then(|labelled| labels(labelled, format)).ok_or(Unread)?;
        numbers(rest, format).ok_or(Unread)?;
    }
    Ok(name)
}

/// What follows the labels.
fn labels(text: &str, format: Format) -> Option<&str> {
    let mut text = skip(text, format);
    if let Some(rest) = text.strip_prefix('}') {
        return Some(rest);
    }
    loop {
        let (name, rest) = text.split_once('=')?;
        let name = if format == Format::Text { name.trim_end_matches([' ', '\t']) } else { name };
        let rest = skip(rest, format).strip_prefix('"')?;
        if !is_name(name, false) {
            return None;
        }
        let mut escaped = false;
        let end = rest.bytes().position(|b| match b {
            _ if escaped => {
                escaped = false;
                false
            }
            b'\\' => {
                escaped = true;
                false
            }
            b'"' => true,
            _ => false,
        })?;
        if rest[..end].contains('\0') {
            return None;
        }
        text = skip(&rest[end + 1..], format);
        let Some(more) = text.strip_prefix(',') else { return text.strip_prefix('}') };
        text = skip(more, format);
        if format == Format::Text
            && let Some(rest) = text.strip_prefix('}')
        {
            return Some(rest);
        }
    }
}

/// Over blanks, where they do not matter.
fn skip(text: &str, format: Format) -> &str {
    match format {
        Format::Text => text.trim_start_matches([' ', '\t']),
        Format::OpenMetrics => text,
    }
}

/// A value, and perhaps a time.
fn numbers(text: &str, format: Format) -> Option<()> {
    let parts: Vec<&str> = match format {
        Format::Text => text.split_ascii_whitespace().collect(),
        Format::OpenMetrics => text.strip_prefix(' ')?.split(' ').collect(),
    };
    let mut parts = parts.into_iter();
    let value = parts.next()?;
    let digits = value.trim_start_matches(['+', '-']);
    let named = ["inf", "infinity", "nan"].iter().any(|name| digits.eq_ignore_ascii_case(name));
    if value.parse::<f64>().is_err() || !(named || digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')) {
        return None;
    }
    if let Some(time) = parts.next() {
        match format {
            Format::Text => drop(time.parse::<i64>().ok()?),
            Format::OpenMetrics => drop(time.parse::<f64>().ok().filter(|time| time.is_finite())?),
        }
    }
    parts.next().is_none().then_some(())
}

fn is_name(name: &str, colons: bool) -> bool {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_' || (colons && b == b':');
    name.bytes().next().is_some_and(first) && name.bytes().all(|b| first(b) || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, format: Format) -> Result<Vec<&str>, usize> {
        lines(text, format).map(|line| line.map(|line| line.name)).collect()
    }

    #[test]
    fn what_scrapers_read_is_read() {
        let text = "# a comment\n\n# HELP a_total Any text, \u{e9}.\n# TYPE a_total counter\na_total 1\r\n\
                    b{x=\"1\",y=\"a \\\" } # \\\\\"} NaN 1700000000000\nc:d{} +Inf\n_e -1.5e+9\nf .5\n\
                    g{x=\"1\", y = \"2\",}\t 3 ";
        assert_eq!(read(text, Format::Text), Ok(vec!["a_total", "a_total", "a_total", "b", "c:d", "_e", "f", "g"]));
        let open = "# TYPE a counter\n# UNIT a_seconds seconds\na_total{x=\"1\"} 1 1700000000.5 # {trace_id=\"x\"} 0.5 1.5\n\
                    b 2 # {} 1\n# EOF\n";
        assert_eq!(read(open, Format::OpenMetrics), Ok(vec!["a", "a_seconds", "a_total", "b"]));
        assert_eq!(read("# EOF\na 1\n", Format::Text), Ok(vec!["a"]), "a comment like any other");
        assert_eq!(read("", Format::OpenMetrics), Ok(vec![]));
    }

    #[test]
    fn a_line_that_would_cost_the_scrape_is_named() {
        for line in [
            "<html>",
            "{\"a\": 1}",
            "a",
            "a ",
            "a b",
            "a 1 2 3",
            "a 1 x",
            "1a 1",
            "a-b 1",
            "{x=\"1\"} 1",
            "a{x=\"1\" 1",
            "a{x=\"1} 1",
            "a{x=1} 1",
            "a{x:y=\"1\"} 1",
            "a{x=\"1\"y=\"2\"} 1",
            "a 0x10",
            "a 1_000",
            "# TYPE a thing",
            "# TYPE a-b counter",
            "# HELP ",
            "\u{e9} 1",
        ] {
            for format in [Format::Text, Format::OpenMetrics] {
                assert_eq!(read(&format!("ok 1\n{line}\n"), format), Err(2), "{line}");
            }
        }
        for line in [
            "a 1 # {x=\"1\"}",
            "a 1 # 1",
            "# UNIT a_seconds bytes",
            "# EOF\na 1",
            "a  1",
            "a{x=\"1\"}1",
            "a{x=\"1\",} 1",
            "a 1 NaN",
            "# TYPE a untyped",
        ] {
            assert!(read(line, Format::OpenMetrics).is_err(), "{line}");
        }
        assert!(read("a 1 # {x=\"1\"} 1", Format::Text).is_err());
        assert!(read("a 1 1.5", Format::Text).is_err());
    }
}
