//! A receiver of OTLP traces over gRPC that takes everything at once and counts the spans.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use outrigger_wire::otlp::ExportTraceServiceRequest;
use prost::Message;
use tokio::net::TcpListener;

/// Serves until the listener's task ends; `spans` counts what came.
pub(crate) async fn serve(listener: TcpListener, spans: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let spans = spans.clone();
        tokio::task::spawn_local(async move {
            let _ = stream.set_nodelay(true);
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(16 << 20).initial_connection_window_size(16 << 20);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                let spans = spans.clone();
                // A call whose caller went away is over.
                tokio::task::spawn_local(async move { drop(take(request, respond, &spans).await) });
            }
        });
    }
}

async fn take(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    spans: &AtomicU64,
) -> anyhow::Result<()> {
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let export = ExportTraceServiceRequest::decode(message.get(5..).unwrap_or_default())?;
    let scopes = export.resource_spans.iter().flat_map(|of_resource| &of_resource.scope_spans);
    spans.fetch_add(scopes.map(|of_scope| of_scope.spans.len() as u64).sum(), Relaxed);
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut send = respond.send_response(head, false)?;
    send.send_data(Bytes::from_static(&[0; 5]), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)?;
    Ok(())
}
