//! Tells a request that asks with a signed header what was decided on it: in a header of the response.
//!
//! Where no key is configured none of this runs. Invariant: an inbound request goes on without the header, a forged one
//! without it from anywhere.

use std::{
    fmt::Write,
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{After, Call};
use crate::{
    ir::listener::Direction,
    l7::{explain, flow::Flow, pipeline::Inbound},
};

const ASK: HeaderName = HeaderName::from_static("x-outrigger-debug");
const TRACE: HeaderName = HeaderName::from_static("x-outrigger-trace");

/// Clients take heads of 8 KiB, few take more.
const LONGEST: usize = 6 << 10;

/// Parts that are left out, in this order, where there is no room for all.
const DISPENSABLE: [&str; 4] = ["/forwarding/endpoints/hosts", "/filters", "/forwarding", "/request"];

impl Call<'_> {
    /// Takes the header, and notes what is decided if it is signed.
    pub(super) fn debug(&self, request: &mut Inbound, after: &mut After) {
        let Some(key) = &self.filters.debug else { return };
        let Some(asked) = request.parts.headers.remove(&ASK) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if !key.accepts(asked.as_bytes(), now) {
            return;
        }
        // What cluster and host it comes to is not noted for every request.
        self.flow.record.watch(request.sane.origin.remote);
        after.trace(explain::of(self, request));
        if self.conn.scope.conn.direction == Direction::Outbound {
            // The proxy of the other side may tell as well; the application there need not know how to ask.
            request.parts.headers.insert(ASK, asked);
        }
    }
}

/// Adds the decisions, with what came of them, to the response.
pub(super) fn tell(mut report: Value, flow: &Rc<Flow>, status: u16, headers: &mut HeaderMap) {
    let conn = &flow.record.scope().conn;
    report["listener"] = (*conn.listener).into();
    report["filter_chain"] = (*conn.chain).into();
    report["happened"] = flow.record.facts(None, |facts| {
        json!({
            "status": status,
            "flags": facts.flags.to_string(),
            "details": facts.details,
            "cluster": facts.upstream.cluster.as_deref(),
            "host": facts.upstream.host.as_deref(),
            "attempts": facts.upstream.attempts,
            "duration_ms": facts.times.total,
        })
    });
    let mut text = ascii(&report);
    for part in DISPENSABLE {
        if text.len() <= LONGEST {
            break;
        }
        if let Some(value) = report.pointer_mut(part) {
            *value = "left out".into();
            text = ascii(&report);
        }
    }
    if text.len() <= LONGEST
        && let Ok(value) = HeaderValue::try_from(text)
    {
        headers.append(TRACE, value);
    }
}

/// JSON that a header can hold.
fn ascii(value: &Value) -> String {
    let mut units = [0; 2];
    value.to_string().chars().fold(String::new(), |mut text, c| {
        if c.is_ascii() && !c.is_ascii_control() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_a_header_is_ascii() {
        let value = json!({"a": "\u{e9}\u{1F600}\n\u{7f}"});
        let text = ascii(&value);
        assert!(HeaderValue::try_from(&text).is_ok_and(|v| v.to_str().is_ok()), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
