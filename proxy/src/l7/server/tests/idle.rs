//! When a connection idles, whoever let go of its last exchange.

use std::{rc::Rc, time::Duration};

use http::Response;
use tokio::sync::Notify;

use super::{
    peer::Upstream,
    support::{Setup, run},
};

/// What a stream may say before the peer makes room.
const WINDOW: usize = 65_535;

/// Answers `/early` when told to, without room for more of its body; everything else at once.
async fn serve(upstream: Upstream, read: Rc<Notify>, answer: Rc<Notify>) {
    let stream = upstream.0.accept().await.unwrap().0;
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (read, answer) = (read.clone(), answer.clone());
        tokio::task::spawn_local(async move {
            let early = request.uri().path() == "/early";
            let (mut body, mut seen) = (request.into_body(), 0);
            while early && seen < WINDOW {
                seen += body.data().await.unwrap().unwrap().len();
            }
            if early {
                read.notify_one();
                answer.notified().await;
            }
            respond.send_response(Response::<()>::default(), true).unwrap();
            // Whoever holds the body says nothing of its end.
            while let Some(Ok(_)) = body.data().await {}
        });
    }
}

#[test]
fn a_connection_idles_once_the_rest_of_an_answered_request_is_let_go_of() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        let mut setup = Setup::new(&[address]).upstream_http2();
        setup.hcm.idle_timeout = Some(Duration::from_millis(100));
        let proxy = setup.start().await;
        let (read, answer) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        tokio::task::spawn_local(serve(upstream, read.clone(), answer.clone()));

        let mut client = proxy.connect().await;
        let head = format!("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", WINDOW + 1);
        client.send(&head).await;
        client.send(&"x".repeat(WINDOW)).await;
        read.notified().await;
        // There is no room for this: the proxy has the whole request, the upstream has not.
        client.send("y").await;
        // Who came later is served, and idles for so long that it is closed: whatever was to be noticed was.
        let mut other = proxy.connect().await;
        other.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(other.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(other.rest().await.unwrap(), "");
        answer.notify_one();
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200") && !head.to_ascii_lowercase().contains("connection: close"), "{head}");
        assert_eq!(client.rest().await.unwrap(), "", "it idles, and is closed for that");
        assert_eq!(proxy.stats.local().downstream_cx_idle_timeout.get(), 2);
    });
}
