"""A TCP server that sends back what it gets: `echo_server.py HOST:PORT`."""

from __future__ import annotations

import asyncio
import gc
import sys


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    # A client that does not read stops being read from, so memory stays bounded.
    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


async def serve(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, host, port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    gc.disable()  # A collection over thousands of connections would show up as latency.
    address, _, service = sys.argv[1].rpartition(":")
    asyncio.run(serve(address, int(service)))
