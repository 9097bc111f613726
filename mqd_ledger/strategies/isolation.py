"""Keeps a strategy, which is anybody's code, from hurting the run: what it raises, its arithmetic, what it asks for.

A strategy computes in a decimal context of its own, so that one that changes the precision changes only its own results. What it
raises is told in words that come out the same when a restart shows it the same bars again.
"""

import re
from decimal import Decimal

from commands.trading import is_tradable
from mqd_ledger.strategies.base import Signal
from mqd_ledger.values import ARITHMETIC, Direction

SIGNALS_MAX = 1000  # from one bar; more come only from an answer that never ends
TEXT_MAX = 2000  # characters of a reason or an error that are kept
SMALLEST, LARGEST = Decimal("1E-12"), Decimal("1E+15")  # of a price, a size or an amount of dollars
_PLACE_IN_MEMORY = re.compile(r" at 0x[0-9A-Fa-f]+")


def described(error: BaseException) -> str:
    """An error of a strategy as the log keeps it: without places in memory, which differ at every start."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception as second:  # noqa: BLE001  its own __str__ raises: the two names are all that is to be had
        text = f"{type(error).__name__}, whose text cannot be had ({type(second).__name__})"
    return storable(_PLACE_IN_MEMORY.sub("", text))


def storable(text: str) -> str:
    """Text that UTF-8 can hold: halves of surrogate pairs, as in file names of another encoding, are written out."""
    return text[:TEXT_MAX].encode("utf-8", "backslashreplace").decode()


def check_signal(signal: object) -> Signal:
    """What a strategy answers, found to be a signal that can be recorded and decided on."""
    if not isinstance(signal, Signal) or not isinstance(signal.direction, Direction):
        found = f"Signal({signal.direction!r}…)" if isinstance(signal, Signal) else type(signal).__name__
        raise TypeError(f"a strategy answers with Signal(Direction…), found {found}")
    for field in ("quantity", "notional", "stop_price", "target_price"):
        value = getattr(signal, field)
        if value is None:
            continue
        if not (isinstance(value, Decimal) and value.is_finite() and SMALLEST <= value <= LARGEST):
            raise TypeError(f"a signal's {field} is a Decimal above zero and up to {LARGEST}, found {value!r}")
        if len(value.as_tuple().digits) > ARITHMETIC.prec:
            raise ValueError(f"a signal's {field} has up to {ARITHMETIC.prec} digits, found {value}")
    if signal.quantity is not None and not is_tradable(signal.quantity):
        raise ValueError(f"a signal's quantity has up to 9 decimals, found {signal.quantity}")
    for field in ("reason", "symbol", "confidence"):
        text = getattr(signal, field)
        if not isinstance(text, str) and (text is not None or field == "reason"):
            raise TypeError(f"a signal's {field} is text, found {text!r}")
        if text is not None and storable(text) != text:
            raise ValueError(
                f"a signal's {field} is up to {TEXT_MAX} characters that UTF-8 can hold, found {text[:40]!r}"
            )
    return signal
