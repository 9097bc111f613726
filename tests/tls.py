"""Alpaca's own names on this machine: TLS in front of a loopback server, and a proxy on the way there.

    with at_alpacas_names(server, tmp_path, monkeypatch) as gate:
        AlpacaRest(keys, None, "paper", budget=Budget())         goes to paper-api.alpaca.markets, which is here

What the clients have said is in `gate.heard`, decrypted; an answer that is to come a byte now and then is named in `gate.trickles`.
No other name is known meanwhile, so nothing leaves this machine.
"""

import asyncio
import os
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import trustme
from alpaca.common.enums import BaseURL

from mqd_ledger.loopback.server import LoopbackServer
from tests.loopback import PATIENCE

HERE = "127.0.0.1"
HOSTS = sorted({urlsplit(address.value).hostname or "" for address in BaseURL})
CHUNK = 65536
NOW_AND_THEN = 0.02  # seconds between two bytes of an answer that trickles
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"


class Listener(ABC):
    """Takes connections on a thread and event loop of its own, and has closed them all when it has ended."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.count = 0  # of connections so far
        self._context = context
        self._served: dict[asyncio.Task[None], StreamWriter] = {}
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), name=type(self).__name__)

    @abstractmethod
    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection, until it has ended; it is closed afterwards."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    async def _listen(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        patience = None if self._context is None else 0.2  # for the other side's goodbye
        listening = await asyncio.start_server(self._take, HERE, 0, ssl=self._context, ssl_shutdown_timeout=patience)
        self.port = listening.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        listening.close()
        for writer in self._served.values():
            writer.transport.abort()
        await asyncio.gather(*self._served)

    def _take(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.count += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._served[task] = writer
        task.add_done_callback(self._served.pop)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            with suppress(OSError, EOFError):  # either side may go at any time
                await self.serve(reader, writer)
        finally:
            await _closed(writer)


class Gate(Listener):
    """Takes the TLS off, for a server that speaks none."""

    def __init__(self, server: LoopbackServer, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self.names: set[str] = set()  # that the clients have asked for
        self.heard = b""
        self.trickles: list[bytes] = []  # how the requests begin, each of which is answered so once
        self._server = server
        context.sni_callback = self._named

    def _named(self, _connection: object, name: str | None, _context: object) -> None:
        self.names.add(name or "")

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        there, to_it = await asyncio.open_connection(HERE, self._server.port)
        trickles = asyncio.Event()
        await _both(self._requests(reader, to_it, trickles), self._answers(there, writer, trickles), closes=to_it)

    async def _requests(self, reader: StreamReader, writer: StreamWriter, trickles: asyncio.Event) -> None:
        while data := await reader.read(CHUNK):
            self.heard += data
            for begin in [begin for begin in self.trickles if data.startswith(begin)]:
                self.trickles.remove(begin)
                trickles.set()
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: StreamReader, writer: StreamWriter, trickles: asyncio.Event) -> None:
        while data := await reader.read(CHUNK):
            writer.write(ENDLESS if trickles.is_set() else data)
            await writer.drain()
            while trickles.is_set():  # what was asked for is done all the same
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(NOW_AND_THEN)


class Proxy(Listener):
    """Leads to the gate whatever name it is asked for."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.asked: set[str] = set()
        self._gate = gate

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        method, place, *_ = (await reader.readuntil(b"\r\n\r\n")).decode().split()
        assert method == "CONNECT", f"a request to {place} came without TLS"
        self.asked.add(place)
        there, to_it = await asyncio.open_connection(HERE, self._gate.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _both(_pump(reader, to_it), _pump(there, writer), closes=to_it)


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


async def _both(*ways: Any, closes: StreamWriter) -> None:
    """Both ways of a connection, until one has ended."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _closed(closes)


async def _closed(writer: StreamWriter) -> None:
    writer.close()
    with suppress(OSError):  # the other side was quicker, or says no goodbye
        await writer.wait_closed()


@contextmanager
def at_alpacas_names(server: LoopbackServer, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """From here on each name of alpaca-py leads to the server, whose certificate is trusted, and no proxy is named."""
    authority = trustme.CA()
    trusted = folder / "trusted.pem"
    authority.cert_pem.write_to_path(trusted)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*HOSTS).configure_cert(context)
    look_up = socket.getaddrinfo
    with Gate(server, context) as gate:

        def led_here(host: str, port: int, *more: Any, **options: Any) -> Any:
            if host in HOSTS:
                return look_up(HERE, gate.port, *more, **options)
            assert ip_address(host).is_loopback, f"{host} is not on this machine"
            return look_up(host, port, *more, **options)

        with patch.context() as here:
            for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
                here.delenv(name)
            for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
                here.setenv(name, str(trusted))
            here.setattr(socket, "getaddrinfo", led_here)
            yield gate


@contextmanager
def through_a_proxy(gate: Gate, patch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """As a company's network asks for."""
    with Proxy(gate) as proxy, patch.context() as here:
        here.setenv("HTTPS_PROXY", f"http://{HERE}:{proxy.port}")
        yield proxy
