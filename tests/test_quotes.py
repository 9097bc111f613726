"""The last best bid and offer: what is kept, what is not, and which one a decision needs."""

from datetime import datetime, timedelta

import pytest
from msgspec import structs

from commands.market import ReportQuote
from mqd_ledger.events import BarClosed, QuoteTaken
from mqd_ledger.feeds.quotes import QuoteBook
from mqd_ledger.state import Mark
from tests.dsl import OPENING, D, at, bar, given, world

SECOND = timedelta(seconds=1)


def quote(bid: str, ask: str, when: datetime = OPENING, symbol: str = "SPY") -> ReportQuote:
    return ReportQuote(when, when, symbol, D(bid), 1, D(ask), 2, "alpaca")


def test_a_stamp_of_the_future_does_not_stand_in_the_way_of_those_that_follow() -> None:
    book = QuoteBook()
    odd = quote("99.99", "100.01", OPENING + timedelta(hours=9))
    book.take(structs.replace(odd, at=OPENING))
    book.take(quote("69.99", "70.01", OPENING + SECOND))
    assert book.mid("SPY") == D("70")


def test_a_book_knows_spread_middle_and_age_of_the_last_quote() -> None:
    book = QuoteBook()
    assert (book.best("SPY"), book.spread("SPY"), book.mid("SPY"), book.age("SPY", OPENING)) == (None, None, None, None)
    book.take(quote("99.99", "100.01"))
    book.take(quote("50", "50.01", symbol="QQQ"))
    book.take(quote("100.01", "100.02", OPENING + SECOND))
    assert book.spread("SPY") == D("0.01")
    assert book.mid("SPY") == D("100.015")
    assert book.age("SPY", OPENING + 3 * SECOND) == 2 * SECOND
    assert book.mid("QQQ") == D("50.005")


@pytest.mark.parametrize(
    ("bid", "ask", "when"),
    (
        ("0", "100", 1),  # nobody bids
        ("100", "0", 1),  # nobody offers
        ("100.02", "100.01", 1),  # crossed
        ("1", "199999", 1),  # a place holder of a market that is closed
        ("90", "110", 1),  # too far apart to say anything
        ("100", "100.02", -1),  # older than the one that is known
    ),
)
def test_what_is_no_price_is_not_kept(bid: str, ask: str, when: int) -> None:
    book = QuoteBook()
    known = quote("99.99", "100.01")
    book.take(known)
    book.take(quote(bid, ask, OPENING + when * SECOND))
    assert book.best("SPY") is known


def test_a_locked_quote_is_a_price() -> None:
    book = QuoteBook()
    book.take(quote("100", "100"))
    assert (book.spread("SPY"), book.mid("SPY")) == (D("0"), D("100"))


NOW = at("14:40")


@pytest.mark.parametrize(
    ("mark_age", "quote_age", "is_needed"),
    (
        (91, 1, True),
        (90, 1, False),  # the mark is good enough
        (0, 0, False),
        (91, 90, True),
        (200, 91, False),  # the quote is no better
        (None, 5, True),  # there has never been a price
        (None, 91, False),
    ),
)
def test_a_quote_is_needed_where_the_mark_is_stale_and_it_is_not(
    mark_age: int | None, quote_age: int, is_needed: bool
) -> None:
    book = QuoteBook()
    book.take(quote("99.99", "100.01", NOW - quote_age * SECOND))
    mark = None if mark_age is None else Mark(D("98"), NOW - mark_age * SECOND)
    needed = book.needed("SPY", mark, NOW, 90)
    assert (needed is not None) is is_needed
    assert book.needed("SPY", mark, NOW, None) is None, "without a limit no price is too old"
    assert book.needed("QQQ", mark, NOW, 90) is None
    if needed is not None:
        assert (needed.at, needed.occurred_at) == (NOW, NOW - quote_age * SECOND)


def test_a_quote_of_an_exchange_whose_clock_is_ahead_is_of_now() -> None:
    book = QuoteBook()
    book.take(quote("99.99", "100.01", NOW + 2 * SECOND))
    needed = book.needed("SPY", None, NOW, 90)
    assert needed is not None
    assert needed.occurred_at == NOW


def test_the_quote_that_is_needed_becomes_the_mark() -> None:
    one = bar("SPY 14:30 100")
    book = QuoteBook()
    book.take(quote("100.99", "101.01", NOW - SECOND))
    start = given(*world(), BarClosed(one.end_at, one))
    needed = book.needed("SPY", start.state.marks["SPY"], NOW, 90)
    assert needed is not None
    state = start.when(needed).then(QuoteTaken)
    assert state.marks["SPY"] == Mark(D("101"), NOW - SECOND)
