"""What Alpaca says of the market becomes commands: exactly, or with the reason why not. What the stream missed is read."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from queue import Queue
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest

from commands.market import ReportBadBar, ReportBar, ReportCorrectedBar, ReportQuote, ReportSymbolStatus
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.engine import Engine
from mqd_ledger.errors import BadInput
from mqd_ledger.events import BarClosed, BarRejected, FeedGapFilled
from mqd_ledger.feeds.alpaca import AlpacaFeed, bar_of, commands_of, instant_of, quote_of
from mqd_ledger.feeds.alpaca_history import gap_commands, missing_bars
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.feeds.supervised import Item
from mqd_ledger.feeds.validation import RejectedRow
from mqd_ledger.loopback.faults import Fault, Faults
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.values import Bar, microseconds
from tests.dsl import MINUTE, D, Tape, at, fold, world

SECOND = timedelta(seconds=1)
MSGPACK: Any = import_module("msgpack")  # published without types
AT = at("14:31")


def stamp(when: datetime, nanoseconds: int = 0) -> Any:
    return MSGPACK.Timestamp(microseconds(when) // 1_000_000, nanoseconds)


def raw_bar(kind: str = "b", start: str = "14:30", **changes: Any) -> dict[str, Any]:
    known = {
        "T": kind,
        "S": "SPY",
        "o": 100.1,
        "h": 101,
        "l": 99.07,
        "c": 100.30000000000001,
        "v": 1200,
        "n": 3,
        "vw": 100.2,
    }
    return {**known, "t": stamp(at(start)), **changes}


# --- one message --------------------------------------------------------------------------------------------------------------


def test_a_bar_has_exactly_the_prices_that_were_sent() -> None:
    wanted = Bar("SPY", "1m", at("14:30"), D("100.1"), D("101"), D("99.07"), D("100.30000000000001"), 1200, "alpaca")
    assert commands_of(raw_bar(), AT) == [ReportBar(AT, wanted)]
    assert commands_of(raw_bar("u"), AT + 30 * SECOND) == [ReportCorrectedBar(AT + 30 * SECOND, wanted)]


@pytest.mark.parametrize("price", ("0.0001", "0.07", "1.1", "29.97", "123.456789", "99999.99", "745123.5"))
def test_a_price_survives_the_float_on_the_wire(price: str) -> None:
    (sent,) = MSGPACK.unpackb(MSGPACK.packb([dict.fromkeys("ohlc", float(price))]))
    assert bar_of({**raw_bar(), **sent}).close == Decimal(price)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no number": ({"c": float("nan")}, "close 'nan' is not a finite number"),
    "endless": ({"h": float("inf")}, "high 'inf' is not a finite number"),
    "nothing": ({"o": None}, "open is empty"),
    "not positive": ({"l": 0}, "low '0' is not positive"),
    "upside down": ({"h": 98.5}, "high 98.5 is below low 99.07"),
    "half a share": ({"v": 1.5}, "volume '1.5' is not a whole number of shares"),
    "no symbol": ({"S": ""}, "the symbol is empty"),
    "no time": ({"t": None}, "'None' is not a time with its zone"),
    "no zone": ({"t": "2026-01-05T14:30:00"}, "'2026-01-05T14:30:00' is not a time with its zone"),
    "between two minutes": ({"t": stamp(at("14:30"), 1000)}, "is not the start of a bar of 1m"),
    "text for a price": ({"c": "a lot"}, "close 'a lot' is not a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_bar_is_reported_with_its_reason(case: str) -> None:
    changes, reason = BAD[case]
    (command,) = commands_of(raw_bar(**changes), AT)
    assert isinstance(command, ReportBadBar)
    assert reason in command.reason
    assert '"S":' in command.raw
    assert command.line is None


def test_bars_outside_of_regular_hours_are_left_out_unless_they_are_wanted() -> None:
    early = raw_bar(start="14:29")
    assert commands_of(early, AT) == []
    assert [type(command) for command in commands_of(early, AT, regular_only=False)] == [ReportBar]


def test_a_clock_that_is_a_little_behind_the_exchange_costs_no_bar() -> None:
    (command,) = commands_of(raw_bar(), AT - SECOND)
    assert command.at == AT
    (too_far,) = commands_of(raw_bar(), AT - 6 * SECOND)
    assert too_far.at == AT - 6 * SECOND, "then the log says that the bar is of the future"


@pytest.mark.parametrize(
    "time",
    (
        stamp(at("14:30"), 123_456_789),
        "2026-01-05T14:30:00.123456789Z",
        "2026-01-05T09:30:00.123456-05:00",
    ),
)
def test_times_are_exact_to_the_microsecond(time: Any) -> None:
    assert instant_of(time) == datetime(2026, 1, 5, 14, 30, 0, 123456, UTC)


STATUSES = {"2": True, "H": True, "P": True, "3": False, "T": False, "Q": None, "5": None, "": None}


@pytest.mark.parametrize("code", STATUSES)
def test_only_some_statuses_halt_trading_or_let_it_go_on(code: str) -> None:
    raw = {"T": "s", "S": "SPY", "sc": code, "sm": "Words", "rc": "T1", "rm": "Reason", "t": stamp(AT), "z": "C"}
    is_halted = STATUSES[code]
    wanted = [] if is_halted is None else [ReportSymbolStatus(AT, AT, "SPY", is_halted, "Words", "Reason")]
    assert commands_of(raw, AT) == wanted
    assert len(commands_of({**raw, "t": None}, AT)) == len(wanted), "whatever its time is"


def test_a_quote_is_read_and_an_unreadable_one_passed_over() -> None:
    raw = {"T": "q", "S": "SPY", "bp": 99.99, "bs": 2, "ap": 100.01, "as": 3.0, "t": stamp(AT, 5000)}
    assert quote_of(raw, AT) == ReportQuote(
        AT, AT + timedelta(microseconds=5), "SPY", D("99.99"), 2, D("100.01"), 3, "alpaca"
    )
    for changes in ({"bp": None}, {"ap": float("nan")}, {"t": "soon"}):
        assert quote_of({**raw, **changes}, AT) is None
    assert commands_of(raw, AT) == [], "quotes are in the book, not in the log"
    assert commands_of({"T": "new kind"}, AT) == []


# --- over the wire ------------------------------------------------------------------------------------------------------------


class Served:
    def __init__(self, server: LoopbackServer) -> None:
        self.server = server
        spec = server.specs[0]
        self.keys = Keys(spec.key, spec.secret, "loopback")

    def read(
        self, last: datetime | None, until: datetime, keys: Keys | None = None, **options: Any
    ) -> list[Bar | RejectedRow]:
        symbols = dict.fromkeys(("SYNA", "SYNB"), last)
        return missing_bars(keys or self.keys, self.server.rest_url, symbols, until, **options)


@pytest.fixture
def make() -> Iterator[Callable[..., Served]]:
    servers: list[LoopbackServer] = []

    def started(*plan: Fault, minutes: int = 15) -> Served:
        server = LoopbackServer(sample_bars(sessions=1), speed=None, faults=Faults(plan)).start()
        servers.append(server)
        server.step(minutes)
        return Served(server)

    yield started
    for server in servers:
        server.__exit__(None, None, None)


def played(first: str, last: str) -> list[Bar]:
    """The sample's bars that start between two minutes, as they come from the history."""
    return [one for one in sample_bars(sessions=1) if at(first) <= one.start_at <= at(last)]


