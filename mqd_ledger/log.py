"""The log as the engine writes it and everybody reads it: events in, envelope and chain made here, events out.

`EventLog.record` gives events their places; `commit` makes their envelopes, links them into the chain and writes them in one
transaction. Nothing else is kept back anywhere. Reading sees what is committed.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import chain as concatenated
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from mqd_ledger.chain import Head, Row
from mqd_ledger.engine import Recorded
from mqd_ledger.envelope import DECODERS, decode, encode
from mqd_ledger.errors import BadInput, BrokenPromise
from mqd_ledger.events import STORED_NAME, STREAM_OF, Event
from mqd_ledger.lock import WriterLock
from mqd_ledger.sealer import Entry, Sealer
from mqd_ledger.store import (
    Durability,
    LedgerRecorder,
    MemoryLedgerRecorder,
    open_ledger,
    require_file,
)
from mqd_ledger.values import EPOCH, MICROSECOND, from_microseconds, microseconds

# Two thirds of the price of calling the NamedTuple.
_recorded = cast("Callable[[tuple[Any, ...]], Recorded]", partial(tuple.__new__, Recorded))


class _Decoders(dict[int, Callable[[bytes | str], Event]]):
    """The decoder of each type by its number; looked up by name when one is met for the first time."""

    def __init__(self, recorder: LedgerRecorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __missing__(self, number: int) -> Callable[[bytes | str], Event]:
        name = {number: name for name, number in self._recorder.type_numbers().items()}.get(number, f"number {number}")
        decoder = self[number] = DECODERS.get(name) or partial(decode, name)
        return decoder


def _unreadable(position: int, error: msgspec.MsgspecError) -> BrokenPromise:
    return BrokenPromise(
        f"The payload of event {position} cannot be read as what its type says: {error}. It was altered; `mqd-ledger verify` "
        "finds the first event that was. Restore the ledger from a backup or an export."
    )


class LogReader:
    """A log to read from: `with LogReader.open(path) as log`. It may be written meanwhile by its one writer."""

    def __init__(self, recorder: LedgerRecorder) -> None:
        self.recorder = recorder
        self._decoders = _Decoders(recorder)

    @classmethod
    def open(cls, path: Path) -> Self:
        return cls(open_ledger(path, "read"))

    @property
    def head(self) -> Head:
        return self.recorder.head()

    def replay(
        self,
        after: int = 0,
        upto: int | None = None,
        types: Sequence[str] = (),
        recorded_until: datetime | None = None,
    ) -> Iterator[Recorded]:
        """Events after one position up to another; only of some stored names; only what was known at a time."""
        until = None if recorded_until is None else microseconds(recorded_until)
        decoders, make, position, last, last_at = self._decoders, _recorded, after, 0, EPOCH
        try:
            for chunk in self.recorder.chunks("replay", after, upto, types, until):
                for position, kind, occurred, recorded, correlation, causation, payload in chunk:
                    event = decoders[kind](payload)
                    if recorded != last:
                        last = recorded
                        last_at = event.occurred_at if occurred == recorded else from_microseconds(recorded)
                    yield make((position, last_at, correlation, causation, event))
        except msgspec.MsgspecError as error:
            raise _unreadable(position, error) from error

    def events(
        self, after: int = 0, upto: int | None = None, recorded_until: datetime | None = None
    ) -> Iterator[Event]:
        """The events alone: a third faster than `replay`, for folding a state."""
        until = None if recorded_until is None else microseconds(recorded_until)
        return concatenated.from_iterable(map(self._decoded, self.recorder.chunks("fold", after, upto, (), until)))

    def _decoded(self, chunk: Sequence[tuple[Any, ...]]) -> list[Event]:
        decoders = self._decoders
        try:
            return [decoders[kind](payload) for _, kind, payload in chunk]
        except msgspec.MsgspecError:
            for position, kind, payload in chunk:
                try:
                    decoders[kind](payload)
                except msgspec.MsgspecError as error:
                    raise _unreadable(position, error) from error
            raise

    def rows(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: datetime | None = None
    ) -> Iterator[Row]:
        """The same as rows of the chain, undecoded, for `chain.check` and exports."""
        until = None if recorded_until is None else microseconds(recorded_until)
        return self.recorder.read(after, upto, types, until)

    def stream(self, name: str, after_version: int = 0) -> list[Row]:
        """The rows of one stream in the order of their versions: an index look-up."""
        return self.recorder.read_stream(name, after_version)

    def position_at(self, recorded_until: datetime) -> int:
        """The last position that was recorded at or before a time; 0 where there is none."""
        return self.recorder.position_at(microseconds(recorded_until))

    def close(self) -> None:
        self.recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


class EventLog(LogReader):
    """The one writer of a log. Leaving its `with` block commits what is pending, leaving it by an error drops it."""

    def __init__(self, recorder: LedgerRecorder, lock: WriterLock | None = None, path: Path | None = None) -> None:
        super().__init__(recorder)
        self.path = path  # None: in memory
        self._lock = lock
        self._sealer = Sealer(recorder)
        self._start_from(self._sealer.head.position)

    @classmethod
    def create(cls, path: Path | None = None, *, durability: Durability = "full") -> Self:
        """A new log; without a path in memory. A file that is there already is left alone."""
        if path is None:
            return cls(MemoryLedgerRecorder())
        return cls._locked(path, durability, is_new=True)

    @classmethod
    def open(cls, path: Path, *, durability: Durability = "full") -> Self:
        """A log that exists, to go on with."""
        return cls._locked(path, durability, is_new=False)

    @classmethod
    def _locked(cls, path: Path, durability: Durability, *, is_new: bool) -> Self:
        if not is_new:
            require_file(path)  # before a lock file is left beside nothing
        lock = WriterLock(path)
        lock.acquire()
        try:
            if is_new and path.exists():
                raise BadInput(f"There is something at {path} already; a new ledger needs a name of its own.")
            return cls(open_ledger(path, "create" if is_new else "write", durability), lock, path)
        except BaseException:
            lock.release()
            raise

    def _start_from(self, position: int) -> None:
        self._committed = position
        self._next = position + 1
        self._recorded: list[tuple[int, Sequence[Event], datetime, int, int]] = []

    @property
    def pending(self) -> int:
        """How many events are recorded and not yet committed."""
        return self._next - 1 - self._committed

    @property
    def head(self) -> Head:
        """The last event, committed or not."""
        self._seal()
        return self._sealer.head

    def record(self, events: Sequence[Event], recorded_at: datetime, causation: int = 0, correlation: int = 0) -> int:
        """Append the events of one command; the position of the first. They are durable after `commit`.

        The first answers `causation` and belongs to `correlation` (to itself if 0); those after it answer the first. The log
        never goes back in recorded time: an earlier time becomes that of the event before.
        """
        first = self._next
        self._next = first + len(events)
        self._recorded.append((first, events, recorded_at, causation, correlation or first))
        return first

    def _entries(self) -> list[Entry]:
        """What was recorded since the last time, with its JSON made; one tight loop over the batch."""
        entries: list[Entry] = []
        add, time, micros = entries.append, EPOCH, 0
        for first, events, recorded_at, causation, correlation in self._recorded:
            if recorded_at is not time and recorded_at != time:
                time, micros = recorded_at, (recorded_at - EPOCH) // MICROSECOND
            recorded, cause = micros, causation
            for event in events:
                event_type = type(event)
                occurred_at = event.occurred_at
                if occurred_at is not time and occurred_at != time:
                    time, micros = occurred_at, (occurred_at - EPOCH) // MICROSECOND
                name = STORED_NAME[event_type]
                stream = STREAM_OF[event_type](event)
                add((stream, name, micros, recorded, correlation, cause, encode(event)))
                cause = first
        self._recorded.clear()
        return entries

    def _seal(self) -> None:
        if not self._recorded:
            return
        try:
            self._sealer.seal(self._entries())
        except BaseException:
            self.rollback()  # an event that cannot be stored: nothing of the batch may be
            raise

    def commit(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Write what is pending in one transaction. Where that fails nothing of it is in the log, and it stays pending.

        `meanwhile` is called once, when only the disk is waited for any more.
        """
        self._seal()
        self._sealer.write(meanwhile)
        self._committed = self._next - 1

    def rollback(self) -> None:
        """Forget what is not committed."""
        self._sealer.drop()
        self._start_from(self._committed)

    def close(self) -> None:
        """Let go of file and lock; what is pending is dropped."""
        try:
            self.recorder.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    def __exit__(
        self, error_type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if error_type is None:
                self.commit()
        finally:
            self.close()
