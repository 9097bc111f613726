"""The same bars and settings give the same log: on paper as in a backtest, in any environment, over a feed with holes in it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mqd_ledger.chain import Row
from tests.desk import RUN, TRADER, bar_rows, furnish, log_rows, run_program, write_bars

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "hash seed 0, far east": {"PYTHONHASHSEED": "0", "TZ": "Pacific/Kiritimati"},
    "hash seed 1, no UTF-8": {"PYTHONHASHSEED": "1", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "random hash seed, decimal commas": {"PYTHONHASHSEED": "random", "LC_ALL": "de_DE.UTF-8", "TZ": "America/New_York"},
}
# At import, in every call, and in what it is given: whatever a strategy does to these, the books stay as they are.
CARELESS = TRADER.replace("\nclass Trader", "\nimport decimal\ndecimal.getcontext().prec = 3\n\nclass Trader").replace(
    '        self.count("fill")',
    '        decimal.getcontext().prec = 2\n        decimal.getcontext().rounding = "ROUND_UP"\n'
    "        order.quantity = Decimal(1)\n"
    "        order.filled_quantity = order.filled_notional = Decimal(999)\n        order.symbol = order.strategy = 'NONE'\n"
    '        self.kept = getattr(self, "kept", []) + [order, fill, self.context]\n        self.count("fill")',
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one run went through, into paper.ledger."""
    folder = furnish(tmp_path_factory.mktemp("desk"), minutes=60)
    ended = run_program(folder, *RUN)
    assert ended.code == 0, ended.err
    return folder


def without_payload_of_run(rows: list[Row]) -> list[Any]:
    """All columns of all rows but the hash, and RunStarted's payload apart."""
    return [(*row[:8], b"" if row[3] == "RunStarted.v1" else row[8]) for row in rows]


def test_a_backtest_decides_and_records_what_a_paper_run_does(folder: Path) -> None:
    backtest = ("backtest", "--bars", "bars.csv", "--config", "mine.yaml", "--out", "test.ledger", "--json")
    ended = run_program(folder, *backtest)
    assert ended.code == 0, ended.err
    paper, tested = log_rows(folder / "paper.ledger"), log_rows(folder / "test.ledger")
    assert {row[3] for row in paper} >= {"OrderFilled.v1", "OrderDenied.v1", "LotClosed.v1", "BarRejected.v1"}
    assert without_payload_of_run(paper) == without_payload_of_run(tested)
    (on_paper,), (in_test,) = ([json.loads(r[8]) for r in rows if r[3] == "RunStarted.v1"] for rows in (paper, tested))
    assert (on_paper.pop("mode"), in_test.pop("mode")) == ("paper", "backtest")
    assert on_paper == in_test


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_environment_changes_a_byte_of_the_log(name: str, folder: Path) -> None:
    ledger = f"{len(name)}.ledger"
    ended = run_program(folder, *RUN, "--ledger", ledger, env=ENVIRONMENTS[name])
    assert ended.code == 0, ended.err
    assert log_rows(folder / ledger) == log_rows(folder / "paper.ledger")


