//! A SPIFFE agent that says what a test tells it to, over a Unix socket as real ones do.

use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use outrigger_wire::workload::{
    Answers, SpiffeWorkloadApi, SpiffeWorkloadApiServer, X509Svid, X509SvidRequest, X509SvidResponse,
};
use tokio::{net::UnixListener, sync::watch};
use tonic::{Request, Response, Status};

/// A running agent; it ends with the test.
pub struct Agent {
    answers: watch::Sender<Option<X509SvidResponse>>,
    socket: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Service(watch::Receiver<Option<X509SvidResponse>>);

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    async fn fetch_x509_svid(&self, _: Request<X509SvidRequest>) -> Result<Response<Answers>, Status> {
        let mut answers = self.0.clone();
        if answers.borrow().is_none() {
            return Err(Status::permission_denied("no identity issued"));
        }
        answers.mark_changed();
        let stream = stream::unfold(answers, |mut answers| async move {
            answers.changed().await.ok()?;
            let answer = answers.borrow_and_update().clone();
            Some((answer.ok_or_else(|| Status::permission_denied("no identity issued")), answers))
        });
        Ok(Response::new(stream.boxed()))
    }
}

impl Agent {
    /// Starts an agent that has no identity for anybody yet.
    pub fn start(dir: &Path, name: &str) -> Self {
        let socket = dir.join(format!("{name}.sock"));
        let (answers, said) = watch::channel(None);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let listener = runtime.block_on(async { UnixListener::bind(&socket) }).expect("own folder");
        open_to_all(&socket);
        let incoming = stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let service = SpiffeWorkloadApiServer::new(Service(said));
        runtime.spawn(async move {
            let served =
                tonic::transport::Server::builder().add_service(service).serve_with_incoming(Box::pin(incoming));
            served.await
        });
        Self { answers, socket, runtime: Some(runtime) }
    }

    /// What `SPIFFE_ENDPOINT_SOCKET` is to be.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Gives one identity to whoever asks, from now on.
    pub fn give(&self, svid: X509Svid) {
        self.answers.send_replace(Some(X509SvidResponse { svids: vec![svid], ..X509SvidResponse::default() }));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// The proxy runs as another user.
fn open_to_all(socket: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777)).expect("own socket");
}
