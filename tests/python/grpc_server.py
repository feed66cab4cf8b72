"""A gRPC service whose messages are plain bytes: `grpc_server.py PORT [NAME]`."""

import sys
import threading
from concurrent import futures

import grpc

SERVICE = "outrigger.test.Echo"
cancelled = {}
lock = threading.Lock()


def unary(request, context):
    return request


def name(request, context):
    return (sys.argv[2] if len(sys.argv) > 2 else "server").encode()


def metadata(request, context):
    """Sends everything named `x-...` back, at the start and as trailers."""
    mine = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-test")]
    context.send_initial_metadata([("initial-" + key, value) for key, value in mine])
    context.set_trailing_metadata([("trailing-" + key, value) for key, value in mine])
    return b"done"


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, context):
    count = total = 0
    for request in requests:
        count += 1
        total += int(request)
    return b"%d %d" % (count, total)


def bidi_stream(requests, context):
    for request in requests:
        yield b"re:" + request


def fail(request, context):
    context.set_trailing_metadata([("x-why", "because"), ("x-why-bin", bytes(range(256)))])
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "n\u00e4h: 100% wrong")


def hang(request, context):
    """Yields one message, then waits until the call is over; `was_cancelled` tells.

    The callback does the telling: a call that ends right after the message never resumes this generator.
    """
    over = threading.Event()

    def ended():
        with lock:
            cancelled[request] = True
        over.set()

    if not context.add_callback(ended):
        ended()
    yield b"started"
    over.wait(60)


def was_cancelled(request, context):
    with lock:
        return b"yes" if cancelled.get(request) else b"no"


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Name": grpc.unary_unary_rpc_method_handler(name),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "BidiStream": grpc.stream_stream_rpc_method_handler(bidi_stream),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Hang": grpc.unary_stream_rpc_method_handler(hang),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
}

if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, HANDLERS)])
    server.add_insecure_port(f"[::]:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()
