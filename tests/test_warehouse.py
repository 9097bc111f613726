"""SQL over the ledger: exact, always fresh, harmless whoever wrote it, and never in the writer's way."""

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import duckdb
import msgspec
import pytest

from mqd_ledger import events as e
from mqd_ledger.envelope import decode
from mqd_ledger.errors import BadInput, LedgerUnreadable
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.policy import Policy
from mqd_ledger.store import backup
from mqd_ledger.upcasts import UPCASTS
from mqd_ledger.values import Bar, Direction, LotCause, OrderType, Side, TimeInForce
from mqd_ledger.warehouse import Result, run_query, views_help, write_result
from mqd_ledger.warehouse.segments import SIZES, folder_of
from mqd_ledger.warehouse.views import MONEY, VIEWS, Field, names, statements

D = Decimal
START = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ROOT = Path(__file__).resolve().parent.parent
LARGE = 2 * SIZES[1] + 345  # events: two small segments, and a tail


def bar(number: int, symbol: str = "SPY") -> e.BarClosed:
    at = START + number * MINUTE
    prices = D("100.1"), D("100.9"), D("99.7"), D("100.3")
    return e.BarClosed(at + MINUTE, Bar(symbol, "1m", at, *prices, 100 + number, "synthetic"))


def fill(number: int, price: str = "10.1", quantity: str = "0.3") -> e.OrderFilled:
    at = START + number * MINUTE
    return e.OrderFilled(
        at, f"o-{number}", f"x-{number}", "SPY", Side.BUY, D(quantity), D(price), D("0.01"), D(quantity), D(0)
    )


def one_of_each() -> list[e.Event]:
    checks = (
        e.Check("price_is_fresh", passed=True, allowed="90", inputs={"age": "3"}),
        e.Check("notional_is_within_limit", passed=False, allowed="1000", inputs={"notional": "1200.50"}),
    )
    requested = e.OrderRequested(
        START, "o-1", "vwap", "SPY", Side.BUY, OrderType.LIMIT, D("0.3"), None, D("10.1"), None, None, None,
        TimeInForce.DAY, extended_hours=False,
    )  # fmt: skip
    return [
        e.LedgerCreated(START, "led1"),
        e.RunStarted(START, 1, "paper", "0.1", e.Source("file", "a.csv", "ab" * 32), (), Policy()),
        e.CashMoved(START, "m-1", "DEPOSIT", D(1000), "first deposit"),
        e.FeeCharged(START, "f-1", "SEC", D("0.02"), "quarterly"),
        e.BarRejected(START, None, 7, "a,b;c", "prices are not positive"),
        bar(0),
        e.SignalRaised(START, "vwap", "SPY", Direction.LONG, "below vwap", None, D("500.25"), None, None, "0.7"),
        requested,
        e.OrderApproved(START, "o-1", checks[:1]),
        fill(1),
        e.LotOpened(START, "x-1", "SPY", "vwap", "x-1", D("0.3"), D("10.1"), D("3.03"), START),
        e.LotClosed(
            START, "x-1", "SPY", "vwap", "x-2", D("0.3"), D("3.03"), D("10.3"), D("0.06"), START, LotCause.TRADE
        ),
        msgspec.structs.replace(requested, client_order_id="o-2"),
        e.OrderDenied(START, "o-2", ("Too large.", "Too late."), checks),
        e.TradingHalted(START, "pat", "lunch"),
        e.TradingResumed(START, "pat", "back"),
        e.RunEnded(START, 1, "the bars are over"),
    ]


