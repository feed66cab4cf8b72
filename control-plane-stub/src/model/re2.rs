//! What the regular expressions of Rust have and RE2 has not, or reads otherwise: Envoy would refuse a whole route
//! configuration for it, or match something else.
//!
//! Pure. Meant for texts that have compiled here, so that brackets and braces are known to be closed.

/// RE2's bound of a repetition, nested ones multiplied.
const MAX_REPEAT: u64 = 1000;

/// Why RE2 would not read `text` as it is read here.
pub(super) fn differs(text: &str) -> Option<String> {
    let mut rest = text;
    let mut class = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        if c == '\\' {
            let escaped = after.chars().next()?;
            if matches!(escaped, 'u' | 'U' | '<' | '>') || (escaped == 'b' && after[1..].starts_with('{')) {
                return Some(format!("`\\{escaped}` is not RE2's"));
            }
            rest = &after[escaped.len_utf8()..];
            // `\x{2603}`, `\p{Greek}`: no repetition.
            if matches!(escaped, 'x' | 'p' | 'P') && rest.starts_with('{') {
                rest = &rest[rest.find('}')?..];
            }
            continue;
        }
        match c {
            '[' if class => match after.starts_with(':').then(|| after.find(":]")).flatten() {
                Some(end) => {
                    rest = &after[end + 2..];
                    continue;
                }
                None => return Some("a class in a class is not RE2's: write \\[ for a bracket".to_owned()),
            },
            ']' if class => class = false,
            '&' | '-' | '~' if class && after.starts_with(c) => {
                return Some(format!("`{c}{c}` in a class is not RE2's: write \\{c} for the character"));
            }
            '[' => {
                class = true;
                // A bracket that closes at once is meant itself.
                let first = after.strip_prefix('^').unwrap_or(after);
                rest = first.strip_prefix(']').unwrap_or(first);
                continue;
            }
            '{' if !class => {
                let bounds = &after[..after.find('}')?];
                let too_often = |bound: &str| bound.trim().parse::<u64>().is_ok_and(|n| n > MAX_REPEAT);
                if bounds.split(',').any(too_often) {
                    return Some(format!("`{{{bounds}}}` repeats more than RE2's {MAX_REPEAT} times"));
                }
            }
            '(' if !class => {
                let flags = after.strip_prefix('?').map(|f| f.split([':', ')', '<', 'P']).next().unwrap_or_default());
                if let Some(flag) = flags.and_then(|flags| flags.chars().find(|f| matches!(f, 'x' | 'R' | 'u'))) {
                    return Some(format!("the flag `{flag}` is not RE2's"));
                }
            }
            _ => {}
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_re2_reads_otherwise_is_told() {
        for text in [
            "/a{1,2000}",
            "a{1001}",
            "a{1001,}",
            "[a-z&&[^x]]",
            "[a--b]",
            "[a~~b]",
            "[a[bc]]",
            "(?x) a b",
            "(?i-u:a)",
            "(?R)a",
            "a\\u0041",
            "\\<a",
            "a\\b{start}",
        ] {
            assert!(regex::Regex::new(text).is_ok() || text.contains('{') || text.contains("-u"), "{text}");
            assert!(differs(text).is_some(), "{text}");
        }
        for text in [
            "",
            "/a{1,1000}",
            "a{2,}",
            "[a-z&]",
            "[[:alpha:]_-]+",
            "[]a]",
            "[^]a]",
            "\\[a&&b\\]",
            "a&&b--c~~",
            "(?i)a",
            "(?P<x>a)",
            "(?<xu>a)",
            "(?:x)",
            "a\\{2000\\}",
            "[{]2000[}]",
            "\\\\[a]",
            "\\x{2603}",
            "\\p{Greek}",
            "\\bx\\b",
        ] {
            assert!(regex::Regex::new(text).is_ok(), "{text}");
            assert_eq!(differs(text), None, "{text}");
        }
    }
}
