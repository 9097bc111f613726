"""An event as the stores keep it, and what both stores can do."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from mqd_ledger.chain import Head, Row, digest
from mqd_ledger.errors import Conflict

CHUNK = 500  # rows of one short read

Clock = Callable[[], datetime]

# A row of the chain with numbers for the names of its stream and type.
StoredRow = tuple[int, int, int, int, int, int, int, int, str | bytes, bytes]

# What a reader wants of each row; the payload comes last, as text or bytes.
Wanted = Literal["replay", "fold"]
COLUMNS: Mapping[Wanted, tuple[str, ...]] = MappingProxyType(
    {
        "replay": ("position", "type", "occurred_at", "recorded_at", "correlation", "causation", "payload"),
        "fold": ("position", "type", "payload"),
    }
)
FIELDS = (
    *("position", "stream", "version", "type", "occurred_at", "recorded_at"),
    *("correlation", "causation", "payload", "hash"),
)
PICK: Mapping[Wanted, Callable[[StoredRow], tuple[Any, ...]]] = MappingProxyType(
    {wanted: itemgetter(*map(FIELDS.index, columns)) for wanted, columns in COLUMNS.items()}
)


class Batch(NamedTuple):
    """What one commit appends: the head it builds on, names that are new with their numbers, and the rows."""

    base: Head
    streams: Sequence[tuple[int, str]]
    types: Sequence[tuple[int, str]]
    rows: Sequence[StoredRow]
    # Called once all is written and only the disk is waited for: what has to wait for that can be made ready meanwhile.
    meanwhile: Callable[[], None] = lambda: None

    def conflict(self, place: str, found: Head) -> Conflict:
        """What to raise where the log does not end with the base any more."""
        first, last = self.rows[0][0], self.rows[-1][0]
        return Conflict(
            f"Events {first} to {last} were decided after event {self.base.position} of {place}, but the log now ends with "
            f"event {found.position}: another program has written to it. None of them was written. Open the ledger again "
            "and decide on what is there now."
        )


class LedgerRecorder(Protocol):
    """What both stores can do beyond eventsourcing's ApplicationRecorder. Positions, versions and numbers count from 1.

    `after` and `upto` are positions, `types` stored names, `recorded_until` microseconds. Reading goes in chunks, each of which is
    one short read, so that no reader holds the writer's WAL and memory stays flat.
    """

    def head(self) -> Head: ...

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows that continue the chain, all or none; rows that do not raise ChainBroken."""

    def write(self, batch: Batch) -> None:
        """Add a batch whose chain its maker has computed, all or none; Conflict if the head is not the batch's base any more."""

    def read(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: int | None = None
    ) -> Iterator[Row]: ...

    def chunks(
        self,
        wanted: Wanted,
        after: int = 0,
        upto: int | None = None,
        types: Sequence[str] = (),
        recorded_until: int | None = None,
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        """The columns that are `wanted`, chunk by chunk."""

    def read_stream(self, name: str, after_version: int = 0) -> list[Row]: ...

    def stream_version(self, name: str) -> int:
        """The last version of a stream; 0 where there is none."""

    def find_stream(self, name: str) -> tuple[int, int]:
        """The number and the last version of a stream; (0, 0) where there is none."""

    def last_stream(self) -> int:
        """The highest number of a stream."""

    def type_numbers(self) -> dict[str, int]: ...

    def position_at(self, recorded_until: int) -> int:
        """The last position that was recorded at or before a time; 0 where there is none."""

    def problems(self) -> list[str]:
        """What is wrong with the storage itself (pages, indexes); empty where it is sound."""

    def close(self) -> None: ...


def now() -> datetime:
    """The clock of a recorder that a foreign application writes to; the engine brings its own times."""
    return datetime.now(UTC)


def chained(head: Head, stored_events: Iterable[StoredEvent], at: int) -> list[Row]:
    """Events of an eventsourcing application as rows that follow `head`: each is an input of its own."""
    rows: list[Row] = []
    position, previous, recorded_at = head
    recorded_at = max(recorded_at, at)
    for stored in stored_events:
        position += 1
        envelope = (
            position,
            name_of(stored.originator_id),
            stored.originator_version,
            stored.topic,
            recorded_at,
            recorded_at,
            position,
            0,
        )
        previous = digest(previous, envelope, stored.state)
        rows.append((*envelope, stored.state, previous))
    return rows


def name_of(originator_id: UUID | str) -> str:
    return originator_id.hex if isinstance(originator_id, UUID) else originator_id


def text_of(payload: bytes) -> str | bytes:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload  # compressed or enciphered by a foreign application


def bytes_of(payload: str | bytes) -> bytes:
    return payload.encode() if isinstance(payload, str) else payload
