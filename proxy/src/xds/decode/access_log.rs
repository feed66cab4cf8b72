//! Access loggers and their filters.

use outrigger_wire::pb::envoy::{
    config::accesslog::v3::{
        AccessLog as PbLog, AccessLogFilter, ComparisonFilter, GrpcStatusFilter, ResponseFlagFilter, RuntimeFilter,
        access_log::ConfigType, access_log_filter::FilterSpecifier, comparison_filter::Op,
    },
    extensions::access_loggers::{
        file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
        stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
    },
};

use super::{
    at::At,
    extension,
    format_string::{format, json, template},
    matcher,
    report::{NoteKind, Reject},
    scalar::{enumeration, fraction, not_empty, runtime_key},
};
use crate::ir::{
    Fraction,
    format::{AccessLog, Comparison, LogFilter, LogFormat, Sink, Template},
};

/// Decodes the loggers that exist here; harmless others are noted.
pub(crate) fn access_logs(name: &str, messages: &[PbLog], at: &At<'_>) -> Result<Vec<AccessLog>, Reject> {
    Ok(at.each(name, messages, access_log)?.into_iter().flatten().collect())
}

/// The logger behind a bare path, as `admin.access_log_path` has it.
pub(crate) fn to_file(path: &str) -> AccessLog {
    AccessLog { sink: sink(path), format: LogFormat::Text(Template::default_access_log()), filter: None }
}

fn access_log(message: &PbLog, at: &At<'_>) -> Result<Option<AccessLog>, Reject> {
    let Some(ConfigType::TypedConfig(any)) = &message.config_type else {
        return Err(at.field("typed_config").reject("is required"));
    };
    let inner = at.field("typed_config");
    let extension = extension::open(any, &inner)?;
    let default = || LogFormat::Text(Template::default_access_log());
    let (sink, format) = if extension.is::<FileAccessLog>() {
        let file: FileAccessLog = extension.message(&inner)?;
        let old = |name: &str| inner.field(name).note(NoteKind::Deprecated, "use log_format");
        let format = match &file.access_log_format {
            None => default(),
            Some(AccessLogFormat::Format(text)) if text.is_empty() => default(),
            Some(AccessLogFormat::Format(text)) => {
                old("format");
                LogFormat::Text(template(text, &inner.field("format"))?)
            }
            Some(AccessLogFormat::JsonFormat(fields)) => {
                old("json_format");
                json(fields, &inner.field("json_format"))?
            }
            Some(AccessLogFormat::TypedJsonFormat(fields)) => {
                old("typed_json_format");
                json(fields, &inner.field("typed_json_format"))?
            }
            Some(AccessLogFormat::LogFormat(m)) => format(m, &inner.field("log_format"))?,
        };
        (sink(not_empty(&file.path, &inner.field("path"))?), format)
    } else if extension.is::<StdoutAccessLog>() {
        let stream: StdoutAccessLog = extension.message(&inner)?;
        let format = match &stream.access_log_format {
            Some(stdout_access_log::AccessLogFormat::LogFormat(m)) => format(m, &inner.field("log_format"))?,
            None => default(),
        };
        (Sink::Stdout, format)
    } else if extension.is::<StderrAccessLog>() {
        let stream: StderrAccessLog = extension.message(&inner)?;
        let format = match &stream.access_log_format {
            Some(stderr_access_log::AccessLogFormat::LogFormat(m)) => format(m, &inner.field("log_format"))?,
            None => default(),
        };
        (Sink::Stderr, format)
    } else {
        extension.ignore("access logger", &inner)?;
        return Ok(None);
    };
    let filter = match &message.filter {
        Some(m) => filter(m, &at.field("filter"))?,
        None => None,
    };
    Ok(Some(AccessLog { sink, format, filter }))
}

fn sink(path: &str) -> Sink {
    match path {
        "/dev/stdout" => Sink::Stdout,
        "/dev/stderr" => Sink::Stderr,
        path => Sink::File(path.into()),
    }
}

