//! What routes do, from socket to socket.

use std::sync::Arc;

use http::StatusCode;

use super::{
    peer::header,
    support::{pair, run},
};
use crate::ir::{
    format::{JsonField, LogFormat, Operator, Template},
    route::{Action, BodyFormat, DirectResponse, HeaderOps, Target, WeightedTarget},
};

#[test]
fn a_formatted_answer_knows_the_request() {
    run(async {
        let mut template = Template::parse("<%LOCAL_REPLY_BODY%> %REQ(:path)% %REQ(x-none)%").unwrap();
        template.substitute(&Operator::LocalReplyBody, "hi");
        let fields = vec![("path".into(), JsonField::Value(Template::parse("%REQ(:path)%").unwrap()))];
        for (format, content_type, body) in [
            (LogFormat::Text(template), "text/plain", "<hi> /p -"),
            (LogFormat::Json(fields), "application/json", "{\"path\":\"/p\"}\n"),
        ] {
            let (proxy, _upstream) = pair(|s| {
                let format = Some(BodyFormat { format, content_type: None });
                let direct = DirectResponse { status: StatusCode::CREATED, body: "hi".into(), format };
                s.action = Some(Action::Direct(Arc::new(direct)));
            })
            .await;
            let mut client = proxy.connect().await;
            client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let (head, text) = client.message().await;
            assert_eq!((text.as_str(), header(&head, "content-type")), (body, Some(content_type)), "{head}");
            assert_eq!(header(&head, "location"), Some("http://x/p"));
        }
    });
}

#[test]
fn a_weighted_cluster_may_be_named_by_a_header() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.forward.target = Target::Weighted(vec![WeightedTarget {
                cluster: "".into(),
                cluster_header: Some(http::HeaderName::from_static("x-cluster")),
                weight: 1,
                headers: HeaderOps::default(),
                host_rewrite: None,
                overrides: None,
            }]);
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /p HTTP/1.1\r\nHost: x\r\nX-Cluster: up\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        for cluster in ["X-Cluster: gone\r\n", ""] {
            client.send(&format!("GET /p HTTP/1.1\r\nHost: x\r\n{cluster}\r\n")).await;
            assert!(client.head().await.starts_with("HTTP/1.1 503"));
        }
        assert_eq!(proxy.log(3).await[2], "503 NC cluster_not_found 0 0 0 /p");
    });
}
