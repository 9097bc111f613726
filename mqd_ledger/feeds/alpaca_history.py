"""The bars that the stream did not bring, read from Alpaca's history over REST, and the commands that book them.

The real client reads (`StockHistoricalDataClient`), with what it lacks: a time-out on every call, and retries that know what can be
tried again. A read may take long: not on the thread that decides. While it lasts, hold back the stream's bars of those symbols, or
the log takes them first and rejects the older ones as out of order.

To read another kind of history: its own path and rows, by the same `_client`, `_pages` and `_page`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import requests
import stamina
from requests.adapters import HTTPAdapter

from commands import Command
from commands.market import ReportBadBar, ReportBar, ReportGapFilled
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.alpaca import NAME, bad_bar, bar_of
from mqd_ledger.feeds.validation import RejectedRow
from mqd_ledger.sessions import is_regular, midnight
from mqd_ledger.values import Bar, Symbol, iso

if TYPE_CHECKING:
    from alpaca.data.historical.stock import StockHistoricalDataClient

PROVIDER = "alpaca-rest"
MINUTE = timedelta(minutes=1)
ATTEMPTS = 6  # of one page, over some ten seconds
PAGE = 10_000  # rows of all symbols together, the most there is
CONNECT_WITHIN, READ_WITHIN = 3.05, 10.0
logging.getLogger("stamina").addHandler(logging.NullHandler())  # or Python prints each repetition among a user's output
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
ADVICE: Mapping[int, str] = MappingProxyType(
    {
        401: "The keys were refused: look at them, and whether they are for this environment.",
        403: "The keys were refused: look at them, and whether they are for this environment.",
    }
)


def missing_bars(
    keys: Keys,
    url: str | None,
    symbols: Mapping[Symbol, datetime | None],
    until: datetime,
    *,
    feed: str = "iex",
    regular_only: bool = True,
    page: int = PAGE,
    attempts: int = ATTEMPTS,
) -> list[Bar | RejectedRow]:
    """The minutes that have closed by `until`, after the last known start of each symbol (None: since midnight in New York), by
    time and then symbol. What is no usable bar is among them as a `RejectedRow`. BadInput where the history cannot be had.
    """
    after = {symbol: last or midnight(until, "exchange") - MINUTE for symbol, last in symbols.items()}
    start, end = min(after.values(), default=until) + MINUTE, until - MINUTE
    if start > end:
        return []
    asked = {
        "symbols": ",".join(sorted(after)),
        "timeframe": "1Min",
        "start": iso(start),
        "end": iso(end),
        "limit": page,
        "feed": feed,
        "adjustment": "raw",
        "sort": "asc",
    }
    found: list[Bar | RejectedRow] = []
    for line, (symbol, row) in enumerate(_rows(_client(keys, url), asked, attempts), 1):
        try:
            bar = bar_of({**row, "S": symbol}, PROVIDER)
        except BadInput as problem:
            raw = bad_bar({**row, "S": symbol}, until, str(problem)).raw
            found.append(RejectedRow(line, raw, str(problem), symbol))
            continue
        if (
            bar.start_at > after.get(symbol, end)
            and bar.end_at <= until
            and (is_regular(bar.start_at) or not regular_only)
        ):
            found.append(bar)
    return sorted(
        found, key=lambda one: (one.start_at, one.symbol) if isinstance(one, Bar) else (until, one.symbol or "")
    )


def gap_commands(
    found: Sequence[Bar | RejectedRow], at: datetime, known: Mapping[Symbol, datetime | None] = MappingProxyType({})
) -> list[Command]:
    """What the ledger is told of them: each bar, and then for each symbol that its gap is filled. `known` are the last starts by
    now: what the stream has brought in the meantime is left out.
    """
    commands: list[Command] = []
    filled: dict[Symbol, list[Bar]] = {}
    for one in found:
        if isinstance(one, RejectedRow):
            commands.append(ReportBadBar(at, one.symbol, one.line, one.raw, one.reason))
        elif (last := known.get(one.symbol)) is None or one.start_at > last:
            commands.append(ReportBar(at, one))
            filled.setdefault(one.symbol, []).append(one)
    for symbol, bars in sorted(filled.items()):
        commands.append(ReportGapFilled(at, NAME, symbol, bars[0].start_at, bars[-1].start_at, len(bars)))
    return commands


def _rows(
    client: "StockHistoricalDataClient", asked: Mapping[str, Any], attempts: int
) -> Iterator[tuple[Symbol, Mapping[str, Any]]]:
    for content in _pages(client, asked, attempts):
        for symbol, rows in (content.get("bars") or {}).items():
            for row in rows or ():
                yield symbol, row


def _pages(client: "StockHistoricalDataClient", asked: Mapping[str, Any], attempts: int) -> Iterator[Mapping[str, Any]]:
    parameters = dict(asked)
    while True:
        content = _page(client, parameters, attempts)
        yield content
        token = content.get("next_page_token")
        if not token:
            return
        parameters["page_token"] = token


def _page(client: "StockHistoricalDataClient", parameters: Mapping[str, Any], attempts: int) -> Mapping[str, Any]:
    from alpaca.common.exceptions import APIError

    @stamina.retry(
        on=_can_be_tried_again, attempts=attempts, timeout=60, wait_initial=0.2, wait_max=15, wait_jitter=0.2
    )
    def read() -> Mapping[str, Any]:
        content = client.get("/stocks/bars", dict(parameters))
        if not isinstance(content, dict):
            raise requests.exceptions.InvalidJSONError(f"the answer is {str(content)[:60]!r} and no object")
        return content

    try:
        return read()
    except APIError as refused:
        raise BadInput(_told(refused)) from refused
    except requests.RequestException as failed:
        raise BadInput(
            f"The history of bars cannot be read: {type(failed).__name__}: {failed}. Try again later."
        ) from failed


def _can_be_tried_again(error: Exception) -> bool:
    """A read may always be repeated, as long as there is hope: dropped, late, broken off, overloaded."""
    if isinstance(error, requests.RequestException):
        return True
    return getattr(error, "status_code", None) in AGAIN


def _told(refused: Any) -> str:
    text = " ".join(str(refused).split())[:200]
    if "recent SIP data" in text:
        return (
            f"The account's data plan does not include recent data of the whole market (SIP): {text}. Use the feed iex, "
            "or subscribe to the plan that has it."
        )
    advice = ADVICE.get(refused.status_code, "Try again later.")
    return f"The history of bars cannot be read: status {refused.status_code}, {text}. {advice}"


def _client(keys: Keys, url: str | None) -> "StockHistoricalDataClient":
    from alpaca.data.historical.stock import StockHistoricalDataClient

    client = StockHistoricalDataClient(keys.key_id, keys.secret, raw_data=True, url_override=url)
    client._retry = 0  # noqa: SLF001  its own retries wait three seconds each, whatever the server says
    session = client._session  # noqa: SLF001  the only way to a time-out
    session.trust_env = url is None  # a proxy of the environment has nothing to do with a server on this machine
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Impatient())
    return client


class _Impatient(HTTPAdapter):
    def send(self, request: Any, *arguments: Any, **options: Any) -> requests.Response:
        options["timeout"] = (CONNECT_WITHIN, READ_WITHIN)
        return super().send(request, *arguments, **options)
