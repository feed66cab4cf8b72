//! `local_reply_config`, from socket to socket.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    peer::header,
    support::{pair, run},
};
use crate::ir::{
    format::{Comparison, LogFilter, LogFormat, Template},
    http::{LocalReply, ReplyMapper},
    route::{Action, AppendAction, BodyFormat, DirectResponse, HeaderAdd, HeaderOps, Target},
};

fn body(text: &str, content_type: Option<&'static str>) -> BodyFormat {
    BodyFormat {
        format: LogFormat::Text(Template::parse(text).unwrap()),
        content_type: content_type.map(HeaderValue::from_static),
    }
}

fn mapper(filter: LogFilter) -> ReplyMapper {
    ReplyMapper { filter, status: None, body: None, headers: HeaderOps::default(), format: None }
}

/// 503 becomes 502 and says nothing of its cause; a path that has no cluster is formatted differently; all else goes
/// by the default.
fn config() -> Box<LocalReply> {
    let code = HeaderAdd {
        name: HeaderName::from_static("x-code"),
        value: Template::parse("%RESPONSE_CODE%").unwrap(),
        action: AppendAction::AppendIfExistsOrAdd,
        keep_empty_value: false,
    };
    Box::new(LocalReply {
        mappers: vec![
            ReplyMapper {
                format: Some(body("{%LOCAL_REPLY_BODY%}%RESPONSE_FLAGS%", None)),
                ..mapper(LogFilter::ResponseFlags(vec!["NC".into()]))
            },
            ReplyMapper {
                status: Some(StatusCode::BAD_GATEWAY),
                body: Some("nobody".into()),
                headers: HeaderOps { response_add: vec![code], ..HeaderOps::default() },
                ..mapper(LogFilter::StatusCode(Comparison::Eq, 503))
            },
        ],
        format: Some(body("%RESPONSE_CODE% %LOCAL_REPLY_BODY% %REQ(:path)%", Some("text/x"))),
    })
}

fn direct(status: StatusCode) -> Option<Action> {
    Some(Action::Direct(Arc::new(DirectResponse { status, body: "hi".into(), format: None })))
}

#[test]
fn own_answers_look_as_configured() {
    run(async {
        let cases = [
            (direct(StatusCode::SERVICE_UNAVAILABLE), 502, "502 nobody /p", "text/x", Some("503")),
            (direct(StatusCode::FORBIDDEN), 403, "403 hi /p", "text/x", None),
            (None, 503, "{}NC", "text/plain", None),
        ];
        for (action, status, text, content_type, code) in cases {
            let (proxy, _upstream) = pair(|s| {
                s.hcm.local_reply = Some(config());
                s.action = action;
                s.forward.target = Target::Cluster("none".into());
            })
            .await;
            let mut client = proxy.connect().await;
            client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let (head, body) = client.message().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert_eq!((body.as_str(), header(&head, "content-type")), (text, Some(content_type)), "{head}");
            assert_eq!(header(&head, "x-code"), code, "{head}");
        }
    });
}

#[test]
fn a_grpc_client_hears_it_as_a_message() {
    run(async {
        let (proxy, _upstream) = pair(|s| {
            s.hcm.local_reply = Some(config());
            s.action = direct(StatusCode::SERVICE_UNAVAILABLE);
        })
        .await;
        let mut client = proxy.connect().await;
        client
            .send("POST /s/m HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(header(&head, "content-type"), Some("application/grpc"));
        // The status that the mapper chose, in gRPC's terms.
        assert_eq!(header(&head, "grpc-status"), Some("14"));
        assert_eq!(header(&head, "grpc-message"), Some("502 nobody /s/m"));
        assert_eq!(header(&head, "x-code"), Some("503"));
    });
}

#[test]
fn the_upstreams_answers_are_its_own() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.local_reply = Some(config())).await;
        let mut client = proxy.connect().await;
        client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.message().await;
        server.send("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nthey").await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 503 ") && body == "they", "{head}{body}");
        assert_eq!(header(&head, "x-code"), None);
    });
}
