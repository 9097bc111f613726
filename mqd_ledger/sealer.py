"""Seals entries into the log: place, version, numbers of names, hash; and writes a batch of them in one transaction.

This is the half of writing that needs the chain's last hash; making the entries (`log.py`) is the other. They are two because the
second can run in a process of its own (`pipeline.py`).
"""

from collections.abc import Callable, Iterable
from hashlib import sha256

from mqd_ledger.chain import Head, header
from mqd_ledger.store import Batch, LedgerRecorder, StoredRow

STREAMS_KEPT = 50_000  # streams whose last version a writer remembers

# An event on its way into the log: stream, stored name, occurred_at, recorded_at, correlation, causation, payload.
Entry = tuple[str, str, int, int, int, int, bytes]


class Sealer:
    """The end of a log at which entries are added. `head` counts those that are not written yet."""

    def __init__(self, recorder: LedgerRecorder) -> None:
        self._recorder = recorder
        self._start_from(recorder.head())

    def _start_from(self, head: Head) -> None:
        """Remember nothing but what is written."""
        self._base = self.head = head
        self._rows: list[StoredRow] = []
        self._streams: dict[str, list[int]] = {}  # name -> [number, last version]
        self._is_every_stream_known = not head.position
        self._last_stream = self._recorder.last_stream()
        self._new_streams: list[tuple[int, str]] = []
        self._types = self._recorder.type_numbers()
        self._new_types: list[tuple[int, str]] = []

    def seal(self, entries: Iterable[Entry]) -> None:
        """Link entries into the chain: one tight loop, all names bound once. A recorded time never falls."""
        add, streams, types = self._rows.append, self._streams, self._types
        position, previous, last_recorded = self.head
        for stream, name, occurred, recorded, correlation, causation, payload in entries:
            place = streams.get(stream) or self._stream(stream)
            number = types.get(name) or self._type(name)
            position += 1
            place[1] = version = place[1] + 1
            if recorded < last_recorded:
                recorded = last_recorded  # noqa: PLW2901  a clock that was set back must not turn the log around
            else:
                last_recorded = recorded
            envelope = header((position, stream, version, name, occurred, recorded, correlation, causation))
            previous = sha256(previous + envelope + payload).digest()
            text = payload.decode()
            add((position, place[0], version, number, occurred, recorded, correlation, causation, text, previous))
        self.head = Head(position, previous, last_recorded)

    def _stream(self, name: str) -> list[int]:
        number, version = (0, 0) if self._is_every_stream_known else self._recorder.find_stream(name)
        if not number:
            number = self._last_stream = self._last_stream + 1
            self._new_streams.append((number, name))
        place = self._streams[name] = [number, version]
        return place

    def _type(self, name: str) -> int:
        number = self._types[name] = max(self._types.values(), default=0) + 1
        self._new_types.append((number, name))
        return number

    def write(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """All that is sealed, in one transaction. Where that fails nothing of it is in the log, and it can be tried again.

        `meanwhile` is called once, when only the disk is waited for any more.
        """
        if not self._rows:
            meanwhile()
            return
        self._recorder.write(Batch(self._base, self._new_streams, self._new_types, self._rows, meanwhile))
        self._base = self.head
        self._rows, self._new_streams, self._new_types = [], [], []
        if len(self._streams) > STREAMS_KEPT:  # memory stays flat; what is needed again is looked up again
            self._streams = {}
            self._is_every_stream_known = False

    def drop(self) -> None:
        """Forget what is not written."""
        self._start_from(self._base)
