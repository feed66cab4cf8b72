//! What a port speaks: from `appProtocol`, the prefix of its name, or well-known numbers; otherwise detected.

/// The declared protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    Tcp,
    Mongo,
    MySql,
    Redis,
    Tls,
    Https,
    /// Nothing is declared: found out from the first bytes of each connection.
    Auto,
}

/// How a protocol is proxied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Http,
    Tcp,
    /// The application's own TLS: routed by SNI, never opened.
    Tls,
    Auto,
}

impl Protocol {
    pub fn class(self) -> Class {
        match self {
            Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb => Class::Http,
            Self::Tcp | Self::Mongo | Self::MySql | Self::Redis => Class::Tcp,
            Self::Tls | Self::Https => Class::Tls,
            Self::Auto => Class::Auto,
        }
    }

    /// Whether the server is known to speak HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// By Istio's names, any case.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "http" | "http_proxy" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "mysql" => Self::MySql,
            "redis" => Self::Redis,
            "tls" => Self::Tls,
            "https" => Self::Https,
            _ => return None,
        })
    }

    /// Of a port of a Kubernetes Service.
    pub fn of_service_port(app_protocol: Option<&str>, name: &str, number: u16) -> Self {
        match app_protocol {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            Some(text) => return Self::parse(text).unwrap_or(Self::Auto),
            None => {}
        }
        if name == "grpc-web" || name.starts_with("grpc-web-") {
            return Self::GrpcWeb;
        }
        let prefix = name.split('-').next().unwrap_or(name);
        if let Some(protocol) = Self::parse(prefix) {
            return protocol;
        }
        match number {
            // The server speaks first: waiting for the client would only cost time.
            21 | 22 | 25 | 53 | 110 | 143 | 587 | 3306 => Self::Tcp,
            27017 => Self::Mongo,
            _ => Self::Auto,
        }
    }
}
