"""One websocket each: what its client may say, and in which words and frames it is answered.

`TradeConnection` speaks JSON, `DataConnection` MessagePack or JSON as the upgrade's Content-Type said. Each has a queue and a
writer, so a slow client holds up nobody. To add an action, add a method and its row in `_ACTIONS`; a channel of market data goes to
`CHANNELS`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.hooks import Where

if TYPE_CHECKING:
    from mqd_ledger.loopback.streams import Streams

Json = dict[str, Any]
encode, pack = msgspec.json.Encoder().encode, msgspec.msgpack.Encoder().encode
CHANNELS = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "corrections", "cancelErrors")
EVERY = "*"
ABNORMAL = 1006


class Connection:
    """One websocket: what comes in goes to `heard`, what is sent goes through the queue."""

    where: ClassVar[Where]

    def __init__(self, streams: "Streams", socket: web.WebSocketResponse) -> None:
        self.streams = streams
        self.socket = socket
        self.account: Account | None = None
        self.queue: asyncio.Queue[bytes | str | None] = asyncio.Queue()

    async def greet(self) -> None:
        """What is said first."""

    async def heard(self, message: Any) -> None:
        raise NotImplementedError

    async def garbled(self) -> None:
        """What came could not be read."""

    def read(self, data: str | bytes) -> Any:
        return msgspec.json.decode(data)

    async def serve(self) -> None:
        writer = asyncio.create_task(self._write())
        deadline = asyncio.get_running_loop().call_later(self.streams.server.switches.auth_seconds, self._too_late)
        try:
            await self.greet()
            async for message in self.socket:
                if message.type is WSMsgType.PING:
                    await self.socket.pong(message.data)
                elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    try:
                        content = self.read(message.data)
                    except msgspec.MsgspecError:
                        await self.garbled()
                    else:
                        await self.heard(content)
        finally:
            deadline.cancel()
            writer.cancel()
            self.streams.leave(self, clean=self.socket.close_code not in (None, ABNORMAL))

    def _too_late(self) -> None:
        if self.account is None:
            self.late()
            self.queue.put_nowait(None)

    def late(self) -> None:
        """What is said when the keys do not come in time."""

    async def _write(self) -> None:
        """None in the queue ends the connection after what stands before it."""
        try:
            while (frame := await self.queue.get()) is not None:
                if isinstance(frame, bytes):
                    await self.socket.send_bytes(frame)
                else:
                    await self.socket.send_str(frame)
            await self.socket.close(code=WSCloseCode.POLICY_VIOLATION)
        except ConnectionError:
            return  # the client is gone: the reader notices as well


class TradeConnection(Connection):
    where: ClassVar[Where] = "trade_socket"

    def __init__(self, streams: "Streams", socket: web.WebSocketResponse) -> None:
        super().__init__(streams, socket)
        self.listens = False

    def send(self, message: Json) -> None:
        frame = encode(message)
        self.queue.put_nowait(frame if self.streams.server.switches.binary_updates else frame.decode())

    def late(self) -> None:
        self._say_authorization("unauthorized", "authenticate")

    def _say_authorization(self, status: str, action: str) -> None:
        self.send({"stream": "authorization", "data": {"status": status, "action": action}})

    async def heard(self, message: Any) -> None:
        action = message.get("action") if isinstance(message, dict) else None
        answer = self._ACTIONS.get(str(action))
        if answer is None:
            self.send({"action": "error", "data": {"error_message": "invalid action"}})
        else:
            await answer(self, message.get("data") or {})

    async def _authenticate(self, data: Json) -> None:
        account = self.streams.account_of(data.get("key_id"), data.get("secret_key"))
        if account is None:
            self._say_authorization("unauthorized", "authenticate")
        elif self.streams.enter(self, account):
            self._say_authorization("authorized", "authenticate")
        else:
            self.send({"action": "error", "data": {"error_message": "connection limit exceeded"}})
            self.queue.put_nowait(None)

    async def _listen(self, data: Json) -> None:
        if self.account is None:
            self._say_authorization("unauthorized", "listen")
            return
        streams = [name for name in data.get("streams") or [] if name == "trade_updates"]
        self.listens = bool(streams)
        self.send({"stream": "listening", "data": {"streams": streams}})

    _ACTIONS: ClassVar[Mapping[str, Callable[["TradeConnection", Json], Awaitable[None]]]] = MappingProxyType(
        {"authenticate": _authenticate, "auth": _authenticate, "listen": _listen}
    )


class DataConnection(Connection):
    """MessagePack or JSON, as the upgrade's Content-Type said."""

    where: ClassVar[Where] = "data_socket"

    def __init__(self, streams: "Streams", socket: web.WebSocketResponse, *, packed: bool) -> None:
        super().__init__(streams, socket)
        self.packed = packed
        self.wanted: dict[str, set[str]] = {channel: set() for channel in CHANNELS}

    def read(self, data: str | bytes) -> Any:
        return msgspec.msgpack.decode(data) if isinstance(data, bytes) and self.packed else msgspec.json.decode(data)

    def send(self, messages: list[Json]) -> None:
        if self.packed:
            self.queue.put_nowait(pack(messages))
        else:
            self.queue.put_nowait(encode(messages).decode())

    def _error(self, code: int, message: str) -> None:
        self.send([{"T": "error", "code": code, "msg": message}])

    async def greet(self) -> None:
        self.send([{"T": "success", "msg": "connected"}])

    async def garbled(self) -> None:
        self._error(400, "invalid syntax")

    def late(self) -> None:
        self._error(404, "auth timeout")

    async def heard(self, message: Any) -> None:
        answer = self._ACTIONS.get(str(message.get("action"))) if isinstance(message, dict) else None
        if answer is None:
            self._error(400, "invalid syntax")
        else:
            await answer(self, message)

    async def _authenticate(self, message: Json) -> None:
        account = self.streams.account_of(message.get("key"), message.get("secret"))
        if self.account is not None:
            self._error(403, "already authenticated")
        elif account is None:
            self._error(402, "auth failed")
        elif self.streams.enter(self, account):
            self.send([{"T": "success", "msg": "authenticated"}])
        else:
            self._error(406, "connection limit exceeded")
            self.queue.put_nowait(None)

    async def _subscribe(self, message: Json) -> None:
        self._change(message, set.update)

    async def _unsubscribe(self, message: Json) -> None:
        self._change(message, set.difference_update)

    def _change(self, message: Json, change: Callable[[set[str], Iterable[str]], None]) -> None:
        if self.account is None:
            self._error(401, "not authenticated")
            return
        for channel in CHANNELS:
            change(self.wanted[channel], message.get(channel) or ())
        self.send([{"T": "subscription", **{channel: sorted(names) for channel, names in self.wanted.items()}}])

    def wants(self, channel: str, symbol: str) -> bool:
        names = self.wanted[channel]
        return symbol in names or EVERY in names

    _ACTIONS: ClassVar[Mapping[str, Callable[["DataConnection", Json], Awaitable[None]]]] = MappingProxyType(
        {"auth": _authenticate, "subscribe": _subscribe, "unsubscribe": _unsubscribe}
    )