def record(ledger: Path, events: list[e.Event], *, at: datetime = START) -> None:
    with EventLog.open(ledger) if ledger.exists() else EventLog.create(ledger, durability="normal") as log:
        log.record(events, at)
        log.commit()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A ledger with an event of most kinds."""
    record(tmp_path / "small.ledger", one_of_each())
    return tmp_path / "small.ledger"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.ledger"
    record(path, [fill(number) if number % 10 == 0 else bar(number) for number in range(LARGE)])
    return path


@pytest.fixture
def large(original: Path, tmp_path: Path) -> Path:
    backup(original, tmp_path / "large.ledger")
    return tmp_path / "large.ledger"


def value(ledger: Path, sql: str) -> Any:
    (row,) = run_query(ledger, sql).rows
    (only,) = row
    return only


def refused(ledger: Path, sql: str, *, seconds: float = 60) -> str:
    with pytest.raises(BadInput) as info:
        run_query(ledger, sql, seconds=seconds)
    return str(info.value)


# --- what comes out is what is in the log --------------------------------------------------------------------------------


def test_events_are_those_of_the_log_whether_sealed_or_new(large: Path) -> None:
    columns = "position, stream, version, type, epoch_us(occurred_at), epoch_us(recorded_at), correlation, causation, payload, hash"
    answer = run_query(large, f"select {columns} from events order by position").rows
    with LogReader.open(large) as log:
        stored = [(*row[:8], row[8].decode(), row[9].hex()) for row in log.rows()]
    assert len(stored) == LARGE
    assert answer == stored


def test_times_come_as_aware_utc(small: Path) -> None:
    assert value(small, "select occurred_at from events where position = 1") == START
    assert value(small, "select start_at from bars") == START
    assert value(small, "select timestamptz '2026-01-05 09:30:00-05'") == START


def test_every_column_of_a_view_is_a_field_of_its_events() -> None:
    for name, view in VIEWS.items():
        for field in (each for each in view.columns.values() if isinstance(each, Field)):
            assert any(_has(cls, path.split(".")) for cls in view.types for path in field.paths), (name, field)


def _has(kind: object, path: list[str]) -> bool:
    if not path:
        return True
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)} if isinstance(kind, type) else {}
    return path[0] in fields and _has(fields[path[0]], path[1:])


def test_a_view_takes_every_version_of_its_events() -> None:
    for (name, view), statement in zip(VIEWS.items(), statements(), strict=False):
        kinds = {cls.__name__ for cls in view.types}
        versions = {stored for stored in (*e.TYPES, *UPCASTS) if stored.partition(".")[0] in kinds}
        assert set(re.findall(r"'(\w+\.v\d+)'", statement)) == versions, name


def test_only_the_views_are_shown(small: Path) -> None:
    shown = {row[0] for row in run_query(small, "show tables").rows}
    assert shown == set(names())


def test_money_is_decimal_in_every_view() -> None:
    for view in VIEWS.values():
        for cls in view.types:
            for field in msgspec.structs.fields(cls):
                column = view.columns.get(field.name)
                if Decimal in (field.type, *getattr(field.type, "__args__", ())) and isinstance(column, Field):
                    assert column.type == MONEY, (cls, field.name)


def test_money_is_added_exactly(tmp_path: Path) -> None:
    ledger = tmp_path / "a.ledger"
    record(ledger, [fill(1, "0.1"), fill(2, "0.2"), fill(3, "12345678901234567890.123456789"), fill(4, "1E+3")])
    result = run_query(ledger, "select sum(last_price) as total from fills")
    assert result == Result(("total",), (MONEY.upper(),), [(D("12345678901234568890.423456789"),)])
    assert value(ledger, "select sum(last_quantity * last_price) from fills where last_price < 1") == D("0.09")


def test_every_column_of_every_view_says_something_of_the_stored_examples(tmp_path: Path) -> None:
    lines = (ROOT / "tests/golden/events.jsonl").read_bytes().splitlines()
    examples = [msgspec.json.decode(line) for line in lines]
    record(tmp_path / "a.ledger", [decode(one["type"], msgspec.json.encode(one["payload"])) for one in examples])
    silent = {"fills.cumulative_quantity", "fills.stated_at"}  # fields that came later
    for name in VIEWS:
        columns = list(VIEWS[name].columns)
        counted = ", ".join(f'count("{column}")' for column in columns)
        (counts,) = run_query(tmp_path / "a.ledger", f"select {counted} from {name}").rows
        nothing = {f"{name}.{column}" for column, count in zip(columns, counts, strict=True) if not count}
        assert nothing <= silent


def test_the_views_say_what_was_recorded(small: Path) -> None:
    assert run_query(small, "select entry, id, amount from cash order by position").rows == [
        ("CashMoved", "m-1", D(1000)),
        ("FeeCharged", "f-1", D("-0.02")),
    ]
    assert run_query(
        small, "select verdict, reasons, failed_checks, checks_count from risk_decisions order by 1"
    ).rows == [
        ("APPROVED", "", "", 1),
        ("DENIED", "Too large. Too late.", "notional_is_within_limit", 2),
    ]
    checks = run_query(small, "select client_order_id, name, passed, allowed, inputs->>'notional' from risk_checks")
    assert ("o-2", "price_is_fresh", True, "90", None) in checks.rows
    assert ("o-2", "notional_is_within_limit", False, "1000", "1200.50") in checks.rows
    assert run_query(small, "select symbol, notional, quantity, confidence from signals").rows == [
        ("SPY", D("500.25"), None, "0.7")
    ]
    assert run_query(small, "select symbol, line, raw from bars_rejected").rows == [(None, 7, "a,b;c")]
    assert run_query(small, "select entry, operator, reason from control order by position").rows == [
        ("TradingHalted", "pat", "lunch"),
        ("TradingResumed", "pat", "back"),
    ]
    lots = run_query(small, "select entry, quantity, cost_price, realized_pnl from lot_entries order by position")
    assert lots.rows == [("LotOpened", D("0.3"), D("10.1"), None), ("LotClosed", D("0.3"), None, D("0.06"))]
    assert value(small, "select count(*) from order_requests where not extended_hours and limit_price = 10.1") == 2
    assert value(small, "select policy->>'$.limits.daily_loss_max' from runs where entry = 'RunStarted'") == "500"


def test_every_view_can_be_asked_and_has_the_columns_that_help_names(small: Path) -> None:
    helped = views_help()
    assert {"events", "bars", "fills", "risk_checks", "orders", "positions", "pnl_daily", "equity", "alerts"} <= set(
        helped
    )
    for name, columns in helped.items():
        assert run_query(small, f"select * from {name}").columns == columns


def test_projections_are_loaded_typed_and_only_when_they_are_named(small: Path) -> None:
    run_query(small, "select 'orders' as orders, count(*) from events")
    cache = folder_of(small).parent / "projections.db"
    assert not cache.exists()
    result = run_query(small, 'select client_order_id, state, filled_quantity from "Orders" order by 1')
    assert cache.exists()
    assert result.rows == [("o-1", "FILLED", D("0.3")), ("o-2", "REJECTED", D(0))]
    assert result.types[2] == MONEY.upper()
    assert value(small, "select max(raised_at) from alerts") == START


def test_two_columns_of_one_name_are_told_apart(small: Path) -> None:
    assert run_query(small, "select 1 as a, 2 as a, 3 as a").columns == ("a", "a_1", "a_2")


# --- fresh, and out of the writer's way ----------------------------------------------------------------------------------


def test_what_was_just_committed_is_seen_and_what_was_not_is_not(small: Path) -> None:
    with EventLog.open(small) as log:
        before = value(small, "select count(*) from fills")
        log.record([fill(9)], START)
        assert value(small, "select count(*) from fills") == before
        log.commit()
        assert value(small, "select count(*) from fills") == 2
        assert value(small, "select max(position) from events") == log.head.position


def test_after_a_query_nothing_holds_the_writers_wal(large: Path) -> None:
    with EventLog.open(large) as log:
        log.record([fill(1)], START + timedelta(days=100))
        log.commit()
        run_query(large, "select count(*) from bars")
        with closing(sqlite3.connect(large)) as connection:
            assert connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0


_WRITER = """
import sys
from pathlib import Path
from mqd_ledger.log import EventLog
from tests.test_warehouse import START, fill
with EventLog.open(Path(sys.argv[1]), durability="normal") as log:
    print("ready", flush=True)
    for batch in range(150):
        log.record([fill(number) for number in range(100)], START)
        log.commit()