def test_no_working_directory_changes_what_is_decided(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "it's a place, 100% ünlikely #1?"
    furnish(elsewhere, minutes=60)
    ended = run_program(elsewhere, *RUN, "--ledger", "ä ledger #1%20.db")
    assert ended.code == 0, ended.err
    assert log_rows(elsewhere / "ä ledger #1%20.db") == log_rows(folder / "paper.ledger")


def test_a_careless_strategy_changes_neither_arithmetic_nor_books(folder: Path, tmp_path: Path) -> None:
    furnish(tmp_path, minutes=60)
    (tmp_path / "trader.py").write_text(CARELESS, encoding="utf-8")
    ended = run_program(tmp_path, *RUN)
    assert ended.code == 0, ended.err
    ours, whole = log_rows(tmp_path / "paper.ledger"), log_rows(folder / "paper.ledger")
    assert not [row for row in ours if row[3] == "StrategyStopped.v1"]
    booked = ("OrderFilled.v1", "LotOpened.v1", "LotClosed.v1", "OrderApproved.v1", "OrderDenied.v1")
    assert {row[3] for row in whole} >= set(booked)
    money = [row[8] for row in whole if row[3] in booked]
    assert [row[8] for row in ours if row[3] in booked] == money


# --- feeds ------------------------------------------------------------------------------------------------------------


def played(folder: Path, *arguments: str) -> dict[str, Any]:
    ended = run_program(folder, *RUN, *arguments)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def bars_in(rows: list[Row]) -> list[tuple[str, str]]:
    return [
        (bar["symbol"], bar["start_at"]) for bar in (json.loads(r[8])["bar"] for r in rows if r[3] == "BarClosed.v1")
    ]


def test_a_file_that_grew_is_played_on_from_its_new_bars_and_none_twice(tmp_path: Path) -> None:
    furnish(tmp_path)
    rows = bar_rows(50)
    write_bars(tmp_path / "bars.csv", rows[:90])
    first = played(tmp_path)
    write_bars(tmp_path / "bars.csv", rows)
    second = played(tmp_path)
    assert (first["bars"], second["bars"]) == (90, 60)
    assert second["news"] == []
    log = log_rows(tmp_path / "paper.ledger")
    assert bars_in(log) == [(row.split(",")[0], row.split(",")[1]) for row in rows]
    assert [row[3] for row in log].count("RunStarted.v1") == 2
    again = played(tmp_path)
    assert (again["bars"], again["log_hash"]) == (0, second["log_hash"])
    assert "Nothing new" in again["news"][0]


@pytest.mark.parametrize("changed", ("bars", "code", "parameters", "settings"))
def test_what_was_changed_while_a_run_was_open_ends_it_and_is_said(changed: str, tmp_path: Path) -> None:
    furnish(tmp_path)
    assert run_program(tmp_path, *RUN, env={"KILL_AT": "bar 60"}).code not in {0, 1, 2}
    mine, code = tmp_path / "mine.yaml", tmp_path / "trader.py"
    if changed == "bars":
        write_bars(tmp_path / "bars.csv", bar_rows(50))
    elif changed == "code":
        code.write_text(TRADER + "# better\n", encoding="utf-8")
    elif changed == "parameters":
        mine.write_text(mine.read_text(encoding="utf-8").replace('every: "7"', 'every: "6"'), encoding="utf-8")
    else:
        mine.write_text(mine.read_text(encoding="utf-8").replace('bps: "2"', 'bps: "3"'), encoding="utf-8")
    found = played(tmp_path)
    (news,) = found["news"]
    what = {"bars": "the bars", "code": "their code", "parameters": "parameters", "settings": "the settings"}[changed]
    assert news.startswith("The open run is ended and a new one started")
    assert what in news
    kinds = [row[3] for row in log_rows(tmp_path / "paper.ledger")]
    assert (kinds.count("RunStarted.v1"), kinds.count("RunEnded.v1")) == (2, 2)
    bars = bars_in(log_rows(tmp_path / "paper.ledger"))
    assert len(set(bars)) == len(bars)


def test_a_position_held_over_from_an_earlier_run_is_still_watched_by_its_strategy(tmp_path: Path) -> None:
    """The rule that bought has to sell at its stop also where the bars came in two files."""
    calm = ["timestamp,open,high,low,close,volume"]
    at = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)
    prices = ["100.00"] * 6 + ["96.00"] * 2 + ["96.00"] * 4 + ["80.00"] * 3
    rows = [
        f"{at + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ},{price},{price},{price},{price},1000"
        for minute, price in enumerate(prices)
    ]
    bars = tmp_path / "SPY.csv"
    sizes = []
    for end in (9, len(rows)):
        bars.write_text("\n".join([*calm, *rows[:end], ""]), encoding="utf-8")
        ended = run_program(tmp_path, "run", "--paper", "--bars", "SPY.csv", "--param", "lookback=5", "--json")
        assert ended.code == 0, ended.err
        log = log_rows(tmp_path / "paper.ledger")
        sizes.append([json.loads(row[8])["side"] for row in log if row[3] == "OrderFilled.v1"])
    assert sizes[0] == ["BUY"]
    assert sizes[1][:2] == ["BUY", "SELL"]


HOLES = {
    "a half day": datetime(2025, 11, 28, 17, 50, tzinfo=UTC),
    "the night clocks go forward": datetime(2026, 3, 6, 20, 50, tzinfo=UTC),
    "the end of a year": datetime(2025, 12, 31, 20, 50, tzinfo=UTC),
}


@pytest.mark.parametrize("hole", HOLES)
def test_bars_around_a_hole_in_time_are_all_played_and_proved(hole: str, tmp_path: Path) -> None:
    """Three symbols, of which one stops trading; after the close; then days or a year later."""
    furnish(tmp_path)
    before = bar_rows(20, start_at=HOLES[hole])
    after = bar_rows(20, ("AAA", "CCC"), start_at=HOLES[hole] + timedelta(days=3, hours=-4), seed=6)
    later = bar_rows(20, ("AAA", "CCC"), start_at=HOLES[hole] + timedelta(days=371, hours=-4), seed=7)
    write_bars(tmp_path / "bars.csv", [*before, *after, *later])
    assert played(tmp_path)["bars"] == 140
    ended = run_program(tmp_path, "verify", "--rerun", "--json")
    assert ended.code == 0, ended.out
    assert json.loads(ended.out)["passed"] is True


def test_a_ledger_made_by_init_trades_as_one_that_a_run_made_itself(tmp_path: Path) -> None:
    """It has its deposit, and lives in the time of its bars: their days count, not the day it was made on."""
    furnish(tmp_path)
    assert run_program(tmp_path, "init", "--id", "mine").code == 0
    assert run_program(tmp_path, "halt", "--reason", "not yet").code == 0
    assert run_program(tmp_path, "resume", "--reason", "now").code == 0
    made, itself = played(tmp_path), played(tmp_path, "--ledger", "itself.ledger")
    figures = ("bars", "orders", "fills", "denied", "cash", "equity", "realized_pnl")
    assert made["fills"] > 0
    assert [made[name] for name in figures] == [itself[name] for name in figures]
    ended = run_program(tmp_path, "replay", "--until", "2026-01-05T15:00:00Z", "--json")
    assert json.loads(ended.out)["limits"]["day_starts_at"] == "2026-01-05T00:00:00Z"
    assert run_program(tmp_path, "verify", "--rerun").code == 0


def test_older_bars_than_a_ledger_has_seen_are_refused_because_its_time_never_goes_back(tmp_path: Path) -> None:
    furnish(tmp_path)
    before = played(tmp_path)["log_hash"]
    write_bars(tmp_path / "old.csv", bar_rows(20, start_at=datetime(2024, 1, 8, 15, 0, tzinfo=UTC), symbols=("OLD",)))
    ended = run_program(tmp_path, "run", "--paper", "--bars", "old.csv", "--config", "mine.yaml")
    assert ended.code == 2
    assert "old.csv goes on at 2024-01-08T15:00:00Z" in ended.err
    assert "its time never goes back" in ended.err
    assert log_rows(tmp_path / "paper.ledger")[-1][9].hex() == before
