"""What every store promises: the library's own recorder tests, and ours, over memory and SQLite alike."""

import importlib.util
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, StoredEvent

from mqd_ledger.chain import GENESIS, Head, Row, check, header
from mqd_ledger.errors import BadInput, ChainBroken, Conflict, LedgerUnreadable, UnknownEventType
from mqd_ledger.events import BarClosed
from mqd_ledger.log import EventLog
from mqd_ledger.store import (
    LedgerDatastore,
    LedgerEvent,
    LedgerRecorder,
    MemoryLedgerRecorder,
    SQLiteLedgerRecorder,
    backup,
    open_ledger,
)
from mqd_ledger.values import Bar

if (
    importlib.util.find_spec("Crypto") is None
):  # the library's module of test cases imports a cipher that no recorder needs
    sys.modules["eventsourcing.cipher"] = ModuleType("eventsourcing.cipher")
    sys.modules["eventsourcing.cipher"].AESCipher = object  # type: ignore[attr-defined]
from eventsourcing.tests import persistence as library

AT = datetime(2024, 1, 2, 15, tzinfo=UTC)


# --- the library's own cases -----------------------------------------------------------------------------------------------


class TestMemoryPassesTheLibrarysRecorderTests(library.ApplicationRecorderTestCase[MemoryLedgerRecorder]):
    def create_recorder(self) -> MemoryLedgerRecorder:
        return MemoryLedgerRecorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestSQLitePassesTheLibrarysRecorderTests(library.ApplicationRecorderTestCase[SQLiteLedgerRecorder]):
    def create_recorder(self) -> SQLiteLedgerRecorder:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name) / "contract.ledger"
        recorder = SQLiteLedgerRecorder(LedgerDatastore(path, durability="normal", originator_id_type="uuid"))
        self.addCleanup(recorder.close)
        self.addCleanup(self.wait_for_readers, frozenset(threading.enumerate()))  # runs first
        recorder.create_table()
        return recorder

    def wait_for_readers(self, before: frozenset[threading.Thread]) -> None:
        """The library tells its reading threads to stop and goes; a connection closed under one of them ends the process."""
        for thread in threading.enumerate():
            if thread not in before:
                thread.join(60)
                assert not thread.is_alive()


# --- ours, over both -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=("memory", "sqlite"))
def recorder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield MemoryLedgerRecorder(clock=lambda: AT)
        return
    recorder = SQLiteLedgerRecorder(LedgerDatastore(tmp_path / "a.ledger", durability="normal"), clock=lambda: AT)
    recorder.open()
    with closing(recorder):
        yield recorder


def some_rows(count: int, start: Head = Head(), stream: str = "bars-SPY-1m") -> list[Row]:
    """Rows that follow `start`, a second apart, every third of another type."""
    rows: list[Row] = []
    previous = start.hash
    for position in range(start.position + 1, start.position + count + 1):
        kind = "BarRejected.v1" if position % 3 == 0 else "BarClosed.v1"
        at = position * 1_000_000
        envelope = (position, stream, position, kind, at, at, position, 0)
        payload = b'{"n":%d}' % position
        previous = sha256(previous + header(envelope) + payload).digest()
        rows.append((*envelope, payload, previous))
    return rows


def test_an_empty_log_has_the_genesis_head(recorder: LedgerRecorder) -> None:
    assert recorder.head() == Head(0, GENESIS, 0)
    assert list(recorder.read()) == []
    assert recorder.stream_version("bars-SPY-1m") == 0
    assert recorder.position_at(2**60) == 0


def test_rows_come_back_as_they_were_appended(recorder: LedgerRecorder) -> None:
    rows = some_rows(2500)  # more than two chunks
    recorder.append(rows)
    assert list(recorder.read()) == rows
    assert recorder.head() == check(recorder.read()) == Head(2500, rows[-1][9], rows[-1][5])


