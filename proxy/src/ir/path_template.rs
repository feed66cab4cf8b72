//! Path templates (`envoy.path.match.uri_template`) and what paths become by them (`envoy.path.rewrite.uri_template`).
//!
//! A template becomes one anchored regular expression when it is parsed; variables are its named groups.

use std::{collections::BTreeSet, fmt::Write};

use super::matcher::Regex;

#[cfg(test)]
mod tests;

const MAX_VARIABLES: usize = 5;
const MAX_NAME: usize = 16;

/// What a path segment may consist of: the characters of RFC 3986 without `=` and `*`.
const CHARACTERS: &str = r"a-zA-Z0-9\-._~%!$&'()+,;:@";

/// A compiled template, equal to another by its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    regex: Regex,
    variables: BTreeSet<Box<str>>,
}

/// A parsed rewrite: literals and variables in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRewrite(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Variable(Box<str>),
}

#[derive(Default)]
struct Parser {
    regex: String,
    variables: BTreeSet<Box<str>>,
    /// After `**` no other wildcard may follow.
    open_end: bool,
}

impl PathTemplate {
    /// Parses a template such as `/v{version}/*/{rest=**}`.
    pub fn parse(source: &str) -> Result<Self, String> {
        let Some(rest) = source.strip_prefix('/') else { return Err("must begin with `/`".into()) };
        let mut parser = Parser::default();
        let segments = segments(rest)?;
        for (i, segment) in segments.iter().enumerate() {
            parser.regex.push('/');
            if segment.is_empty() && i + 1 < segments.len() {
                return Err("has an empty segment".into());
            }
            parser.segment(segment, i + 1 == segments.len())?;
        }
        Ok(Self { regex: Regex::full(&parser.regex)?, variables: parser.variables })
    }

    /// Whether the path, which has no query, is one of the template.
    pub fn is_match(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }

    /// The path that `rewrite` makes of one of the template.
    pub fn rewrite(&self, path: &str, rewrite: &TemplateRewrite) -> Option<String> {
        let captures = self.regex.captures(path)?;
        let mut out = String::new();
        for piece in &rewrite.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Variable(name) => out.push_str(captures.name(name)?.as_str()),
            }
        }
        Some(out)
    }
}

impl TemplateRewrite {
    /// Parses a rewrite for paths of `template`.
    pub fn parse(source: &str, template: &PathTemplate) -> Result<Self, String> {
        if !source.starts_with('/') {
            return Err("must begin with `/`".into());
        }
        let mut pieces = Vec::new();
        let mut rest = source;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or("a `{` is not closed")?;
                if !template.variables.contains(name) {
                    return Err(format!("the template has no variable {name:?}"));
                }
                pieces.push(Piece::Variable(name.into()));
                rest = after;
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                let (text, after) = rest.split_at(end);
                text.split('/').filter(|t| !t.is_empty()).try_for_each(literal)?;
                pieces.push(Piece::Literal(text.into()));
                rest = after;
            }
        }
        Ok(Self(pieces))
    }
}

/// Splits at the slashes outside of braces.
fn segments(source: &str) -> Result<Vec<&str>, String> {
    let (mut all, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in source.char_indices() {
        match c {
            '{' if inside => return Err("a `{` is within another".into()),
            '{' => inside = true,
            '}' if !inside => return Err("a `}` was never opened".into()),
            '}' => inside = false,
            '/' if !inside => {
                all.push(&source[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("a `{` is not closed".into());
    }
    all.push(&source[start..]);
    Ok(all)
}

fn literal(text: &str) -> Result<(), String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@".contains(&b);
    if text.bytes().all(valid) { Ok(()) } else { Err(format!("{text:?} is not text of a path")) }
}

impl Parser {
    /// A wildcard, a variable with text around it, or text.
    fn segment(&mut self, segment: &str, last: bool) -> Result<(), String> {
        if let Some(suffix) = segment.strip_prefix("**") {
            self.wildcard(true)?;
            return self.suffix(suffix, last);
        }
        if let Some(suffix) = segment.strip_prefix('*') {
            self.wildcard(false)?;
            return self.suffix(suffix, last);
        }
        let Some((prefix, rest)) = segment.split_once('{') else { return self.literal(segment) };
        self.literal(prefix)?;
        let Some((variable, suffix)) = rest.split_once('}') else { return Err("a `{` is not closed".into()) };
        self.variable(variable)?;
        self.literal(suffix)
    }

    /// Text right behind a wildcard, possible at the end only.
    fn suffix(&mut self, suffix: &str, last: bool) -> Result<(), String> {
        if !suffix.is_empty() && !last {
            return Err(format!("text behind a wildcard is possible at the end only: {suffix:?}"));
        }
        self.literal(suffix)
    }

    fn literal(&mut self, text: &str) -> Result<(), String> {
        literal(text)?;
        self.regex.push_str(&regex::escape(text));
        Ok(())
    }

    fn wildcard(&mut self, deep: bool) -> Result<(), String> {
        if self.open_end {
            return Err("no wildcard may follow `**`".into());
        }
        self.open_end = deep;
        let written = if deep { write!(self.regex, "[{CHARACTERS}/]*") } else { write!(self.regex, "[{CHARACTERS}]+") };
        written.map_err(|e| e.to_string())
    }

    fn variable(&mut self, source: &str) -> Result<(), String> {
        let (name, pattern) = source.split_once('=').unwrap_or((source, "*"));
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid || name.len() > MAX_NAME {
            return Err(format!("{name:?} is not a variable name of 1 to {MAX_NAME} characters"));
        }
        if !self.variables.insert(name.into()) {
            return Err(format!("the variable {name:?} occurs twice"));
        }
        if self.variables.len() > MAX_VARIABLES {
            return Err(format!("has more than {MAX_VARIABLES} variables"));
        }
        write!(self.regex, "(?P<{name}>").map_err(|e| e.to_string())?;
        for (i, part) in pattern.split('/').enumerate() {
            if i > 0 {
                self.regex.push('/');
            }
            match part {
                "" => return Err(format!("the pattern of the variable {name:?} has an empty part")),
                "*" => self.wildcard(false)?,
                "**" => self.wildcard(true)?,
                text => self.literal(text)?,
            }
        }
        self.regex.push(')');
        Ok(())
    }
}
