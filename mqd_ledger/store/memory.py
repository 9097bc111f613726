"""A log in memory: eventsourcing's in-memory recorder with our envelope and chain."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast
from uuid import UUID

from eventsourcing.persistence import IntegrityError, StoredEvent
from eventsourcing.popo import POPOApplicationRecorder

from mqd_ledger.chain import Head, Row, check
from mqd_ledger.errors import Conflict
from mqd_ledger.store.rows import CHUNK, PICK, Batch, Clock, StoredRow, Wanted, bytes_of, chained, name_of, now, text_of
from mqd_ledger.values import microseconds


class _Stored(Sequence[StoredEvent]):
    """The rows of a log in memory as the events that the library's own methods expect."""

    def __init__(self, make: Callable[[int], StoredEvent], rows: Sequence[StoredRow]) -> None:
        self._make = make
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return self._make(place)


class MemoryLedgerRecorder(POPOApplicationRecorder):
    """A log that is gone with its process: for tests, reruns and what-if."""

    def __init__(self, clock: Clock = now) -> None:
        super().__init__()
        self._clock = clock
        self._rows: list[StoredRow] = []
        self._stream_ids: dict[str, int] = {}
        self._type_ids: dict[str, int] = {}
        self._stream_names: list[str] = [""]
        self._type_names: list[str] = [""]
        self._originators: dict[int, UUID] = {}  # of a foreign application
        self._places: list[list[int]] = [[]]  # by stream: the places of its rows, in the order of their versions
        self._stored_events = cast("list[StoredEvent]", _Stored(self._stored_event, self._rows))

    def _stored_event(self, place: int) -> StoredEvent:
        row = self._rows[place]
        originator_id = self._originators.get(row[1], self._stream_names[row[1]])
        return StoredEvent(originator_id, row[2], self._type_names[row[3]], bytes_of(row[8]))

    def _insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        with self._database_lock:
            rows = chained(self.head(), stored_events, microseconds(self._clock()))
            self._assert_new(rows)
            self._take(rows)
            for stored in stored_events:
                if isinstance(stored.originator_id, UUID):
                    self._originators[self._stream_ids[stored.originator_id.hex]] = stored.originator_id
            return [row[0] for row in rows]

    def _assert_new(self, rows: Sequence[Row]) -> None:
        seen: set[tuple[str, int]] = set()
        for row in rows:
            key = (row[1], row[2])
            if key in seen or self._holds(*key):
                raise IntegrityError(f"Version {row[2]} of stream {row[1]!r} is recorded already.")
            seen.add(key)

    def _holds(self, stream: str, version: int) -> bool:
        places = self._places[self._stream_ids.get(stream, 0)]
        found = bisect_left(places, version, key=self._version)
        return found < len(places) and self._version(places[found]) == version

    def _version(self, place: int) -> int:
        return self._rows[place][2]

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        with self._database_lock:
            places = self._places[self._stream_ids.get(name_of(originator_id), 0)]
            first = 0 if gt is None else bisect_left(places, gt + 1, key=self._version)
            last = len(places) if lte is None else bisect_left(places, lte + 1, key=self._version)
            wanted = places[first:last]
            return [self._stored_event(place) for place in (wanted[::-1] if desc else wanted)[:limit]]

    def close(self) -> None:
        """Nothing to let go of."""

    def head(self) -> Head:
        return Head(self._rows[-1][0], self._rows[-1][9], self._rows[-1][5]) if self._rows else Head()

    def append(self, rows: Sequence[Row]) -> None:
        with self._database_lock:
            check(rows, self.head())
            try:
                self._assert_new(rows)
            except IntegrityError as error:
                raise Conflict(f"{error} Nothing of this batch was written.") from error
            self._take(rows)

    def write(self, batch: Batch) -> None:
        with self._database_lock:
            if self.head() != batch.base:
                raise batch.conflict("the log in memory", self.head())
            for _id, name in batch.streams:
                self._stream_id(name)
            for _id, name in batch.types:
                self._type_id(name)
            for row in batch.rows:
                self._add(row)
            batch.meanwhile()
        self._notify_listeners()

    def _take(self, rows: Sequence[Row]) -> None:
        for row in rows:
            stream, kind = self._stream_id(row[1]), self._type_id(row[3])
            self._add((row[0], stream, row[2], kind, *row[4:8], text_of(row[8]), row[9]))

    def _add(self, row: StoredRow) -> None:
        rows, places = self._rows, self._places[row[1]]
        rows.append(row)
        if not places or rows[places[-1]][2] < row[2]:
            places.append(len(rows) - 1)
        else:  # only the library allows versions in any order
            insort(places, len(rows) - 1, key=self._version)

    def _stream_id(self, name: str) -> int:
        number = self._stream_ids.get(name)
        if number is None:
            number = self._stream_ids[name] = len(self._stream_names)
            self._stream_names.append(name)
            self._places.append([])
        return number

    def _type_id(self, name: str) -> int:
        number = self._type_ids.get(name)
        if number is None:
            number = self._type_ids[name] = len(self._type_names)
            self._type_names.append(name)
        return number

    def _row(self, row: StoredRow) -> Row:
        return (
            row[0],
            self._stream_names[row[1]],
            row[2],
            self._type_names[row[3]],
            *row[4:8],
            bytes_of(row[8]),
            row[9],
        )

    def read(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: int | None = None
    ) -> Iterator[Row]:
        for chunk in self._chunks(after, upto, types, recorded_until):
            yield from map(self._row, chunk)

    def chunks(
        self,
        wanted: Wanted,
        after: int = 0,
        upto: int | None = None,
        types: Sequence[str] = (),
        recorded_until: int | None = None,
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        for chunk in self._chunks(after, upto, types, recorded_until):
            yield list(map(PICK[wanted], chunk))

    def _chunks(
        self, after: int, upto: int | None, types: Sequence[str], recorded_until: int | None
    ) -> Iterator[list[StoredRow]]:
        wanted = {self._type_ids.get(name) for name in types}
        while True:
            last = len(self._rows) if upto is None else min(upto, len(self._rows))
            if recorded_until is not None:
                last = min(last, self.position_at(recorded_until))
            chunk = self._rows[after : min(after + CHUNK, last)]
            if not chunk:
                return
            after += len(chunk)
            yield [row for row in chunk if row[3] in wanted] if types else chunk

    def read_stream(self, name: str, after_version: int = 0) -> list[Row]:
        places = self._places[self._stream_ids.get(name, 0)]
        return [self._row(self._rows[place]) for place in places if self._version(place) > after_version]

    def stream_version(self, name: str) -> int:
        return self.find_stream(name)[1]

    def find_stream(self, name: str) -> tuple[int, int]:
        number = self._stream_ids.get(name, 0)
        places = self._places[number]
        return (number, self._version(places[-1]) if places else 0)

    def last_stream(self) -> int:
        return len(self._stream_names) - 1

    def problems(self) -> list[str]:
        return []

    def type_numbers(self) -> dict[str, int]:
        return dict(self._type_ids)

    def position_at(self, recorded_until: int) -> int:
        return bisect_left(self._rows, recorded_until + 1, key=lambda row: row[5])
