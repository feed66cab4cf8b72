//! Trace contexts as they travel in headers: W3C `traceparent`, B3 in one header and in several.
//!
//! What comes in is anybody's text: whatever is not exactly well formed counts as absent, and its trace begins here.
//! Owns reading and writing, refuses to know who is sampled.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Longest `tracestate` that goes into a span; what is longer still passes.
const LONGEST_STATE: usize = 512;

/// Never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// Never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// From a uniform draw.
    pub fn from_random(random: u128) -> Self {
        Self(random.max(1).to_be_bytes())
    }

    /// What proxies that see the same trace decide by; half of it where B3 has no more, as Envoy does with whole ones.
    pub fn chance(self) -> u64 {
        let (high, low) = self.0.split_at(8);
        let half = if high == [0; 8] { low } else { high };
        half.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn read(text: &[u8]) -> Option<Self> {
        hex(text).filter(|id| *id != [0; 16]).map(Self)
    }

    /// B3's, which may have the lower half only.
    fn read_b3(text: &[u8]) -> Option<Self> {
        if text.len() != 16 {
            return Self::read(text);
        }
        let half: [u8; 8] = hex(text)?;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&half);
        (half != [0; 8]).then_some(Self(id))
    }
}

impl SpanId {
    /// From a uniform draw.
    pub fn from_random(random: u64) -> Self {
        Self(random.max(1).to_be_bytes())
    }

    fn read(text: &[u8]) -> Option<Self> {
        hex(text).filter(|id| *id != [0; 8]).map(Self)
    }
}

/// Lower case digits that fill `N` bytes.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The formats of a context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    pub w3c: bool,
    pub b3: bool,
    pub b3_multi: bool,
}

impl Formats {
    fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// The span that called us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace: TraceId,
    pub span: SpanId,
}

/// What a request's headers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    pub parent: Option<Parent>,
    /// Whether the caller's trace is sampled, where it was decided.
    pub sampled: Option<bool>,
    /// B3's wish that the trace be kept by all means.
    pub debug: bool,
    /// The formats that were there, well formed or not.
    pub formats: Formats,
    /// The context is the one of `traceparent`, so `tracestate` belongs to it.
    pub has_state: bool,
}

impl Extracted {
    /// Reads the context; of several the W3C's counts, then B3's single header.
    pub fn of(headers: &HeaderMap) -> Self {
        let formats = Formats {
            w3c: headers.contains_key(&TRACEPARENT),
            b3: headers.contains_key(&B3),
            b3_multi: [&B3_TRACE, &B3_SAMPLED, &B3_FLAGS].into_iter().any(|name| headers.contains_key(name)),
        };
        let (context, has_state) = match w3c(headers) {
            Some((parent, sampled)) => (Some((Some(parent), Some(sampled))), true),
            None => (b3(headers).or_else(|| b3_multi(headers)), false),
        };
        let (parent, sampled) = context.unwrap_or_default();
        let debug = !has_state && sampled == Some(true) && (formats.b3 || formats.b3_multi) && is_debug(headers);
        Self { parent, sampled, debug, formats, has_state }
    }

    /// The value of `tracestate` for a span.
    pub fn state(&self, headers: &HeaderMap) -> Option<Box<str>> {
        if !self.has_state {
            return None;
        }
        let lines = headers.get_all(&TRACESTATE).iter().map(|v| v.to_str().ok()).collect::<Option<Vec<_>>>()?;
        let all = lines.join(",");
        (!all.is_empty() && all.len() <= LONGEST_STATE).then(|| all.into())
    }
}

/// Whether well formed B3 headers ask for more than a sampled trace.
fn is_debug(headers: &HeaderMap) -> bool {
    let single = single(headers, &B3).is_some_and(|value| value.split(|b| *b == b'-').any(|field| field == b"d"));
    single || headers.get(&B3_FLAGS).is_some_and(|flags| flags == "1")
}

/// The one value of a header.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes())
}

/// `traceparent`: version, trace, span, flags.
fn w3c(headers: &HeaderMap) -> Option<(Parent, bool)> {
    let value = single(headers, &TRACEPARENT)?;
    let (head, rest) = value.split_at_checked(55)?;
    let [version]: [u8; 1] = hex(&head[..2])?;
    // Later versions may add fields; `ff` is none.
    if version == 0xff || !(rest.is_empty() || (version > 0 && rest[0] == b'-')) {
        return None;
    }
    if [head[2], head[35], head[52]] != *b"---" {
        return None;
    }
    let parent = Parent { trace: TraceId::read(&head[3..35])?, span: SpanId::read(&head[36..52])? };
    let [flags]: [u8; 1] = hex(&head[53..55])?;
    Some((parent, flags & 1 == 1))
}

