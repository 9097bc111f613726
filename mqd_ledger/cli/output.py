"""What the command line prints: tables that fit the terminal, facts, sentences, and JSON for programs.

On a terminal a table is drawn by rich; one that is too wide first leaves out its optional columns, then shows each row as a block.
Into a file or a pipe go plain aligned columns, whole and without color.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import click

from mqd_ledger.values import iso, plain

NOTHING = "-"
GAP = 2  # blanks between columns
WORDS_LEAST = 16  # how narrow a column of words may become
LINE_MAX = 100  # longer lines are hard to read


# --- values -----------------------------------------------------------------------------------------------------------


def counted(number: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def text(value: Any) -> str:
    """Any value for a person."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text(one)}" for name, one in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(text(one) for one in value) or NOTHING
    return str(value)


def money(value: Decimal | None) -> str:
    return NOTHING if value is None else f"{value:,.2f}"


def price(value: Decimal | None) -> str:
    """Cents, and the finer part where there is one."""
    return NOTHING if value is None else f"{value:,.2f}" if value == round(value, 2) else f"{value:,.4f}"


def percent(value: Decimal | None) -> str:
    """A fraction as a percentage."""
    return NOTHING if value is None else f"{value * 100:.2f} %"


def moment(value: datetime | None) -> str:
    """UTC, to the second where that is all there is."""
    return NOTHING if value is None else iso(value).replace("T", " ")


def jsonable(value: Any) -> Any:
    """For `json`: amounts as text, so that no reader makes floats of them; times as ISO-8601 UTC with Z."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, Mapping):
        return {str(name): jsonable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(one) for one in value]
    if isinstance(value, str | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON here; add a row to jsonable")


@contextmanager
def json_alone(*, wanted: bool) -> Iterator[None]:
    """Where JSON is wanted it has the standard output to itself: what strategies print goes to the error output."""
    with redirect_stdout(sys.stderr) if wanted else nullcontext():
        yield


def print_json(value: Any) -> None:
    click.echo(json.dumps(jsonable(value), indent=2, ensure_ascii=False))


# --- sentences and facts ----------------------------------------------------------------------------------------------


def is_terminal() -> bool:
    return sys.stdout.isatty()


def width() -> int:
    return max(20, shutil.get_terminal_size().columns)


def say(sentence: str = "", *, indent: str = "", following: str | None = None) -> None:
    """One paragraph, broken between words on a terminal; `following` indents its second line and those after it."""
    click.echo(_wrapped(sentence, indent, indent if following is None else following))


def shout(sentence: str) -> None:
    """What nobody may overlook."""
    click.echo(click.style(_wrapped(sentence), bold=True, fg="yellow") if is_terminal() else sentence)


def _wrapped(sentence: str, indent: str = "", following: str = "") -> str:
    if not is_terminal():
        return indent + sentence
    lines = textwrap.wrap(
        sentence,
        min(width(), LINE_MAX),
        initial_indent=indent,
        subsequent_indent=following,
        break_long_words=False,  # a hash or a path is copied whole
        break_on_hyphens=False,
    )
    return "\n".join(lines) or indent


def heading(title: str) -> None:
    click.echo(click.style(title, bold=True) if is_terminal() else title)


def facts(pairs: Iterable[tuple[str, str]], title: str = "") -> None:
    """Names and values, one a line."""
    known = list(pairs)
    if title:
        heading(title)
    wide = max((len(name) for name, _ in known), default=0) + GAP
    for name, value in known:
        say(value, indent=name.ljust(wide), following=" " * wide)


# --- tables -----------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """One column: its heading, the row's key, how a value is shown. `optional` ones go first where there is no room."""

    title: str
    key: str
    show: Callable[[Any], str] = text
    right: bool = False
    words: bool = False  # may be broken into lines
    optional: bool = False


def amount(title: str, key: str, show: Callable[[Any], str] = money, *, optional: bool = False) -> Column:
    return Column(title, key, show, right=True, optional=optional)


def table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], *, empty: str) -> None:
    """Rows under their headings; `empty` is the sentence for none."""
    cells = [[column.show(row[column.key]) for column in columns] for row in rows]
    if cells:
        grid(columns, cells)
    else:
        say(empty)


def grid(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    """Cells that are text already."""
    widths = [max(len(column.title), *(len(row[place]) for row in cells)) for place, column in enumerate(columns)]
    if not is_terminal():
        _plain(columns, cells, widths)
        return
    shown = _that_fit(columns, widths, width())
    if not shown:
        _blocks(columns, cells)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for place in shown:
        column = columns[place]
        drawn.add_column(
            column.title, justify="right" if column.right else "left", no_wrap=not column.words, overflow="fold"
        )
    for row in cells:
        drawn.add_row(*(Text(row[place], style=_style(row[place], columns[place])) for place in shown))
    Console(highlight=False).print(drawn)


def _style(cell: str, column: Column) -> str:
    if cell.startswith(("FAIL", "REJECTED", "HALTED")) or (column.right and cell.startswith("-") and cell != NOTHING):
        return "red"
    return ""


def _that_fit(columns: Sequence[Column], widths: Sequence[int], room: int) -> list[int]:
    """The places of the columns to be shown; none if even those that are not optional are too wide together."""
    least = [
        min(wide, max(WORDS_LEAST, len(column.title))) if column.words else wide
        for column, wide in zip(columns, widths, strict=True)
    ]
    shown = list(range(len(columns)))
    while sum(least[place] + GAP for place in shown) - GAP > room:
        optional = [place for place in shown if columns[place].optional]
        if not optional:
            return []
        shown.remove(optional[-1])
    return shown


def _plain(columns: Sequence[Column], cells: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    for row in ([column.title for column in columns], *cells):
        parts = [
            cell.rjust(wide) if column.right else cell.ljust(wide)
            for column, cell, wide in zip(columns, row, widths, strict=True)
        ]
        click.echo((" " * GAP).join(parts).rstrip())


def _blocks(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    for place, row in enumerate(cells):
        if place:
            click.echo()
        facts((column.title, cell) for column, cell in zip(columns, row, strict=True))


@contextmanager
def working(what: str) -> Iterator[Callable[[int, int], None]]:
    """Long work is seen to go on where somebody is looking; what is yielded tells how far it has come (done, of all)."""
    if not sys.stderr.isatty():
        yield lambda _done, _all: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)
