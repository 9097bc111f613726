"""The routes of orders and positions: what a client asks is taken apart, checked against the rules and done by the account.

To add a route: a function that takes the request and the account, and its row in `ROUTES`.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from aiohttp import web
from msgspec import structs

from mqd_ledger.loopback import views
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.answers import Route, answer, bound, whole
from mqd_ledger.loopback.chance import uuid_of
from mqd_ledger.loopback.clock import nanosecond_text
from mqd_ledger.loopback.orders import OrderRecord, order_json
from mqd_ledger.loopback.rules import NOT_FOUND, check, check_cancel, check_replace
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.loopback.tickets import INVALID, Refused, Ticket, body_of, is_true, number_of, ticket_of
from mqd_ledger.values import QUANTITY_STEP, ZERO, OrderType, Side, TimeInForce

ORDERS_MAX, ORDERS_DEFAULT = 500, 50
HUNDRED = Decimal(100)


async def submit(request: web.Request, account: Account) -> web.Response:
    ticket = ticket_of(body_of(await request.text()))
    check(ticket, account)
    return answer(account.submit(ticket))


async def orders(request: web.Request, account: Account) -> web.Response:
    query = request.query
    status = query.get("status") or "open"
    limit = whole(query.get("limit"), ORDERS_DEFAULT, ORDERS_MAX, "limit")
    symbols = {symbol for symbol in (query.get("symbols") or "").upper().split(",") if symbol}
    after, until = bound(query.get("after")), bound(query.get("until"))
    found: Iterable[OrderRecord] = account.book.orders
    if query.get("direction") != "asc":
        found = reversed(account.book.orders)
    found = [
        order
        for order in found
        if (status == "all" or order.is_open == (status == "open"))
        and (not symbols or order.symbol in symbols)
        and (not query.get("side") or order.side.lower() == query["side"])
        and (not after or nanosecond_text(order.submitted_at) > after)
        and (not until or nanosecond_text(order.submitted_at) < until)
        and _is_beyond_cursors(order, request, account)
    ]
    return answer([order_json(order) for order in found[:limit]])


def _is_beyond_cursors(order: OrderRecord, request: web.Request, account: Account) -> bool:
    before = account.book.by_id.get(request.query.get("before_order_id", ""))
    after = account.book.by_id.get(request.query.get("after_order_id", ""))
    return (before is None or order.number < before.number) and (after is None or order.number > after.number)


async def order(request: web.Request, account: Account) -> web.Response:
    return answer(order_json(_order(request, account)))


async def order_by_client_id(request: web.Request, account: Account) -> web.Response:
    client_order_id = request.query.get("client_order_id", "")
    order = account.book.by_client_id.get(client_order_id)
    if order is None:
        raise Refused(404, NOT_FOUND, f"order not found for {client_order_id}")
    return answer(order_json(order))


async def cancel(request: web.Request, account: Account) -> web.Response:
    order = _order(request, account)
    check_cancel(order)
    account.cancel(order)
    return web.Response(status=204)


async def cancel_all(_request: web.Request, account: Account) -> web.Response:
    return answer(_cancel_all(account), 207)


async def replace(request: web.Request, account: Account) -> web.Response:
    order = _order(request, account)
    body = body_of(await request.text())
    ticket = _replacement(order, body, account.switches)
    check_replace(order, ticket)
    check(ticket, account, replaced=order)
    return answer(account.replace(order, ticket))


def _replacement(order: OrderRecord, body: dict[str, Any], switches: Switches) -> Ticket:
    quantity = number_of(body, "qty")
    if quantity is None:
        quantity = order.leaves_quantity
    elif switches.replace_counts_filled:
        quantity -= order.filled_quantity
    ticket = Ticket(
        symbol=order.symbol,
        side=order.side,
        order_type=order.order_type,
        time_in_force=order.time_in_force,
        quantity=quantity,
        limit_price=_or(number_of(body, "limit_price"), order.limit_price),
        stop_price=_or(number_of(body, "stop_price"), order.stop_price),
        extended_hours=order.extended_hours,
        client_order_id=str(body.get("client_order_id") or ""),
    )
    force = str(body.get("time_in_force") or order.time_in_force).upper()
    if force not in TimeInForce.__members__:
        raise Refused(422, INVALID, "invalid time_in_force")
    return structs.replace(ticket, time_in_force=TimeInForce(force))


async def positions(_request: web.Request, account: Account) -> web.Response:
    return answer(views.positions_json(account))


async def position(request: web.Request, account: Account) -> web.Response:
    return answer(views.position_json(account, _held_symbol(request, account)))


async def close(request: web.Request, account: Account) -> web.Response:
    symbol = _held_symbol(request, account)
    held = abs(account.held_quantity(symbol))
    quantity = number_of(request.query, "qty")
    percentage = number_of(request.query, "percentage")
    if quantity is None:
        quantity = held if percentage is None else (held * percentage / HUNDRED).quantize(QUANTITY_STEP)
    return answer(_close(account, symbol, quantity))


async def close_all(request: web.Request, account: Account) -> web.Response:
    if is_true(request.query.get("cancel_orders")):
        _cancel_all(account)
    rows: list[dict[str, Any]] = []
    for symbol in sorted(account.state.positions):
        try:
            body, status = _close(account, symbol, abs(account.held_quantity(symbol))), 200
        except Refused as refused:
            body, status = refused.body, refused.status
        rows.append({"symbol": symbol, "status": status, "body": body})
    return answer(rows, 207)


def _order(request: web.Request, account: Account) -> OrderRecord:
    order = account.book.by_id.get(request.match_info["id"])
    if order is None:
        raise Refused(404, NOT_FOUND, f"order not found for {request.match_info['id']}")
    return order


def _cancel_all(account: Account) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for order in list(account.book.open.values()):
        try:
            check_cancel(order)
            account.cancel(order)
            rows.append({"id": order.id, "status": 200})
        except Refused as refused:
            rows.append({"id": order.id, "status": 500, "body": refused.body})
    return rows


def _held_symbol(request: web.Request, account: Account) -> str:
    name = request.match_info["symbol"]
    for symbol in account.state.positions:
        if name.upper() == symbol or name == uuid_of("asset", symbol):
            return symbol
    raise Refused(404, NOT_FOUND, "position does not exist")


def _close(account: Account, symbol: str, quantity: Decimal) -> dict[str, Any]:
    ticket = Ticket(
        symbol=symbol,
        side=Side.SELL if account.held_quantity(symbol) > ZERO else Side.BUY,
        order_type=OrderType.MARKET,
        time_in_force=TimeInForce.DAY,
        quantity=quantity,
    )
    check(ticket, account)
    return account.submit(ticket)


def _or(new: Decimal | None, old: Decimal | None) -> Decimal | None:
    return old if new is None else new


ROUTES: tuple[Route, ...] = (
    ("POST", "/orders", submit),
    ("GET", "/orders", orders),
    ("DELETE", "/orders", cancel_all),
    ("GET", "/orders:by_client_order_id", order_by_client_id),
    ("GET", "/orders/{id}", order),
    ("PATCH", "/orders/{id}", replace),
    ("DELETE", "/orders/{id}", cancel),
    ("GET", "/positions", positions),
    ("DELETE", "/positions", close_all),
    ("GET", "/positions/{symbol}", position),
    ("DELETE", "/positions/{symbol}", close),
)