def test_a_part_of_the_log_is_read_by_position_type_and_time(recorder: LedgerRecorder) -> None:
    rows = some_rows(2500)
    recorder.append(rows)
    assert list(recorder.read(after=1200, upto=1210)) == rows[1200:1210]
    assert list(recorder.read(types=["BarRejected.v1"])) == [row for row in rows if row[3] == "BarRejected.v1"]
    assert list(recorder.read(types=["NeverSeen.v1"])) == []
    assert list(recorder.read(after=5, recorded_until=8_999_999)) == rows[5:8]
    for microseconds, position in ((999_999, 0), (1_000_000, 1), (1_234_567_890, 1234), (10**12, 2500)):
        assert recorder.position_at(microseconds) == position


def test_a_stream_is_read_by_version(recorder: LedgerRecorder) -> None:
    first = some_rows(5)
    other = some_rows(3, Head(5, first[-1][9], first[-1][5]), stream="account")
    recorder.append(first)
    recorder.append(other)
    assert recorder.read_stream("bars-SPY-1m", after_version=3) == first[3:]
    assert recorder.read_stream("account") == other
    assert recorder.read_stream("nobody") == []
    assert recorder.stream_version("account") == 8


def test_rows_that_do_not_continue_the_chain_are_refused_whole(recorder: LedgerRecorder) -> None:
    rows = some_rows(10)
    recorder.append(rows[:4])
    for wrong in (rows[5:], rows[:4], [*rows[4:6], rows[7]], [(*rows[4][:8], b'{"n":0}', rows[4][9])]):
        with pytest.raises(ChainBroken):
            recorder.append(wrong)
    assert list(recorder.read()) == rows[:4]


def test_a_version_is_taken_once(recorder: LedgerRecorder) -> None:
    rows = some_rows(2)
    recorder.append(rows)
    again = (3, "bars-SPY-1m", 2, "BarClosed.v1", 9_000_000, 9_000_000, 3, 0)
    with pytest.raises(Conflict, match=r"nothing of it was written|Nothing of this batch was written"):
        recorder.append([(*again, b"{}", sha256(rows[1][9] + header(again) + b"{}").digest())])
    assert recorder.head().position == 2


def test_events_of_the_library_are_chained_and_stamped(recorder: Any) -> None:
    recorder.append(some_rows(2))
    stored = [StoredEvent("order-1", version, "BarClosed.v1", b"{}") for version in (1, 2)]
    assert recorder.insert_events(stored) == [3, 4]
    assert check(recorder.read()) == recorder.head()
    assert [(row[4], row[5], row[6], row[7]) for row in recorder.read(after=2)] == [
        (1_704_207_600_000_000, 1_704_207_600_000_000, 3, 0),
        (1_704_207_600_000_000, 1_704_207_600_000_000, 4, 0),
    ]
    with pytest.raises(IntegrityError):
        recorder.insert_events(stored[:1])
    assert recorder.head().position == 4


def test_versions_that_come_in_any_order_are_read_in_theirs(recorder: Any) -> None:
    for version in (3, 1, 2):
        recorder.insert_events([StoredEvent("a", version, "app:Thing", b"{}")])
    assert [stored.originator_version for stored in recorder.select_events("a", gt=1)] == [2, 3]
    assert [stored.originator_version for stored in recorder.select_events("a", desc=True, limit=2)] == [3, 2]
    assert [row[2] for row in recorder.read_stream("a")] == [1, 2, 3]
    assert recorder.stream_version("a") == 3


def test_payloads_that_are_not_text_come_back_as_they_were(recorder: Any) -> None:
    enciphered = bytes(range(256))
    recorder.insert_events([StoredEvent("a", 1, "app:Thing", enciphered), StoredEvent("a", 2, "app:Thing", b"\x00")])
    assert [row[8] for row in recorder.read()] == [enciphered, b"\x00"]
    assert [stored.state for stored in recorder.select_events("a")] == [enciphered, b"\x00"]
    assert check(recorder.read()).position == 2


# --- the file --------------------------------------------------------------------------------------------------------------


