"""The REST side under /v2: who asks, how often, what goes wrong on purpose, and Alpaca's answer to what is refused.

The routes are in `routes_account`, `routes_trading` and `routes_data`, which say how to add one. A handler refuses by raising
`Refused`; nothing else may escape it.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from mqd_ledger.loopback import routes_account, routes_data, routes_trading
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.answers import Handler, answer
from mqd_ledger.loopback.tickets import Refused

if TYPE_CHECKING:
    from mqd_ledger.loopback.server import LoopbackServer

ROUTES = (*routes_account.ROUTES, *routes_trading.ROUTES, *routes_data.ROUTES)
KEY, SECRET = "APCA-API-KEY-ID", "APCA-API-SECRET-KEY"
MINUTE = 60.0


class Rest:
    def __init__(self, server: "LoopbackServer") -> None:
        self.server = server
        self._windows: dict[str, tuple[float, int]] = {}  # key -> when its minute began, requests in it

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/loopback/clock", self._market_clock)
        for method, path, handler in ROUTES:
            app.router.add_route(method, f"/v2{path}", partial(self._handle, handler))

    async def _market_clock(self, _request: web.Request) -> web.Response:
        return answer({**self.server.clock.shown(), "is_over": self.server.market.is_over})

    async def _handle(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        faults = self.server.faults
        instead = await faults.request(request)
        if instead is not None:
            return instead
        account = self.server.accounts.get(request.headers.get(KEY, ""))
        headers: dict[str, str] = {}
        if account is None or request.headers.get(SECRET) != account.spec.secret:
            response = answer({"message": "unauthorized."}, 401)
        elif not self._has_requests_left(account, headers):
            response = answer({"code": 42910000, "message": "rate limit exceeded"}, 429)
        else:
            try:
                response = await handler(request, account)
            except Refused as refused:
                response = answer(refused.body, refused.status)
            except ConnectionResetError:  # whoever asked was gone before the request had come whole
                return web.Response(status=400)
        response.headers.update(headers)
        return await faults.answered(request, response)

    def _has_requests_left(self, account: Account, headers: dict[str, str]) -> bool:
        """Counts by the wall's minutes, as its client does."""
        most = self.server.switches.requests_per_minute
        if most is None:
            return True
        now = asyncio.get_running_loop().time()
        began, used = self._windows.get(account.spec.key, (now, 0))
        if now - began >= MINUTE:
            began, used = now, 0
        self._windows[account.spec.key] = (began, used + 1)
        ends = int(self.server.clock.now().timestamp() + began + MINUTE - now)
        headers |= {
            "X-RateLimit-Limit": str(most),
            "X-RateLimit-Remaining": str(max(0, most - used - 1)),
            "X-RateLimit-Reset": str(ends),
        }
        return used < most
