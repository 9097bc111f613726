"""What becomes of REST requests: answered late, wrongly, or not at all, before or after they were done; or as of earlier.

To add one: a function in `BEFORE` (nothing has been done yet; None goes on to the handler), in `AFTER` (it is done, what is
returned goes out) or in `VIEWS` (the answer's rows are changed), under the name of its row in `faults_table.FAULTS`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from aiohttp import web

from mqd_ledger.loopback.faults_table import Fault

KEY_HEADER = "APCA-API-KEY-ID"
RATE_LIMIT = 200  # requests a minute
PAGE = "<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center><hr></body></html>\n"


def facts_of(request: web.Request) -> dict[str, str]:
    """What a plan can match."""
    return {"method": request.method, "path": request.path, "key": request.headers.get(KEY_HEADER, "")}


def is_rest(request: web.Request) -> bool:
    """Neither a websocket's upgrade nor the server's remote control."""
    return "Upgrade" not in request.headers and not request.path.startswith("/loopback")


def drop(request: web.Request) -> web.Response:
    """End the connection without a word; what is returned never leaves."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _latency(_request: web.Request, fault: Fault, _now: datetime) -> None:
    await asyncio.sleep(fault.seconds())


async def _hang(request: web.Request, fault: Fault, _now: datetime) -> web.StreamResponse:
    await asyncio.sleep(fault.seconds())
    return drop(request)


async def _rate_limited(_request: web.Request, fault: Fault, now: datetime) -> web.StreamResponse:
    wait = int(fault.param("retry_after"))
    headers = {
        "Retry-After": str(wait),
        "X-RateLimit-Limit": str(RATE_LIMIT),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(now.timestamp()) + wait),
    }
    return web.json_response({"code": 42910000, "message": "rate limit exceeded"}, status=429, headers=headers)


async def _error(_request: web.Request, fault: Fault, _now: datetime) -> web.StreamResponse:
    status = int(fault.param("status"))
    return web.json_response({"code": status * 100_000 + 10_000, "message": "internal server error"}, status=status)


async def _gateway_timeout(_request: web.Request, _fault: Fault, _now: datetime) -> web.StreamResponse:
    return _page(504)


async def _html(_request: web.Request, fault: Fault, _now: datetime) -> web.StreamResponse:
    return _page(int(fault.param("status")))


async def _dropped(request: web.Request, _fault: Fault, _now: datetime) -> web.StreamResponse:
    return drop(request)


def _page(status: int) -> web.Response:
    return web.Response(text=PAGE.format(status=status), content_type="text/html", status=status)


async def _late_answer(_request: web.Request, response: web.StreamResponse, fault: Fault) -> web.StreamResponse:
    await asyncio.sleep(fault.seconds())
    return response


async def _hang_after(request: web.Request, _response: web.StreamResponse, fault: Fault) -> web.StreamResponse:
    await asyncio.sleep(fault.seconds())
    return drop(request)


async def _gateway_timeout_after(_request: web.Request, _response: web.StreamResponse, _: Fault) -> web.StreamResponse:
    return _page(504)


async def _dropped_after(request: web.Request, _response: web.StreamResponse, _fault: Fault) -> web.StreamResponse:
    return drop(request)


async def _truncated(request: web.Request, response: web.StreamResponse, _fault: Fault) -> web.StreamResponse:
    """The length promises more than comes."""
    body = _body_of(response)
    if not body:
        return drop(request)
    broken = web.StreamResponse(status=response.status, headers={"Content-Type": "application/json"})
    broken.content_length = len(body)
    await broken.prepare(request)
    await broken.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return broken


async def _html_after(_request: web.Request, _response: web.StreamResponse, fault: Fault) -> web.StreamResponse:
    return _page(int(fault.param("status")))


Before = Callable[[web.Request, Fault, datetime], Awaitable[web.StreamResponse | None]]
After = Callable[[web.Request, web.StreamResponse, Fault], Awaitable[web.StreamResponse]]

BEFORE: Mapping[str, Before] = MappingProxyType(
    {
        "latency": _latency,
        "hang": _hang,
        "rate_limited": _rate_limited,
        "error": _error,
        "gateway_timeout": _gateway_timeout,
        "html": _html,
        "dropped": _dropped,
    }
)
AFTER: Mapping[str, After] = MappingProxyType(
    {
        "late_answer": _late_answer,
        "hang_after": _hang_after,
        "gateway_timeout_after": _gateway_timeout_after,
        "dropped_after": _dropped_after,
        "truncated": _truncated,
        "html_after": _html_after,
    }
)


def _body_of(response: web.StreamResponse) -> bytes:
    body = response.body if isinstance(response, web.Response) else None
    return body if isinstance(body, bytes) else b""


def content_of(response: web.StreamResponse) -> Any:
    """A JSON answer taken apart; None where there is none."""
    body = _body_of(response)
    return json.loads(body) if body and response.content_type == "application/json" else None


def answer(content: Any, status: int = 200) -> web.Response:
    return web.json_response(content, status=status)
