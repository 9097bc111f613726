"""Damaged, missing, moved, full and foreign files: found out or survived, said in a sentence, and nothing lost."""

import os
import random
import shlex
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mqd_ledger.chain import Row
from mqd_ledger.cli.main import execute
from mqd_ledger.errors import LedgerError
from tests.desk import RUN, furnish, log_rows, run_program
from tests.test_cli import interrupt, started, wait_for_event

FLIPS = 120


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = furnish(tmp_path_factory.mktemp("traded"))
    ended = run_program(folder, *RUN)
    assert ended.code == 0, ended.err
    return folder / "paper.ledger"


@pytest.fixture
def here(tmp_path: Path, traded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ledger at rest; the working directory."""
    furnish(tmp_path)
    shutil.copy(traded, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nothing_else(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever was said: it was no traceback."""
    yield
    assert "Traceback" not in capsys.readouterr().err


def rows_or_error(ledger: Path) -> list[Row] | LedgerError:
    try:
        return log_rows(ledger)
    except LedgerError as error:
        return error


def fresh(ledger: Path, content: bytes) -> None:
    """A ledger file of that content with nothing left beside it."""
    for suffix in ("-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
    shutil.rmtree(ledger.with_name(ledger.name + ".cache"), ignore_errors=True)
    ledger.write_bytes(content)


@pytest.mark.usefixtures("nothing_else")
def test_no_byte_of_the_file_changes_what_the_log_says_unnoticed(here: Path) -> None:
    """One bit anywhere: the file is refused, verify fails, or every event still reads exactly as it was."""
    ledger = here / "paper.ledger"
    good, rows = ledger.read_bytes(), log_rows(ledger)
    dice = random.Random(4)  # noqa: S311  no secret
    noticed = 0
    for number in range(FLIPS):
        place = number if number < 20 else dice.randrange(len(good))
        fresh(ledger, good[:place] + bytes([good[place] ^ (1 << dice.randrange(8))]) + good[place + 1 :])
        code = execute(["verify"])
        assert code in {0, 1, 4, 5}, place
        noticed += code != 0
        if code == 0:
            assert rows_or_error(ledger) == rows, place
    assert noticed > FLIPS / 4


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("what", ("payload", "hash", "stream", "type"))
def test_verify_names_the_first_event_that_was_altered(
    what: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = here / "paper.ledger"
    good = ledger.read_bytes()
    row = log_rows(ledger)[99]
    found = {"payload": row[8], "hash": row[9], "stream": row[1].encode(), "type": row[3].encode()}[what]
    place = good.index(found) + len(found) // 2
    fresh(ledger, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    assert execute(["verify"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("FAIL  chain: Event ")
    if what in {"payload", "hash"}:
        assert said.startswith("FAIL  chain: Event 100 ")


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("kept", (100, 16_384, 100_000, -16_384))
def test_a_truncated_ledger_is_refused_by_every_verb(kept: int, here: Path) -> None:
    fresh(here / "paper.ledger", (here / "paper.ledger").read_bytes()[:kept])
    for verb in (["status"], ["verify"], ["orders"], ["halt", "--reason", "x"], ["backup", "b.ledger"], [*RUN]):
        assert execute(verb) == 4, verb
    assert not (here / "b.ledger").exists()


NO_LEDGERS = ("nothing", "text", "zeros", "directory", "loop", "socket name too long", "other program")


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("what", NO_LEDGERS)
def test_what_is_no_ledger_is_refused_and_left_as_it_is(what: str, here: Path) -> None:
    path = here / ("x" * 300 if what == "socket name too long" else "odd.ledger")
    if what == "text":
        path.write_text("Dear diary, " * 100, encoding="utf-8")
    elif what == "zeros":
        path.write_bytes(bytes(50_000))
    elif what == "directory":
        path.mkdir()
    elif what == "loop":
        if sys.platform == "win32":
            pytest.skip("a link needs rights on Windows that tests do not have")
        path.symlink_to(path)
    elif what == "other program":
        import sqlite3

        connection = sqlite3.connect(path)
        connection.execute("create table mine(x)")
        connection.close()
    before = path.read_bytes() if what in {"text", "zeros", "other program"} else None
    for verb in (["status"], ["verify"], ["sql", "select 1"], ["halt", "--reason", "x"], ["backup", "b.ledger"]):
        assert execute([*verb, "--ledger", str(path)]) in {2, 4}, verb
    if before is not None:
        assert execute([*RUN, "--ledger", str(path)]) == 4
        assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read and write everything")
def test_a_ledger_that_may_not_be_read_or_written_is_refused(here: Path) -> None:
    (here / "paper.ledger").chmod(0o000)
    assert execute(["status"]) == 4
    (here / "paper.ledger").chmod(0o400)
    assert execute(["status"]) == 0
    assert execute(["halt", "--reason", "x"]) == 4


# --- a full disk ------------------------------------------------------------------------------------------------------

SMALL_DISK = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of a process's files")
def test_a_disk_that_fills_up_ends_a_run_with_a_sentence_and_costs_nothing(here: Path, traded: Path) -> None:
    ended = run_program(here, *RUN, "--ledger", "new.ledger", code=SMALL_DISK)
    assert ended.code == 4
    assert "the disk is full" in ended.err
    assert len(ended.err.splitlines()) == 1
    ended = run_program(here, *RUN, "--ledger", "new.ledger")
    assert ended.code == 0, ended.err
    assert log_rows(here / "new.ledger") == log_rows(traded)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of a process's files")
def test_a_backtest_on_a_disk_that_fills_up_ends_with_a_sentence(here: Path) -> None:
    backtest = ("backtest", "--bars", "bars.csv", "--config", "mine.yaml", "--out", "test.ledger")
    ended = run_program(here, *backtest, code=SMALL_DISK)
    assert ended.code == 4
    assert "the disk is full" in ended.err
    assert "Traceback" not in ended.err


# --- what lies beside the ledger --------------------------------------------------------------------------------------


def orders(capsys: pytest.CaptureFixture[str]) -> str:
    assert execute(["orders", "--json"]) == 0
    return capsys.readouterr().out


def test_the_cache_may_be_deleted_damaged_or_of_another_ledger(
    here: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = orders(capsys)
    cache = here / "paper.ledger.cache"
    projections = cache / "projections.db"
    content = projections.read_bytes()
    foreign = furnish(tmp_path_factory.mktemp("foreign"), minutes=20)
    assert run_program(foreign, *RUN).code == 0
    assert run_program(foreign, "orders").code == 0

    def damage(new: bytes) -> None:
        for suffix in ("-wal", "-shm"):
            (cache / f"projections.db{suffix}").unlink(missing_ok=True)
        projections.write_bytes(new)

    for new in (b"", b"no database " * 1000, content[:5000], bytes(100) + content[100:]):
        damage(new)
        assert orders(capsys) == whole
    shutil.rmtree(cache)
    shutil.copytree(foreign / "paper.ledger.cache", cache)
    assert orders(capsys) == whole
    shutil.rmtree(cache)
    cache.write_text("a file where a directory has to be", encoding="utf-8")
    assert orders(capsys) == whole
    assert execute(["sql", "select count(*) from orders"]) == 0


def test_a_restored_backup_is_what_every_verb_then_shows(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The older ledger in the newer one's place: tables that were ahead of it do not stay so."""
    assert execute(["backup", "old.ledger"]) == 0
    old = log_rows(here / "old.ledger")
    assert execute(["halt", "--reason", "later"]) == 0
    orders(capsys)
    for suffix in ("", "-wal", "-shm"):
        (here / f"paper.ledger{suffix}").unlink(missing_ok=True)
    (here / "old.ledger").replace(here / "paper.ledger")
    assert execute(["verify"]) == 0
    capsys.readouterr()
    assert execute(["sql", "select count(*) from events", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(len(old))
    assert log_rows(here / "paper.ledger") == old


def test_a_killed_run_leaves_nothing_that_blocks_the_next(here: Path) -> None:
    with started(here, *RUN, "--ledger", "new.ledger", "--speed", "60") as process:
        wait_for_event(here / "new.ledger", 3, process)
        process.kill()
        process.communicate()
    left = {path.name for path in here.iterdir() if path.name.startswith("new.ledger.")}
    assert left >= {"new.ledger.writer.json"}
    assert run_program(here, *RUN, "--ledger", "new.ledger").code == 0


def test_a_ledger_that_was_moved_while_a_run_was_open_goes_on_where_it_is_now(here: Path, traded: Path) -> None:
    assert run_program(here, *RUN, "--ledger", "new.ledger", env={"KILL_AT": "bar 70"}).code not in {0, 1, 2}
    elsewhere = here / "ein anderer Ort, 100 %?"[: 21 if sys.platform == "win32" else None]
    elsewhere.mkdir()
    for path in list(here.glob("new.ledger*")):
        path.rename(elsewhere / path.name)
    ended = run_program(here, *RUN, "--ledger", str(elsewhere / "new.ledger"))
    assert ended.code == 0, ended.err
    assert log_rows(elsewhere / "new.ledger") == log_rows(traded)


# --- two processes ----------------------------------------------------------------------------------------------------

READING = (
    ["status", "--json"],
    ["verify"],
    ["orders", "--limit", "2"],
    ["positions"],
    ["pnl"],
    ["replay", "--until", "2026-01-05T15:00:00Z"],
    ["sql", "select max(position) from events", "--format", "csv"],
    ["backup", "copy.ledger"],
    ["export", "--format", "jsonl", "--out", "out.jsonl"],
)


def test_every_verb_that_reads_works_while_a_writer_writes_as_fast_as_it_can(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "paper.ledger").unlink()
    fast = ("run", "--paper", "--set", "sample.sessions=200", "--json")
    with started(here, *fast) as process:
        wait_for_event(here / "paper.ledger", 500, process)
        seen = 0
        for verb in READING:
            code = execute(verb)
            assert code == 0, (verb, capsys.readouterr())
            position = int(run_count(capsys))
            assert position > seen, "what is read is fresh"
            seen = position
        assert process.poll() is None, "it wrote all the while"
        assert execute([*RUN]) == 3
        assert f"process {process.pid} on " in capsys.readouterr().err
        interrupt(process)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert execute(["verify", "--ledger", "copy.ledger"]) == 0


def run_count(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert execute(["sql", "select count(*) from events", "--format", "csv"]) == 0
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("verb", ("status", "orders", "positions", "pnl", "why 000001", "sql 'select * from orders'"))
@pytest.mark.parametrize("change", ((30, 0xB3), (0, 0x28)), ids=("text", "brace"))
@pytest.mark.usefixtures("nothing_else")
def test_an_altered_payload_is_a_sentence_in_every_verb(verb: str, change: tuple[int, int], here: Path) -> None:
    ledger = here / "paper.ledger"
    content = bytearray(ledger.read_bytes())
    content[content.index(log_rows(ledger)[59][8]) + change[0]] = change[1]
    fresh(ledger, bytes(content))
    assert execute(shlex.split(verb)) in {0, 1, 4, 5}
    assert execute(["verify"]) == 1


def test_a_damaged_ledger_is_not_traded_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = here / "paper.ledger"
    content = bytearray(ledger.read_bytes())
    place = content.index(b'"amount":"')
    content[place + 10] = ord("9")
    fresh(ledger, bytes(content))
    assert execute(RUN) == 1
    assert "is not the one that was written" in capsys.readouterr().err


def test_verify_finds_a_damaged_index_that_the_chain_does_not_cover(here: Path) -> None:
    ledger = here / "paper.ledger"
    with closing(sqlite3.connect(ledger)) as connection:
        (root,) = connection.execute("select rootpage from sqlite_master where name = 'events_stream'").fetchone()
        (size,) = connection.execute("pragma page_size").fetchone()
    content = bytearray(ledger.read_bytes())
    while content[(root - 1) * size] == 2:  # a page of pages: down to the last one, which has keys
        root = int.from_bytes(content[(root - 1) * size + 8 : (root - 1) * size + 12])
    content[root * size - 10] ^= 1
    fresh(ledger, bytes(content))
    assert execute(["verify"]) == 1
