"""Exports: what comes back from one is the same ledger to the byte, or nothing at all."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import duckdb
import pytest

from mqd_ledger import events as e
from mqd_ledger.archive import export_jsonl, export_parquet, import_archive
from mqd_ledger.chain import Head, Row, header
from mqd_ledger.errors import BadInput, ChainBroken, LedgerError, LedgerUnreadable
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.store import open_ledger
from mqd_ledger.values import Bar
from mqd_ledger.warehouse import run_query

START = datetime(2026, 1, 5, 14, 30, 0, 123456, tzinfo=UTC)
EVENTS = 300

Export = Callable[[Path, Path], Head]


def event(number: int) -> e.Event:
    at = START + timedelta(microseconds=number)
    if number % 3 == 0:
        return e.FeeCharged(at, f"fee-{number}", "OTHER", Decimal("0.10"), 'a "quoted"\nline, é, 漢字, 🂡, \\u0000')
    prices = Decimal("1.10"), Decimal("1E+1"), Decimal("0.5"), Decimal("1.000000001")
    return e.BarClosed(at, Bar(f"S{number % 2}", "1m", at, *prices, number, "synthetic"))


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "original.ledger"
    with EventLog.create(path, durability="normal") as log:
        first = log.record([event(0)], START)
        for number in range(1, EVENTS):
            log.record([event(number)], START + timedelta(seconds=number), first, first)
        log.commit()
    return path


def rows(ledger: Path) -> list[Row]:
    with LogReader.open(ledger) as log:
        return list(log.rows())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("export", (export_jsonl, export_parquet))
def test_a_ledger_comes_back_from_its_export_to_the_byte(ledger: Path, tmp_path: Path, export: Export) -> None:
    exported = export(ledger, tmp_path / "log.export")
    imported = import_archive(tmp_path / "log.export", tmp_path / "again.ledger")
    assert rows(tmp_path / "again.ledger") == rows(ledger)
    assert len(rows(ledger)) == EVENTS
    assert imported == exported
    assert imported.position == EVENTS


def test_the_way_through_both_formats_ends_with_the_same_bytes(ledger: Path, tmp_path: Path) -> None:
    export_jsonl(ledger, tmp_path / "1.jsonl")
    import_archive(tmp_path / "1.jsonl", tmp_path / "2.ledger")
    export_parquet(tmp_path / "2.ledger", tmp_path / "2.parquet")
    import_archive(tmp_path / "2.parquet", tmp_path / "3.ledger")
    export_jsonl(tmp_path / "3.ledger", tmp_path / "3.jsonl")
    assert (tmp_path / "3.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()


def test_an_imported_ledger_can_be_written_and_asked(ledger: Path, tmp_path: Path) -> None:
    export_parquet(ledger, tmp_path / "log.parquet")
    import_archive(tmp_path / "log.parquet", tmp_path / "again.ledger")
    with EventLog.open(tmp_path / "again.ledger") as log:
        log.record([event(EVENTS)], START + timedelta(days=1))
        log.commit()
    assert run_query(tmp_path / "again.ledger", "select max(position) from events").rows == [(EVENTS + 1,)]


def test_a_line_can_be_checked_with_nothing_but_json_and_sha256(ledger: Path, tmp_path: Path) -> None:
    export_jsonl(ledger, tmp_path / "log.jsonl")
    previous = bytes(32)
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines()
    for stored, text in zip(rows(ledger), lines, strict=True):
        line = json.loads(text)
        payload = text[text.index(b'"payload":') + len(b'"payload":') : text.rindex(b',"hash":')]
        times = [datetime.fromisoformat(line[name]) for name in ("occurred_at", "recorded_at")]
        assert line["recorded_at"].endswith("Z")
        micros = [(at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for at in times]
        envelope = [line["position"], line["stream"], line["version"], line["type"], *micros]
        envelope += [line["correlation"], line["causation"]]
        previous = sha256(previous + header(envelope) + payload).digest()
        assert line["hash"] == previous.hex()
        assert payload == stored[8]


def test_a_parquet_export_is_ordinary_parquet(ledger: Path, tmp_path: Path) -> None:
    export_parquet(ledger, tmp_path / "log.parquet")
    path = (tmp_path / "log.parquet").as_posix()
    with duckdb.connect() as connection:
        answer = connection.execute(
            "select position, stream, version, type, epoch_us(occurred_at), epoch_us(recorded_at), correlation, "
            f"causation, encode(payload), unhex(hash) from '{path}'"
        ).fetchall()
    assert answer == rows(ledger)


Damage = Callable[[list[bytes]], list[bytes]]


def _altered(lines: list[bytes]) -> list[bytes]:
    return [*lines[:99], lines[99].replace(b'"0.10"', b'"0.11"'), *lines[100:]]


def _moved(lines: list[bytes]) -> list[bytes]:
    return [*lines[:99], lines[100], lines[99], *lines[101:]]


def _envelope(lines: list[bytes]) -> list[bytes]:
    return [*lines[:99], lines[99].replace(b"14:31", b"14:30"), *lines[100:]]


_DAMAGES: tuple[tuple[Damage, str], ...] = (
    (_altered, "line 100: Event 100 "),
    (_envelope, "line 100: Event 100 "),
    (_moved, "line 100: Event 100 is missing"),
    (lambda lines: [*lines[:99], *lines[100:]], "line 100: Event 100 is missing"),
    (lambda lines: [*lines[:100], *lines[99:]], "line 101: Event 101 is missing"),
    (lambda lines: lines[5:], "line 1: Event 1 is missing"),
    (lambda lines: [*lines[:-1], lines[-1][:-20]], "line 300 is not an event"),
    (lambda lines: [*lines[:49], b"", *lines[49:]], "line 50 is not an event"),
    (lambda lines: [*lines[:49], b"{}", *lines[49:]], "line 50 is not an event"),
    (lambda lines: [*lines[:49], b"\xff\xfe", *lines[49:]], "line 50 is not an event"),
    (lambda lines: [lines[0].replace(b'Z"', b'"', 1), *lines[1:]], "line 1 is not an event"),
    (lambda _: [], "no events"),
)


@pytest.mark.parametrize(("damage", "said"), _DAMAGES)
def test_a_damaged_export_is_refused_by_line_and_leaves_nothing(
    ledger: Path, tmp_path: Path, damage: Damage, said: str
) -> None:
    export_jsonl(ledger, tmp_path / "log.jsonl")
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines()
    (tmp_path / "log.jsonl").write_bytes(b"".join(line + b"\n" for line in damage(lines)))
    before = files(tmp_path)
    with pytest.raises((BadInput, ChainBroken), match=said):
        import_archive(tmp_path / "log.jsonl", tmp_path / "again.ledger")
    assert files(tmp_path) == before


def test_a_gap_in_a_stream_is_refused_although_its_hashes_fit(ledger: Path, tmp_path: Path) -> None:
    export_jsonl(ledger, tmp_path / "log.jsonl")
    first, second = (json.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()[:2])
    second["version"] = 7
    stored = rows(ledger)[:2]
    envelope = (*stored[1][:2], 7, *stored[1][3:8])
    second["hash"] = sha256(stored[0][9] + header(envelope) + stored[1][8]).hexdigest()
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in (first, second))
    (tmp_path / "forged.jsonl").write_text(text, encoding="utf-8", newline="\n")
    with pytest.raises(ChainBroken, match=r"line 2: Event 2 .* is version 7 of stream .*, but 1 comes next"):
        import_archive(tmp_path / "forged.jsonl", tmp_path / "again.ledger")


def test_an_edited_parquet_export_is_refused_by_row(ledger: Path, tmp_path: Path) -> None:
    export_parquet(ledger, tmp_path / "log.parquet")
    with duckdb.connect() as connection:
        connection.execute(f"create table t as from '{(tmp_path / 'log.parquet').as_posix()}'")
        connection.execute("update t set occurred_at = occurred_at + interval 1 microsecond where position = 42")
        connection.execute(f"copy (from t order by position) to '{(tmp_path / 'edited.parquet').as_posix()}'")
    before = files(tmp_path)
    with pytest.raises(ChainBroken, match="row 42: Event 42"):
        import_archive(tmp_path / "edited.parquet", tmp_path / "again.ledger")
    assert files(tmp_path) == before


def test_parquet_of_something_else_is_refused(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"copy (select 1 as position, 2 as price) to '{(tmp_path / 'bars.parquet').as_posix()}'")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "bars.parquet").read_bytes()[:-9])
    with pytest.raises(BadInput, match="no column stream"):
        import_archive(tmp_path / "bars.parquet", tmp_path / "again.ledger")
    with pytest.raises(BadInput, match=r"cut\.parquet"):
        import_archive(tmp_path / "cut.parquet", tmp_path / "again.ledger")
    with pytest.raises(BadInput, match=r"missing\.parquet"):
        import_archive(tmp_path / "missing.parquet", tmp_path / "again.ledger")
    assert files(tmp_path) == {"bars.parquet", "cut.parquet"}


def test_an_import_never_overwrites(ledger: Path, tmp_path: Path) -> None:
    export_jsonl(ledger, tmp_path / "log.jsonl")
    before = rows(ledger)
    with pytest.raises(BadInput, match="exists already"):
        import_archive(tmp_path / "log.jsonl", ledger)
    assert rows(ledger) == before


def test_an_import_never_takes_up_the_wal_of_a_ledger_that_is_gone(ledger: Path, tmp_path: Path) -> None:
    export_jsonl(ledger, tmp_path / "log.jsonl")
    (tmp_path / "again.ledger-wal").write_bytes(b"the last events of another")
    with pytest.raises(BadInput, match="Move it away"):
        import_archive(tmp_path / "log.jsonl", tmp_path / "again.ledger")
    assert (tmp_path / "again.ledger-wal").exists()


@pytest.mark.parametrize("export", (export_jsonl, export_parquet))
def test_a_ledger_that_was_tampered_with_is_not_exported(ledger: Path, tmp_path: Path, export: Export) -> None:
    good = export(ledger, tmp_path / "log.export")
    kept = (tmp_path / "log.export").read_bytes()
    stored = rows(ledger)
    forged = tmp_path / "forged.ledger"
    _write_unchecked(forged, [*stored[:9], (*stored[9][:8], stored[9][8].replace(b"0.10", b"0.20"), stored[9][9])])
    before = files(tmp_path)
    with pytest.raises(ChainBroken, match="Event 10 "):
        export(forged, tmp_path / "log.export")
    assert good.position == EVENTS
    assert (tmp_path / "log.export").read_bytes() == kept
    assert files(tmp_path) - before <= {"forged.ledger-wal", "forged.ledger-shm"}  # SQLite's, of any reader


def _write_unchecked(path: Path, stored: list[Row]) -> None:
    """A ledger whose last event was altered after it was written."""
    recorder = open_ledger(path, "create", "normal")
    recorder.append(stored[:-1])
    *envelope, payload, digest = stored[-1]
    honest = sha256(stored[-2][9] + header(tuple(envelope)) + payload).digest()
    recorder.append([(*stored[-1][:9], honest)])
    with recorder.datastore.transaction(commit=True) as cursor:
        cursor.execute("update events set hash = ? where position = ?", (digest, stored[-1][0]))
    recorder.close()


def test_a_place_that_cannot_be_written_is_an_error_of_ours(ledger: Path, tmp_path: Path) -> None:
    for export in (export_jsonl, export_parquet):
        with pytest.raises(BadInput, match="cannot be written"):
            export(ledger, tmp_path / "no" / "such" / "place")
    with pytest.raises(LedgerUnreadable, match="missing"):
        export_jsonl(tmp_path / "missing.ledger", tmp_path / "out.jsonl")
    export_jsonl(ledger, tmp_path / "log.jsonl")
    with pytest.raises(LedgerError):
        import_archive(tmp_path / "log.jsonl", tmp_path / "no" / "such.ledger")
