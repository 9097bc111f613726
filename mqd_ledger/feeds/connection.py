"""One connection of a stream of alpaca-py, on a thread and event loop of its own, from the first step to its end.

It ends where the library would try again: `supervised.py` makes the next one. Two small classes look on. `Watched` is mixed in
before the library's stream class and sees what it dispatches; a subclass of websockets' protocol, handed over by the library's own
parameter `websocket_params`, hears what the library reads and drops, and when. Nothing that goes over the wire is different.

To understand another message of the server: a case in `words_of` (a complaint, which ends the connection) or `acknowledges`.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Any, Protocol

import msgspec

Handler = Callable[[Any], Awaitable[None]]
Make = Callable[[Handler, Mapping[str, Any]], "Watched"]  # a stream with its subscriptions, given `websocket_params`

WIRE = logging.getLogger(f"{__name__}.wire")
WIRE.setLevel(logging.INFO)  # below it websockets writes whole frames, and the first one holds the secret
for _quiet in (WIRE, logging.getLogger("alpaca")):
    _quiet.addHandler(logging.NullHandler())  # what they say is told as "down"; who wants their words adds a handler


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds of the wall."""

    open_within: float = 15  # from the first step until the subscription is acknowledged
    silent_after: float = 90  # without a message although one is due
    ping_every: float = 10
    pong_within: float = 20
    backoff_min: float = 1
    backoff_max: float = 30
    limit_wait: float = 90  # after a refusal: a connection that broke holds its place about so long
    close_within: float = 2
    end_within: float = 5  # for a thread; one that takes longer is left behind
    left_behind_max: int = 3


def words_of(message: Any) -> str:
    """What a message complains of; nothing if it is no complaint."""
    match message:
        case [{"T": "error"} as only]:  # control messages come alone
            return words_of(only)
        case {"T": "error", **rest}:
            return f"{rest.get('code')} {rest.get('msg')}"
        case {"stream": "authorization", "data": {"status": status}} if status != "authorized":
            return str(status)
        case {"action": "error", "data": {"error_message": words}}:
            return str(words)
        case _:
            return ""


def acknowledges(message: Any) -> bool:
    """Whether the server says that it will send what was subscribed to."""
    match message:
        case {"T": "subscription"}:
            return True
        case {"stream": "listening", "data": {"streams": [*streams]}}:
            return bool(streams)
        case _:
            return False


class Watched:
    """Mixed in before a stream class of alpaca-py. Nothing that is sent or received is different."""

    connection: "Connection"
    stop_ws: Any  # the library's
    close: Any
    _run_forever: Any

    async def _dispatch(self, msg: Any) -> None:
        if words := words_of(msg):
            await self._over(words)
        elif acknowledges(msg):
            self.connection.came_up()
        await super()._dispatch(msg)  # type: ignore[misc]

    async def _consume(self) -> Any:
        """Here the library goes on after a message that it could not read, which is then lost unnoticed."""
        try:
            return await super()._consume()  # type: ignore[misc]
        except Exception as error:
            await self._over(error)
            raise

    async def _wait_before_reconnect(self, retries: int) -> None:  # noqa: ARG002  the library's signature
        """Called where a connection has failed, whatever the step: it is not tried again here."""
        await self._over(sys.exception())

    async def _over(self, why: BaseException | str | None) -> None:
        self.connection.failed(why)
        await self.stop_ws()


class Owner(Protocol):
    """Who is told; its methods are called on the connection's thread."""

    name: str
    timing: Timing
    clock: Callable[[], datetime]
    decode: Callable[[Any], Any]

    def take(self, connection: "Connection", raw: Any, at: datetime) -> None: ...

    def tell_up(self, connection: "Connection") -> None: ...

    def wake(self) -> None: ...


class Connection:
    def __init__(self, owner: Owner, make: Make) -> None:
        self.owner, self._make = owner, make
        self.heard_at = monotonic()
        self.started_at: float | None = None  # with the library there, the import of which takes its time once
        self.up_at: float | None = None
        self.frames = 0
        self.reason = ""
        self.last_heard: bytes | str = b""
        self.protocol: Any = None
        self._is_over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stream: Watched | None = None
        self._stopper: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"stream {owner.name}")
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def was_useful(self) -> bool:
        """Whether it brought something or lasted: then what follows is no row of failures."""
        lasted = self.up_at is not None and monotonic() - self.up_at > self.owner.timing.backoff_max
        return lasted or self.frames > 0

    # --- on its own thread

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:
            self.failed(error)
            raise
        finally:
            self.owner.wake()

    async def _live(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._stream = stream = self._make(self._handle, self._websocket_params())  # imports the library the first time
        stream.connection = self
        self.started_at = monotonic()
        if self._is_over:
            return
        try:
            await stream._run_forever()  # noqa: SLF001  `run` would do the same with a loop that nobody can reach
        except asyncio.CancelledError:
            self.failed("it was ended from here")
        finally:
            await self._close(stream)

    def _websocket_params(self) -> Mapping[str, Any]:
        from websockets.legacy.client import WebSocketClientProtocol

        connection, timing = self, self.owner.timing

        class Heard(WebSocketClientProtocol):
            """Alpaca's answer to the keys is read and dropped inside the library; here it can be heard."""

            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                connection.protocol = self

            async def recv(self) -> Any:
                connection.last_heard = await super().recv()
                connection.heard_at = monotonic()
                return connection.last_heard

        return {  # they take the place of the library's own, so its queue's length is among them
            "create_protocol": Heard,
            "ping_interval": timing.ping_every,
            "ping_timeout": timing.pong_within,
            "open_timeout": timing.open_within,
            "close_timeout": timing.close_within,
            "max_queue": 1024,
            "logger": WIRE,
        }

    async def _handle(self, raw: Any) -> None:
        self.owner.take(self, raw, self.owner.clock())

    async def _close(self, stream: Watched) -> None:
        try:
            async with asyncio.timeout(self.owner.timing.close_within):
                await stream.close()
        except TimeoutError:
            self.failed("it did not close")
        transport = getattr(self.protocol, "transport", None)
        if transport is not None and not transport.is_closing():
            transport.abort()

    def came_up(self) -> None:
        if self.up_at is None:
            self.up_at = monotonic()
            self.owner.tell_up(self)

    def failed(self, why: BaseException | str | None) -> None:
        """The first reason is the one that counts; before the stream was up the server's own last words are better still."""
        if not self.reason:
            text = why if isinstance(why, str) else f"the connection failed: {str(why) or type(why).__name__}"
            self.reason = self._last_words() or text

    def _last_words(self) -> str:
        if self.up_at is not None or not self.last_heard:
            return ""
        try:
            return words_of(self.owner.decode(self.last_heard))
        except (ValueError, TypeError):  # not what this stream speaks: then the library's own error says so
            return ""

    # --- from the watching thread

    def end(self, within: float) -> bool:
        """Whether thread and socket are gone."""
        self._is_over = True
        if self._loop is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # the loop was closed in this moment: its thread is ending by itself
                self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(within)
        return not self._thread.is_alive()

    def _cancel(self) -> None:
        assert self._loop is not None
        self._stopper = self._loop.create_task(self._stop())

    async def _stop(self) -> None:
        """Both, because the library's wait for a message may swallow a cancel that comes together with one."""
        assert self._task is not None
        if self._stream is not None:
            await self._stream.stop_ws()
        self._task.cancel()
