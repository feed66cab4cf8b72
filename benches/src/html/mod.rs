//! The result as one page: text, tables and inline SVG. No script, no font, nothing from a network.

mod charts;

use std::fmt::Write as _;

use crate::result::{
    Case, Run,
    figures::{FIGURES, Figure, number},
    goals,
    stats::{Summary, median},
};

/// The whole page.
pub(crate) fn page(run: &Run, reference: &str) -> String {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>Outrigger mesh bench</title><style>{}</style><h1>Outrigger mesh bench</h1>",
        include_str!("style.css")
    );
    html.push_str("<dl>");
    let contenders = run.contenders.iter().map(|(k, v)| (k, v));
    for (key, value) in run.facts.iter().chain(contenders) {
        let _ = write!(html, "<dt>{}<dd>{}", escape(key), escape(value));
    }
    let reference_text = escape(reference);
    let _ = write!(
        html,
        "</dl><p>Medians over the rounds, ± half of the range, × the ratio to {reference_text} as the median of the \
         rounds' ratios. Absolute figures drift with the machine; ratios inside one run are what counts.</p><nav>"
    );
    for case in &run.cases {
        let name = escape(&case.name());
        let _ = write!(html, "<a href='#{name}'>{name}</a> ");
    }
    html.push_str("</nav>");
    html.push_str(&goal_table(run));
    run.cases.iter().for_each(|case| html.push_str(&section(case, reference)));
    html.push_str("</html>\n");
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&quot;")
}

fn goal_table(run: &Run) -> String {
    let verdicts = goals::verdicts(run);
    if verdicts.is_empty() {
        return String::new();
    }
    let mut html =
        "<h2>Goals</h2><div class=wide><table class=goals><thead><tr><th>figure<th><th>measured<th>at most<th><th>range<th>case\
                    </thead>"
            .to_owned();
    for verdict in verdicts {
        let (class, word) = if verdict.met() { ("met", "met") } else { ("missed", "missed") };
        let _ = write!(
            html,
            "<tr><td>{}<td class={class}>{word}<td>{}<td>{}<td class=text>{}<td>{} to {}<td class=text>{}",
            escape(verdict.what),
            number(verdict.measured.median),
            number(verdict.most),
            escape(&verdict.scale),
            number(verdict.measured.low),
            number(verdict.measured.high),
            escape(verdict.case),
        );
    }
    html.push_str("</table></div>");
    let open = goals::open(run);
    if open > 0 {
        let _ = write!(html, "<p>{open} goals not judged: no figures in this run.</p>");
    }
    html
}

fn section(case: &Case, reference: &str) -> String {
    let name = escape(&case.name());
    let mut html = format!("<h2 id='{name}'>{name}</h2><p>{}</p>", escape(&case.title));
    let _ = write!(html, "<div class=charts>{}</div>", charts::of(case));
    let has = |f: &&Figure| case.entries.iter().any(|e| e.values(f.key).iter().any(|v| f.key != "failed" || *v > 0.0));
    let headline: Vec<&Figure> = FIGURES.iter().filter(|f| f.headline || f.key == "failed").filter(has).collect();
    html.push_str(&table(case, reference, &headline));
    let rest: Vec<&Figure> = FIGURES.iter().filter(|f| !f.headline && f.key != "failed").filter(has).collect();
    if !rest.is_empty() {
        let _ = write!(html, "<details><summary>all figures</summary>{}</details>", table(case, reference, &rest));
    }
    for entry in &case.entries {
        if let Some(problem) = &entry.problem {
            let _ = write!(html, "<p class=problem>{}: {}</p>", escape(&entry.contender), escape(problem));
        }
        if let Some(calls) = entry.samples().map(|s| &s.calls).find(|c| !c.is_empty()) {
            let list: Vec<String> = calls.iter().map(|(call, n)| format!("{} {n}", escape(call))).collect();
            let _ = write!(html, "<p>{}, system calls per request: {}</p>", escape(&entry.contender), list.join(", "));
        }
    }
    html
}

fn table(case: &Case, reference: &str, figures: &[&Figure]) -> String {
    let mut html = "<div class=wide><table><thead><tr><th>".to_owned();
    for figure in figures {
        let _ = write!(html, "<th>{}<br><small>{}</small>", escape(figure.label), escape(figure.unit));
    }
    html.push_str("</thead>");
    for entry in &case.entries {
        let _ = write!(html, "<tr><td>{}", escape(&entry.contender));
        for figure in figures {
            let values = entry.values(figure.key);
            let Some(summary) = Summary::of(&values) else {
                html.push_str("<td>-");
                continue;
            };
            let _ = write!(html, "<td>{}", number(summary.median));
            if values.len() > 1 {
                let _ = write!(html, " <small>±{:.0}%</small>", summary.spread() * 100.0);
            }
            let other = case.entry(reference).filter(|_| entry.contender != reference);
            if let Some(ratio) = other.and_then(|r| median(&entry.ratios(r, figure.key))) {
                let _ = write!(html, " <small>×{ratio:.2}</small>");
            }
        }
    }
    html.push_str("</table></div>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Entry, Sample};

    #[test]
    fn the_page_stands_alone_and_escapes() {
        let mut sample = Sample::default();
        sample.set("rps", 1000.0);
        for key in ["cpu_out_user", "cpu_out_sys", "cpu_in_user", "cpu_in_sys"] {
            sample.set(key, 10.0);
        }
        sample.curve = vec![(50.0, 1.0), (99.0, 4.0), (100.0, 9.0)];
        let entry = Entry { contender: "envoy".into(), rounds: vec![Some(sample), None], problem: Some("<b>".into()) };
        let case = Case { scenario: "s".into(), case: "c&1".into(), title: "t".into(), entries: vec![entry] };
        let page = page(&Run { cases: vec![case], ..Run::default() }, "envoy");
        assert!(page.contains("&lt;b&gt;") && page.contains("s c&amp;1") && !page.contains("<b>"));
        assert!(page.contains("<polyline") && page.contains("<rect"));
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
    }
}
