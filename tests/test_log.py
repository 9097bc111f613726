"""The log that the engine writes: envelope, versions, chain, batches, conflicts, reading back."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import pytest
from eventsourcing.persistence import StoredEvent

from mqd_ledger.chain import GENESIS, Head, check, header
from mqd_ledger.envelope import encode
from mqd_ledger.errors import BadInput, BrokenPromise, ChainBroken, Conflict, LedgerUnreadable, UnknownEventType
from mqd_ledger.events import BarClosed, CashMoved, Event, OrderCanceled, OrderExpired, RunEnded
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.store import open_ledger
from mqd_ledger.values import Bar, microseconds

START = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def bar(number: int, symbol: str = "SPY") -> BarClosed:
    price, start_at = Decimal(400) + number, START + number * MINUTE
    return BarClosed(start_at + MINUTE, Bar(symbol, "1m", start_at, price, price, price, price, 7, "file"))


def canceled(order: str, at: datetime = START) -> OrderCanceled:
    return OrderCanceled(at, order, "asked for")


@pytest.fixture(params=("memory", "file"))
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    path = None if request.param == "memory" else tmp_path / "a.ledger"
    with EventLog.create(path, durability="normal") as log:
        yield log


def filled(path: Path, count: int = 20) -> Path:
    with EventLog.create(path, durability="normal") as log:
        for number in range(count):
            log.record([bar(number)], bar(number).occurred_at)
    return path


# --- writing ---------------------------------------------------------------------------------------------------------------


def test_the_first_event_of_a_command_is_its_own_input_and_the_others_answer_it(log: EventLog) -> None:
    assert log.record([bar(0), canceled("a"), canceled("b")], START) == 1
    assert log.record([canceled("c"), canceled("c")], START, causation=2, correlation=1) == 4
    log.commit()
    assert [(row[0], row[1], row[2], row[6], row[7]) for row in log.rows()] == [
        (1, "bars-SPY-1m", 1, 1, 0),
        (2, "order-a", 1, 1, 1),
        (3, "order-b", 1, 1, 1),
        (4, "order-c", 1, 1, 2),
        (5, "order-c", 2, 1, 4),
    ]


def test_every_row_carries_the_hash_that_the_chain_asks_for(log: EventLog) -> None:
    log.record([bar(0)], START + MINUTE)
    log.commit()
    envelope = (1, "bars-SPY-1m", 1, "BarClosed.v1", microseconds(START + MINUTE), microseconds(START + MINUTE), 1, 0)
    payload = encode(bar(0))
    assert list(log.rows()) == [(*envelope, payload, sha256(GENESIS + header(envelope) + payload).digest())]


def test_the_chain_that_is_written_is_the_chain_that_is_checked(log: EventLog) -> None:
    for number in range(1300):
        log.record([bar(number), canceled(f"o{number % 7}", START)], START + number * MINUTE)
        if number % 500 == 0:
            log.commit()
    log.commit()
    assert check(log.rows()) == log.head
    assert log.head.position == 2600


def test_events_come_back_equal_and_in_order(log: EventLog) -> None:
    events: list[Event] = [bar(0), canceled("a"), CashMoved(START, "m-1", "DEPOSIT", Decimal("100.00"), "opening")]
    recorded_at = START + timedelta(microseconds=1)
    log.record(events, recorded_at)
    log.commit()
    assert [recorded.event for recorded in log.replay()] == events
    assert list(log.events()) == events
    assert {(recorded.recorded_at, recorded.correlation) for recorded in log.replay()} == {(recorded_at, 1)}
    assert [recorded.causation for recorded in log.replay()] == [0, 1, 1]


def test_recorded_time_never_goes_backwards(log: EventLog) -> None:
    log.record([canceled("a")], START + MINUTE)
    log.record([canceled("b")], START)
    log.commit()
    assert [recorded.recorded_at for recorded in log.replay()] == [START + MINUTE, START + MINUTE]
    assert [recorded.event.occurred_at for recorded in log.replay()] == [START, START]
    assert check(log.rows()) == log.head


def test_a_time_in_any_zone_is_the_same_instant(log: EventLog) -> None:
    log.record([canceled("a")], START.astimezone(timezone(timedelta(hours=-5))))
    log.commit()
    assert next(log.replay()).recorded_at == START


def test_replay_is_cut_by_position_type_and_time(log: EventLog) -> None:
    for number in range(10):
        log.record([bar(number), canceled("a", START + number * MINUTE)], START + number * MINUTE)
    log.commit()
    assert [recorded.position for recorded in log.replay(after=3, upto=6)] == [4, 5, 6]
    assert [recorded.position for recorded in log.replay(types=("OrderCanceled.v1",))] == list(range(2, 21, 2))
    assert [recorded.position for recorded in log.replay(after=2, recorded_until=START + 2 * MINUTE)] == [3, 4, 5, 6]
    assert len(list(log.events(recorded_until=START + 2 * MINUTE))) == 6
    assert log.position_at(START - MINUTE) == 0
    assert [row[2] for row in log.stream("order-a", after_version=8)] == [9, 10]


def test_what_is_pending_is_counted_and_not_yet_read(log: EventLog) -> None:
    log.record([bar(0), canceled("a")], START)
    assert (log.pending, log.head.position, list(log.replay())) == (2, 2, [])
    log.commit()
    assert (log.pending, log.head.position, len(list(log.replay()))) == (0, 2, 2)
    log.commit()
    assert log.head == check(log.rows())


def test_rollback_forgets_what_is_pending_and_nothing_else(log: EventLog) -> None:
    log.record([bar(0), canceled("a")], START)
    log.commit()
    head = log.head
    log.record([bar(1), canceled("a"), canceled("b"), RunEnded(START, 1, "over")], START + 9 * MINUTE)
    log.rollback()
    assert (log.head, log.pending) == (head, 0)
    log.record([canceled("b"), canceled("a")], START)
    log.commit()
    assert [(row[1], row[2]) for row in log.rows(after=2)] == [("order-b", 1), ("order-a", 2)]
    assert check(log.rows()) == log.head


def test_a_batch_of_which_one_event_cannot_be_stored_leaves_nothing(log: EventLog) -> None:
    log.record([bar(0)], START)
    log.commit()
    head = log.head
    log.record([canceled("a"), bar(1), OrderExpired(START.replace(tzinfo=None), "a", "day")], START)
    with pytest.raises(TypeError):
        log.commit()
    assert (log.head, log.pending) == (head, 0)
    log.record([canceled("a"), bar(1)], START)
    log.commit()
    assert [(row[1], row[2]) for row in log.rows()] == [("bars-SPY-1m", 1), ("order-a", 1), ("bars-SPY-1m", 2)]


def test_leaving_by_an_error_drops_what_is_pending(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger", 3)

    def interrupted() -> None:
        with EventLog.open(path) as log:
            log.record([bar(3)], START)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with LogReader.open(path) as reader:
        assert reader.head.position == 3


# --- going on --------------------------------------------------------------------------------------------------------------


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    path, whole = tmp_path / "parts.ledger", tmp_path / "whole.ledger"
    EventLog.create(path).close()
    with EventLog.create(whole, durability="normal") as one_go:
        for number in range(6):
            with EventLog.open(path, durability="normal") as log:
                for each in (one_go, log):
                    each.record([bar(number), canceled(f"o{number % 2}")], START + number * MINUTE)
        one_go.commit()
        with LogReader.open(path) as reader:
            assert list(reader.rows()) == list(one_go.rows())


def test_forgotten_streams_are_looked_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqd_ledger.sealer.STREAMS_KEPT", 3)
    with EventLog.create(tmp_path / "a.ledger", durability="normal") as log:
        for number in range(20):
            log.record([canceled(f"o{number % 6}")], START)
            log.commit()
        assert [row[2] for row in log.stream("order-o1")] == [1, 2, 3, 4]
        assert check(log.rows()) == log.head


def test_a_new_log_never_takes_the_place_of_anything(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with pytest.raises(BadInput, match="already"):
        EventLog.create(path)
    with LogReader.open(path) as reader:
        assert reader.head.position == 20


def test_a_missing_ledger_is_said_so_and_nothing_is_left_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnreadable, match="There is no ledger"):
        EventLog.open(tmp_path / "missing.ledger")
    assert list(tmp_path.iterdir()) == []


def test_a_new_log_makes_its_directory_unless_a_file_is_in_the_way(tmp_path: Path) -> None:
    path = filled(tmp_path / "new" / "directory" / "a.ledger", 1)
    with pytest.raises(LedgerUnreadable, match="allowed to write there"):
        EventLog.create(path / "b.ledger")


def test_a_log_to_which_somebody_else_has_written_refuses_the_whole_batch(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger", 3)
    with EventLog.open(path, durability="normal") as log:
        log.record([bar(3), bar(4)], START + 9 * MINUTE)
        with closing(open_ledger(path, "write")) as other:
            other.insert_events([StoredEvent("elsewhere", 1, "BarClosed.v1", b"{}")])
        with pytest.raises(Conflict, match=r"Events 4 to 5 .* ends with event 4"):
            log.commit()
        assert log.pending == 2
        log.rollback()
    with LogReader.open(path) as reader:
        assert reader.head.position == 4
        assert check(reader.rows()) == reader.head


def test_what_is_read_while_it_is_written_is_whole_turns(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    with EventLog.create(path, durability="normal") as log, LogReader.open(path) as reader:
        for number in range(5):
            log.record([bar(number), canceled("a")], START + number * MINUTE)
            assert reader.head.position == 2 * number
            log.commit()
            assert reader.head == log.head
            assert [recorded.position for recorded in reader.replay(after=2 * number)] == [
                2 * number + 1,
                2 * number + 2,
            ]


def test_a_reader_never_pins_the_writers_wal(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger", 3000)
    with EventLog.open(path, durability="normal") as log, LogReader.open(path) as reader:
        replay = reader.replay()
        assert next(replay).position == 1  # in the middle of a chunk
        log.record([bar(3000)], START + 9000 * MINUTE)
        log.commit()
        with closing(sqlite3.connect(path)) as database:
            busy, pages, moved = database.execute("pragma wal_checkpoint(truncate)").fetchone()
        assert (busy, pages, moved) == (0, 0, 0)
        assert sum(1 for _ in replay) == 3000


# --- tampering -------------------------------------------------------------------------------------------------------------


TAMPERINGS = {
    "altered payload": ("update events set payload = replace(payload, '409', '408') where position = 10", 10),
    "altered time": ("update events set occurred_at = occurred_at + 1 where position = 7", 7),
    "altered cause": ("update events set causation = 1 where position = 7", 7),
    "altered hash": ("update events set hash = zeroblob(32) where position = 12", 12),
    "hash of another type": ("update events set hash = 'abc' where position = 12", 12),
    "payload of another type": ("update events set payload = cast(x'ff00' as text) where position = 12", 12),
    "renamed stream": ("update streams set name = 'bars-QQQ-1m'", 1),
    "renamed type": ("update types set name = 'BarRejected.v1'", 1),
    "deleted in the middle": ("delete from events where position = 5", 5),
    "inserted far behind": (
        (
            "insert into events select 9000000000000000000, stream, 99, type, occurred_at, recorded_at, correlation, "
            "causation, payload, hash from events where position = 20"
        ),
        21,
    ),
    "lost name": ("delete from streams", 1),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_where_it_was_done(tmp_path: Path, name: str) -> None:
    path = filled(tmp_path / "a.ledger")
    sql, position = TAMPERINGS[name]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(sql)
    with LogReader.open(path) as reader, pytest.raises(ChainBroken, match=rf"Event {position}\b"):
        check(reader.rows())


def test_swapped_events_are_found(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with closing(sqlite3.connect(path)) as database, database:
        for old, new in ((4, 99), (5, 4), (99, 5)):
            database.execute("update events set position = ? where position = ?", (new, old))
    with LogReader.open(path) as reader, pytest.raises(ChainBroken, match=r"Event 4\b"):
        check(reader.rows())


def test_an_inserted_event_is_found_even_with_a_hash_of_its_own(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with closing(sqlite3.connect(path)) as database, database:
        rows = database.execute("select * from events where position >= 8 order by position desc").fetchall()
        for row in rows:  # make room at 8
            database.execute("update events set position = ? where position = ?", (row[0] + 1, row[0]))
        forged = (8, 1, 800, *rows[-1][3:9], sha256(b"forged").digest())
        database.execute("insert into events values (?,?,?,?,?,?,?,?,?,?)", forged)
    with LogReader.open(path) as reader, pytest.raises(ChainBroken, match=r"Event 8\b"):
        check(reader.rows())


def test_a_log_cut_short_no_longer_has_the_head_it_had(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with LogReader.open(path) as reader:
        head = reader.head
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("delete from events where position > 15")
    with LogReader.open(path) as reader:
        assert check(reader.rows()) != head


def test_a_flipped_bit_in_the_file_is_found(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    content = bytearray(path.read_bytes())
    content[content.index(b'"open":"411"') + 10] ^= 1
    path.write_bytes(content)
    with LogReader.open(path) as reader, pytest.raises(ChainBroken, match=r"Event 12\b"):
        check(reader.rows())


def test_an_unreadable_payload_stops_a_replay_and_names_the_event(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("update events set payload = '{\"bar\":1}' where position = 10")
    with LogReader.open(path) as reader:
        for reading in (reader.replay(), reader.events()):
            with pytest.raises(BrokenPromise, match="event 10 "):
                list(reading)


def test_a_type_that_nobody_knows_stops_a_replay(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("update types set name = 'OrderTeleported.v1'")
    with LogReader.open(path) as reader, pytest.raises(UnknownEventType, match="OrderTeleported"):
        list(reader.replay())


# --- the same bytes --------------------------------------------------------------------------------------------------------


def test_the_same_events_give_the_same_hash_under_any_hash_seed() -> None:
    code = (
        "from tests.test_log import *\n"
        "log = EventLog.create()\n"
        "for n in range(50): log.record([bar(n, symbol) for symbol in ('SPY', 'QQQ')] + [canceled(f'o{n}')], START + n * MINUTE)\n"
        "print(log.head.hash.hex())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent.parent,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(hashes) == 1
    assert Head(150, bytes.fromhex(hashes.pop())).hash != GENESIS
