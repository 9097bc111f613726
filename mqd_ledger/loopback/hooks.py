"""Where faults come in: what the server asks before it acts, and what happens when nothing is to go wrong.

`faults.Faults` answers the same questions otherwise. To add a place where something can go wrong, add a method here and call it at
that place.
"""

from typing import TYPE_CHECKING, Any, Literal, Protocol

from aiohttp import web

if TYPE_CHECKING:
    from mqd_ledger.loopback.server import LoopbackServer

Update = dict[str, Any]
Where = Literal["trade_socket", "data_socket"]


class Hooks(Protocol):
    def attach(self, server: "LoopbackServer", /) -> None:
        """At each start, before anything is served: its market and accounts are there."""

    async def request(self, request: web.Request, /) -> web.StreamResponse | None:
        """Before a REST request is handled; an answer stands in its place."""

    async def answered(self, request: web.Request, response: web.StreamResponse, /) -> web.StreamResponse:
        """After a REST request was done; what is returned goes out."""

    def updates(self, update: Update, key: str, /) -> list[tuple[float, Update | None]]:
        """What goes out for one trade update of an account: seconds to wait, and the `data` of the frame."""

    def socket(self, where: Where, /, *, autoping: bool) -> web.WebSocketResponse:
        """The socket of a new connection, "trade_socket" or "data_socket"."""


class NoFaults:
    """A server on which nothing goes wrong."""

    def attach(self, _server: "LoopbackServer") -> None:
        pass

    async def request(self, _request: web.Request) -> web.StreamResponse | None:
        return None

    async def answered(self, _request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        return response

    def updates(self, update: Update, _key: str) -> list[tuple[float, Update | None]]:
        return [(0.0, update)]

    def socket(self, _where: Where, /, *, autoping: bool) -> web.WebSocketResponse:
        return web.WebSocketResponse(autoping=autoping)
