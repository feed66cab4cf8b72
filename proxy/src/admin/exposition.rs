//! The text formats of Prometheus: its own (0.0.4) and OpenMetrics (1.0.0).
//!
//! Writes family after family, each with its help and type, once, and gives away what is written in pieces. Knows no
//! metric by name. Names and bounds are the same in both formats: a counter that is not called `_total` is none to
//! OpenMetrics, so there its type is unknown.

use std::{borrow::Cow, collections::HashMap, fmt::Write};

use bytes::Bytes;

use super::body::PIECE;
use crate::telemetry::{histogram::Distribution, mesh::escape};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";
/// Content types of text; whether it is metrics shows in its lines.
const TEXTS: [&str; 3] = ["", "text/plain", "application/octet-stream"];

impl Format {
    /// What a client that sends this `Accept` header likes best.
    pub(super) fn accepted(accept: &str) -> Self {
        let (mut open, mut text) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut quality, mut known) = (1.0, true);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => known = matches!(value.trim_matches('"'), "1.0.0" | "0.0.1" | "0.0.4"),
                    // Another escaping of names than none is nothing to names that need none.
                    _ => {}
                }
            }
            if !known {
                continue;
            }
            if kind.eq_ignore_ascii_case(OPEN_METRICS) {
                open = f64::max(open, quality);
            } else if matches!(kind, "text/plain" | "text/*" | "*/*") {
                text = f64::max(text, quality);
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// What an answer with this `Content-Type` is written in, if it may be metrics. Many leave the header out, and
    /// servers of files know none for them; scrapers take either for text.
    pub(super) fn of_answer(content_type: Option<&str>) -> Option<Self> {
        let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match kind {
            open if open.eq_ignore_ascii_case(OPEN_METRICS) => Some(Self::OpenMetrics),
            text if TEXTS.iter().any(|known| text.eq_ignore_ascii_case(known)) => Some(Self::Text),
            _ => None,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// An answer in the making.
pub(super) struct Exposition<'a> {
    format: Format,
    families: HashMap<String, Type>,
    text: String,
    /// Takes a piece; `false`: no more of it.
    out: &'a mut dyn FnMut(Bytes) -> bool,
    wanted: bool,
}

impl<'a> Exposition<'a> {
    pub(super) fn new(format: Format, out: &'a mut dyn FnMut(Bytes) -> bool) -> Self {
        Self { format, families: HashMap::new(), text: String::with_capacity(PIECE * 2), out, wanted: true }
    }

    /// Begins a family: all of its samples follow before the next one's. `false`: there was one of that name.
    pub(super) fn family(&mut self, name: &str, kind: Type, help: &str) -> bool {
        if self.families.contains_key(name) {
            return false;
        }
        self.families.insert(name.to_owned(), kind);
        let (family, kind) = match (kind, self.format) {
            (Type::Gauge, _) => (name, "gauge"),
            (Type::Histogram, _) => (name, "histogram"),
            (Type::Counter, Format::Text) => (name, "counter"),
            (Type::Counter, Format::OpenMetrics) => match name.strip_suffix("_total") {
                Some(family) => (family, "counter"),
                None => (name, "unknown"),
            },
        };
        let _ = writeln!(self.text, "# HELP {family} {}\n# TYPE {family} {kind}", help_text(help));
        true
    }

    /// A sample of the family; `labels` are written out (see [`labels`]).
    pub(super) fn value(&mut self, name: &str, labels: &str, value: u64) {
        let _ = if labels.is_empty() {
            writeln!(self.text, "{name} {value}")
        } else {
            writeln!(self.text, "{name}{{{labels}}} {value}")
        };
        self.written();
    }

    /// A distribution of the family.
    pub(super) fn histogram(&mut self, name: &str, labels: &str, values: &Distribution) {
        let comma = if labels.is_empty() { "" } else { "," };
        let text = &mut self.text;
        for (bound, count) in values.cumulative() {
            // As OpenMetrics wants it, whatever the format: another spelling is another series.
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound:?}\"}} {count}");
        }
        let count = values.count();
        let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(text, "{name}_sum{braced} {}\n{name}_count{braced} {count}", values.sum());
        self.written();
    }

    /// A line that somebody else wrote.
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.written();
    }

    /// Whether a sample or family of this name would be taken for one of those that were written.
    pub(super) fn has(&self, name: &str) -> bool {
        if self.families.contains_key(name) {
            return true;
        }
        let kind = |family: &str| self.families.get(family).copied();
        // OpenMetrics names the family of a counter without its ending.
        if self.format == Format::OpenMetrics && kind(&format!("{name}_total")) == Some(Type::Counter) {
            return true;
        }
        ["_bucket", "_sum", "_count", "_created"]
            .iter()
            .any(|ending| name.strip_suffix(ending).is_some_and(|family| kind(family) == Some(Type::Histogram)))
    }

    /// Whether there is somebody to go on for.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    fn written(&mut self) {
        if self.text.len() >= PIECE {
            self.give();
        }
    }

    fn give(&mut self) {
        let text = std::mem::replace(&mut self.text, String::with_capacity(PIECE * 2));
        self.wanted = self.wanted && (text.is_empty() || (self.out)(text.into()));
    }

    /// Gives away the rest; whether all of it was taken.
    pub(super) fn finish(mut self) -> bool {
        if self.format == Format::OpenMetrics {
            self.text.push_str(END);
        }
        self.give();
        self.wanted
    }
}

/// What ends an OpenMetrics answer.
const END: &str = "# EOF\n";

fn help_text(help: &str) -> Cow<'_, str> {
    if help.contains(['\\', '\n', '"']) {
        help.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "'").into()
    } else {
        help.into()
    }
}

/// A name of letters, digits and underscores.
pub(super) fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// Labels as they stand between braces.
pub(super) fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"{}\"", escape(value));
    }
    text
}

#[cfg(test)]
#[path = "exposition_tests.rs"]
mod tests;
