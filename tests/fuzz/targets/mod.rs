//! One plain function for each place where hostile bytes enter. The fuzzing engine calls them with what it makes up, the
//! replay with the corpus and with what was found once. Each panics where a property does not hold; that nothing else
//! panics, hangs or takes memory without bound is a property of all of them.

mod bootstrap;
mod certificates;
mod documents;
mod fixture;
mod headers;
mod hello;
mod http;
mod http2;
mod jwt;
mod path;
mod saved;
mod sniff;
mod stage;
mod strict;
mod upstream;
mod xds;
mod xds_stream;

/// A name, and what is called with each input.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    ("bootstrap", bootstrap::run),
    ("certificates", certificates::run),
    ("client_hello", hello::run),
    ("documents", documents::run),
    ("headers", headers::run),
    ("http1_request", http::request),
    ("http1_response", http::response),
    ("http2_request", http2::request),
    ("http2_response", http2::response),
    ("jwt", jwt::run),
    ("path", path::run),
    ("saved", saved::run),
    ("sniff", sniff::run),
    ("xds", xds::run),
    ("xds_stream", xds_stream::run),
];
