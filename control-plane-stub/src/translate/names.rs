//! The names of resources, as Istio forms them, and the constants of its filter chains.

pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";
pub(super) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// ALPN names by which an inbound listener knows HTTP over the mesh's TLS.
pub(super) const ALPN_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// ALPN names by which an inbound listener knows opaque bytes over the mesh's TLS.
pub(super) const ALPN_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
/// What `http_inspector` finds in plaintext.
pub(super) const ALPN_PLAIN_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// Which of the clusters over the same endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// The one with Istio's name.
    Main,
    /// Opaque bytes of a port whose protocol is detected.
    Tcp,
    /// The address the client chose, of a headless service.
    Pod,
}

pub(super) fn outbound(variant: Variant, port: u16, subset: Option<&str>, host: &str) -> String {
    let direction = match variant {
        Variant::Main => "outbound",
        Variant::Tcp => "outbound-tcp",
        Variant::Pod => "outbound-pod",
    };
    format!("{direction}|{port}|{}|{host}", subset.unwrap_or_default())
}

pub(super) fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The SNI by which a peer knows what was called.
pub(crate) fn sni(port: u16, subset: Option<&str>, host: &str) -> String {
    format!("outbound_.{port}_.{}_.{host}", subset.unwrap_or_default())
}
