"""The envelope in which the log keeps an event, and the way back from its stored form to the event."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from mqd_ledger.errors import UnknownEventType
from mqd_ledger.events import TYPES, Event
from mqd_ledger.upcasts import UPCASTS


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as it stands in the log.

    `position` is its place in the log, from 1 without a gap. `version` counts within the stream, from 1. `causation` is the
    position of the event that this one answers and `correlation` that of the input which began it all; an input from outside
    is its own correlation and has causation 0. Times are microseconds since 1970 UTC: `occurred_at` when it happened in the
    world, `recorded_at` when we learned it (never less than the event's before). `hash` covers the previous event's hash and
    all the rest (see `chain.py`).
    """

    position: int
    stream: str
    version: int
    type: str
    occurred_at: int
    recorded_at: int
    correlation: int
    causation: int
    payload: bytes  # JSON, UTF-8
    hash: bytes


encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


def _upcasting(name: str) -> Callable[[bytes], Event]:
    """A decoder for an old stored name: its object goes through the upcasts until a current name is reached."""

    def decode_old(payload: bytes) -> Event:
        current, fields = name, msgspec.json.decode(payload)
        while current in UPCASTS:
            current, upcast = UPCASTS[current]
            fields = upcast(fields)
        return msgspec.convert(fields, TYPES[current])

    return decode_old


# Stored name -> bytes to event.
DECODERS: Mapping[str, Callable[[bytes | str], Any]] = MappingProxyType(
    {name: msgspec.json.Decoder(cls).decode for name, cls in TYPES.items()}
    | {name: _upcasting(name) for name in UPCASTS}
)


def decode(name: str, payload: bytes | str) -> Event:
    """The event behind a stored name and its JSON. An unknown name stops the program: a ledger that guesses is worse than one that is down."""
    decoder = DECODERS.get(name)
    if decoder is None:
        raise UnknownEventType(
            f"The log holds an event of type {name!r}, which this version does not know. Known are {', '.join(sorted(DECODERS))}. "
            "Use the version of mqd-ledger that wrote it, or a newer one."
        )
    event: Event = decoder(payload)
    return event
