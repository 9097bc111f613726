"""What all routes have in common: how an answer is made, and how the values of a query are read.

A value that cannot be read is refused with Alpaca's status, code and words.
"""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from mqd_ledger.loopback import data
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.tickets import INVALID, Refused

Handler = Callable[[web.Request, Account], Awaitable[web.Response]]
Route = tuple[str, str, Handler]  # method, path after /v2, function
encode = msgspec.json.Encoder().encode


def answer(content: object, status: int = 200) -> web.Response:
    return web.Response(body=encode(content), status=status, content_type="application/json")


def bound(text: str | None) -> str:
    """A time of a query in the form in which times are compared; no time is empty."""
    if not text:
        return ""
    try:
        return data.comparable(text)
    except ValueError as error:
        raise Refused(422, INVALID, f"invalid time: {text}") from error


def whole(text: str | None, default: int, most: int, name: str) -> int:
    if not text:
        return default
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise Refused(422, INVALID, f"{name} must be between 1 and {most}")
    return int(text)
