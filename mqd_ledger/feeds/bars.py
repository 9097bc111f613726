"""Read and write files of bars, CSV or Parquet.

    for item in open_bars("SPY.csv"):        Bar | RejectedRow, in order of (end of the bar, symbol)
    print(open_bars("SPY.csv").detection)    what was understood of the file
    write_bars("SPY.parquet", bars)          in our own form, which reads back to the same bars

A bad row never ends the reading, unless `strict` is asked for: it comes out in its place as a RejectedRow with its
line and the reason. A file that cannot be understood at all raises BadInput.
"""

import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds import csv_bars
from mqd_ledger.feeds.columns import (
    Detection,
    check_interval,
    find_columns,
    find_interval,
    find_time_format,
    symbol_from_name,
    time_columns,
    time_parser,
)
from mqd_ledger.feeds.rows import Item, Layout, volume_parser
from mqd_ledger.feeds.validation import RejectedRow, check_symbol
from mqd_ledger.values import Bar, iso, plain

COLUMNS = ("symbol", "interval", "timestamp", "open", "high", "low", "close", "volume", "provider")
SAMPLE = 2000  # rows that decide how the file is read
SAMPLE = 2000  # rows that decide how the file is read
ONE_PASS, MERGED = "by time, read in one pass", "not by time; the symbols are read side by side and merged"


class BarFile:
    """A file of bars that can be read any number of times. `detection` says what was understood of it."""

    def __init__(self, path: Path, detection: Detection, items: Callable[[], Iterator[Item]], *, strict: bool) -> None:
        self.path = path
        self.detection = detection
        self.strict = strict
        self._items = items

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes: what was read, for the record of a run."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def __iter__(self) -> Iterator[Item]:
        return self._strictly() if self.strict else self._items()

    def _strictly(self) -> Iterator[Item]:
        for item in self._items():
            if isinstance(item, RejectedRow):
                raise BadInput(
                    f"{self.path}, line {item.line}: {item.reason}. Correct the row, or read without strict."
                )
            yield item


def open_bars(
    path: str | Path,
    *,
    symbol: str | None = None,
    zone: str | None = None,
    interval: str | None = None,
    strict: bool = False,
    start: datetime | None = None,
    end: datetime | None = None,
    now: datetime | None = None,
) -> BarFile:
    """Look at a file of bars and make it ready to read.

    symbol, zone and interval say what the file does not: whose bars, in which time zone times without one are, how
    long a bar is. Bars with start <= start_at < end are given. With `now`, a bar that ends later is rejected.
    """
    path = Path(path)
    check_file(path)
    wanted = Wanted(
        path, check_symbol(symbol) if symbol else None, zone, check_interval(interval) if interval else None
    )
    detection, items = (_open_parquet if _is_parquet(path) else _open_csv)(wanted, now)
    if start is not None or end is not None:
        items = partial(_between, items, start, end)
    return BarFile(path, detection, items, strict=strict)


def check_file(path: Path) -> None:
    if path.is_dir():
        raise BadInput(f"{path} is a directory. Name a CSV or Parquet file in it.")
    if not path.exists():
        raise BadInput(f"{path} does not exist. Name a CSV or Parquet file with bars.")
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as problem:
        raise BadInput(f"{path} cannot be read: {problem.strerror}.") from problem


def _between(items: Callable[[], Iterator[Item]], start: datetime | None, end: datetime | None) -> Iterator[Item]:
    """The bars of that time, and the rejected rows among them."""
    inside = start is None
    for item in items():
        if isinstance(item, Bar):
            if end is not None and item.start_at >= end:
                return
            inside = start is None or item.start_at >= start
        if inside:
            yield item


class Wanted:
    """What the caller said about a file, and how that and its first rows become a `Layout` and a `Detection`."""

    def __init__(self, path: Path, symbol: str | None, zone: str | None, interval: str | None) -> None:
        self.path, self.symbol, self.zone, self.interval = path, symbol, zone, interval

    def understand(
        self, names: Sequence[str], samples: Sequence[Sequence[str]], first_line: int, now: datetime | None
    ) -> tuple[Layout, Detection]:
        """`samples` are the first rows; they decide how times are written and how long the bars are."""
        path = str(self.path)
        found = find_columns(names, path)
        samples = [row for row in samples if len(row) == len(names)]
        if not samples:
            raise BadInput(f"{path} has a header but no row with {len(names)} columns. It needs one row per bar.")
        times = time_columns(found)
        stamps = ["T".join(row[place].strip() for place in times) for row in samples]
        time_format = find_time_format(stamps, path)
        parse, zone = time_parser(time_format, self.zone, path, first_line)
        constant = "" if "symbol" in found else self.symbol or symbol_from_name(self.path.stem, path)
        interval, interval_from = self._interval(found, samples, stamps, parse, constant)
        layout = Layout(
            width=len(names),
            symbol=found.get("symbol", -1),
            times=times,
            numbers=[found[name] for name in ("open", "high", "low", "close", "volume")],
            interval_column=found.get("interval", -1),
            provider_column=found.get("provider", -1),
            constant_symbol=constant,
            interval=interval,
            parse_time=parse,
            time_format=time_format,
            parse_volume=volume_parser(row[found["volume"]] for row in samples),
            now=now,
        )
        detection = Detection(
            path=path,
            form="Parquet",
            delimiter=None,
            columns={meaning: names[place] for meaning, place in found.items()},
            ignored=tuple(name for place, name in enumerate(names) if place not in found.values()),
            time_format=time_format,
            zone=zone,
            interval=interval,
            interval_from=interval_from,
            symbols=(constant,),
            symbol_from="column" if not constant else "given" if self.symbol else "from the file's name",
            order=ONE_PASS,
        )
        return layout, detection

    def _interval(
        self,
        found: dict[str, int],
        samples: Sequence[Sequence[str]],
        stamps: Sequence[str],
        parse: Callable[[str], datetime],
        constant: str,
    ) -> tuple[str, str]:
        if self.interval:
            return self.interval, "given"
        if "interval" in found:
            return check_interval(samples[0][found["interval"]].strip()), "column"
        starts: dict[str, list[datetime]] = {}
        for row, stamp in zip(samples, stamps, strict=True):
            with suppress(ValueError, OverflowError):  # a row that is written otherwise is rejected when it is read
                at = parse(stamp)
                if at.tzinfo is not None:
                    starts.setdefault(constant or row[found["symbol"]].strip(), []).append(at)
        return find_interval(starts, str(self.path)), f"from the first {len(samples)} rows"


