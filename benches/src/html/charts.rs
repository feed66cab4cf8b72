//! The plots of a case, each made only if its figures are there.

use std::fmt::Write as _;

use super::escape;
use crate::result::{
    Case,
    figures::{self, number},
    stats::median,
};

const WIDTH: f64 = 560.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;

type Point = (f64, f64);
/// Place among the contenders, name, points.
type Line<'a, T> = (usize, &'a str, T);

/// All plots of a case, one after the other.
pub(super) fn of(case: &Case) -> String {
    let mut html = latency(case);
    html.push_str(&bars(case, "CPU per request (us)", &["cpu_out_user", "cpu_out_sys", "cpu_in_user", "cpu_in_sys"]));
    html.push_str(&bars(case, "CPU per gigabyte (s)", &["cpu_gb_out", "cpu_gb_in"]));
    if !has(case, "cpu_out_user") && !has(case, "cpu_gb_out") {
        html.push_str(&bars(case, "Resident memory (MB)", &["rss_out", "rss_in"]));
    }
    html.push_str(&bars(case, "Memory per idle connection (kB)", &["kb_conn_out", "kb_conn_in"]));
    html.push_str(&bars(case, "Memory per service (kB)", &["kb_service"]));
    html.push_str(&bars(case, "Time to ready (ms)", &["ready_ms"]));
    html.push_str(&memory(case));
    html
}

fn has(case: &Case, key: &str) -> bool {
    case.entries.iter().any(|e| !e.values(key).is_empty())
}

fn colour(contender: &str, index: usize) -> &'static str {
    match contender {
        "outrigger" => "#d9482b",
        "envoy" => "#4a7dc4",
        "haproxy" => "#3a9a6b",
        "none" => "#8a94a3",
        _ => ["#9a5fc0", "#c09a2f", "#2f9fb0", "#b0508a"][index % 4],
    }
}

/// Percentiles on an axis where each nine takes the same space.
fn latency(case: &Case) -> String {
    let curves: Vec<Line<'_, Vec<Point>>> = case
        .entries
        .iter()
        .enumerate()
        .map(|(n, e)| {
            (n, e.contender.as_str(), e.curve().into_iter().filter(|(p, v)| *p < 100.0 && *v > 0.0).collect())
        })
        .filter(|(_, _, c): &(_, _, Vec<_>)| c.len() > 1)
        .collect();
    let nines = |p: f64| -(1.0 - p / 100.0).log10();
    let points = || curves.iter().flat_map(|(_, _, c)| c.iter());
    let most = points().map(|(p, _)| nines(*p)).fold(1.0, f64::max);
    let low = points().map(|(_, v)| v.log10().floor()).fold(f64::INFINITY, f64::min);
    let high = points().map(|(_, v)| v.log10().ceil()).fold(f64::NEG_INFINITY, f64::max).max(low + 1.0);
    if curves.is_empty() {
        return String::new();
    }
    let (height, top, bottom) = (260.0, 8.0, 226.0);
    let x = |p: f64| LEFT + nines(p) / most * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| bottom - (v.log10() - low) / (high - low) * (bottom - top);
    let mut svg = String::new();
    let mut decade = low;
    while decade <= high {
        let (at, value) = (y(10f64.powf(decade)), 10f64.powf(decade));
        let _ = write!(svg, "<line class=grid x1={LEFT} x2={} y1={at:.1} y2={at:.1} />", WIDTH - RIGHT);
        let _ = write!(svg, "<text x={} y={:.1} text-anchor=end>{value}</text>", LEFT - 6.0, at + 4.0);
        decade += 1.0;
    }
    for p in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999] {
        if nines(p) <= most + 0.01 {
            // The last one would stick out.
            let anchor = if nines(p) > most - 0.3 { "end" } else { "middle" };
            let at = if anchor == "end" { x(p) + RIGHT } else { x(p) };
            let _ = write!(svg, "<text x={at:.1} y={:.1} text-anchor={anchor}>p{p}</text>", bottom + 16.0);
        }
    }
    for (n, contender, curve) in &curves {
        let path: Vec<String> = curve.iter().map(|(p, v)| format!("{:.1},{:.1}", x(*p), y(*v))).collect();
        let paint = colour(contender, *n);
        let _ = write!(svg, "<polyline class=curve stroke='{paint}' points='{}'/>", path.join(" "));
        for (p, v) in curve {
            let what = format!("{} p{p}: {} ms", escape(contender), number(*v));
            let _ = write!(
                svg,
                "<circle cx={:.1} cy={:.1} r=3 fill='{paint}'><title>{what}</title></circle>",
                x(*p),
                y(*v)
            );
        }
    }
    let legend: String = curves.iter().map(|(n, c, _)| contender_key((*n, c))).collect();
    figure("Latency (ms)", &svg, height, &legend)
}

