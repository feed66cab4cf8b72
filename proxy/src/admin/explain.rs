//! `/explain`: what a described connection and request would come to, in JSON or as text.
//!
//! Reads the description, nothing else. A parameter that is not known is an error: an explanation of something else than
//! was asked about is worse than none.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header, request::Parts};
use serde_json::{Value, json};

use super::{
    Inner,
    http::{Answer, Call},
};
use crate::{
    conn::explain::{Question, explain},
    ir::listener::Direction,
};

/// A client outside of this machine and a server likewise: addresses for documentation (RFC 5737).
const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Header fields of a described request.
const MOST_HEADERS: usize = 256;

pub(super) fn answer(inner: &Inner, call: &Call) -> Answer {
    match question(call) {
        Ok(question) => {
            let mut report = explain(&inner.context.publisher, question);
            if let Some(details) = short(inner) {
                report["outcome"] = json!({"kind": "refused", "details": details});
            }
            match call.parameter("format") {
                None | Some("json") => Answer::json(&report),
                _ => Answer::text(text(&report)),
            }
        }
        Err(reason) => Answer::error(StatusCode::BAD_REQUEST, format!("{reason}\n")),
    }
}

/// Why nothing is served at the moment, whatever it is.
fn short(inner: &Inner) -> Option<&'static str> {
    if super::lock(&inner.state.overload).sheds {
        return Some("overload: new connections and requests are refused");
    }
    inner.context.shared.is_full().then_some("the process serves as many connections as it may")
}

fn question(call: &Call) -> Result<Question, String> {
    let mut headers = Vec::new();
    let mut question = Question {
        listener: None,
        direction: Direction::Outbound,
        source: SocketAddr::new(SOMEBODY, 50_000),
        destination: SocketAddr::new(SOMEWHERE, 80),
        tls: false,
        server_name: None,
        alpn: Vec::new(),
        principal: None,
        request: None,
    };
    let (mut method, mut path, mut host, mut version, mut http) = ("GET", "/", None, Version::HTTP_11, true);
    let mut connects = None;
    for (key, value) in &call.query {
        let wrong = |what: &str| format!("{key}: `{value}` is not {what}");
        match key.as_str() {
            "listener" => question.listener = Some(value.clone()),
            "direction" => {
                question.direction = match value.to_ascii_lowercase().as_str() {
                    "inbound" => Direction::Inbound,
                    "outbound" => Direction::Outbound,
                    _ => return Err(wrong("inbound or outbound")),
                }
            }
            "source" => {
                let ip = || value.parse().map(|ip: IpAddr| SocketAddr::new(ip, 50_000));
                question.source = value.parse().or_else(|_| ip()).map_err(|_| wrong("an address"))?;
            }
            "address" => question.destination.set_ip(value.parse().map_err(|_| wrong("an IP address"))?),
            "port" => question.destination.set_port(value.parse().map_err(|_| wrong("a port"))?),
            "tls" => question.tls = !matches!(value.as_str(), "false" | "off" | "0"),
            "sni" => question.server_name = Some(value.as_str().into()),
            "alpn" => question.alpn.extend(value.split(',').filter(|p| !p.is_empty()).map(Into::into)),
            "principal" => question.principal = Some(value.as_str().into()),
            "method" => method = value,
            "host" => host = Some(value.as_str()),
            "path" => path = value,
            "connect_protocol" => connects = Some(value.as_str()),
            "header" => {
                let (name, value) = value.split_once(':').ok_or_else(|| wrong("NAME:VALUE"))?;
                let name = HeaderName::try_from(name.trim()).map_err(|_| wrong("NAME:VALUE"))?;
                headers.push((name, HeaderValue::try_from(value.trim()).map_err(|_| wrong("NAME:VALUE"))?));
            }
            "protocol" => match value.to_ascii_lowercase().as_str() {
                "http/1.0" => version = Version::HTTP_10,
                "http" | "http/1.1" => {}
                "http/2" | "h2" => version = Version::HTTP_2,
                "tcp" => http = false,
                _ => return Err(wrong("http/1.0, http/1.1, http/2 or tcp")),
            },
            "format" if matches!(value.as_str(), "json" | "text") => {}
            "format" => return Err(wrong("json or text")),
            other => return Err(format!("`{other}` is no parameter of /explain; see /help")),
        }
    }
    question.tls |= question.server_name.is_some() || question.principal.is_some();
    if headers.len() > MOST_HEADERS {
        return Err(format!("more than {MOST_HEADERS} headers"));
    }
    if http {
        let host = host.map_or_else(|| question.destination.to_string(), str::to_owned);
        question.request = Some(match connects {
            None => request(method, (&host, path), version, headers)?,
            Some(protocol) => extended((&host, path), protocol, headers)?,
        });
    }
    Ok(question)
}

fn request(
    method: &str,
    (host, path): (&str, &str),
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Result<Parts, String> {
    let method = Method::try_from(method).map_err(|_| format!("method: `{method}` is none"))?;
    let target = if method == Method::CONNECT { host } else { path };
    let uri: Uri = target.parse().map_err(|e| format!("path: `{target}`: {e}"))?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    let host = HeaderValue::try_from(host).map_err(|_| "host: not a header value".to_owned())?;
    if !host.is_empty() {
        request.headers_mut().insert(header::HOST, host);
    }
    for (name, value) in headers {
        request.headers_mut().append(name, value);
    }
    Ok(request.into_parts().0)
}

/// An extended CONNECT (RFC 8441), whatever method and version are said beside it.
fn extended(target: (&str, &str), protocol: &str, headers: Vec<(HeaderName, HeaderValue)>) -> Result<Parts, String> {
    let mut parts = request("GET", target, Version::HTTP_2, headers)?;
    parts.method = Method::CONNECT;
    parts.extensions.insert(hyper::ext::Protocol::from(protocol));
    Ok(parts)
}

/// The report as lines, nested by two blanks.
fn text(report: &Value) -> String {
    let mut text = String::new();
    lines(report, 0, &mut text);
    text
}

fn lines(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter().filter(|(_, value)| !is_nothing(value)) {
                match value {
                    Value::Object(_) | Value::Array(_) => {
                        let _ = writeln!(text, "{indent}{key}:");
                        lines(value, depth + 1, text);
                    }
                    Value::String(plain) => drop(writeln!(text, "{indent}{key}: {plain}")),
                    other => drop(writeln!(text, "{indent}{key}: {other}")),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(fields) => {
                        let scalars = fields.iter().filter(|(_, v)| !v.is_object() && !v.is_array() && !is_nothing(v));
                        let line: Vec<String> = scalars
                            .map(|(key, value)| match value {
                                Value::String(plain) => format!("{key}={plain}"),
                                other => format!("{key}={other}"),
                            })
                            .collect();
                        let _ = writeln!(text, "{indent}- {}", line.join(" "));
                    }
                    Value::String(plain) => drop(writeln!(text, "{indent}- {plain}")),
                    other => drop(writeln!(text, "{indent}- {other}")),
                }
            }
        }
        other => drop(writeln!(text, "{indent}{other}")),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
