"""A log that is written by a process of its own is the same log, and its failures are told."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mqd_ledger import chain, pipeline
from mqd_ledger.errors import LedgerUnreadable
from mqd_ledger.events import BarClosed, Event
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.pipeline import PipedLog

pytestmark = pytest.mark.skipif(
    (os.cpu_count() or 1) < 2, reason="one processor: nothing is handed to a second process"
)


def events(sessions: int = 30) -> Iterator[Event]:
    for bar in sample_bars(("SYNA",), sessions=sessions, seed=5, start=date(2024, 1, 2)):
        yield BarClosed(bar.end_at, bar)


def play(log: EventLog, *, until: str = "end") -> None:
    """Record the sample and commit every 500 events; a piped log is waited for until the writer has taken over."""
    for count, event in enumerate(events(), 1):
        log.record([event], event.occurred_at)
        if not count % 500:
            log.commit()
        if count == pipeline.STARTED_AFTER + 500 and isinstance(log, PipedLog):
            assert log._writer is not None
            assert log._writer.ready.wait(30)
            if until == "taken over":
                log.commit()
                return
    log.commit()


def rows(path: Path) -> list[chain.Row]:
    with LogReader.open(path) as log:
        return list(log.rows())


def test_the_log_is_the_same_to_the_byte(tmp_path: Path) -> None:
    with EventLog.create(tmp_path / "alone.ledger", durability="normal") as alone:
        play(alone)
        expected = alone.head
    with PipedLog.create(tmp_path / "piped.ledger", durability="normal") as piped:
        play(piped)
        assert piped._handed_over
        assert piped.head == expected
    assert rows(tmp_path / "piped.ledger") == rows(tmp_path / "alone.ledger")


def test_a_short_run_starts_no_second_process(tmp_path: Path) -> None:
    with PipedLog.create(tmp_path / "short.ledger", durability="normal") as log:
        for event, _ in zip(events(1), range(100), strict=False):
            log.record([event], event.occurred_at)
        log.commit()
        assert log._writer is None
    assert len(rows(tmp_path / "short.ledger")) == 100


def test_what_was_sent_is_written_before_close_returns_and_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "on.ledger"
    with PipedLog.create(path, durability="normal") as log:
        play(log, until="taken over")
        sent = log.pending + log._committed
    with EventLog.open(path) as log:
        assert log.head.position == sent
        log.record([next(events())], datetime(2025, 1, 1, tzinfo=UTC))
        log.commit()
    assert chain.check(rows(path)).position == sent + 1


def test_a_writer_that_was_killed_is_noticed_and_leaves_a_whole_log(tmp_path: Path) -> None:
    path = tmp_path / "killed.ledger"
    with closing(PipedLog.create(path, durability="normal")) as log:
        play(log, until="taken over")
        assert log._writer is not None
        log._writer._process.kill()
        log._writer._process.wait()
        with pytest.raises(LedgerUnreadable, match="ended with code"):
            play_on(log)
    assert chain.check(rows(path)).position >= pipeline.STARTED_AFTER


def play_on(log: EventLog) -> None:
    for event in events():
        log.record([event], event.occurred_at)
        log.commit()


def test_the_writers_own_error_reaches_the_user(tmp_path: Path) -> None:
    path = tmp_path / "changed.ledger"
    with closing(PipedLog.create(path, durability="normal")) as log:
        play(log, until="taken over")
        _ = log.head  # the writer has opened the file
        log.close()
    done = subprocess.run(
        [sys.executable, "-m", "mqd_ledger.pipeline", str(tmp_path / "nothing.ledger")],
        input=pipeline._LENGTH.pack(1) + pipeline._encode(None),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 4
    assert b"nothing.ledger" in done.stderr
    assert done.stdout == pipeline._READY


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL of the whole engine process")
def test_an_engine_that_was_killed_leaves_a_whole_log(tmp_path: Path) -> None:
    path = tmp_path / "engine.ledger"
    code = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); "
        "from tests.test_pipeline import PipedLog, play; "
        "log = PipedLog.create(Path(sys.argv[1]), durability='normal'); play(log, until='taken over'); "
        "print(log._committed, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run([sys.executable, "-c", code, str(path), root], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    with EventLog.open(path) as log:  # its writer has ended with it, or this would be refused
        assert pipeline.STARTED_AFTER <= log.head.position <= int(done.stdout)
    chain.check(rows(path))