def _only(wanted: Wanted, symbols: Sequence[str], items: Callable[[], Iterator[Item]]) -> Callable[[], Iterator[Item]]:
    """`symbol` given for a file with a symbol column picks that symbol's rows."""
    if wanted.symbol is None or wanted.symbol not in symbols or len(symbols) == 1:
        if wanted.symbol is not None and wanted.symbol not in symbols:
            raise BadInput(f"{wanted.path} has no bars of {wanted.symbol}; it has {', '.join(symbols[:12])}.")
        return items
    return lambda: (item for item in items() if item.symbol in {wanted.symbol, None})


def _open_csv(wanted: Wanted, now: datetime | None) -> tuple[Detection, Callable[[], Iterator[Item]]]:
    head = csv_bars.read_head(wanted.path)
    rows = [csv_bars.splitter(head.delimiter, line)(line) for line in head.lines[:SAMPLE]]
    find_columns(head.names, str(wanted.path))
    if not rows:
        raise BadInput(f"{wanted.path} has only a header. It needs one row per bar.")
    layout, detection = wanted.understand(head.names, rows, head.first_line, now)
    found = csv_bars.Index((layout.constant_symbol,), is_sorted=True, is_grouped=True, runs={})
    if layout.symbol >= 0:
        found = csv_bars.index(wanted.path, head, layout, runs=False)
        if not found.is_sorted:
            found = csv_bars.index(wanted.path, head, layout, runs=True)
    detection = _stated(detection, "CSV", head.delimiter, found.symbols, MERGED if found.runs else ONE_PASS)
    return detection, _only(wanted, found.symbols, partial(csv_bars.stream, wanted.path, head, layout, found))


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or path.suffix.lower() in {".parquet", ".pq"}


def _open_parquet(wanted: Wanted, now: datetime | None) -> tuple[Detection, Callable[[], Iterator[Item]]]:
    from mqd_ledger.feeds import parquet  # brings DuckDB, which a CSV file does not need

    table = parquet.look(wanted.path)
    found = find_columns(table.names, str(wanted.path))
    samples = parquet.first_rows(table, SAMPLE)
    if not samples:
        raise BadInput(f"{wanted.path} has columns but no rows. It needs one row per bar.")
    layout, detection = wanted.understand(table.names, samples, 1, now)
    place = time_columns(found)[0]
    symbols, is_sorted = (
        parquet.survey(table, layout.symbol, place) if layout.symbol >= 0 else (detection.symbols, True)
    )
    detection = _stated(detection, "Parquet", None, symbols, ONE_PASS if is_sorted else MERGED)
    items = partial(parquet.stream, table, layout, None if is_sorted else (place, layout.symbol))
    return detection, _only(wanted, symbols, items)


def _stated(detection: Detection, form: str, delimiter: str | None, symbols: Sequence[str], order: str) -> Detection:
    return msgspec.structs.replace(detection, form=form, delimiter=delimiter, symbols=tuple(symbols), order=order)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_bars(path: str | Path, bars: Iterable[Bar]) -> int:
    """Write bars of one interval in the order given, all or nothing; how many. The name's ending says the form."""
    path = Path(path)
    write = {".parquet": _write_parquet, ".csv": _write_csv}.get(path.suffix.lower())
    if write is None:
        raise BadInput(f"{path} must end in .parquet or .csv, which says how to write the bars.")
    stream = iter(bars)
    first = next(stream, None)
    if first is None:
        raise BadInput(f"There are no bars to write to {path}.")
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = write(part, _of_one_interval(chain([first], stream), first.interval))
        part.replace(path)
    except OSError as problem:
        raise BadInput(f"{path} cannot be written: {problem.strerror}.") from problem
    finally:
        part.unlink(missing_ok=True)
    return written


def _of_one_interval(bars: Iterable[Bar], interval: str) -> Iterator[Bar]:
    for bar in bars:
        if bar.interval != interval:
            raise BadInput(f"A file holds bars of one length; {bar.interval} came after {interval}. Write two files.")
        yield bar


def _write_parquet(path: Path, bars: Iterable[Bar]) -> int:
    from mqd_ledger.feeds import parquet

    return parquet.write(path, bars)


def _write_csv(path: Path, bars: Iterable[Bar]) -> int:
    written = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for bar in bars:
            prices = map(plain, (bar.open, bar.high, bar.low, bar.close))
            writer.writerow((bar.symbol, bar.interval, iso(bar.start_at), *prices, bar.volume, bar.provider))
            written += 1
        file.flush()
        os.fsync(file.fileno())
    return written
