//! Path normalisation, as `normalize_path`, `merge_slashes` and `path_with_escaped_slashes_action` ask for it.
//!
//! Pure. What is routed and authorised is what goes upstream: the result replaces the request's path before any
//! decision looks at it. A path that cannot be normalised is refused, never passed on as it came.

use std::borrow::Cow;

use crate::ir::http::{ConnectionManager, EscapedSlashes};

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalized<'a> {
    Unchanged,
    Changed(Cow<'a, str>),
    /// Answer 307 with this location.
    Redirect(String),
    Rejected,
}

/// Normalises path and query (`/a/../b?x`). Everything from `?` on is left alone.
pub fn normalize<'a>(hcm: &ConnectionManager, whole: &'a str) -> Normalized<'a> {
    if !hcm.normalize_path && !hcm.merge_slashes && hcm.escaped_slashes == EscapedSlashes::Keep {
        return Normalized::Unchanged;
    }
    let split = whole.find(['?', '#']).unwrap_or(whole.len());
    let (path, rest) = whole.split_at(split);
    // `*` of OPTIONS and the empty path of CONNECT are not paths.
    if !path.starts_with('/') {
        return Normalized::Unchanged;
    }
    let mut current = Cow::Borrowed(path);
    let mut redirect = false;
    if hcm.escaped_slashes != EscapedSlashes::Keep
        && let Some(unescaped) = unescape_slashes(path)
    {
        match hcm.escaped_slashes {
            EscapedSlashes::Reject => return Normalized::Rejected,
            EscapedSlashes::UnescapeAndRedirect => redirect = true,
            EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
        }
        current = unescaped.into();
    }
    if hcm.normalize_path {
        match rfc3986(&current) {
            None => return Normalized::Rejected,
            Some(None) => {}
            Some(Some(normal)) => current = normal.into(),
        }
    }
    if hcm.merge_slashes && current.contains("//") {
        current = merge_slashes(&current).into();
    }
    if current == path {
        return Normalized::Unchanged;
    }
    let whole = format!("{current}{rest}");
    if redirect { Normalized::Redirect(whole) } else { Normalized::Changed(whole.into()) }
}

/// `%2F`, `%2f` to `/` and `%5C`, `%5c` to `\`; `None` when there is none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = path;
    let mut found = false;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3);
        let plain = match escape {
            Some("%2F" | "%2f") => Some('/'),
            Some("%5C" | "%5c") => Some('\\'),
            _ => None,
        };
        match plain {
            Some(plain) => {
                found = true;
                out.push(plain);
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Dot segments removed, backslashes turned into slashes, escaped unreserved characters unescaped, as the URL library
/// under Envoy does. `Some(None)`: nothing to do; `None`: not a valid path.
fn rfc3986(path: &str) -> Option<Option<String>> {
    let bytes = path.as_bytes();
    let suspicious = bytes.windows(2).any(|pair| pair == b"/.") || bytes.iter().any(|b| matches!(b, b'%' | b'\\'));
    if !suspicious {
        return Some(None);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'\\' => decoded.push(b'/'),
            b'%' => {
                let high = bytes.get(index + 1).and_then(|b| (*b as char).to_digit(16))?;
                let low = bytes.get(index + 2).and_then(|b| (*b as char).to_digit(16))?;
                let value = (high * 16 + low) as u8;
                if value == 0 {
                    return None;
                }
                if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') {
                    decoded.push(value);
                } else {
                    decoded.extend_from_slice(&bytes[index..index + 3]);
                }
                index += 2;
            }
            byte => decoded.push(byte),
        }
        index += 1;
    }
    let decoded = String::from_utf8(decoded).ok()?;
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = decoded[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        // Many servers drop parameters before they look for dots: `..;x` is `..` to them, so it is here.
        let bare = segment.split_once(';').map_or(segment, |(bare, _)| bare);
        match bare {
            "." | ".." => {
                if bare == ".." {
                    kept.pop();
                }
                // `/a/.` and `/a/b/..` name a directory: they keep the slash.
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let normal = format!("/{}", kept.join("/"));
    Some((normal != path).then_some(normal))
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}
