"""What happens when things go wrong for real: killed processes, a second writer, a full disk, other programs on the file."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mqd_ledger import lock
from mqd_ledger.chain import check
from mqd_ledger.errors import LedgerLocked, LedgerUnreadable
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.store import SQLiteLedgerRecorder, backup
from tests.test_log import MINUTE, START, bar, canceled, filled

ROOT = Path(__file__).parent.parent
EVENTS_PER_COMMIT = 7

WRITER = f"""
import sys
from pathlib import Path
from tests.test_log import *
path = Path(sys.argv[1])
with (EventLog.open if path.exists() else EventLog.create)(path, durability="normal") as log:
    print("ready", flush=True)
    number = log.head.position
    while True:
        number += 1
        log.record([bar(number)] + [canceled(f"o{{n}}") for n in range({EVENTS_PER_COMMIT - 1})], START + number * MINUTE)
        log.commit()
        print(log.head.position, flush=True)
"""

HOLDER = """
import sys, time
from pathlib import Path
from mqd_ledger.log import EventLog
with EventLog.open(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def child(code: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own that has said "ready"; killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


# --- killed while writing --------------------------------------------------------------------------------------------------


def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_nothing_torn(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    acknowledged = 0
    for commits, pause in (
        (1, 0.0),
        (13, 0.0004),
        (40, 0.0011),
        (150, 0.0007),
    ):  # each goes on after the last one's end
        with child(WRITER, path) as process:
            assert process.stdout is not None
            for _ in range(commits):
                acknowledged = int(process.stdout.readline())
            time.sleep(pause)
            process.kill()
            for line in process.stdout.read().split("\n"):
                acknowledged = int(line or acknowledged)  # what it still said before it died
        with LogReader.open(path) as reader:
            head = check(reader.rows())
            assert head == reader.head
            assert head.position >= acknowledged
            assert head.position % EVENTS_PER_COMMIT == 0
            assert sum(1 for _ in reader.replay()) == head.position


# --- one writer ------------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_told_who_is_writing(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with child(HOLDER, path) as process:
        with pytest.raises(LedgerLocked, match=rf"process {process.pid} on .+, since \d{{4}}-.+Z: ") as refused:
            EventLog.open(path)
        assert "stop that process" in str(refused.value)
        holder = lock.holder(path)
        assert holder is not None
        assert holder.pid == process.pid
        assert holder.since.tzinfo is not None
        with LogReader.open(path) as reader:
            assert reader.head.position == 20


def test_a_killed_writer_holds_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with child(HOLDER, path) as process:
        process.kill()
    assert path.with_name("a.ledger.writer.json").exists(), "what it left behind"
    assert lock.holder(path) is None
    with EventLog.open(path) as log:
        holder = lock.holder(path)
        assert holder is not None
        assert holder.pid == os.getpid()
        log.record([bar(99)], START + 99 * MINUTE)
    assert lock.holder(path) is None


def test_the_same_process_cannot_open_a_log_twice_to_write(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with EventLog.open(path), pytest.raises(LedgerLocked, match=f"process {os.getpid()} "):
        EventLog.open(path)
    EventLog.open(path).close()


def test_an_opening_that_fails_lets_go_of_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    path.write_text("no database " * 100, encoding="utf-8")
    with pytest.raises(LedgerUnreadable):
        EventLog.open(path)
    assert lock.holder(path) is None


def test_a_ledger_that_was_never_written_here_has_no_holder(tmp_path: Path) -> None:
    assert lock.holder(tmp_path / "none.ledger") is None
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_has_not_said_who_it_is_is_still_a_holder(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with EventLog.open(path):
        path.with_name("a.ledger.writer.json").write_text("{", encoding="utf-8")
        holder = lock.holder(path)
        assert holder is not None
        assert "just started" in str(holder)


# --- a full disk -----------------------------------------------------------------------------------------------------------


def allow(log: EventLog, pages: int) -> None:
    assert isinstance(log.recorder, SQLiteLedgerRecorder)
    with log.recorder._writing() as cursor:  # a limit of that connection
        cursor.execute(f"pragma max_page_count = {pages}")


def test_a_full_disk_leaves_the_log_whole_and_says_so(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with EventLog.open(path, durability="normal") as log:
        allow(log, pages=12)
        for number in range(3000):
            log.record([canceled(f"o{number}")], START + 9000 * MINUTE)
        with pytest.raises(LedgerUnreadable, match=r"full.*Make room"):
            log.commit()
        assert log.pending == 3000
        with LogReader.open(path) as reader:
            assert check(reader.rows()).position == 20
        allow(log, pages=100000)
        log.commit()
        assert check(log.rows()) == log.head
        assert log.head.position == 3020


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of a process's files")
def test_a_file_that_may_not_grow_leaves_the_log_whole_and_says_so(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    code = """
import resource, sys
from pathlib import Path
from tests.test_log import *
print("ready", flush=True)
with EventLog.open(Path(sys.argv[1]), durability="full") as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        for number in range(1000):
            log.record([canceled(f"o{number}")], START + 9000 * MINUTE)
            log.commit()
            print(log.head.position, flush=True)
    except LedgerUnreadable as error:
        print(error)
        log.rollback()
"""
    with child(code, path) as process:
        assert process.stdout is not None
        *acknowledged, sentence = process.stdout.read().splitlines()
        assert process.wait() == 0
    assert "the disk is full" in sentence
    with LogReader.open(path) as reader:
        assert check(reader.rows()) == reader.head
        assert reader.head.position == int(acknowledged[-1])


# --- other programs on the file --------------------------------------------------------------------------------------------

# Opens, reads and closes the file, as any tool would. Whoever closes a database last deletes its WAL, if nobody holds a lock.
VISITOR = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("select count(*) from events").fetchone()
database.close()
"""


def visit(path: Path) -> None:
    subprocess.run([sys.executable, "-c", VISITOR, str(path)], check=True)


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def test_nothing_that_we_do_in_the_writers_process_gives_its_locks_away(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.ledger")
    with EventLog.open(path, durability="full") as log:
        for number in range(3):
            log.record([bar(1000 + number)], START + (9000 + number) * MINUTE)
            log.commit()
            with LogReader.open(path) as reader:
                assert check(reader.rows()) == reader.head == log.head
                assert sum(1 for _ in reader.replay()) == log.head.position
            assert backup(path, tmp_path / f"copy-{number}.ledger") == log.head
            assert lock.holder(path) is not None
            with pytest.raises(LedgerLocked):
                EventLog.open(path)
            visit(path)
            assert wal_of(path).exists()
        head = log.head
    with LogReader.open(path) as reader:
        assert check(reader.rows()) == head


@pytest.mark.skipif(sys.platform == "win32", reason="only POSIX drops a process's locks with any of its descriptors")
def test_reading_the_file_as_a_file_would_lose_the_wal(tmp_path: Path) -> None:
    """The trap itself. If this fails, SQLite has got better, and the rule at the top of `store` may go."""
    path = filled(tmp_path / "a.ledger")
    with EventLog.open(path, durability="full") as log:
        log.record([bar(1000)], START + 9000 * MINUTE)
        log.commit()
        visit(path)
        assert wal_of(path).exists()
        path.read_bytes()
        visit(path)
        assert not wal_of(path).exists()
