//! A gRPC channel over a connection that the application dials, with the metadata each stream carries.

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::{
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap},
    transport::{Channel, Endpoint},
};

use super::transport::{Connection, Transport};
use crate::xds::config::GrpcOptions;

/// Makes channels.
#[derive(Debug)]
pub struct Dialer {
    pub transport: Arc<dyn Transport>,
    pub options: GrpcOptions,
}

/// Longest token file read.
const MAX_TOKEN: u64 = 64 << 10;

impl Dialer {
    /// A connected channel to `cluster`; `authority` is what the server sees as `:authority`.
    pub async fn channel(&self, cluster: &str, authority: Option<&str>) -> Result<Channel, String> {
        let connecting = Arc::clone(&self.transport).connect(cluster);
        let connection = tokio::time::timeout(self.options.connect_timeout, connecting)
            .await
            .map_err(|_| {
                format!("connecting to cluster {cluster}: no connection within {:?}", self.options.connect_timeout)
            })?
            .map_err(|e| format!("connecting to cluster {cluster}: {e}"))?;
        let origin = origin(authority.unwrap_or(cluster));
        let mut endpoint = Endpoint::from(origin.clone())
            .origin(origin)
            .user_agent(concat!("outrigger/", env!("CARGO_PKG_VERSION")))
            .map_err(|e| e.to_string())?
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .keep_alive_timeout(self.options.keepalive_timeout)
            .connect_timeout(self.options.connect_timeout);
        if let Some(interval) = self.options.keepalive {
            endpoint = endpoint.http2_keep_alive_interval(interval).keep_alive_while_idle(true);
        }
        // The one connection is handed over; a channel that lost it is thrown away, never reconnected behind our back.
        let once: Arc<Mutex<Option<Box<dyn Connection>>>> = Arc::new(Mutex::new(Some(connection)));
        let connector = tower::service_fn(move |_: Uri| {
            let taken = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { taken.map(TokioIo::new).ok_or_else(|| std::io::Error::other("the connection was lost")) }
        });
        endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|e| format!("HTTP/2 with cluster {cluster}: {}", chain(&e)))
    }

    /// The metadata of a stream to `cluster`: the configured pairs, and the bearer token where it belongs.
    pub async fn metadata(&self, cluster: &str, pairs: &[(Box<str>, Box<str>)]) -> Result<MetadataMap, String> {
        let mut map = metadata(pairs)?;
        if let Some(token) = &self.options.token
            && token.clusters.iter().any(|c| **c == *cluster)
        {
            map.insert("authorization", bearer(token.path.clone()).await?);
        }
        Ok(map)
    }
}

/// Configured pairs as metadata.
pub fn metadata(pairs: &[(Box<str>, Box<str>)]) -> Result<MetadataMap, String> {
    let mut map = MetadataMap::new();
    for (name, value) in pairs {
        let name = AsciiMetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes())
            .map_err(|_| format!("`{name}` is no metadata name"))?;
        let value = AsciiMetadataValue::try_from(&**value)
            .map_err(|_| format!("the value of metadata `{name}` is not ASCII"))?;
        map.append(name, value);
    }
    Ok(map)
}

/// `Bearer TOKEN` from a file, off the runtime's thread.
pub async fn bearer(path: std::path::PathBuf) -> Result<AsciiMetadataValue, String> {
    let read = move || read_token(&path);
    tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?
}

fn read_token(path: &Path) -> Result<AsciiMetadataValue, String> {
    let failed = |e: &dyn std::fmt::Display| format!("token file {}: {e}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|e| failed(&e))?;
    file.take(MAX_TOKEN).read_to_string(&mut text).map_err(|e| failed(&e))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(failed(&"empty"));
    }
    // The parse error would not name the content, and must not: it is a secret.
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| failed(&"not a token: control or non-ASCII characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// `http://NAME` with what a URI does not allow replaced: cluster names are free text.
fn origin(name: &str) -> Uri {
    let uri = |authority: &str| Uri::builder().scheme("http").authority(authority).path_and_query("/").build().ok();
    let plain = || -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' }).collect()
    };
    uri(name).or_else(|| uri(&plain())).unwrap_or_else(|| Uri::from_static("http://xds/"))
}

/// An error with its causes: tonic's own text is only "transport error".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A gRPC status as one line.
pub fn describe(status: &tonic::Status) -> String {
    let cause = std::error::Error::source(status).map(|e| format!(" ({})", chain(e))).unwrap_or_default();
    format!("{:?}: {}{cause}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cluster_name_makes_an_origin() {
        assert_eq!(origin("xds-grpc").authority().unwrap(), "xds-grpc");
        assert_eq!(origin("istiod.istio-system.svc:15012").authority().unwrap(), "istiod.istio-system.svc:15012");
        assert_eq!(origin("outbound|15012||x.y").authority().unwrap(), "outbound-15012--x.y");
        assert_eq!(origin("").authority().unwrap(), "xds");
    }

    #[test]
    fn tokens_are_trimmed_checked_and_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(read_token(&path).unwrap_err().contains("token file"));
        std::fs::write(&path, "  abc.def \n").unwrap();
        let value = read_token(&path).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer abc.def");
        assert!(!format!("{value:?}").contains("abc"));
        std::fs::write(&path, "secret\u{1}x").unwrap();
        assert!(!read_token(&path).unwrap_err().contains("secret"));
        std::fs::write(&path, "\n").unwrap();
        assert!(read_token(&path).unwrap_err().contains("empty"));
    }

    #[test]
    fn bad_metadata_is_named() {
        assert!(metadata(&[("a b".into(), "c".into())]).unwrap_err().contains("`a b`"));
        assert_eq!(metadata(&[("ClusterID".into(), "k".into())]).unwrap().get("clusterid").unwrap(), "k");
    }
}