def test_bars_corrections_halts_and_quotes_come_over_the_socket(make: Callable[..., Served]) -> None:
    served = make(minutes=5)
    inbox: Queue[Item] = Queue()
    feed = AlpacaFeed(
        served.keys,
        served.server.data_url,
        ["SYNA", "SYNB"],
        inbox.put_nowait,
        served.server.clock.now,
        quotes=True,
        expects=lambda: False,
    ).start()
    try:
        assert inbox.get(timeout=10) == ("up", "bars")
        served.server.step()
        served.server.call(lambda: served.server.market.correct("SYNA", D("153.4")))
        served.server.call(lambda: served.server.market.halt("SYNB"))
        commands: list[Any] = []
        while len(commands) < 4:
            frame: Any = inbox.get(timeout=10)
            commands += commands_of(*frame[2:])
        first, second, corrected, halted = commands
        assert [(first.at, first.bar), (second.at, second.bar)] == [
            (at("14:31"), _from(one, "alpaca")) for one in played("14:30", "14:30")
        ]
        assert (type(corrected), corrected.bar.close) == (ReportCorrectedBar, D("153.4"))
        assert (type(halted), halted.symbol, halted.halted, halted.status) == (
            ReportSymbolStatus,
            "SYNB",
            True,
            "Trading Halt",
        )
        deadline = monotonic() + 10
        while feed.quotes.best("SYNB") is None:
            assert monotonic() < deadline, "no quote came"
            sleep(0.005)
        quoted = served.server.market.quote("SYNB", at("14:31"))
        assert quoted is not None
        assert (feed.quotes.spread("SYNB"), feed.quotes.age("SYNB", AT + SECOND)) == (quoted.ask - quoted.bid, SECOND)
    finally:
        assert feed.stop()


