"""Read bars from CSV: find its form, then stream it, whatever the order of its symbols.

A file whose rows are in order of time streams through. In one that has its symbols one after another each symbol's
rows are read by a stream of their own, found through an index of byte ranges, and the streams are merged.
"""

import csv
import heapq
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.rows import Block, Item, Layout, read_rows
from mqd_ledger.feeds.validation import SYMBOL
from mqd_ledger.values import Bar

BLOCK = 1 << 16  # bytes read at a time
LINE_MAX = 1 << 20
DELIMITERS = ",;\t|"
# How files begin that are not text, and what to do about it.
FOREIGN = {
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
    b"\x1f\x8b": "is compressed with gzip; decompress it first",
    b"PK\x03\x04": "is a zip archive; extract it first",
    b"SQLite format 3": "is an SQLite database; a ledger is no bar file",
}


class Head(NamedTuple):
    """A file's beginning: its delimiter and header, where the data starts and on which line, and its first rows."""

    delimiter: str
    names: list[str]
    offset: int
    first_line: int
    lines: list[str]


Runs = tuple["array[int]", "array[int]", "array[int]"]  # where runs of rows start and end, and the first line's number


class Index(NamedTuple):
    """Which symbols a file holds, whether its rows are in order of time, and each symbol's byte ranges if wanted."""

    symbols: tuple[str, ...]
    is_sorted: bool
    is_grouped: bool  # and, within each instant, in order of symbol
    runs: dict[str, Runs]


def splitter(delimiter: str, text: str, needed: int = -1) -> Callable[[str], list[str]]:
    """How to take a line apart. A row never goes on in the next line, so a stray quote cannot swallow the file."""
    if '"' in text:

        def split_quoted(line: str) -> list[str]:
            try:
                return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
            except csv.Error:
                return [line]

        return split_quoted
    return lambda line: line.split(delimiter, needed)


def decode(data: bytes) -> str:
    """UTF-8; a byte that is not shows as its code, so that only its own row is rejected."""
    text = data.decode("utf-8", errors="backslashreplace")
    return text.replace("\r\n", "\n") if "\r" in text else text


def read_head(path: Path) -> Head:
    with path.open("rb") as file:
        data = file.read(4 * BLOCK)
    for magic, what in FOREIGN.items():
        if data.startswith(magic):
            raise BadInput(f"{path} {what}.")
    offset = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    if b"\0" in data:
        raise BadInput(f"{path} is binary, neither CSV nor Parquet.")
    while data[offset : offset + 1] in {b"\n", b"\r"}:
        offset += 1
    if not data[offset:].strip():
        raise BadInput(f"{path} is empty. It needs a header and one row per bar.")
    first_line = data.count(b"\n", 0, offset) + 1
    end = data.find(b"\n", offset)
    header = decode(data[offset : end if end >= 0 else len(data)]).strip()
    delimiter = max(DELIMITERS, key=header.count)
    names = splitter(delimiter, header)(header)
    lines = decode(data[end + 1 :]).split("\n") if end >= 0 else []
    if len(data) == 4 * BLOCK:
        lines.pop()  # most likely cut
    lines = [line for line in lines if line.strip()]
    if end >= 0 and not lines and len(data) == 4 * BLOCK:
        raise BadInput(f"{path} has a line that is longer than {len(data)} bytes; it is no bar file.")
    return Head(delimiter, [name.strip() for name in names], end + 1 if end >= 0 else len(data), first_line + 1, lines)


