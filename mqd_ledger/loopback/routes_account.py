"""The routes of the account, its activities, and the exchange: clock, calendar, assets.

To add a route: a function that takes the request and the account, and its row in `ROUTES`.
"""

from datetime import date, datetime

from aiohttp import web

from mqd_ledger import sessions
from mqd_ledger.loopback import views
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.answers import Route, answer, bound, whole
from mqd_ledger.loopback.chance import uuid_of
from mqd_ledger.loopback.clock import NEW_YORK, nanosecond_text
from mqd_ledger.loopback.rules import NOT_FOUND
from mqd_ledger.loopback.tickets import INVALID, Refused

PAGE_MAX = 100


async def whole_account(_request: web.Request, account: Account) -> web.Response:
    return answer(views.account_json(account))


async def configurations(_request: web.Request, account: Account) -> web.Response:
    return answer(views.configurations_json(account))


async def activities(request: web.Request, account: Account) -> web.Response:
    """Only fills are activities here: the newest first, the page after the row named by `page_token`."""
    query = request.query
    kinds = request.match_info.get("type") or query.get("activity_types") or "FILL"
    rows = [
        (execution.at, order, execution)
        for order in account.book.orders
        for execution in order.executions
        if query.get("order_id") in (None, order.id)
    ]
    rows.sort(key=lambda row: row[0], reverse=query.get("direction") != "asc")
    after, until, day = bound(query.get("after")), bound(query.get("until")), query.get("date")
    found = [
        (order, execution)
        for at, order, execution in rows
        if (not after or nanosecond_text(at) > after)
        and (not until or nanosecond_text(at) < until)
        and (not day or str(at.astimezone(NEW_YORK).date()) == day[:10])
    ]
    token = query.get("page_token")
    ids = [views.activity_id(execution) for _, execution in found] if token else []
    start = ids.index(token) + 1 if token in ids else 0
    size = whole(query.get("page_size"), PAGE_MAX, PAGE_MAX, "page_size")
    page = found[start : start + size] if "FILL" in kinds.split(",") else []
    return answer([views.activity_json(order, execution) for order, execution in page])


async def clock(_request: web.Request, account: Account) -> web.Response:
    return answer(views.clock_json(account.market))


async def calendar(request: web.Request, _account: Account) -> web.Response:
    first = max(_date(request.query.get("start"), sessions.FIRST_DATE), sessions.FIRST_DATE)
    last = min(_date(request.query.get("end"), sessions.HORIZON), sessions.HORIZON)
    return answer([views.calendar_json(session) for session in sessions.sessions_between(first, last)])


async def assets(request: web.Request, account: Account) -> web.Response:
    wanted = request.query.get("status") in (None, "active") and request.query.get("asset_class") in (
        None,
        "us_equity",
    )
    return answer([views.asset_json(symbol) for symbol in account.market.symbols] if wanted else [])


async def asset(request: web.Request, account: Account) -> web.Response:
    name = request.match_info["symbol"]
    for symbol in account.market.symbols:
        if name.upper() == symbol or name == uuid_of("asset", symbol):
            return answer(views.asset_json(symbol))
    raise Refused(404, NOT_FOUND, f"asset not found for {name}")


def _date(text: str | None, default: date) -> date:
    try:
        return datetime.fromisoformat(text).date() if text else default
    except ValueError as error:
        raise Refused(422, INVALID, f"invalid date: {text}") from error


ROUTES: tuple[Route, ...] = (
    ("GET", "/account", whole_account),
    ("GET", "/account/configurations", configurations),
    ("PATCH", "/account/configurations", configurations),
    ("GET", "/account/activities", activities),
    ("GET", "/account/activities/{type}", activities),
    ("GET", "/clock", clock),
    ("GET", "/calendar", calendar),
    ("GET", "/assets", assets),
    ("GET", "/assets/{symbol}", asset),
)
