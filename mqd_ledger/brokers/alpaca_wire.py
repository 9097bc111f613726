"""One thread's way to Alpaca: the client of alpaca-py, and the session of `requests` that it makes, set up for orders.

Importing this imports both libraries, which takes half a second: so it is done when the first request is made.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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


class Wire(NamedTuple):
    client: TradingClient
    transport: "_Transport"
    answers: list[Response]  # the last one, whole, whatever the client makes of it
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
        url = f"{client._base_url}/{client._api_version}{path}"  # noqa: SLF001
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
    """`timeout` is for connecting and for the answer; `may_leave` is called before a request's first byte is written."""
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
    answers: list[Response] = []
    transport = _Transport(timeout, answers, _pools(may_leave))
    for scheme in ("https://", "http://"):
        session.mount(scheme, transport)
    return Wire(client, transport, answers, {})


class _Transport(HTTPAdapter):
    """Sends with a time-out, which the client never sets, and keeps each answer that came whole."""

    def __init__(self, timeout: tuple[float, float], answers: list[Response], pools: dict[str, type]) -> None:
        self.timeout, self._answers, self._pools = timeout, answers, pools
        self._way: Any = None
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        """One client, one host: the way to it is worked out once."""
        if self._way is None:
            self._way = super().get_connection_with_tls_context(*arguments, **options)
        return self._way

    def close(self) -> None:
        self._way = None
        super().close()

    def send(self, request: PreparedRequest, **options: Any) -> Response:  # type: ignore[override]
        response = super().send(request, **{**options, "timeout": self.timeout})
        if response.content is not None:  # read to its end here, or it fails here
            self._answers.append(response)
        return response


class _Connection(HTTPConnection):
    """urllib3 writes a request's head and then its body; here they leave together, a packet and a call of the system less."""

    _pieces: list[bytes] | None = None

    def request(self, *arguments: Any, **options: Any) -> None:
        pieces: list[bytes] = []
        self._pieces = pieces
        try:
            super().request(*arguments, **options)
        finally:
            self._pieces = None
        self.before_writing()
        super().send(b"".join(pieces))

    def send(self, data: Any) -> None:
        if self._pieces is None:
            super().send(data)
        else:
            self._pieces.append(data)

    def before_writing(self) -> None:
        """For whom it may concern."""


def _pools(may_leave: Callable[[], None]) -> dict[str, type]:
    class Plain(_Connection):
        before_writing = staticmethod(may_leave)

    class Safe(_Connection, HTTPSConnection):
        before_writing = staticmethod(may_leave)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SafePool(HTTPSConnectionPool):
        ConnectionCls = Safe

    return {"http": PlainPool, "https": SafePool}