type Found = (Option<Parent>, Option<bool>);

/// `b3`: trace, span, decision and parent; or a decision alone.
fn b3(headers: &HeaderMap) -> Option<Found> {
    let value = single(headers, &B3)?;
    let fields: Vec<&[u8]> = value.splitn(5, |b| *b == b'-').collect();
    match fields[..] {
        [alone] => Some((None, Some(decision(alone)?))),
        [trace, span] => Some((Some(parent(trace, span)?), None)),
        [trace, span, sampled] => Some((Some(parent(trace, span)?), Some(decision(sampled)?))),
        [trace, span, sampled, grandparent] => {
            SpanId::read(grandparent)?;
            Some((Some(parent(trace, span)?), Some(decision(sampled)?)))
        }
        _ => None,
    }
}

fn b3_multi(headers: &HeaderMap) -> Option<Found> {
    /// `None` for a header that is there more than once.
    fn one(headers: &HeaderMap, name: HeaderName) -> Option<Option<&[u8]>> {
        if headers.contains_key(&name) { single(headers, &name).map(Some) } else { Some(None) }
    }
    let one = |name| one(headers, name);
    let sampled = match (one(B3_FLAGS)?, one(B3_SAMPLED)?) {
        (Some(b"1"), _) => Some(true),
        (_, Some(text)) => Some(decision(text)?),
        (_, None) => None,
    };
    match (one(B3_TRACE)?, one(B3_SPAN)?) {
        (Some(trace), Some(span)) => Some((Some(parent(trace, span)?), sampled)),
        (None, None) => Some((None, sampled)),
        _ => None,
    }
}

fn parent(trace: &[u8], span: &[u8]) -> Option<Parent> {
    Some(Parent { trace: TraceId::read_b3(trace)?, span: SpanId::read(span)? })
}

fn decision(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

/// A span's context, for those whom it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    pub trace: TraceId,
    pub span: SpanId,
    pub sampled: bool,
}

impl SpanContext {
    /// Puts the context into a request's headers, in the formats that came in, or W3C's.
    pub fn inject(&self, from: &Extracted, headers: &mut HeaderMap) {
        if from.formats.w3c || from.formats.is_none() {
            set(headers, TRACEPARENT, self.traceparent());
        }
        if !from.has_state && headers.contains_key(&TRACESTATE) {
            // Of a trace that we do not go on with.
            headers.remove(&TRACESTATE);
        }
        let sampled = if self.sampled { "1" } else { "0" };
        if from.formats.b3 {
            let state = if self.sampled && from.debug { "d" } else { sampled };
            set(headers, B3, format!("{}-{}-{state}", self.b3_trace(), text(&self.span.0)));
        }
        if from.formats.b3_multi {
            set(headers, B3_TRACE, self.b3_trace());
            set(headers, B3_SPAN, text(&self.span.0));
            match from.parent {
                // Nothing was put between: who the parent's parent is stays as it came.
                Some(parent) if parent.span == self.span => {}
                Some(parent) => set(headers, B3_PARENT, text(&parent.span.0)),
                None => drop(headers.remove(&B3_PARENT)),
            }
            // With the flag, which means the same, it must not be there.
            if !headers.get(&B3_FLAGS).is_some_and(|v| v == "1" && self.sampled) {
                headers.remove(&B3_FLAGS);
                headers.insert(B3_SAMPLED, HeaderValue::from_static(sampled));
            }
        }
    }

    fn traceparent(&self) -> String {
        let mut value = String::with_capacity(55);
        value.push_str("00-");
        push(&mut value, &self.trace.0);
        value.push('-');
        push(&mut value, &self.span.0);
        value.push_str(if self.sampled { "-01" } else { "-00" });
        value
    }

    /// Half as long where half is all there is.
    fn b3_trace(&self) -> String {
        let (high, low) = self.trace.0.split_at(8);
        if high == [0; 8] { text(low) } else { text(&self.trace.0) }
    }
}

/// The digits of an id.
pub fn text(id: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * id.len());
    push(&mut digits, id);
    digits
}

fn push(to: &mut String, id: &[u8]) {
    for byte in id {
        // Writing to a string cannot fail.
        let _ = write!(to, "{byte:02x}");
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        let mut value = value;
        // No two are the same: in HTTP/2's table of past values they would only drive out what comes again.
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}
