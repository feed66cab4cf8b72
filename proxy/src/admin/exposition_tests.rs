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
    assert_eq!(Format::of_answer(Some("application/openmetrics-text; version=1.0.0")), Some(Format::OpenMetrics));
    assert_eq!(Format::of_answer(Some("Text/Plain")), Some(Format::Text));
    assert_eq!(Format::of_answer(None), Some(Format::Text));
    assert_eq!(Format::of_answer(Some("application/octet-stream")), Some(Format::Text));
    assert_eq!(Format::of_answer(Some("text/html")), None);
    assert_eq!(Format::of_answer(Some("application/json; charset=utf-8")), None);
}

fn written(format: Format) -> String {
    let mut text = String::new();
    let mut out = |piece: Bytes| {
        text.push_str(std::str::from_utf8(&piece).unwrap());
        true
    };
    let mut exposition = Exposition::new(format, &mut out);
    assert!(exposition.family("a_fail", Type::Counter, "Two\nlines."));
    exposition.value("a_fail", "", 1);
    assert!(exposition.family("b_total", Type::Counter, "Help."));
    exposition.value("b_total", "x=\"1\"", 3);
    exposition.value("b_total", "x=\"2\"", 4);
    assert!(!exposition.family("b_total", Type::Counter, "Help."));
    let histogram = Histogram::default();
    histogram.time(Duration::from_millis(2));
    assert!(exposition.family("c", Type::Histogram, "Help."));
    exposition.histogram("c", "y=\"1\"", &histogram.read());
    for (name, known) in [("c", true), ("c_bucket", true), ("c_other", false), ("a_fail_sum", false)] {
        assert_eq!(exposition.has(name), known, "{name}");
    }
    assert_eq!(exposition.has("b"), format == Format::OpenMetrics);
    assert!(exposition.finish());
    text
}

#[test]
fn a_family_is_one_block_with_help_and_type() {
    let text = written(Format::Text);
    let head = "# HELP a_fail Two\\nlines.\n# TYPE a_fail counter\na_fail 1\n# HELP b_total Help.\n\
                # TYPE b_total counter\nb_total{x=\"1\"} 3\nb_total{x=\"2\"} 4\n# HELP c Help.\n# TYPE c histogram\n\
                c_bucket{y=\"1\",le=\"0.5\"} 0\nc_bucket{y=\"1\",le=\"1.0\"} 0\nc_bucket{y=\"1\",le=\"5.0\"} 1\n";
    assert!(text.starts_with(head), "{text}");
    assert!(text.ends_with("c_bucket{y=\"1\",le=\"+Inf\"} 1\nc_sum{y=\"1\"} 2\nc_count{y=\"1\"} 1\n"), "{text}");
}

#[test]
fn open_metrics_keeps_the_names_and_bounds() {
    let text = written(Format::OpenMetrics);
    for part in [
        "# TYPE a_fail unknown\na_fail 1\n",
        "# TYPE b counter\nb_total{x=\"1\"} 3\n",
        "c_bucket{y=\"1\",le=\"1.0\"} 0\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let bounds = |text: &str| text.lines().filter(|l| l.contains("le=")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(bounds(&text), bounds(&written(Format::Text)), "a series is the same in both");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
}

#[test]
fn what_is_written_leaves_in_pieces_as_long_as_somebody_takes_it() {
    let histogram = Histogram::default().read();
    let (mut pieces, mut largest) = (0, 0);
    let mut out = |piece: Bytes| {
        (pieces, largest) = (pieces + 1, largest.max(piece.len()));
        pieces < 5
    };
    let mut exposition = Exposition::new(Format::Text, &mut out);
    exposition.family("c", Type::Histogram, "Help.");
    let labels = format!("x=\"{}\"", "y".repeat(1000));
    for _ in 0..100 {
        exposition.histogram("c", &labels, &histogram);
    }
    assert!(!exposition.is_wanted() && !exposition.finish());
    assert!(pieces == 5 && largest < 2 * PIECE, "{pieces} {largest}");
}

#[test]
fn labels_are_escaped() {
    assert_eq!(labels([("a", "x\"y\\z\n"), ("b", "")]), "a=\"x\\\"y\\\\z\\n\",b=\"\"");
    assert_eq!(sanitize("a.b-c"), "a_b_c");
}
