//! Access loggers: one line per request or connection, rendered on the worker, written off the data path ([`Sinks`]).

use std::{cell::RefCell, sync::Arc};

use super::format::{self, Facts};
use crate::ir::format::{AccessLog, JsonField, LogFilter, LogFormat, Operator, Segment, Template};

mod json;
mod loggers;
mod sinks;
mod writer;

pub use loggers::{Captured, Loggers, Names};
pub use sinks::Sinks;

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;

const GRPC_STATUS: &str = "grpc-status";
/// Room for a line that is kept between lines.
const MAX_KEPT: usize = 16 * 1024;

thread_local! {
    /// Where lines are rendered before they are queued.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// One configured access log.
#[derive(Clone, Debug)]
pub struct Logger {
    config: AccessLog,
    sinks: Arc<Sinks>,
    pipe: Arc<sinks::Pipe>,
    names: Arc<Names>,
}

impl Logger {
    pub fn new(config: &AccessLog, sinks: &Arc<Sinks>) -> Self {
        let mut names = Names::default();
        match &config.format {
            LogFormat::Text(template) => collect(template, &mut names),
            LogFormat::Json(fields) => collect_json(fields, &mut names),
        }
        if let Some(filter) = &config.filter {
            collect_filter(filter, &mut names);
        }
        let pipe = sinks.pipe(&config.sink);
        Self { config: config.clone(), sinks: sinks.clone(), pipe, names: Arc::new(names) }
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Renders and queues one line, if the filter accepts it.
    pub fn log(&self, facts: &Facts<'_>) {
        if self.config.filter.as_ref().is_some_and(|filter| !accepts(filter, facts)) {
            return;
        }
        // A thread that ends has no scratch any more.
        if LINE.try_with(|line| self.queue(facts, &mut line.borrow_mut())).is_err() {
            self.queue(facts, &mut String::new());
        }
    }

    fn queue(&self, facts: &Facts<'_>, line: &mut String) {
        line.clear();
        // One giant line is no reason to keep its memory.
        line.shrink_to(MAX_KEPT);
        render(&self.config.format, facts, line);
        self.sinks.append(&self.pipe, line.as_bytes());
    }
}

/// Appends one line in a format.
pub fn render(format: &LogFormat, facts: &Facts<'_>, line: &mut String) {
    match format {
        // A text format carries its own line end, as Envoy's do.
        LogFormat::Text(template) => format::render(template, facts, "-", line),
        LogFormat::Json(fields) => {
            json::object(fields, facts, line);
            line.push('\n');
        }
    }
}

/// Whether a filter takes an exchange.
pub fn accepts(filter: &LogFilter, facts: &Facts<'_>) -> bool {
    let first = |source: Option<&dyn format::Headers>, name| source.and_then(|s| s.get(name).map(|v| v.into_owned()));
    match filter {
        LogFilter::StatusCode(comparison, bound) => comparison.holds(facts.status.into(), *bound),
        LogFilter::Duration(comparison, bound) => comparison.holds(facts.times.total, *bound),
        LogFilter::Sample(share) => share.hit(fastrand::u32(..)),
        LogFilter::And(all) => all.iter().all(|f| accepts(f, facts)),
        LogFilter::Or(any) => any.iter().any(|f| accepts(f, facts)),
        LogFilter::RequestHeader(matcher) => matcher.matches(first(facts.request, &matcher.name).as_deref()),
        LogFilter::ResponseFlags(names) if names.is_empty() => !facts.flags.is_empty(),
        LogFilter::ResponseFlags(names) => facts.flags.to_string().split(',').any(|f| names.iter().any(|n| **n == *f)),
        LogFilter::GrpcStatus { codes, exclude } => {
            let status = first(facts.trailers, GRPC_STATUS).or_else(|| first(facts.response, GRPC_STATUS));
            let hit = status.and_then(|s| s.parse::<u8>().ok()).is_some_and(|s| codes.contains(&s));
            hit != *exclude
        }
        LogFilter::Traceable => facts.trace.is_some(),
        LogFilter::NotHealthCheck => true,
    }
}

fn collect_filter(filter: &LogFilter, names: &mut Names) {
    match filter {
        LogFilter::And(filters) | LogFilter::Or(filters) => filters.iter().for_each(|f| collect_filter(f, names)),
        LogFilter::RequestHeader(matcher) => names.request.push(matcher.name.clone()),
        LogFilter::GrpcStatus { .. } => {
            names.response.push(GRPC_STATUS.into());
            names.trailers.push(GRPC_STATUS.into());
        }
        LogFilter::StatusCode(..)
        | LogFilter::Duration(..)
        | LogFilter::Sample(_)
        | LogFilter::ResponseFlags(_)
        | LogFilter::Traceable
        | LogFilter::NotHealthCheck => {}
    }
}

fn collect_json(fields: &[(Box<str>, JsonField)], names: &mut Names) {
    for (_, field) in fields {
        match field {
            JsonField::Value(template) => collect(template, names),
            JsonField::Object(fields) => collect_json(fields, names),
        }
    }
}

/// Notes the headers that a template mentions.
pub(super) fn collect(template: &Template, names: &mut Names) {
    for segment in &template.segments {
        let Segment::Op { op, .. } = segment else { continue };
        let (list, name, alternative) = match op {
            Operator::Req(name, alternative) => (&mut names.request, name, alternative),
            Operator::Resp(name, alternative) => (&mut names.response, name, alternative),
            Operator::Trailer(name, alternative) => (&mut names.trailers, name, alternative),
            Operator::Path { source, .. } => {
                for name in source.headers() {
                    if !names.request.iter().any(|known| **known == **name) {
                        names.request.push((*name).into());
                    }
                }
                continue;
            }
            _ => continue,
        };
        for name in std::iter::once(name).chain(alternative) {
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
    }
}
