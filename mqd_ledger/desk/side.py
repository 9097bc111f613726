"""What a part of the desk is: it answers arrivals of its kind, and looks from time to time whether something is due."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Protocol

from commands import Command
from mqd_ledger.state import State


class Side(Protocol):
    def tick(self, state: State, at: datetime) -> Iterable[Command]:
        """What is due by now; called again and again by the deciding thread."""


class Every:
    """True once in so many seconds, by the desk's clock."""

    def __init__(self, seconds: float) -> None:
        self._every = timedelta(seconds=seconds)
        self._next: datetime | None = None

    def __call__(self, at: datetime) -> bool:
        if self._next is not None and at < self._next:
            return False
        self._next = at + self._every
        return True
