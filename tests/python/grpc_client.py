"""Calls grpc_server.py in every shape and prints the name of each case that held: `grpc_client.py TARGET`."""

import itertools
import random
import sys
import time
import uuid

import grpc

MESSAGES = 10_000
PATIENCE = 120
channel = grpc.insecure_channel(
    sys.argv[1], options=[("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
)


def method(name, shape="unary_unary"):
    return getattr(channel, shape)(f"/outrigger.test.Echo/{name}")


def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def unary():
    for size in [0, 1, 1000, 1 << 20, 3 << 20]:
        data = random.Random(size).randbytes(size)
        assert method("Unary")(data, timeout=PATIENCE) == data, size


def metadata():
    sent = [("x-test-text", "a value"), ("x-test-all-bin", bytes(range(256))), ("x-test-empty-bin", b"")]
    answer, call = method("Metadata").with_call(b"", metadata=sent, timeout=PATIENCE)
    assert answer == b"done"
    for prefix, received in [("initial-", call.initial_metadata()), ("trailing-", call.trailing_metadata())]:
        received = dict(received)
        for key, value in sent:
            assert received.get(prefix + key) == value, (prefix + key, received)


def server_stream():
    answers = method("ServerStream", "unary_stream")(b"%d" % MESSAGES, timeout=PATIENCE)
    for expected, answer in itertools.zip_longest(range(MESSAGES), answers):
        assert int(answer) == expected


def client_stream():
    answer = method("ClientStream", "stream_unary")((b"%d" % n for n in range(MESSAGES)), timeout=PATIENCE)
    assert answer == b"%d %d" % (MESSAGES, sum(range(MESSAGES))), answer


def bidi_stream():
    answers = method("BidiStream", "stream_stream")((b"%d" % n for n in range(MESSAGES)), timeout=PATIENCE)
    for expected, answer in itertools.zip_longest(range(MESSAGES), answers):
        assert answer == b"re:%d" % expected, (expected, answer)


def lockstep():
    """Each message leaves only after the answer to the one before it."""
    answered = []

    def messages():
        for number in range(200):
            while len(answered) < number:
                time.sleep(0.0002)
            yield b"%d" % number

    for answer in method("BidiStream", "stream_stream")(messages(), timeout=PATIENCE):
        answered.append(answer)
    assert answered == [b"re:%d" % number for number in range(200)]


def error_with_trailers():
    error = refused(lambda: method("Fail")(b"", timeout=PATIENCE))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    assert error.details() == "n\u00e4h: 100% wrong", error.details()
    trailers = dict(error.trailing_metadata())
    assert trailers["x-why"] == "because" and trailers["x-why-bin"] == bytes(range(256)), trailers


def unimplemented():
    error = refused(lambda: method("Nothing")(b"", timeout=PATIENCE))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED, error


def ended_at_the_server(key):
    """The end of a call reaches the server's handler, not only its client."""
    deadline = time.monotonic() + 30
    while method("WasCancelled")(key, timeout=PATIENCE) != b"yes":
        assert time.monotonic() < deadline, "the server was never told"


def deadline():
    key = uuid.uuid4().bytes
    answers = method("Hang", "unary_stream")(key, timeout=1.0)
    assert next(answers) == b"started"
    error = refused(lambda: next(answers))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error
    ended_at_the_server(key)


def cancel():
    key = uuid.uuid4().bytes
    answers = method("Hang", "unary_stream")(key, timeout=PATIENCE)
    assert next(answers) == b"started"
    answers.cancel()
    error = refused(lambda: next(answers))
    assert error.code() is grpc.StatusCode.CANCELLED, error
    ended_at_the_server(key)


def parallel():
    calls = [method("Unary").future(b"%d" % n, timeout=PATIENCE) for n in range(500)]
    assert [call.result() for call in calls] == [b"%d" % n for n in range(500)]


if __name__ == "__main__":
    for case in [
        unary, metadata, server_stream, client_stream, bidi_stream, lockstep, error_with_trailers, unimplemented,
        deadline, cancel, parallel,
    ]:
        case()
        print(case.__name__)
