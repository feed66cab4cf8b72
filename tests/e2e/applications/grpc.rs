//! gRPC by its own Python library: every call shape, trailers, metadata, deadlines, cancellation.

use outrigger_tests::{need, pair::pair, peers::python};

#[test]
fn grpc_calls() {
    need!("ip", "curl", "python:grpc");
    // Declared, and found out from the first bytes.
    let mut pair = pair(&[("grpc", 50051, 50051), ("whatever", 50052, 50051)]);
    let server = pair.server.pod.serve("grpc", 50051, &python("grpc_server.py", "50051"));
    for port in [50051, 50052] {
        let said = pair.client.pod.sh(&python("grpc_client.py", &format!("app:{port}")));
        let done: Vec<&str> = said.lines().collect();
        let expected = [
            "unary",
            "metadata",
            "server_stream",
            "client_stream",
            "bidi_stream",
            "lockstep",
            "error_with_trailers",
            "unimplemented",
            "deadline",
            "cancel",
            "parallel",
        ];
        assert_eq!(done, expected, "port {port}; the server said: {}", server.output());
    }
    drop(server);
    pair.assert_sound();
}
