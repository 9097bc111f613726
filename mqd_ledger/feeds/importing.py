"""Import a file of bars: keep the good rows in our own form and report what was found, rejected and missing."""

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.bars import open_bars, write_bars
from mqd_ledger.feeds.columns import Detection
from mqd_ledger.feeds.validation import RejectedRow
from mqd_ledger.sessions import FIRST_DATE, Session, session_on, sessions_between
from mqd_ledger.values import INTERVALS, Bar

SHOWN_REJECTS = 20
# Bars that divide a regular session evenly, so that one can say how many there should be.
COUNTABLE = ("1s", "1m", "5m", "15m", "30m", "1d")


class SymbolReport(msgspec.Struct, frozen=True):
    """One symbol's bars. `missing` counts regular bars between first and last (no trade, or lost); None if unknown."""

    symbol: str
    count: int
    first_at: datetime
    last_at: datetime
    missing: int | None


class ImportReport(msgspec.Struct, frozen=True):
    source: Path
    out: Path
    sha256: str  # of the source
    detection: Detection
    read: int
    written: int
    rejected: int
    rejects: tuple[RejectedRow, ...]  # the first twenty; all of them are in rejects_file
    rejects_file: Path | None
    symbols: tuple[SymbolReport, ...]


class _Tally:
    """What is known of one symbol while its bars go by."""

    def __init__(self, bar: Bar) -> None:
        self.first_at = self.last_at = bar.start_at
        self.count = self.regular = 0
        self.session: Session | None = None
        self.day: date | None = None

    def add(self, bar: Bar) -> None:
        self.count += 1
        self.last_at = bar.start_at
        session = self.session
        if session is None or not session.open_at <= bar.start_at < session.close_at:
            self.session = session = _session_of(bar)
        if session is not None and (bar.interval == "1d" or session.open_at <= bar.start_at < session.close_at):
            self.regular += 1

    def missing(self, interval: str) -> int | None:
        """Regular bars that the calendar has from the first bar to the last, less those that came."""
        if interval not in COUNTABLE or self.first_at.date() < FIRST_DATE:
            return None
        step, expected = INTERVALS[interval], 0
        for session in sessions_between(self.first_at.date(), self.last_at.date()):
            if interval == "1d":
                expected += 1
                continue
            opens, closes = max(session.open_at, self.first_at), min(session.close_at, self.last_at + step)
            expected += max(0, (closes - opens) // step)
        return max(0, expected - self.regular)


def _session_of(bar: Bar) -> Session | None:
    """A daily bar starts at midnight in New York or UTC: either way on its session's date in UTC."""
    day = bar.start_at.date()
    return session_on(day) if day >= FIRST_DATE else None


class _Rejects:
    """Counts the rejected rows and writes each to a file beside the bars, which exists only if there are any."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self.part, self.stack = path, path.with_name(f"{path.name}.part"), stack
        self.first: list[RejectedRow] = []
        self.count = 0
        self.writer: Any = None  # csv's writers have no public type

    def add(self, row: RejectedRow) -> None:
        if self.writer is None:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            file = self.stack.enter_context(self.part.open("w", encoding="utf-8", newline=""))
            self.writer = csv.writer(file, lineterminator="\n")
            self.writer.writerow(("line", "reason", "raw"))
        self.writer.writerow((row.line, row.reason, row.raw))
        self.count += 1
        if len(self.first) < SHOWN_REJECTS:
            self.first.append(row)


def import_bars(
    source: str | Path,
    out: str | Path,
    *,
    symbol: str | None = None,
    zone: str | None = None,
    interval: str | None = None,
    strict: bool = False,
    now: datetime | None = None,
) -> ImportReport:
    """Read `source` and write its good bars to `out`, a file or a folder in which it becomes <name>.parquet.

    Rejected rows go to <name>.rejected.csv beside it. The other arguments are those of `open_bars`.
    """
    source, out = Path(source), Path(out)
    if out.suffix.lower() not in {".parquet", ".csv"} or out.is_dir():
        out = out / f"{source.stem}.parquet"
    if out.exists() and out.samefile(source):
        raise BadInput(f"{out} would be written over itself. Choose another --out.")
    file = open_bars(source, symbol=symbol, zone=zone, interval=interval, strict=strict, now=now)
    rejects_path = out.with_name(f"{out.stem}.rejected.csv")
    tallies: dict[str, _Tally] = {}
    try:
        with ExitStack() as stack:
            rejects = _Rejects(rejects_path, stack)

            def good() -> Iterator[Bar]:
                for item in file:
                    if isinstance(item, RejectedRow):
                        rejects.add(item)
                        continue
                    tally = tallies.get(item.symbol)
                    if tally is None:
                        tally = tallies[item.symbol] = _Tally(item)
                    tally.add(item)
                    yield item

            written = _written(out, good(), rejects, source)
        if rejects.count:
            rejects.part.replace(rejects_path)
        else:
            rejects_path.unlink(missing_ok=True)  # of an earlier import
    except OSError as problem:
        raise BadInput(f"{rejects_path} cannot be written: {problem.strerror}.") from problem
    finally:
        rejects_path.with_name(f"{rejects_path.name}.part").unlink(missing_ok=True)
    return ImportReport(
        source=source,
        out=out,
        sha256=file.sha256,
        detection=file.detection,
        read=written + rejects.count,
        written=written,
        rejected=rejects.count,
        rejects=tuple(rejects.first),
        rejects_file=rejects_path if rejects.count else None,
        symbols=tuple(
            SymbolReport(name, tally.count, tally.first_at, tally.last_at, tally.missing(file.detection.interval))
            for name, tally in sorted(tallies.items())
        ),
    )


def _written(out: Path, bars: Iterator[Bar], rejects: _Rejects, source: Path) -> int:
    try:
        return write_bars(out, bars)
    except BadInput as problem:
        if not rejects.first:
            raise
        row = rejects.first[0]
        raise BadInput(
            f"{problem} {rejects.count} rows of {source} were rejected; the first, line {row.line}: {row.reason}."
        ) from problem
