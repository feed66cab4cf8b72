//! Header mutations of routes, virtual hosts, route configurations and weighted clusters.

use http::HeaderName;
use outrigger_wire::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};

use super::{
    at::At,
    fields::fields,
    format_string::template,
    report::{NoteKind, Reject},
    scalar::{enumeration, header_name, not_empty},
};
use crate::ir::route::{AppendAction, HeaderAdd, HeaderOps};

/// Envoy's bound on one list.
const MAX_HEADERS: usize = 1000;

/// The four lists that every level has, borrowed.
pub(crate) struct Lists<'a> {
    pub request_add: &'a [HeaderValueOption],
    pub request_remove: &'a [String],
    pub response_add: &'a [HeaderValueOption],
    pub response_remove: &'a [String],
}

/// Takes the lists of any message that has them.
macro_rules! lists {
    ($message:expr) => {
        crate::xds::decode::header_ops::Lists {
            request_add: &$message.request_headers_to_add,
            request_remove: &$message.request_headers_to_remove,
            response_add: &$message.response_headers_to_add,
            response_remove: &$message.response_headers_to_remove,
        }
    };
}

pub(crate) use lists;

pub(crate) fn header_ops(lists: &Lists<'_>, at: &At<'_>) -> Result<HeaderOps, Reject> {
    let counts =
        [("request_headers_to_add", lists.request_add.len()), ("response_headers_to_add", lists.response_add.len())];
    for (name, count) in counts {
        if count > MAX_HEADERS {
            return Err(at.field(name).reject(format!("{count} headers are more than {MAX_HEADERS}")));
        }
    }
    let removals = |field: &str, names: &[String]| -> Result<Vec<HeaderName>, Reject> {
        let names = at.each(field, names, |n, at| removal(n, at))?;
        Ok(names.into_iter().flatten().collect())
    };
    let additions = |field: &str, messages: &[HeaderValueOption], request| -> Result<Vec<HeaderAdd>, Reject> {
        let added = at.each(field, messages, |m, at| addition(m, request, at))?;
        Ok(added.into_iter().flatten().collect())
    };
    Ok(HeaderOps {
        request_add: additions("request_headers_to_add", lists.request_add, true)?,
        request_remove: removals("request_headers_to_remove", lists.request_remove)?,
        response_add: additions("response_headers_to_add", lists.response_add, false)?,
        response_remove: removals("response_headers_to_remove", lists.response_remove)?,
    })
}

/// The header to remove; `None`, with a note, for one that must stay.
pub(crate) fn removal(text: &str, at: &At<'_>) -> Result<Option<HeaderName>, Reject> {
    let name = name(text, false, at)?;
    Ok(free(&name, at).then_some(name))
}

/// The header to add to a request or response; `None`, with a note, for one that must stay as it is.
pub(crate) fn addition(message: &HeaderValueOption, request: bool, at: &At<'_>) -> Result<Option<HeaderAdd>, Reject> {
    let addition = add(message, request, at)?;
    Ok(free(&addition.name, at).then_some(addition))
}

/// What frames a message belongs to the connection, not to a route: such mutations are left out.
fn free(name: &HeaderName, at: &At<'_>) -> bool {
    let free = !matches!(name.as_str(), "content-length" | "transfer-encoding");
    if !free {
        at.unsupported(format!("{name} frames the message: the mutation has no effect"));
    }
    free
}

fn add(message: &HeaderValueOption, request: bool, at: &At<'_>) -> Result<HeaderAdd, Reject> {
    fields!(at, message => HeaderValueOption { read: [header, append, append_action, keep_empty_value] });
    let header = at.required("header", &message.header)?;
    let action: HeaderAppendAction = enumeration(message.append_action, &at.field("append_action"))?;
    let action = match (&message.append, action) {
        (None, HeaderAppendAction::AppendIfExistsOrAdd) => AppendAction::AppendIfExistsOrAdd,
        (None, HeaderAppendAction::AddIfAbsent) => AppendAction::AddIfAbsent,
        (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => AppendAction::OverwriteIfExistsOrAdd,
        (None, HeaderAppendAction::OverwriteIfExists) => AppendAction::OverwriteIfExists,
        (Some(append), HeaderAppendAction::AppendIfExistsOrAdd) => {
            at.field("append").note(NoteKind::Deprecated, "use append_action");
            if append.value { AppendAction::AppendIfExistsOrAdd } else { AppendAction::OverwriteIfExistsOrAdd }
        }
        (Some(_), _) => return Err(at.field("append").reject("append and append_action exclude each other")),
    };
    let at = at.field("header");
    fields!(&at, header => HeaderValue { read: [key, value, raw_value] });
    let raw = std::str::from_utf8(&header.raw_value).map_err(|_| at.field("raw_value").reject("is not UTF-8"))?;
    let source = match (header.value.as_str(), raw) {
        (value, "") => value,
        ("", raw) => raw,
        _ => return Err(at.field("raw_value").reject("value and raw_value exclude each other")),
    };
    if source.len() > 16_384 || source.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err(at.field("value").reject("is too long or contains control characters"));
    }
    Ok(HeaderAdd {
        name: name(&header.key, request, &at.field("key"))?,
        value: template(source, &at.field("value"))?,
        action,
        keep_empty_value: message.keep_empty_value,
    })
}

/// `host` may only be set, on requests: without it a message is broken, and pseudo headers are the codec's.
fn name(text: &str, host_allowed: bool, at: &At<'_>) -> Result<HeaderName, Reject> {
    not_empty(text, at)?;
    if text.eq_ignore_ascii_case("host") || text == ":authority" {
        return if host_allowed { Ok(http::header::HOST) } else { Err(at.reject("the host may not be modified")) };
    }
    if text.starts_with(':') {
        return Err(at.reject(format!("{text:?}: pseudo headers may not be modified")));
    }
    header_name(text, at)
}