/// One stacked bar for each contender.
fn bars(case: &Case, caption: &str, keys: &[&str]) -> String {
    let rows: Vec<(usize, &str, Vec<f64>)> = case
        .entries
        .iter()
        .enumerate()
        .filter_map(|(n, e)| {
            let values: Vec<f64> = keys.iter().filter_map(|k| median(&e.values(k))).map(|v| v.max(0.0)).collect();
            (values.len() == keys.len()).then_some((n, e.contender.as_str(), values))
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let most = rows.iter().map(|(_, _, v)| v.iter().sum::<f64>()).fold(f64::MIN_POSITIVE, f64::max);
    let (start, space) = (90.0, WIDTH - 90.0 - 60.0);
    let mut svg = String::new();
    for (row, (n, contender, values)) in rows.iter().enumerate() {
        let top = 6.0 + row as f64 * 28.0;
        let mut at = start;
        for (part, value) in values.iter().enumerate() {
            let width = value / most * space;
            let shade = shade(part, keys.len());
            let label = figures::find(keys[part]).map_or(keys[part], |f| f.label);
            let _ = write!(
                svg,
                "<rect x={at:.1} y={top:.1} width={width:.1} height=20 fill='{}' fill-opacity={shade:.2}><title>{} {}: {}</title></rect>",
                colour(contender, *n),
                escape(contender),
                escape(label),
                number(*value)
            );
            at += width;
        }
        let _ = write!(svg, "<text x={} y={:.1} text-anchor=end>{}</text>", start - 8.0, top + 14.0, escape(contender));
        let sum = number(values.iter().sum());
        let _ = write!(svg, "<text class=value x={:.1} y={:.1}>{sum}</text>", at + 6.0, top + 14.0);
    }
    let parts = keys.iter().enumerate().filter(|_| keys.len() > 1).map(|(part, key)| {
        let label = part_name(figures::find(key).map_or(key, |f| f.label));
        swatch("var(--ink)", shade(part, keys.len()), label)
    });
    figure(caption, &svg, 12.0 + rows.len() as f64 * 28.0, &parts.collect::<String>())
}

/// Parts of one bar are shades of the contender's colour.
fn shade(part: usize, parts: usize) -> f64 {
    1.0 - 0.75 * part as f64 / parts as f64
}

/// The label without what the caption says already.
fn part_name(label: &str) -> &str {
    ["CPU ", "RSS ", "per connection "].iter().find_map(|start| label.strip_prefix(start)).unwrap_or(label)
}

/// Memory over time.
fn memory(case: &Case) -> String {
    let series: Vec<Line<'_, &[Point]>> = case
        .entries
        .iter()
        .enumerate()
        .filter_map(|(n, e)| {
            Some((n, e.contender.as_str(), e.samples().map(|s| s.memory.as_slice()).find(|m| m.len() > 1)?))
        })
        .collect();
    if series.is_empty() {
        return String::new();
    }
    let points = || series.iter().flat_map(|(_, _, s)| s.iter());
    let end = points().map(|(t, _)| *t).fold(1.0, f64::max);
    let most = points().map(|(_, m)| *m).fold(1.0, f64::max) * 1.1;
    let (height, top, bottom) = (220.0, 8.0, 190.0);
    let x = |t: f64| LEFT + t / end * (WIDTH - LEFT - RIGHT);
    let y = |m: f64| bottom - m / most * (bottom - top);
    let mut svg = String::new();
    for part in 0..=4 {
        let value = most * f64::from(part) / 4.0;
        let at = y(value);
        let _ = write!(svg, "<line class=grid x1={LEFT} x2={} y1={at:.1} y2={at:.1} />", WIDTH - RIGHT);
        let _ = write!(svg, "<text x={} y={:.1} text-anchor=end>{}</text>", LEFT - 6.0, at + 4.0, number(value));
        let time = end * f64::from(part) / 4.0;
        let _ = write!(svg, "<text x={:.1} y={:.1} text-anchor=middle>{time:.0} s</text>", x(time), bottom + 16.0);
    }
    for (n, contender, points) in &series {
        let path: Vec<String> = points.iter().map(|(t, m)| format!("{:.1},{:.1}", x(*t), y(*m))).collect();
        let _ = write!(svg, "<polyline class=curve stroke='{}' points='{}'/>", colour(contender, *n), path.join(" "));
    }
    let legend: String = series.iter().map(|(n, c, _)| contender_key((*n, c))).collect();
    figure("Resident memory of both proxies (MB)", &svg, height, &legend)
}

/// A contender in the legend.
fn contender_key((index, contender): (usize, &str)) -> String {
    swatch(colour(contender, index), 1.0, contender)
}

/// One item of a legend, outside of the drawing so that it wraps on a narrow screen.
fn swatch(paint: &str, opacity: f64, label: &str) -> String {
    format!("<span><i style='background:{paint};opacity:{opacity:.2}'></i>{}</span> ", escape(label))
}

fn figure(caption: &str, svg: &str, height: f64, legend: &str) -> String {
    let legend = if legend.is_empty() { String::new() } else { format!("<div class=key>{legend}</div>") };
    format!(
        "<figure><figcaption>{}</figcaption><svg viewBox='0 0 {WIDTH} {height}' role=img>{svg}</svg>{legend}</figure>",
        escape(caption)
    )
}
