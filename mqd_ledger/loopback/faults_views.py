"""Answers that are not up to date: orders, positions and fills as they were, rows in another order or left out.

To add one: a row in `VIEWS` under the name of its row in `faults_table.FAULTS`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from aiohttp import web

from mqd_ledger.loopback.clock import NEW_YORK
from mqd_ledger.loopback.faults_rest import KEY_HEADER, answer, content_of
from mqd_ledger.loopback.faults_table import Fault
from mqd_ledger.loopback.faults_updates import FILLS, Update, order_id
from mqd_ledger.sessions import next_session
from mqd_ledger.values import plain

REMEMBERED = 5000  # trade updates of all accounts
ORDERS_DEFAULT = 50  # rows of a list of orders
CURSORS = frozenset({"before_order_id", "after_order_id"})  # a list from here on is answered as it is
OPEN = frozenset({"new", "partially_filled", "accepted", "pending_new", "pending_cancel", "pending_replace", "held"})
Row = dict[str, Any]


class Known(NamedTuple):
    """One trade update, when it became true."""

    at: datetime
    key: str
    update: Update


class Past:
    """What there was before, so that it can be answered again."""

    def __init__(self) -> None:
        self._known: deque[Known] = deque(maxlen=REMEMBERED)
        self._positions: dict[tuple[str, str], Row] = {}  # the last row answered for (key, symbol)
        self._missing: set[str] = set()  # ids of activities

    def learn(self, update: Update, key: str, at: datetime) -> None:
        self._known.append(Known(at, key, update))

    def orders_since(self, key: str, at: datetime) -> dict[str, Row | None]:
        """Each order that changed after an instant: as it was then, None for one that was not there."""
        then: dict[str, Row | None] = {}
        changed: set[str] = set()
        for known in self._known:
            if known.key != key:
                continue
            order = known.update["order"]
            if known.at <= at:
                then[order_id(known.update)] = order
            else:
                changed.add(order_id(known.update))
        return {order: then.get(order) for order in changed}

    def quantities_at(self, key: str, at: datetime) -> dict[str, tuple[Decimal, Row]]:
        """Each symbol that was traded after an instant: its signed quantity then, and the order that traded first."""
        then: dict[str, tuple[Decimal, Row]] = {}
        for known in self._known:
            update = known.update
            order = update["order"]
            if known.key != key or known.at <= at or update["event"] not in FILLS or order["symbol"] in then:
                continue
            quantity = Decimal(update["qty"])
            signed = quantity if order["side"] == "buy" else -quantity
            then[order["symbol"]] = (Decimal(update["position_qty"]) - signed, order)
        return then

    def remember_positions(self, key: str, rows: list[Row]) -> None:
        self._positions.update({(key, row["symbol"]): row for row in rows})

    def position(self, key: str, symbol: str) -> Row | None:
        return self._positions.get((key, symbol))

    def lose(self, activity_id: str) -> None:
        self._missing.add(activity_id)

    def without_missing(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """A row that was lost stays lost."""
        if not self._missing or not is_activities(request) or response.status != 200:
            return response
        rows = content_of(response) or []
        return answer([row for row in rows if row["id"] not in self._missing])


def is_orders(request: web.Request) -> bool:
    return request.method == "GET" and request.path.startswith("/v2/orders")


def is_positions(request: web.Request) -> bool:
    return request.method == "GET" and request.path == "/v2/positions"


def is_activities(request: web.Request) -> bool:
    return request.method == "GET" and request.path.startswith("/v2/account/activities")


def _cutoff(fault: Fault, now: datetime) -> datetime:
    return now - timedelta(seconds=float(fault.param("market_seconds")))


def _orders_lag(
    past: Past, request: web.Request, response: web.StreamResponse, fault: Fault, now: datetime
) -> web.StreamResponse:
    content = content_of(response)
    changed = past.orders_since(request.headers.get(KEY_HEADER, ""), _cutoff(fault, now))
    if isinstance(content, list):
        return response if CURSORS & request.query.keys() else answer(_orders_then(content, changed, request.query))
    if not isinstance(content, dict) or content.get("id") not in changed:
        return response
    row = changed[content["id"]]
    return answer(row) if row else answer({"code": 40410000, "message": f"order not found for {content['id']}"}, 404)


def _orders_then(content: list[Row], changed: Mapping[str, Row | None], query: Mapping[str, str]) -> list[Row]:
    """The list as it would have been: without what came since, with what has left it since."""
    rows = [row for row in content if row["id"] not in changed]
    rows += [row for row in changed.values() if row is not None and _is_asked_for(row, query)]
    newest_first = query.get("direction", "desc") == "desc"
    rows.sort(key=lambda row: str(row["submitted_at"]), reverse=newest_first)
    return rows[: int(query.get("limit") or ORDERS_DEFAULT)]


def _is_asked_for(row: Row, query: Mapping[str, str]) -> bool:
    wanted, symbols = query.get("status") or "open", query.get("symbols")
    submitted_at, after, until = (
        _instant(text) for text in (row["submitted_at"], query.get("after"), query.get("until"))
    )
    return (
        (wanted == "all" or (row["status"] in OPEN) == (wanted == "open"))
        and (not symbols or row["symbol"] in symbols.upper().split(","))
        and query.get("side") in {None, "", row["side"]}
        and (after is None or submitted_at is None or submitted_at > after)
        and (until is None or submitted_at is None or submitted_at < until)
    )


def _instant(text: str | None) -> datetime | None:
    """A date alone begins in UTC."""
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _positions_lag(
    past: Past, request: web.Request, response: web.StreamResponse, fault: Fault, now: datetime
) -> web.StreamResponse:
    content = content_of(response)
    if not isinstance(content, list):
        return response
    key = request.headers.get(KEY_HEADER, "")
    past.remember_positions(key, content)
    changed = past.quantities_at(key, _cutoff(fault, now))
    rows = [row for row in content if row["symbol"] not in changed]
    for symbol, (quantity, order) in changed.items():
        if quantity:
            rows.append(_position_then(past.position(key, symbol), order, quantity))
    return answer(sorted(rows, key=lambda row: str(row["symbol"])))


def _position_then(row: Row | None, order: Row, quantity: Decimal) -> Row:
    """A position that changed since; one that is gone is shown at the price it was closed at."""
    price = Decimal((row or {}).get("avg_entry_price") or order["filled_avg_price"])
    base = row or {
        "asset_id": order["asset_id"],
        "symbol": order["symbol"],
        "exchange": "NASDAQ",
        "asset_class": "us_equity",
    }
    return {
        **base,
        "qty": plain(quantity),
        "qty_available": plain(quantity),
        "side": "long" if quantity > 0 else "short",
        "avg_entry_price": plain(price),
        "cost_basis": plain(price * quantity),
    }


def _activities_lag(
    _past: Past, _request: web.Request, response: web.StreamResponse, fault: Fault, now: datetime
) -> web.StreamResponse:
    content = content_of(response)
    if not isinstance(content, list):
        return response
    until = _cutoff(fault, now)
    return answer([row for row in content if datetime.fromisoformat(row["transaction_time"]) <= until])


def _activities_reordered(
    _past: Past, _request: web.Request, response: web.StreamResponse, _fault: Fault, _now: datetime
) -> web.StreamResponse:
    """Neighbors change places, but for the last row, whose id begins the next page."""
    content = content_of(response)
    if not isinstance(content, list):
        return response
    for place in range(0, len(content) - 2, 2):
        content[place], content[place + 1] = content[place + 1], content[place]
    return answer(content)


def _activities_missing(
    past: Past, _request: web.Request, response: web.StreamResponse, _fault: Fault, _now: datetime
) -> web.StreamResponse:
    content = content_of(response)
    if isinstance(content, list) and content:
        past.lose(content[0]["id"])
    return response


def closed_early(request: web.Request, response: web.StreamResponse, at: datetime) -> web.StreamResponse:
    """On an unforeseen half day the calendar and the clock say so."""
    local = at.astimezone(NEW_YORK)
    content = content_of(response)
    if request.path == "/v2/calendar" and isinstance(content, list):
        half = {"close": f"{local:%H:%M}", "session_close": f"{local + timedelta(hours=4):%H%M}"}
        return answer([{**row, **half} if row["date"] == str(local.date()) else row for row in content])
    if request.path == "/v2/clock" and isinstance(content, dict):
        coming = next_session(at)
        bells = {"next_open": coming.open_at, "next_close": coming.close_at}
        return answer(
            {
                **content,
                "is_open": False,
                **{bell: when.astimezone(NEW_YORK).isoformat() for bell, when in bells.items()},
            }
        )
    return response


class View(NamedTuple):
    is_about: Callable[[web.Request], bool]
    change: Callable[[Past, web.Request, web.StreamResponse, Fault, datetime], web.StreamResponse]


VIEWS: Mapping[str, View] = MappingProxyType(
    {
        "orders_lag": View(is_orders, _orders_lag),
        "positions_lag": View(is_positions, _positions_lag),
        "activities_lag": View(is_activities, _activities_lag),
        "activities_reordered": View(is_activities, _activities_reordered),
        "activities_missing": View(is_activities, _activities_missing),
    }
)
