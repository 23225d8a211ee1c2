"""What stands between a store and its database, and spoils what that says."""

import asyncio
from contextlib import suppress


class Proxy:
    """Stands between a store and its database on a TCP port, and can spoil answers.

    ``proxy.spoil`` takes what was asked since the last answer, and the answer; it
    returns what the store gets, and ``None`` hangs up. A tuple of bytes and ``None``
    does one after the other.
    """

    def __init__(self, port):
        self._port = port
        self._server: asyncio.Server
        self._tasks = set()
        self._writers = set()
        self.spoil = self.pass_on
        self.connections = 0
        """How many were opened so far."""

    async def pass_on(self, asked, answer):
        return answer

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in [*self._writers]:
            writer.close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    async def _serve(self, reader, writer):
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.IncompleteReadError):
            upstream = await asyncio.open_connection("127.0.0.1", self._port)
            asked: list = []
            both = {writer, upstream[1]}
            self._writers |= both
            up = asyncio.create_task(self._up(reader, upstream[1], asked))
            try:
                await self._down(upstream[0], writer, asked)
            finally:
                up.cancel()
                for one in both:
                    one.close()
                self._writers -= both

    async def _up(self, reader, writer, asked):
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                asked.append(chunk)
                writer.write(chunk)
        writer.close()

    async def _down(self, reader, writer, asked):
        while answer := await reader.read(1 << 16):
            question = b"".join(asked)
            asked.clear()
            spoiled = await self.spoil(question, answer)
            parts = spoiled if isinstance(spoiled, tuple) else (spoiled,)
            for part in parts:
                if part is None:
                    return
                writer.write(part)
