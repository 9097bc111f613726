"""One thread's way to Alpaca: the client of alpaca-py, and the session of `requests` that it makes, set up for orders.

Whatever way a request takes (TLS, a proxy, loopback), its first byte leaves when it may, its head and body leave together, and it
is given up after so long, however slowly an answer trickles in.

Importing this imports both libraries, which takes half a second: so it is done when the first request is made.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, NamedTuple

import msgspec
from alpaca.trading.client import TradingClient
from requests import PreparedRequest, Request, Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from mqd_ledger.brokers.keys import Keys
from mqd_ledger.errors import BrokenPromise

ENCODE = msgspec.json.Encoder().encode
WHOLE_WITHIN = 20.0  # seconds from a request's first byte to its answer's last: time-outs are for the next byte alone
NEVER = float("inf")


class Wire(NamedTuple):
    client: TradingClient
    transport: "_Transport"
    posts: dict[str, tuple[PreparedRequest, dict[str, Any]]]  # by path: all of it but the body

    def post(self, path: str, data: Mapping[str, Any]) -> None:
        """The request that the client would make, but only its body anew: taking the address apart, looking for proxies and
        passwords and merging headers cost half of the time until the first byte is out.
        """
        known = self.posts.get(path)
        if known is None:
            known = self.posts[path] = self._prepared(path)
        request, options = known
        request.body = ENCODE(data)
        request.headers["Content-Length"] = str(len(request.body))
        self.transport.send(request, **options)

    def _prepared(self, path: str) -> tuple[PreparedRequest, dict[str, Any]]:
        client = self.client
        session = client._session  # noqa: SLF001  as the client itself does
        headers = {**client._get_default_headers(), "Content-Type": "application/json"}  # noqa: SLF001
        # Added up as the client does: Alpaca's own addresses are members of an enumeration, whose format is their name.
        url = client._base_url + "/" + client._api_version + path  # noqa: SLF001
        request = session.prepare_request(Request("POST", url, headers=headers))
        return request, dict(session.merge_environment_settings(url, {}, None, None, None))

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """What is asked for meanwhile is given up after so long."""
        usual, self.transport.timeout = self.transport.timeout, (seconds, seconds)
        try:
            yield
        finally:
            self.transport.timeout = usual

    def close(self) -> None:
        self.client._session.close()  # noqa: SLF001  the SDK has no other way


def open_wire(
    keys: Keys,
    url: str | None,
    environment: str,
    *,
    timeout: tuple[float, float],
    may_leave: Callable[[], None],
    uses_proxies: bool,
) -> Wire:
    """`timeout` is for connecting and for the next byte; `may_leave` is called before a request's first byte is written."""
    client = TradingClient(
        keys.key_id,
        keys.secret,
        paper=environment != "live",
        raw_data=True,
        url_override=None if url is None else url.rstrip("/"),
    )
    if not {"_retry", "_session"} <= vars(client).keys():
        raise BrokenPromise(
            "This version of alpaca-py keeps its retries and its session elsewhere than 0.44.0 did, so an order might be sent "
            "twice. Install the pinned version."
        )
    client._retry = 0  # noqa: SLF001  it repeats a POST on 429 and 504, and has no setting for none
    session = client._session  # noqa: SLF001
    session.trust_env = uses_proxies
    transport = _Transport(timeout, may_leave)
    for scheme in ("https://", "http://"):
        session.mount(scheme, transport)
    return Wire(client, transport, {})


class _Transport(HTTPAdapter):
    """Sends with a time-out, which the client never sets, and keeps each answer that came whole."""

    def __init__(self, timeout: tuple[float, float], may_leave: Callable[[], None]) -> None:
        self.timeout, self._may_leave = timeout, may_leave
        self.answers: list[Response] = []  # the last one, whole, whatever the client makes of it
        self._pools = _pools(self._begins)
        self._way: Any = None
        self._connection: HTTPConnection | None = None  # on which a request is under way
        self._late_at = NEVER  # for that one
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        """One client, one host: the way to it is worked out once."""
        if self._way is None:
            way = super().get_connection_with_tls_context(*arguments, **options)
            if type(way) not in self._pools.values():
                raise BrokenPromise(
                    "The way to Alpaca leads over a connection that does not wait for the log, so nothing is sent on it. Install "
                    "the pinned versions of requests and urllib3, or start without the proxy that the environment names."
                )
            self._way = way
        return self._way

    def close(self) -> None:
        if self._way is not None:
            self._way.close()  # the last answer holds on to it
        self._way = None
        super().close()

    def send(self, request: PreparedRequest, **options: Any) -> Response:  # type: ignore[override]
        try:
            response = super().send(request, **{**options, "timeout": self.timeout})
            if response.content is not None:  # read to its end here, or it fails here
                self.answers.append(response)
        finally:
            self._late_at, self._connection = NEVER, None
        return response

    def _begins(self, connection: HTTPConnection) -> None:
        self._may_leave()
        self._connection, self._late_at = connection, monotonic() + WHOLE_WITHIN

    def hang_up_if_late(self, now: float) -> None:
        """Called by another thread: the one that reads finds the end of the connection, as if the broker had dropped it."""
        connection = self._connection
        sock = None if connection is None else connection.sock
        if now < self._late_at or sock is None:
            return
        with suppress(OSError):  # it has ended in this moment
            # Below TLS, whose own shutdown would take the reader's state away; TLS within a proxy's TLS wraps it once more.
            socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)


def _pools(begins: Callable[[HTTPConnection], None]) -> dict[str, type]:
    """By scheme. `begins` is called with the connection before a request's first byte."""

    class Plain(HTTPConnection):
        """urllib3 writes a request's head and then its body; here they leave together, a packet and a call of the system less."""

        _pieces: list[bytes] | None = None

        def request(self, *arguments: Any, **options: Any) -> None:
            pieces: list[bytes] = []
            self._pieces = pieces
            try:
                super().request(*arguments, **options)
            finally:
                self._pieces = None
            begins(self)
            super().send(b"".join(pieces))

        def send(self, data: Any) -> None:
            if self._pieces is None:
                super().send(data)
            else:
                self._pieces.append(data)

    class Safe(Plain, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SafePool(HTTPSConnectionPool):
        ConnectionCls = Safe

    return {"http": PlainPool, "https": SafePool}