def test_the_position_is_the_explicit_primary_key_and_payloads_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    with closing(open_ledger(path, "create")) as recorder:
        recorder.append(some_rows(3))
    with closing(sqlite3.connect(path)) as database:
        columns = {row[1]: (row[2], row[5]) for row in database.execute("pragma table_info(events)")}
        assert columns["position"] == ("INTEGER", 1)
        assert [name for name, (_, key) in columns.items() if key] == ["position"]
        assert database.execute("select distinct typeof(payload) from events").fetchall() == [("text",)]
        assert database.execute("pragma application_id").fetchone() == (0x4D514431,)
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)


def test_vacuum_keeps_every_position(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    with closing(open_ledger(path, "create")) as recorder:
        recorder.append(some_rows(1500))
    with closing(sqlite3.connect(path)) as database:
        database.execute("vacuum")
    with closing(open_ledger(path, "read")) as recorder:
        assert list(recorder.read()) == some_rows(1500)


@pytest.mark.parametrize("name", ("with blanks.ledger", "100%25?mode=rw#part.ledger", "größe.ledger", "file:x.ledger"))
def test_any_name_of_a_file_is_that_file(tmp_path: Path, name: str) -> None:
    if sys.platform == "win32" and set(name) & set("?:"):
        pytest.skip("Windows has no such names")
    path = tmp_path / name
    with closing(open_ledger(path, "create")) as recorder:
        recorder.append(some_rows(2))
    for access in ("read", "write"):
        with closing(open_ledger(path, access)) as recorder:
            assert recorder.head().position == 2
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    open_ledger(path, "create").close()
    with closing(open_ledger(path, "read")) as reader, pytest.raises(LedgerUnreadable, match="read-only"):
        reader.append(some_rows(1))


def test_what_is_no_ledger_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(LedgerUnreadable) as refused:
            open_ledger(path, "read")
        return str(refused.value)

    assert "There is no ledger at" in refusal(tmp_path / "missing")
    assert "is a directory" in refusal(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be taken for one " * 50, encoding="utf-8")
    assert "is no SQLite database" in refusal(text)
    empty = tmp_path / "empty"
    empty.touch()
    assert "is empty" in refusal(empty)
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("create table t(x)")
    assert "database of another program" in refusal(foreign)
    newer = tmp_path / "newer.ledger"
    open_ledger(newer, "create").close()
    with closing(sqlite3.connect(newer)) as database:
        database.execute("pragma user_version = 2")
    assert "has format 2" in refusal(newer)


def test_a_foreign_database_is_never_made_a_ledger(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("create table t(x)")
    for access in ("create", "write"):
        with pytest.raises(LedgerUnreadable, match="another program"):
            open_ledger(foreign, access)
    with closing(sqlite3.connect(foreign)) as database:
        assert database.execute("select name from sqlite_master").fetchall() == [("t",)]
        assert database.execute("pragma journal_mode").fetchone() == ("delete",)


def test_a_file_whose_making_was_cut_short_is_made_on_the_next_opening(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    path.touch()
    with closing(open_ledger(path, "write")) as recorder:
        recorder.append(some_rows(1))
        assert recorder.head().position == 1


def test_a_truncated_file_is_reported_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    with closing(open_ledger(path, "create")) as recorder:
        recorder.append(some_rows(3000))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size // 2 // 16384 * 16384)
    with pytest.raises(LedgerUnreadable, match="damaged"), closing(open_ledger(path, "read")) as recorder:
        check(recorder.read())


def test_a_ledger_that_another_program_locks_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    open_ledger(path, "create").close()
    with closing(SQLiteLedgerRecorder(LedgerDatastore(path, access="write"))) as recorder:
        recorder.open()
        recorder._query("pragma busy_timeout = 1")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("begin immediate")
            with pytest.raises(LedgerUnreadable, match="locked by another program"):
                recorder.append(some_rows(1))
        recorder.append(some_rows(1))
        assert recorder.head().position == 1


def test_a_backup_is_the_whole_log_and_overwrites_nothing(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.ledger", tmp_path / "copy of a.ledger"
    with closing(open_ledger(path, "create")) as recorder:
        recorder.append(some_rows(2000))
        assert backup(path, copy) == recorder.head()
        with pytest.raises(BadInput, match="never overwrites"):
            backup(path, copy)
    with closing(open_ledger(copy, "read")) as recorder:
        assert list(recorder.read()) == some_rows(2000)
    assert {found.name.split("-")[0] for found in tmp_path.iterdir()} == {"a.ledger", "copy of a.ledger"}


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="directories cannot be made read-only on Windows or for root"
)
def test_a_ledger_at_rest_is_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "read only" / "a.ledger"
    path.parent.mkdir()
    with closing(open_ledger(path, "create")) as recorder:
        recorder.append(some_rows(10))
    path.parent.chmod(0o555)
    try:
        with closing(open_ledger(path, "read")) as recorder:
            assert list(recorder.read()) == some_rows(10)
        with pytest.raises(LedgerUnreadable, match="Making"):
            backup(path, path.with_name("copy.ledger"))
        assert backup(path, tmp_path / "copy.ledger").position == 10
    finally:
        path.parent.chmod(0o755)


def test_a_backup_of_what_is_no_ledger_leaves_nothing(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database " * 100, encoding="utf-8")
    with pytest.raises(LedgerUnreadable):
        backup(text, tmp_path / "copy.ledger")
    assert [found.name for found in tmp_path.iterdir()] == ["notes.txt"]


# --- any eventsourcing application -----------------------------------------------------------------------------------------


def environment(path: Path) -> dict[str, str]:
    return {
        "PERSISTENCE_MODULE": "mqd_ledger.store",
        "MAPPER_TOPIC": "mqd_ledger.store:LedgerMapper",
        "SQLITE_DBNAME": str(path),
    }


def test_an_application_of_the_library_reads_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    price = Decimal("400.12")
    bar = Bar("SPY", "1m", AT, price, price, price, price, 100, "file")
    with EventLog.create(path, durability="normal") as log:
        log.record([BarClosed(bar.end_at, bar)], bar.end_at)
    application: Application[str] = Application(env=environment(path))
    with closing(application):
        section = application.notification_log.select(1, 10)
        assert [(item.id, item.originator_id, item.topic) for item in section] == [(1, "bars-SPY-1m", "BarClosed.v1")]
        found: Any = application.mapper.to_domain_event(section[0])
        assert isinstance(found, LedgerEvent)
        assert (found.originator_id, found.originator_version) == ("bars-SPY-1m", 1)
        assert found.event == BarClosed(bar.end_at, bar)
        assert [each.event for each in application.events.get("bars-SPY-1m")] == [found.event]  # type: ignore[attr-defined]


class Note(Aggregate):
    @event("Written")
    def __init__(self, text: str) -> None:
        self.text = text


def test_an_application_of_the_library_can_use_the_store_for_its_own_events(tmp_path: Path) -> None:
    path = tmp_path / "notes.ledger"
    environ = environment(path) | {
        "ORIGINATOR_ID_TYPE": "uuid",
        "COMPRESSOR_TOPIC": "eventsourcing.compressor:ZlibCompressor",
    }
    application: Application[Any] = Application(env=environ)
    with closing(application):
        note = Note("remember")
        application.save(note)
        assert application.repository.get(note.id).text == "remember"
    with closing(open_ledger(path, "read")) as recorder:
        assert check(recorder.read()) == recorder.head()
        assert recorder.head().position == 1


def test_a_stored_name_that_nobody_knows_stops_an_application(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    with closing(open_ledger(path, "create")) as recorder:
        recorder.insert_events([StoredEvent("a", 1, "OrderTeleported.v1", b"{}")])
    application: Application[str] = Application(env=environment(path))
    with closing(application), pytest.raises(UnknownEventType, match="OrderTeleported"):
        list(application.events.get("a"))
