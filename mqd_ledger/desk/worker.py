"""A thread that does one job after another, each of which waits for the world, and puts what came of it into the inbox."""

import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import TypeVar

from commands import Command
from mqd_ledger.desk.inbox import Inbox, Translate
from mqd_ledger.state import State

T = TypeVar("T")
Then = Callable[[T, State, datetime], Iterable[Command]]


class Worker:
    """Jobs are done in the order in which they were given. A job that raises ends the desk: `raise_in` puts the error into it."""

    def __init__(self, name: str, inbox: Inbox) -> None:
        self._inbox = inbox
        self._jobs: SimpleQueue[Callable[[], Translate] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def give(self, job: Callable[[], T], then: Then[T]) -> None:
        """Do `job` in this thread; the desk then asks `then` for commands."""

        def done() -> Translate:
            result = job()
            return lambda state, at: then(result, state, at)

        self._jobs.put(done)

    def stop(self, seconds: float) -> None:
        """What has not begun is not done any more; what is under way gets so long to end."""
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
        self._jobs.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        _let_others_first()
        while (job := self._jobs.get()) is not None:
            try:
                translate = job()
            except BaseException as error:  # noqa: BLE001  a thread must not die unheard: the desk raises it
                translate = _raising(error)
            self._inbox.put(translate)


def _let_others_first() -> None:
    """Linux gives a thread that was woken the processor of who woke it: here the deciding thread, on its way to the disk."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it; then it is only slower
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _raising(error: BaseException) -> Translate:
    def translate(_state: State, _at: datetime) -> Iterable[Command]:
        raise error

    return translate
