"""The log as the engine writes it and everybody reads it: events in, envelope and chain made here, events out.

`EventLog.record` gives events their places; `commit` makes their envelopes, links them into the chain and writes them in one
transaction. Nothing else is kept back anywhere. Reading sees what is committed.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from mqd_ledger.chain import Head, Row, header
from mqd_ledger.engine import Recorded
from mqd_ledger.envelope import DECODERS, decode, encode
from mqd_ledger.errors import BadInput, BrokenPromise
from mqd_ledger.events import STORED_NAME, STREAM_OF, Event
from mqd_ledger.lock import WriterLock
from mqd_ledger.store import (
    Batch,
    Durability,
    LedgerRecorder,
    MemoryLedgerRecorder,
    StoredRow,
    open_ledger,
    require_file,
)
from mqd_ledger.values import EPOCH, MICROSECOND, from_microseconds, microseconds

STREAMS_KEPT = 50_000  # streams whose last version a writer remembers
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
        decoders = self._decoders
        row: tuple[Any, ...] = (after,)
        try:
            for chunk in self.recorder.chunks("fold", after, upto, (), until):
                for row in chunk:
                    yield decoders[row[1]](row[2])
        except msgspec.MsgspecError as error:
            raise _unreadable(row[0], error) from error

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

    def __init__(self, recorder: LedgerRecorder, lock: WriterLock | None = None) -> None:
        super().__init__(recorder)
        self._lock = lock
        self._rows: list[StoredRow] = []
        self._start_from(recorder.head())

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
            return cls(open_ledger(path, "create" if is_new else "write", durability), lock)
        except BaseException:
            lock.release()
            raise

    def _start_from(self, head: Head) -> None:
        """Remember nothing but what is committed."""
        recorder = self.recorder
        self._base = self._sealed = head
        self._next = head.position + 1
        self._rows.clear()
        self._unsealed: list[tuple[Sequence[Event], datetime, int, int]] = []
        self._streams: dict[str, list[int]] = {}  # name -> [id, last version]
        self._is_every_stream_known = not head.position
        self._last_stream_id = recorder.last_stream()
        self._new_streams: list[tuple[int, str]] = []
        self._type_ids = recorder.type_numbers()
        self._new_types: list[tuple[int, str]] = []
        self._kinds: dict[type[Event], tuple[Callable[[Any], str], str, int]] = {}

    @property
    def pending(self) -> int:
        """How many events are recorded and not yet committed."""
        return self._next - 1 - self._base.position

    @property
    def head(self) -> Head:
        """The last event, committed or not."""
        self._seal()
        return self._sealed

    def record(self, events: Sequence[Event], recorded_at: datetime, causation: int = 0, correlation: int = 0) -> int:
        """Append the events of one command; the position of the first. They are durable after `commit`.

        The first answers `causation` and belongs to `correlation` (to itself if 0); those after it answer the first. The log
        never goes back in recorded time: an earlier time becomes that of the event before.
        """
        first = self._next
        self._next = first + len(events)
        self._unsealed.append((events, recorded_at, causation, correlation or first))
        return first

    def _seal(self) -> None:
        """Give what was recorded its envelope, its JSON and its hash: one tight loop over the batch, all names bound once."""
        if not self._unsealed:
            return
        rows, streams, kinds = self._rows, self._streams, self._kinds
        position, previous, recorded = self._sealed
        time, micros = EPOCH, 0
        try:
            for events, recorded_at, causation, correlation in self._unsealed:
                if recorded_at is not time and recorded_at != time:
                    time, micros = recorded_at, (recorded_at - EPOCH) // MICROSECOND
                recorded = max(recorded, micros)
                first, cause = position + 1, causation
                for event in events:
                    stream_of, name, kind = kinds.get(type(event)) or self._kind(type(event))
                    stream = stream_of(event)
                    entry = streams.get(stream) or self._stream(stream)
                    occurred_at = event.occurred_at
                    if occurred_at is not time and occurred_at != time:
                        time, micros = occurred_at, (occurred_at - EPOCH) // MICROSECOND
                    position += 1
                    entry[1] = version = entry[1] + 1
                    payload = encode(event)
                    envelope = header((position, stream, version, name, micros, recorded, correlation, cause))
                    previous = sha256(previous + envelope + payload).digest()
                    text = payload.decode()
                    rows.append(
                        (position, entry[0], version, kind, micros, recorded, correlation, cause, text, previous)
                    )
                    cause = first
        except BaseException:
            self.rollback()  # an event that cannot be stored: nothing of the batch may be
            raise
        self._unsealed.clear()
        self._sealed = Head(position, previous, recorded)

    def _kind(self, event_type: type[Event]) -> tuple[Callable[[Any], str], str, int]:
        name = STORED_NAME[event_type]
        number = self._type_ids.get(name)
        if number is None:
            number = self._type_ids[name] = max(self._type_ids.values(), default=0) + 1
            self._new_types.append((number, name))
        kind = self._kinds[event_type] = (STREAM_OF[event_type], name, number)
        return kind

    def _stream(self, name: str) -> list[int]:
        number, version = (0, 0) if self._is_every_stream_known else self.recorder.find_stream(name)
        if not number:
            number = self._last_stream_id = self._last_stream_id + 1
            self._new_streams.append((number, name))
        entry = self._streams[name] = [number, version]
        return entry

    def commit(self) -> None:
        """Write what is pending in one transaction. Where that fails nothing of it is in the log, and it stays pending."""
        self._seal()
        if not self._rows:
            return
        self.recorder.write(Batch(self._base, self._new_streams, self._new_types, self._rows))
        self._base = self._sealed
        self._rows, self._new_streams, self._new_types = [], [], []
        if len(self._streams) > STREAMS_KEPT:  # memory stays flat; what is needed again is looked up again
            self._streams = {}
            self._is_every_stream_known = False

    def rollback(self) -> None:
        """Forget what is not committed."""
        self._start_from(self._base)

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
