"""What becomes of websocket connections: refused, mute, half open, slow, dropped.

`FaultySocket` is aiohttp's own response with the faults between the server and the wire, so that the server speaks through it
without knowing. To add one: a function in `FRAMES` (it decides about one frame) or `CONNECTIONS` (about all of a connection),
under the name of its row in `faults_table.FAULTS`.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import msgpack
from aiohttp import web

from mqd_ledger.loopback.faults_table import Fault

SOCKETS = ("trade_socket", "data_socket")
AUTH_FRAME = MappingProxyType({"trade_socket": 1, "data_socket": 2})  # data greets first
CONNECTION_LIMIT = 406  # said in the protocol, after the keys; every other status is HTTP's
ABNORMAL = 1006  # no close frame: it is what the other side calls a connection that just ended
FOR_EVER = float("inf")


class Chooser(Protocol):
    """`faults.Faults` picks what strikes."""

    def socket_fault(self, where: str, kinds: Mapping[str, Any], what: str) -> Fault | None: ...


class FaultySocket(web.WebSocketResponse):
    """A websocket that can fail."""

    def __init__(self, where: str, faults: Chooser, **options: Any) -> None:
        super().__init__(**options)
        self.where = where
        self.faults = faults
        self.frames = 0
        self.connection: Fault | None = None
        self.mute_until = 0.0  # of the monotonic clock
        self.pongs = True
        self.loses = False  # the frame at hand
        self.wait = 0.0
        self.request: web.Request | None = None

    def refuse(self) -> None:
        """What strikes the connection as such; some statuses end it here, before it begins."""
        self.connection = fault = self.faults.socket_fault(self.where, CONNECTIONS, "connection")
        if fault is not None and fault.kind == "refused" and (status := int(fault.param("status"))) != CONNECTION_LIMIT:
            raise _Refused(status)

    async def prepare(self, request: web.BaseRequest) -> Any:
        if isinstance(request, web.Request):
            self.request = request
        return await super().prepare(request)

    async def send_bytes(self, data: bytes, compress: int | None = None) -> None:
        if await self._passes(binary=True):
            await super().send_bytes(data, compress)

    async def send_str(self, data: str, compress: int | None = None) -> None:
        if await self._passes(binary=False):
            await super().send_str(data, compress)

    async def pong(self, message: bytes = b"") -> None:
        if self.pongs or time.monotonic() >= self.mute_until:
            await super().pong(message)

    async def _passes(self, *, binary: bool) -> bool:
        """Whether a frame goes out."""
        self.frames += 1
        if self.connection is not None and self.frames == AUTH_FRAME[self.where]:
            await CONNECTIONS[self.connection.kind](self, self.connection, binary)
        if time.monotonic() < self.mute_until:
            return False
        self.loses = False
        fault = self.faults.socket_fault(self.where, FRAMES, f"frame {self.frames}")
        if fault is not None:
            await FRAMES[fault.kind](self, fault)
        if self.wait:
            await asyncio.sleep(self.wait)
        return not self.closed and not self.loses and time.monotonic() >= self.mute_until

    def mute(self, seconds: float) -> None:
        self.mute_until = time.monotonic() + (seconds or FOR_EVER)

    async def end(self, code: int) -> None:
        self.mute(0)
        if code != ABNORMAL:
            await self.close(code=code)
        elif self.request is not None and self.request.transport is not None:
            self.request.transport.abort()

    async def say_limit(self, *, binary: bool) -> None:
        """The protocol's own refusal, in the connection's framing."""
        words = [{"T": "error", "code": CONNECTION_LIMIT, "msg": "connection limit exceeded"}]
        if binary:
            await super().send_bytes(msgpack.packb(words))
        else:
            await super().send_str(json.dumps(words))


class _Refused(web.HTTPException):
    def __init__(self, status: int) -> None:
        self.status_code = status
        super().__init__(text="connection refused")


async def _refused(socket: FaultySocket, _fault: Fault, binary: bool) -> None:  # noqa: FBT001  one of a table's signature
    await socket.say_limit(binary=binary)
    await socket.end(1000)


async def _no_auth_answer(socket: FaultySocket, _fault: Fault, _binary: bool) -> None:  # noqa: FBT001
    socket.mute(0)


async def _slow_auth(_socket: FaultySocket, fault: Fault, _binary: bool) -> None:  # noqa: FBT001
    await asyncio.sleep(fault.seconds())


async def _silent(socket: FaultySocket, fault: Fault) -> None:
    socket.mute(fault.seconds())


async def _half_open(socket: FaultySocket, fault: Fault) -> None:
    socket.mute(fault.seconds())
    socket.pongs = False


async def _slow(socket: FaultySocket, fault: Fault) -> None:
    socket.wait = fault.seconds()


async def _lost(socket: FaultySocket, _fault: Fault) -> None:
    socket.loses = True


async def _dropped(socket: FaultySocket, fault: Fault) -> None:
    await socket.end(int(fault.param("code")))


CONNECTIONS: Mapping[str, Callable[[FaultySocket, Fault, bool], Awaitable[None]]] = MappingProxyType(
    {"refused": _refused, "no_auth_answer": _no_auth_answer, "slow_auth": _slow_auth}
)
FRAMES: Mapping[str, Callable[[FaultySocket, Fault], Awaitable[None]]] = MappingProxyType(
    {"silent": _silent, "half_open": _half_open, "slow": _slow, "lost": _lost, "dropped": _dropped}
)