/// `None`: everything is logged, because the filter cannot be evaluated here (noted) or accepts everything.
pub(crate) fn filter(message: &AccessLogFilter, at: &At<'_>) -> Result<Option<LogFilter>, Reject> {
    use FilterSpecifier as F;
    let unknown = |name: &str| {
        at.field(name).unsupported("cannot be evaluated: everything it would decide about is logged");
        Ok(None)
    };
    Ok(Some(match at.required("filter_specifier", &message.filter_specifier)? {
        F::StatusCodeFilter(m) => {
            let (op, value) = comparison(&m.comparison, &at.field("status_code_filter"))?;
            LogFilter::StatusCode(op, value)
        }
        F::DurationFilter(m) => {
            let (op, value) = comparison(&m.comparison, &at.field("duration_filter"))?;
            LogFilter::Duration(op, value)
        }
        F::NotHealthCheckFilter(_) => LogFilter::NotHealthCheck,
        F::RuntimeFilter(m) => sample(m, &at.field("runtime_filter"))?,
        F::AndFilter(m) => {
            let rules = at.field("and_filter").each("filters", &m.filters, filter)?;
            // A rule that cannot be evaluated accepts everything, so it drops out of a conjunction.
            LogFilter::And(rules.into_iter().flatten().collect())
        }
        F::OrFilter(m) => {
            let rules = at.field("or_filter").each("filters", &m.filters, filter)?;
            match rules.into_iter().collect::<Option<Vec<_>>>() {
                Some(rules) => LogFilter::Or(rules),
                None => return Ok(None),
            }
        }
        F::HeaderFilter(m) => {
            let at = at.field("header_filter");
            let header = at.required("header", &m.header)?;
            LogFilter::RequestHeader(matcher::header(header, &at.field("header"))?)
        }
        F::ResponseFlagFilter(m) => flags(m),
        F::GrpcStatusFilter(m) => grpc(m, &at.field("grpc_status_filter"))?,
        F::TraceableFilter(_) => LogFilter::Traceable,
        F::ExtensionFilter(_) => return unknown("extension_filter"),
        F::MetadataFilter(_) => return unknown("metadata_filter"),
        F::LogTypeFilter(_) => return unknown("log_type_filter"),
    }))
}

fn comparison(message: &Option<ComparisonFilter>, at: &At<'_>) -> Result<(Comparison, u32), Reject> {
    let message = at.required("comparison", message)?;
    let at = at.field("comparison");
    let op = match enumeration(message.op, &at.field("op"))? {
        Op::Eq => Comparison::Eq,
        Op::Ge => Comparison::Ge,
        Op::Le => Comparison::Le,
        Op::Ne => Comparison::Ne,
    };
    let value = at.required("value", &message.value)?;
    runtime_key(&value.runtime_key, &at.field("value"));
    Ok((op, value.default_value))
}

fn sample(message: &RuntimeFilter, at: &At<'_>) -> Result<LogFilter, Reject> {
    runtime_key(&message.runtime_key, at);
    Ok(LogFilter::Sample(match &message.percent_sampled {
        Some(m) => fraction(m, &at.field("percent_sampled"))?,
        None => Fraction { numerator: 0, denominator: 100 },
    }))
}

fn flags(message: &ResponseFlagFilter) -> LogFilter {
    LogFilter::ResponseFlags(message.flags.iter().map(|f| f.as_str().into()).collect())
}

fn grpc(message: &GrpcStatusFilter, at: &At<'_>) -> Result<LogFilter, Reject> {
    let codes = at.each("statuses", &message.statuses, |code, at| {
        u8::try_from(*code).ok().filter(|c| *c <= 16).ok_or_else(|| at.reject(format!("{code} is not a gRPC status")))
    })?;
    Ok(LogFilter::GrpcStatus { codes, exclude: message.exclude })
}
