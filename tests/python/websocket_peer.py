"""Both ends of a WebSocket: `server PORT` echoes, `client URL` prints what it could verify."""

import asyncio
import random
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def answer(connection):
    await connection.send(connection.request.path)
    async for message in connection:
        if message == "close":
            return await connection.close(4001, "enough")
        await connection.send(message)


async def server(port):
    async with serve(answer, None, port, subprotocols=["chat.v2"], max_size=None, compression=None) as running:
        await running.serve_forever()


async def client(url):
    options = {"subprotocols": ["chat.v1", "chat.v2"], "max_size": None, "compression": None, "proxy": None}
    async with connect(url, **options) as connection:
        print("path", await connection.recv())
        print("subprotocol", connection.subprotocol)
        await connection.send("gr\u00fc\u00df dich")
        assert await connection.recv() == "gr\u00fc\u00df dich"
        print("text ok")
        data = random.Random(1).randbytes(1 << 20)
        await connection.send(data)
        assert await connection.recv() == data
        print("binary", len(data), "ok")
        await connection.send(["one ", "two ", "three"])
        assert await connection.recv() == "one two three"
        print("fragments ok")
        await asyncio.wait_for(await connection.ping(b"are you there"), 20)
        print("ping ok")

        async def send():
            for number in range(1000):
                await connection.send(str(number))

        sending = asyncio.create_task(send())
        for number in range(1000):
            assert await connection.recv() == str(number)
        await sending
        print("messages 1000 ok")
        await connection.send("close")
        try:
            await connection.recv()
        except ConnectionClosed as closed:
            print("closed", closed.rcvd.code, closed.rcvd.reason)


if __name__ == "__main__":
    asyncio.run(server(int(sys.argv[2])) if sys.argv[1] == "server" else client(sys.argv[2]))
