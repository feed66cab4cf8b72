"""Calls `Name` over and over; says what answers before and after a step: `grpc_xds_client.py TARGET STEPS_FILE`."""

import os
import sys
import time

import grpc

PATIENCE = 30
channel = grpc.insecure_channel(sys.argv[1])
name = channel.unary_unary("/outrigger.test.Echo/Name")


def call():
    """Every call must succeed, from the first on."""
    return name(b"", timeout=PATIENCE, wait_for_ready=True).decode()


def until(what, holds):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what + " did not happen"
    print(what, flush=True)


if __name__ == "__main__":
    seen = set()
    until("both answered", lambda: seen.add(call()) or seen == {"echo-v1", "echo-v2"})
    until("the step", lambda: call() and os.path.exists(sys.argv[2]))
    until("only echo-v2 answers", lambda: {call() for _ in range(50)} == {"echo-v2"})
    for kind in ["unary_stream"]:
        numbers = getattr(channel, kind)("/outrigger.test.Echo/ServerStream")(b"1000", timeout=PATIENCE)
        assert [int(number) for number in numbers] == list(range(1000))
