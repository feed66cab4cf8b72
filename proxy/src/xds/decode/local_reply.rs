//! `local_reply_config` of a connection manager.

use http::StatusCode;
use outrigger_wire::pb::envoy::{
    config::accesslog::v3::{AccessLogFilter, access_log_filter::FilterSpecifier},
    extensions::filters::network::http_connection_manager::v3::{LocalReplyConfig, ResponseMapper},
};

use super::{
    access_log, at::At, fields::fields, header_ops::addition, report::Reject, route_action::body_format,
    secret::inline_text,
};
use crate::ir::{
    http::{LocalReply, ReplyMapper},
    route::HeaderOps,
};

pub(crate) fn local_reply(message: &LocalReplyConfig, at: &At<'_>) -> Result<LocalReply, Reject> {
    fields!(at, message => LocalReplyConfig { read: [mappers, body_format] });
    let format = message.body_format.as_ref();
    Ok(LocalReply {
        mappers: at.each("mappers", &message.mappers, mapper)?,
        format: format.map(|m| body_format(m, None, &at.field("body_format"))).transpose()?,
    })
}

/// Whether every part of a filter says something here.
fn can_be_evaluated(filter: &AccessLogFilter) -> bool {
    use FilterSpecifier as F;
    match &filter.filter_specifier {
        Some(F::AndFilter(all)) => all.filters.iter().all(can_be_evaluated),
        Some(F::OrFilter(any)) => any.filters.iter().all(can_be_evaluated),
        Some(F::TraceableFilter(_) | F::ExtensionFilter(_) | F::MetadataFilter(_) | F::LogTypeFilter(_)) | None => {
            false
        }
        Some(_) => true,
    }
}

fn mapper(message: &ResponseMapper, at: &At<'_>) -> Result<ReplyMapper, Reject> {
    fields!(at, message => ResponseMapper {
        read: [filter, status_code, body, body_format_override, headers_to_add],
    });
    let wanted = at.required("filter", &message.filter)?;
    let filter = access_log::filter(wanted, &at.field("filter"))?;
    // In a log it is better to have too much; here it would change answers that it is not meant for.
    let filter = filter.filter(|_| can_be_evaluated(wanted));
    let filter = filter.ok_or_else(|| at.field("filter").reject("cannot be evaluated"))?;
    let status = message.status_code.as_ref().map(|code| {
        let code = u16::try_from(code.value).ok().filter(|s| (200..600).contains(s));
        let status = code.and_then(|code| StatusCode::from_u16(code).ok());
        status.ok_or_else(|| at.field("status_code").reject("is not between 200 and 599"))
    });
    let body = message.body.as_ref().map(|source| {
        let at = at.field("body");
        let text = std::str::from_utf8(inline_text(source, &at)?).map_err(|_| at.reject("is not UTF-8"))?;
        Ok(text.into())
    });
    let added = at.each("headers_to_add", &message.headers_to_add, |m, at| addition(m, false, at))?;
    let format = message.body_format_override.as_ref();
    Ok(ReplyMapper {
        filter,
        status: status.transpose()?,
        body: body.transpose()?,
        headers: HeaderOps { response_add: added.into_iter().flatten().collect(), ..HeaderOps::default() },
        format: format.map(|m| body_format(m, None, &at.field("body_format_override"))).transpose()?,
    })
}
