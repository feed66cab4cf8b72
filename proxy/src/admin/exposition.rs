//! The text formats of Prometheus: its own (0.0.4) and OpenMetrics (1.0.0).
//!
//! Collects families and writes them in order, each with its help and type, once. Knows no metric by name. Names are the
//! same in both formats: a counter that is not called `_total` is none to OpenMetrics, so there its type is unknown.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write};

use crate::telemetry::{histogram::Distribution, mesh::escape, metrics::Kind};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

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

    /// What an answer with this `Content-Type` is written in.
    pub(super) fn of_answer(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case(OPEN_METRICS) { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}

struct Family {
    kind: Type,
    help: Cow<'static, str>,
    lines: String,
}

/// Families in the making.
pub(super) struct Exposition {
    format: Format,
    families: BTreeMap<String, Family>,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self { format, families: BTreeMap::new() }
    }

    /// Adds a value; `labels` are written out (see [`labels`]).
    pub(super) fn value(
        &mut self,
        name: &str,
        kind: Kind,
        help: impl FnOnce() -> Cow<'static, str>,
        sample: (&str, u64),
    ) {
        let kind = match kind {
            Kind::Counter => Type::Counter,
            Kind::Gauge => Type::Gauge,
        };
        let (labels, value) = sample;
        let lines = self.lines(name, kind, help);
        let _ = if labels.is_empty() {
            writeln!(lines, "{name} {value}")
        } else {
            writeln!(lines, "{name}{{{labels}}} {value}")
        };
    }

    /// Adds a distribution.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: impl FnOnce() -> Cow<'static, str>,
        labels: &str,
        values: &Distribution,
    ) {
        let open = self.format == Format::OpenMetrics;
        let lines = self.lines(name, Type::Histogram, help);
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in values.cumulative() {
            // OpenMetrics wants a number to look like one.
            let _ = if open {
                writeln!(lines, "{name}_bucket{{{labels}{comma}le=\"{bound:?}\"}} {count}")
            } else {
                writeln!(lines, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}")
            };
        }
        let count = values.count();
        let _ = writeln!(lines, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(lines, "{name}_sum{braced} {}\n{name}_count{braced} {count}", values.sum());
    }

    fn lines(&mut self, name: &str, kind: Type, help: impl FnOnce() -> Cow<'static, str>) -> &mut String {
        let new = || Family { kind, help: help(), lines: String::new() };
        &mut self.families.entry(name.to_owned()).or_insert_with(new).lines
    }

    /// The whole, without the end mark that OpenMetrics asks for.
    pub(super) fn finish(self) -> String {
        let mut text = String::new();
        for (name, Family { kind, help, lines }) in self.families {
            let (family, kind) = match (kind, self.format) {
                (Type::Gauge, _) => (name.as_str(), "gauge"),
                (Type::Histogram, _) => (name.as_str(), "histogram"),
                (Type::Counter, Format::Text) => (name.as_str(), "counter"),
                (Type::Counter, Format::OpenMetrics) => match name.strip_suffix("_total") {
                    Some(family) => (family, "counter"),
                    None => (name.as_str(), "unknown"),
                },
            };
            let _ = write!(text, "# HELP {family} {}\n# TYPE {family} {kind}\n{lines}", help_text(&help));
        }
        text
    }
}

/// What ends an OpenMetrics answer.
pub(super) const END: &str = "# EOF\n";

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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::histogram::Histogram;

    #[test]
    fn the_format_is_what_the_client_likes_best() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for accept in [
            "",
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=9.0.0",
            "application/openmetrics-text;q=0.1,text/plain;q=0.9",
            "application/openmetrics-text;q=nonsense",
            ";;;=,=;",
        ] {
            assert_eq!(Format::accepted(accept), Format::Text, "{accept}");
        }
        assert_eq!(Format::of_answer("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics);
        assert_eq!(Format::of_answer("text/html"), Format::Text);
    }

    fn written(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        let help = || "Help.".into();
        exposition.value("b_total", Kind::Counter, help, ("x=\"1\"", 3));
        exposition.value("a_fail", Kind::Counter, || "Two\nlines.".into(), ("", 1));
        exposition.value("b_total", Kind::Counter, help, ("x=\"2\"", 4));
        let histogram = Histogram::default();
        histogram.time(Duration::from_millis(2));
        exposition.histogram("c", help, "y=\"1\"", &histogram.read());
        exposition.finish()
    }

    #[test]
    fn a_family_is_one_block_with_help_and_type() {
        let text = written(Format::Text);
        let head = "# HELP a_fail Two\\nlines.\n# TYPE a_fail counter\na_fail 1\n# HELP b_total Help.\n\
                    # TYPE b_total counter\nb_total{x=\"1\"} 3\nb_total{x=\"2\"} 4\n# HELP c Help.\n# TYPE c histogram\n\
                    c_bucket{y=\"1\",le=\"0.5\"} 0\nc_bucket{y=\"1\",le=\"1\"} 0\nc_bucket{y=\"1\",le=\"5\"} 1\n";
        assert!(text.starts_with(head), "{text}");
        assert!(text.ends_with("c_bucket{y=\"1\",le=\"+Inf\"} 1\nc_sum{y=\"1\"} 2\nc_count{y=\"1\"} 1\n"), "{text}");
    }

    #[test]
    fn open_metrics_keeps_the_names() {
        let text = written(Format::OpenMetrics);
        for part in [
            "# TYPE a_fail unknown\na_fail 1\n",
            "# TYPE b counter\nb_total{x=\"1\"} 3\n",
            "c_bucket{y=\"1\",le=\"1.0\"} 0\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(labels([("a", "x\"y\\z\n"), ("b", "")]), "a=\"x\\\"y\\\\z\\n\",b=\"\"");
        assert_eq!(sanitize("a.b-c"), "a_b_c");
    }
}
