//! Tells a request that asks with a signed header what was decided on it: in a header of the response.
//!
//! Where no key is configured none of this runs. Invariant: what upstreams say of decisions is believed only where they
//! were asked, and all that is told together has one limit.

use std::{
    fmt::Write,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{After, Call};
use crate::{
    l7::{
        debug::{Asked, Vouched},
        explain,
        flow::Flow,
        names::Names,
        pipeline::Inbound,
    },
    policy::debug::Signed,
};

const TRACE: HeaderName = HeaderName::from_static("x-outrigger-trace");

/// Of all traces together: clients take heads of 8 KiB, few take more.
const LONGEST: usize = 6 << 10;

/// Of those from further on.
const FURTHER: usize = LONGEST / 2;

/// Parts that are left out, in this order, where there is no room for all.
const DISPENSABLE: [&str; 4] = ["/forwarding/endpoints/hosts", "/filters", "/forwarding", "/request"];

impl Call<'_> {
    /// Notes what is decided on a request that is signed.
    pub(super) fn debug(&self, request: &mut Inbound, after: &mut After) {
        let Some(key) = &self.filters.debug else { return };
        if !request.sane.names.has(Names::DEBUG) {
            return;
        }
        let Some(Asked(asked)) = request.parts.extensions.remove::<Asked>() else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let (method, host) = (request.parts.method.as_str(), request.authority());
        let signed = Signed { method, host, path: request.path() };
        let Some(vouched) = Vouched::new(key, &asked, &signed, now) else { return };
        // What cluster and host it comes to is not noted for every request.
        self.flow.record.watch(request.sane.origin.remote);
        after.trace(explain::of(self, request), vouched.passed_on());
        request.parts.extensions.insert(vouched);
    }
}

/// Adds the decisions, with what came of them, to the response.
pub(super) fn tell(mut report: Value, passed_on: &AtomicBool, flow: &Rc<Flow>, status: u16, headers: &mut HeaderMap) {
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
    let further = further(headers, passed_on.load(Relaxed));
    let room = LONGEST - further.iter().map(HeaderValue::len).sum::<usize>();
    let mut text = ascii(&report);
    for part in DISPENSABLE {
        if text.len() <= room {
            break;
        }
        if let Some(value) = report.pointer_mut(part) {
            *value = "left out".into();
            text = ascii(&report);
        }
    }
    let own = HeaderValue::try_from(text).ok().filter(|text| text.len() <= room);
    for value in further.into_iter().chain(own) {
        headers.append(TRACE, value);
    }
}

/// What the proxies further on told, taken off the response: the nearest ones', as far as there is room.
fn further(headers: &mut HeaderMap, asked: bool) -> Vec<HeaderValue> {
    let mut told: Vec<HeaderValue> = headers.get_all(TRACE).iter().cloned().collect();
    headers.remove(TRACE);
    if !asked {
        told.clear();
    }
    let mut room = FURTHER;
    let from = told.iter().rposition(|value| match room.checked_sub(value.len()) {
        Some(rest) => {
            room = rest;
            false
        }
        None => true,
    });
    told.split_off(from.map_or(0, |from| from + 1))
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
    fn traces_of_others_count_only_where_they_were_asked_and_fit() {
        let headers = || {
            let mut headers = HeaderMap::new();
            for (text, times) in [("a", FURTHER), ("b", FURTHER - 10), ("c", 10)] {
                headers.append(TRACE, HeaderValue::try_from(text.repeat(times)).unwrap());
            }
            headers
        };
        let mut all = headers();
        assert!(further(&mut all, false).is_empty(), "nobody asked for it");
        assert!(!all.contains_key(TRACE));
        let mut all = headers();
        let told = further(&mut all, true);
        assert_eq!(told.iter().map(HeaderValue::len).collect::<Vec<_>>(), [FURTHER - 10, 10]);
        assert!(!all.contains_key(TRACE));
    }

    #[test]
    fn json_in_a_header_is_ascii() {
        let value = json!({"a": "\u{e9}\u{1F600}\n\u{7f}"});
        let text = ascii(&value);
        assert!(HeaderValue::try_from(&text).is_ok_and(|v| v.to_str().is_ok()), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