def _from(one: Bar, provider: str) -> Bar:
    return Bar(one.symbol, one.interval, one.start_at, one.open, one.high, one.low, one.close, one.volume, provider)


def test_a_feed_without_symbols_is_refused() -> None:
    with pytest.raises(BadInput, match="at least one symbol"):
        AlpacaFeed(Keys("PK1", "secret", "loopback"), None, [], print, lambda: AT)


def test_missing_minutes_are_read_in_pages_by_time_then_symbol(make: Callable[..., Served]) -> None:
    found = make().read(at("14:31"), at("14:36"), page=3)
    assert found == [_from(one, "alpaca-rest") for one in played("14:32", "14:35")]


def test_each_symbol_has_its_own_gap_and_a_new_one_begins_with_the_day(make: Callable[..., Served]) -> None:
    served = make()
    symbols = {"SYNA": at("14:33"), "SYNB": None}
    found = missing_bars(served.keys, served.server.rest_url, symbols, at("14:35"))
    starts = {name: [one.start_at for one in found if isinstance(one, Bar) and one.symbol == name] for name in symbols}
    assert starts["SYNA"] == [at("14:34")]
    assert starts["SYNB"] == [at("14:30") + MINUTE * number for number in range(5)]


def test_where_nothing_is_missing_nothing_is_asked_and_nothing_traded_is_no_error(make: Callable[..., Served]) -> None:
    served = make(minutes=5)
    assert served.read(at("14:30"), at("14:30")) == []
    assert served.read(None, at("14:30")) == [], "the server answers with an empty object"
    assert missing_bars(served.keys, served.server.rest_url, {}, at("14:30")) == []


SURVIVED = (
    Fault("rest", "rate_limited"),
    Fault("rest", "error", params={"status": 503}),
    Fault("rest", "html"),
    Fault("rest", "dropped"),
    Fault("rest", "truncated"),
    Fault("rest", "html_after"),
)


@pytest.mark.parametrize("fault", SURVIVED, ids=lambda fault: fault.kind)
def test_a_read_that_fails_is_repeated(make: Callable[..., Served], fault: Fault) -> None:
    served = make(fault)
    assert len(served.read(at("14:31"), at("14:34"))) == 4
    assert isinstance(served.server.faults, Faults)
    assert [one.kind for one in served.server.faults.happened] == [fault.kind]


def test_a_refused_read_says_what_to_do_and_shows_no_secret(make: Callable[..., Served]) -> None:
    served = make()
    wrong = Keys(served.keys.key_id, "not-the-secret", "loopback")
    with pytest.raises(BadInput, match=r"status 401.*The keys were refused") as refused:
        served.read(None, at("14:35"), wrong)
    assert wrong.secret not in str(refused.value)


