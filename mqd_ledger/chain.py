"""The envelope of an event and the hash chain: what makes an altered, missing, moved or inserted event show.

A row of the log is (position, stream, version, type, occurred_at, recorded_at, correlation, causation, payload, hash).
`position` is the place in the log, from 1 without a gap; `version` counts within the stream, from 1. `causation` is the
position of the event that this one answers and `correlation` that of the input which began it all; an input from outside
is its own correlation and has causation 0. Times are microseconds since 1970 UTC: `occurred_at` when it happened in the
world, `recorded_at` when we learned it, never less than that of the event before.

hash(n) = sha256( hash(n-1) + header(n) + payload(n) ), hash(0) = 32 zero bytes, where header is the compact JSON array
[position, stream, version, type, occurred_at, recorded_at, correlation, causation] and payload the stored JSON object. A header
ends with "]" and a payload begins with "{", so no two events share their bytes. Twenty lines in any language can check it.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

import msgspec

from mqd_ledger.errors import ChainBroken

GENESIS = bytes(32)

header = msgspec.json.Encoder().encode


class Head(NamedTuple):
    """The last event of a log: its position, its hash, and when it was recorded (microseconds). An empty log has position 0."""

    position: int = 0
    hash: bytes = GENESIS
    recorded_at: int = 0


Envelope = tuple[int, str, int, str, int, int, int, int]
Row = tuple[int, str, int, str, int, int, int, int, bytes, bytes]


def digest(previous: bytes, envelope: Envelope, payload: bytes) -> bytes:
    """The hash of an event after one whose hash is `previous`."""
    return sha256(previous + header(envelope) + payload).digest()


def check(rows: Iterable[Row], start: Head = Head()) -> Head:
    """Walk rows of the log and return the last head; the first that does not fit raises."""
    position, previous, recorded = start
    for row in rows:
        position += 1
        if row[0] != position:
            raise ChainBroken(f"Event {position} is missing from the log: the next one found is {row[0]}.")
        digest = sha256(previous + header(row[:8]) + row[8]).digest()
        if digest != row[9]:
            raise ChainBroken(
                f"Event {position} ({row[3]} of stream {row[1]}) is not the one that was written: its hash is {row[9].hex()[:16]}… "
                f"but its content after event {position - 1} gives {digest.hex()[:16]}…. It, or the one before it, was altered, "
                "inserted or moved. Restore the ledger from a backup or an export."
            )
        if row[5] < recorded:
            raise ChainBroken(
                f"Event {position} says it was recorded before event {position - 1}: the log goes backwards in time."
            )
        previous, recorded = digest, row[5]
    return Head(position, previous, recorded)