"""


def test_answers_grow_while_another_process_writes_at_full_speed(small: Path) -> None:
    first = value(small, "select count(*) from fills")
    command = [sys.executable, "-c", _WRITER, str(small)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8") as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        seen = []
        while writer.poll() is None:
            seen.append(
                run_query(small, "select count(*), max(position), count(distinct position) from events").rows[0]
            )
        assert writer.returncode == 0
    assert seen == sorted(seen)
    assert all(count == last == distinct for count, last, distinct in seen)
    assert value(small, "select count(*) from fills") == first + 15_000


_ASKING_WRITER = """
import os, sys
from pathlib import Path
from mqd_ledger.log import EventLog
from mqd_ledger.warehouse import run_query
from tests.test_warehouse import START, fill
log = EventLog.open(Path(sys.argv[1]), durability="full")
log.record([fill(1)], START)
log.commit()
run_query(Path(sys.argv[1]), "select count(*) from events")
run_query(Path(sys.argv[1]), "select count(*) from orders")
print("asked", flush=True)
sys.stdin.readline()
for number in range(10):
    log.record([fill(number)], START)
    log.commit()
os._exit(0)
"""


def test_a_query_in_the_writers_own_process_does_not_cost_its_later_commits(large: Path) -> None:
    """A file of the ledger that is closed in that process would drop its locks; then the next to close removes the WAL."""
    command = [sys.executable, "-c", _ASKING_WRITER, str(large)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, encoding="utf-8") as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "asked\n"
        with closing(sqlite3.connect(large)) as other:
            other.execute("select count(*) from events").fetchone()
        writer.stdin.write("go\n")
        writer.stdin.flush()
        writer.wait()
    assert value(large, "select max(position) from events") == LARGE + 11


# --- segments are a cache that cannot lie --------------------------------------------------------------------------------


def segments(ledger: Path) -> list[str]:
    return sorted(path.name for path in folder_of(ledger).glob("*.parquet"))


def counted(ledger: Path) -> tuple[object, ...]:
    return run_query(
        ledger, "select count(*), sum(position), sum(last_price) from events left join fills using (position)"
    ).rows[0]


def test_segments_are_sealed_once_and_may_be_deleted(large: Path) -> None:
    answer = counted(large)
    assert segments(large) == ["1-10000.parquet", "10001-20000.parquet"]
    made = [path.stat().st_mtime_ns for path in sorted(folder_of(large).iterdir())]
    assert counted(large) == answer
    assert [path.stat().st_mtime_ns for path in sorted(folder_of(large).iterdir())] == made
    for path in folder_of(large).iterdir():
        path.unlink()
    assert counted(large) == answer
    assert len(segments(large)) == 2


def test_small_segments_give_way_to_a_large_one(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = counted(large)
    monkeypatch.setattr("mqd_ledger.warehouse.segments.SIZES", (20_000, 10_000))
    assert counted(large) == answer
    assert sorted(path.name for path in folder_of(large).iterdir()) == ["1-20000.json", "1-20000.parquet"]


def test_an_edited_segment_is_dropped_and_made_again(large: Path) -> None:
    answer = counted(large)
    path = folder_of(large) / "1-10000.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"create table t as from read_parquet('{path.as_posix()}')")
        connection.execute("update t set payload = replace(payload, '\"10.1\"', '\"99.1\"')")
        connection.execute(f"copy t to '{path.as_posix()}' (format parquet)")
    edited = path.read_bytes()
    assert counted(large) == answer
    assert path.read_bytes() != edited


@pytest.mark.parametrize("damage", (b"", b"PAR1 cut", b"{"))
@pytest.mark.parametrize("kind", ("parquet", "json"))
def test_a_damaged_segment_or_manifest_is_made_again(large: Path, damage: bytes, kind: str) -> None:
    answer = counted(large)
    (folder_of(large) / f"1-10000.{kind}").write_bytes(damage)
    assert counted(large) == answer
    assert (folder_of(large) / f"1-10000.{kind}").read_bytes() != damage


def test_segments_of_another_ledger_are_not_believed(large: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ledger"
    record(other, [fill(number, "7.77") for number in range(SIZES[1] + 5)])
    run_query(large, "select 1 from events limit 1")
    folder_of(large).parent.rename(folder_of(other).parent)
    assert value(other, "select count(*) from fills where last_price = 7.77") == SIZES[1] + 5
    assert value(other, "select count(*) from events") == SIZES[1] + 5


def test_where_no_cache_can_be_written_queries_are_answered_all_the_same(large: Path) -> None:
    folder_of(large).parent.write_text("in the way", encoding="utf-8")
    assert value(large, "select count(*) from events") == LARGE
    assert value(large, "select count(*) from orders") == 0


def test_readers_that_seal_at_the_same_moment_agree(large: Path) -> None:
    answers: list[tuple[object, ...]] = []
    threads = [Thread(target=lambda: answers.append(counted(large))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(answers) == 4
    assert answers[0][0] == LARGE
    assert len(list(folder_of(large).iterdir())) == 4


def test_a_path_with_any_signs_in_it_can_be_queried(original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "it's [a] #1 100% fine"
    folder.mkdir()
    backup(original, folder / "le dger.db")
    assert value(folder / "le dger.db", "select count(*) from bars") == LARGE - (LARGE + 9) // 10


def test_what_is_no_ledger_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a ledger", encoding="utf-8")
    for name in ("missing.ledger", "notes.txt"):
        with pytest.raises(LedgerUnreadable, match=name):
            run_query(tmp_path / name, "select 1")


# --- a query can only read -----------------------------------------------------------------------------------------------

_HARM = (
    "copy (select 1) to '{file}'",
    "with x as (copy (select 1) to '{file}') select * from x",
    "with x as (copy (select 1) to '{file}' (format csv, use_tmp_file false)) select * from x",
    "with x as (copy (select 1) to '{segment}' (format csv, use_tmp_file false)) select * from x",
    "select * from (with x as (copy (select 1) to '{segment}' (format csv, use_tmp_file false)) select * from x)",
    "select (with x as (copy (select 1) to '{segment}' (format csv, use_tmp_file false)) select count(*) from x)",
    "explain analyze with x as (copy (select 1) to '{segment}' (format csv, use_tmp_file false)) select * from x",
    "from query('with x as (copy (select 1) to ''{segment}'' (format csv, use_tmp_file false)) select * from x')",
    "from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "with x as (delete from raw.tail returning *) select * from x",
    "with x as (insert into tail select * from raw.tail returning *) select * from x",
    "with x as (update raw.tail set position = 0 returning *) select * from x",
    "delete from raw.tail",
    "drop view events",
    "create table x as select 1",
    "explain analyze delete from raw.tail",
    "attach '{file}' as x",
    "attach '{ledger}' as x (type sqlite)",
    "install sqlite",
    "load json",
    "set enable_external_access = true",
    "reset lock_configuration",
    "pragma database_list",
    "call pragma_version()",
    "export database '{file}'",
    "from read_csv('/etc/passwd')",
    "from '/etc/passwd'",
    "from '{secret}'",
    "with x as (select * from '{secret}') select count(*) from x",
    "from read_text('/etc/passwd')",
    "from read_blob('{segment}')",
    "from read_parquet('{segment}')",
    "from read_blob('{ledger}')",
    "from '{ledger}'",
    "from glob('/*')",
    "from duckdb_secrets()",
    "from duckdb_settings()",
    "from enable_logging(storage = 'file', storage_path = '{file}')",
    "from arrow_scan(1, 2, 3)",
    "select 1; select 2",
    "begin",
    "prepare x as select 1",
    "pivot events on type using count(*)",
    "",
    "-- nothing",
)


@pytest.fixture(scope="module")
def target(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target") / "target.ledger"
    backup(original, path)
    run_query(path, "select 1")
    path.with_name("secret.csv").write_text("word\nhidden\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("sql", _HARM)
def test_a_query_can_neither_write_nor_read_anything_but_the_views(target: Path, sql: str, tmp_path: Path) -> None:
    file, segment = tmp_path / "made", folder_of(target) / "1-10000.parquet"
    before = segment.read_bytes()
    places = {"file": file, "segment": segment, "ledger": target, "secret": target.with_name("secret.csv")}
    with pytest.raises(BadInput):
        run_query(target, sql.format(**{name: path.as_posix() for name, path in places.items()}))
    assert list(tmp_path.iterdir()) == []
    assert segment.read_bytes() == before


@pytest.mark.parametrize(
    "sql",
    (
        "select count(*) from events",
        "SELECT 1;",
        "with x as (select 1 as a) select * from x union all values (2)",
        "with recursive r as (select 1 as a union all select a + 1 from r where a < 3) from r",
        "from events limit 1",
        "table control",
        "describe events",
        "show tables",
        "summarize control",
        "explain select * from bars",
        "explain analyze select count(*) from bars",
        "select type, row_number() over (order by position) from events qualify position < 3",
        "select unnest([1, 2]) from range(3), generate_series(1, 2)",
        "select [x * 2 for x in [1, 2]], {'a': 1}, payload->>'$.bar.close' from events where hash like 'a%'",
        "select * from fills asof join bars on fills.symbol = bars.symbol and fills.occurred_at >= bars.occurred_at",
    ),
)
def test_whatever_only_reads_is_answered(small: Path, sql: str) -> None:
    assert run_query(small, sql).columns


def test_a_variable_of_the_program_cannot_be_asked_for(small: Path) -> None:
    secret = duckdb.sql("select 'hidden' as word")
    assert secret is not None
    assert secret.fetchall() == [("hidden",)]
    assert "secret" in refused(small, "from secret")


def test_a_query_that_takes_too_long_is_stopped(small: Path) -> None:
    sql = "select count(*) from range(10000000) a, range(10000000) b where a.range + b.range = 7"
    assert "stopped after 0.2 seconds" in refused(small, sql, seconds=0.2)


def test_a_query_cannot_take_all_memory(small: Path) -> None:
    assert "memory" in refused(small, "select string_agg(repeat('x', 1000000), '') from range(10000)")
    with pytest.raises(BadInput, match="more than 1,000 rows"):
        run_query(small, "from range(100000000000)", rows_max=1000)


# --- wrong SQL -----------------------------------------------------------------------------------------------------------


def test_an_unknown_table_is_answered_with_those_there_are(small: Path) -> None:
    message = refused(small, "select * from trades")
    assert "trades does not exist" in message
    assert "order_requests" in message
    assert "positions" in message
    assert "\n" not in message


def test_an_unknown_column_is_answered_with_those_there_are(small: Path) -> None:
    message = refused(small, "select price from fills")
    assert "price" in message
    assert "fills has position, occurred_at, client_order_id" in message
    assert "last_price" in message
    assert "bars has" not in message


@pytest.mark.parametrize("sql", ("selec 1", "select count( from events", "select 1 +"))
def test_sql_that_cannot_be_read_is_refused_in_one_line(small: Path, sql: str) -> None:
    assert "\n" not in refused(small, sql)


def test_sql_that_fails_while_it_runs_is_refused_in_one_line(small: Path) -> None:
    assert "Could not convert" in refused(small, "select payload::int from events")
    assert refused(small, "select " + "(" * 900 + "1" + ")" * 900 + " + $1")


# --- written for other programs ------------------------------------------------------------------------------------------

_ROW = (
    "select 1.50::decimal(38,9) as money, occurred_at as at, 'a\"b,\nü' as text, null as nothing, true as yes, "
    "[1, 2] as list, {'a': 1.5::decimal(4,2)} as object, date '2026-01-05' as day, 5::hugeint as big from events limit 1"
)


def test_json_has_exact_money_and_utc_times(small: Path) -> None:
    out = io.StringIO()
    write_result(run_query(small, _ROW), out, "json")
    assert json.loads(out.getvalue()) == [
        {
            "money": "1.500000000",
            "at": "2026-01-05T14:30:00Z",
            "text": 'a"b,\nü',
            "nothing": None,
            "yes": True,
            "list": [1, 2],
            "object": {"a": "1.50"},
            "day": "2026-01-05",
            "big": 5,
        }
    ]


def test_csv_can_be_read_back(small: Path, tmp_path: Path) -> None:
    write_result(run_query(small, _ROW), tmp_path / "out.csv", "csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert header == ["money", "at", "text", "nothing", "yes", "list", "object", "day", "big"]
    assert row[:5] == ["1.500000000", "2026-01-05T14:30:00Z", 'a"b,\nü', "", "true"]
    assert list(tmp_path.glob(".*")) == []


def test_parquet_keeps_the_types(small: Path, tmp_path: Path) -> None:
    result = run_query(small, _ROW)
    write_result(result, tmp_path / "out.parquet", "parquet")
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        path = (tmp_path / "out.parquet").as_posix()
        types = dict(connection.execute(f"select name, type from (describe from '{path}') t(name, type)").fetchall())
        row = connection.execute(f"select money, \"at\", text, nothing, yes, day from '{path}'").fetchone()
    assert types["money"] == MONEY.upper()
    assert types["at"] == "TIMESTAMP"
    assert types["yes"] == "BOOLEAN"
    assert row == (D("1.5"), START.replace(tzinfo=None), 'a"b,\nü', None, True, START.date())


def test_an_empty_answer_still_names_its_columns(small: Path, tmp_path: Path) -> None:
    result = run_query(small, "select symbol, close from bars where false")
    out = io.StringIO()
    write_result(result, out, "csv")
    assert out.getvalue() == "symbol,close\n"
    write_result(result, tmp_path / "none.parquet", "parquet")
    with duckdb.connect() as connection:
        assert connection.execute(f"select count(*) from '{(tmp_path / 'none.parquet').as_posix()}'").fetchone() == (0,)
    out = io.StringIO()
    write_result(result, out, "json")
    assert json.loads(out.getvalue()) == []


def test_a_file_that_cannot_be_made_is_an_error_of_ours(small: Path, tmp_path: Path) -> None:
    result = run_query(small, "select 1")
    with pytest.raises(BadInput, match="cannot be written"):
        write_result(result, tmp_path / "no" / "such" / "out.csv", "csv")
    with pytest.raises(BadInput, match="not text"):
        write_result(result, io.StringIO(), "parquet")