def _chunks(file: BinaryIO, start: int, end: int | None, size: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines from that range of bytes, some at a time, with the offset of each piece."""
    rest, offset = b"", start
    while True:
        file.seek(offset + len(rest))
        data = file.read(size if end is None else min(size, end - offset - len(rest)))
        if not data:
            if rest:
                yield offset, rest
            return
        data = rest + data
        cut = data.rfind(b"\n") + 1
        if cut:
            yield offset, data[:cut]
        elif len(data) > LINE_MAX:
            raise BadInput(f"{file.name} has a line of over {LINE_MAX} bytes at byte {offset}; it is no bar file.")
        offset, rest = offset + cut, data[cut:]


def _line(lines: list[str], first: int, number: int, _row: Sequence[str]) -> str:
    return lines[number - first]


def blocks(
    file: BinaryIO, ranges: Iterable[tuple[int, int | None, int]], delimiter: str, size: int = BLOCK
) -> Iterator[Block]:
    """The rows in those byte ranges (start, end, number of the first line)."""
    for start, end, first_line in ranges:
        line_number = first_line
        for _, data in _chunks(file, start, end, size):
            text = decode(data)
            lines = text.split("\n")
            if not lines[-1]:
                lines.pop()
            numbers = range(line_number, line_number + len(lines))
            yield Block(numbers, map(splitter(delimiter, text), lines), partial(_line, lines, line_number))
            line_number += len(lines)


def index(path: Path, head: Head, layout: Layout, *, runs: bool) -> Index:
    """Read the file once for its symbols and their order, and if wanted for their byte ranges.

    A piece of the file that has one symbol throughout is only counted; a file of several symbols with such pieces does
    not count as in order. A row without a usable symbol stays with the one before it.
    """
    found: dict[str, Runs] = {}
    column, needed = layout.symbol, max(layout.symbol, *layout.times) + 1
    current: str | None = None
    latest, number = datetime.min.replace(tzinfo=UTC), head.first_line
    is_sorted, is_grouped, was_skimmed = True, True, False
    with path.open("rb") as file:
        for start, data in _chunks(file, head.offset, None, BLOCK):
            rows = data.count(b"\n") + (not data.endswith(b"\n"))
            mark = f"{current}{head.delimiter}".encode()
            if column == 0 and current and data.startswith(mark) and data.count(b"\n" + mark) == rows - 1:
                if runs:
                    found[current][1][-1] = start + len(data)
                number += rows
                was_skimmed = True
                continue
            text, offset = decode(data), start
            split = splitter(head.delimiter, text, needed)
            for raw, line in zip(data.split(b"\n")[:rows], text.split("\n")[:rows], strict=True):
                cells = split(line)
                symbol = cells[column].strip() if len(cells) >= needed else ""
                if not symbol or (symbol not in found and not SYMBOL.fullmatch(symbol)):
                    symbol = current or ""
                if is_sorted and not runs:
                    at = _moment(layout, cells) or latest
                    is_grouped = is_grouped and not (at == latest and current is not None and symbol < current)
                    is_sorted, latest = at >= latest, at
                if symbol != current:
                    current = symbol
                    if symbol not in found:
                        found[symbol] = (array("q"), array("q"), array("q"))
                    if runs:
                        for places, place in zip(found[symbol], (offset, offset, number), strict=True):
                            places.append(place)
                offset += len(raw) + 1
                if runs:
                    found[symbol][1][-1] = offset
                number += 1
    symbols = tuple(sorted(filter(SYMBOL.fullmatch, found)))
    if len(symbols) < 2:
        return Index(symbols, is_sorted=True, is_grouped=True, runs={})
    return Index(symbols, is_sorted and not was_skimmed, is_grouped, found if runs else {})


def _moment(layout: Layout, cells: list[str]) -> datetime | None:
    """A row's time, or None where it has none that can be compared: such a row gives no bar."""
    try:
        place, *more = layout.times
        stamp = "T".join([cells[place], *(cells[other] for other in more)]) if more else cells[place].strip()
        at = layout.parse_time(stamp)
    except (ValueError, IndexError, OverflowError):
        return None
    return at if at.tzinfo is UTC else None


def in_order(items: Iterable[Item]) -> Iterator[Item]:
    """Rows already in order of time, put in order of symbol within each instant."""
    group: list[tuple[str, Item]] = []
    instant: datetime | None = None
    for item in items:
        is_next = type(item) is Bar and item.start_at != instant
        if is_next or len(group) > 10_000:  # a file of nothing but rejected rows must not fill the memory
            yield from map(itemgetter(1), sorted(group, key=itemgetter(0)))
            group.clear()
        if type(item) is Bar:
            instant = item.start_at
        group.append((item.symbol or "", item))
    yield from map(itemgetter(1), sorted(group, key=itemgetter(0)))


def _keyed(items: Iterable[Item]) -> Iterator[tuple[datetime, Item]]:
    """A rejected row goes where the row before it went."""
    at = datetime.min.replace(tzinfo=UTC)
    for item in items:
        if type(item) is Bar:
            at = item.start_at
        yield at, item


def merged(streams: Sequence[Iterable[Item]]) -> Iterator[Item]:
    """Streams of one symbol each, given in order of symbol, as one in order of time and symbol."""
    return map(itemgetter(1), heapq.merge(*(_keyed(stream) for stream in streams), key=itemgetter(0)))


def stream(path: Path, head: Head, layout: Layout, found: Index) -> Iterator[Item]:
    """Every item of the file in order of time and symbol."""
    with path.open("rb") as file:
        if not found.runs:
            whole = read_rows(blocks(file, [(head.offset, None, head.first_line)], head.delimiter), layout)
            yield from whole if found.is_grouped else in_order(whole)
            return
        streams = [
            read_rows(blocks(file, zip(*found.runs[symbol], strict=True), head.delimiter, BLOCK // 4), layout)
            for symbol in sorted(found.runs)
        ]
        yield from merged(streams)
