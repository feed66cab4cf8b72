"""Bytes by the gigabyte: GET /N sends N bytes, GET /sha256/N their checksum, PUT answers with what arrived."""

import hashlib
import random
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = random.Random(7).randbytes(1 << 20)


def blocks(size):
    """The bytes of a download: the block, turned by one byte each time so that no two megabytes are equal."""
    number = 0
    while size > 0:
        turn = number % len(BLOCK)
        block = BLOCK[turn:] + BLOCK[:turn]
        yield block[:size]
        size -= len(block)
        number += 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/sha256/"):
            digest = hashlib.sha256()
            for block in blocks(int(self.path[len("/sha256/"):])):
                digest.update(block)
            return self.answer(digest.hexdigest())
        size = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        for block in blocks(size):
            self.wfile.write(block)

    def do_PUT(self):
        digest, size = hashlib.sha256(), 0
        for block in self.body():
            digest.update(block)
            size += len(block)
        self.answer(f"{size} {digest.hexdigest()}")

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            left = int(self.headers["Content-Length"])
            while left > 0:
                block = self.rfile.read(min(left, 1 << 18))
                assert block, "the body ended early"
                left -= len(block)
                yield block
            return
        while True:
            left = int(self.rfile.readline().split(b";")[0], 16)
            if left == 0:
                while self.rfile.readline().strip():
                    pass
                return
            yield self.rfile.read(left)
            assert self.rfile.read(2) == b"\r\n", "the end of a chunk"

    def answer(self, text):
        body = text.encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