@pytest.fixture
def answering() -> Iterator[Callable[[int, str], str]]:
    """The URL of a server that gives one and the same answer to whatever it is asked."""
    servers: list[HTTPServer] = []

    def serve(status: int, body: str) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *_: Any) -> None:  # noqa: A002
                """Nothing on the terminal."""

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


KEYS = Keys("PK1", "secret", "loopback")
GAP = {"SPY": at("14:30")}
ROW = '{"t":"2026-01-05T14:31:00Z","o":100.1,"h":101,"l":99.5,"c":100.3,"v":%s,"n":1,"vw":100}'


def test_a_plan_without_recent_data_of_the_whole_market_is_explained(answering: Callable[[int, str], str]) -> None:
    url = answering(403, '{"message":"subscription does not permit querying recent SIP data"}')
    with pytest.raises(BadInput, match=r"data plan does not include recent data of the whole market.*Use the feed iex"):
        missing_bars(KEYS, url, GAP, at("14:35"), feed="sip")


def test_bars_that_are_null_are_none_and_a_bad_row_does_not_spoil_the_others(
    answering: Callable[[int, str], str],
) -> None:
    nothing = answering(200, '{"bars":null,"next_page_token":null}')
    assert missing_bars(KEYS, nothing, GAP, at("14:35")) == []
    rows = f"{ROW % 12},{ROW % -1}".replace('14:31:00Z","o":100.1', '14:32:00Z","o":100.1', 1)
    some = answering(200, f'{{"bars":{{"SPY":[{rows}]}},"next_page_token":null}}')
    good, bad = missing_bars(KEYS, some, GAP, at("14:35"))
    assert isinstance(good, Bar)
    assert (good.start_at, good.close, good.provider) == (at("14:32"), D("100.3"), "alpaca-rest")
    assert isinstance(bad, RejectedRow)
    assert (bad.line, bad.symbol, bad.reason) == (2, "SPY", "volume '-1' is negative")


def test_minutes_that_have_not_closed_are_left_out(answering: Callable[[int, str], str]) -> None:
    url = answering(200, f'{{"bars":{{"SPY":[{ROW % 12}]}}}}')
    assert missing_bars(KEYS, url, {"SPY": at("14:29")}, at("14:31") + 59 * SECOND) == []


def test_a_server_that_is_gone_is_one_sentence() -> None:
    with pytest.raises(BadInput, match=r"cannot be read: ConnectionError.*Try again later"):
        missing_bars(KEYS, "http://127.0.0.1:9", GAP, at("14:40"), attempts=2)


def test_a_gap_is_booked_bar_by_bar_and_then_told_for_each_symbol(make: Callable[..., Served]) -> None:
    """Also when the stream, in the meantime, has brought one of them."""
    tape = Tape()
    engine = Engine(fold(world()), tape)
    found = make().read(at("14:29"), at("14:33"))
    early = found[1]
    assert isinstance(early, Bar)
    engine.handle(ReportBar(at("14:31"), early))
    bad = RejectedRow(9, '{"S":"SYNB"}', "close is empty", "SYNB")
    last = {symbol: engine.state.last_bars.get((symbol, "1m")) for symbol in ("SYNA", "SYNB")}
    for command in gap_commands([*found, bad], at("14:34"), last):
        engine.handle(command)
    booked = [event for event in tape.events if isinstance(event, BarClosed)]
    assert len(booked) == 6
    assert [type(event) for event in tape.events[6:]] == [BarRejected, FeedGapFilled, FeedGapFilled]
    first, second = tape.events[-2:]
    assert first == FeedGapFilled(at("14:34"), "bars", "SYNA", at("14:30"), at("14:32"), 3)
    assert second == FeedGapFilled(at("14:34"), "bars", "SYNB", at("14:31"), at("14:32"), 2)
