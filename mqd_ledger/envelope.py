"""An event's stored form and the way back: JSON under its stored name, older names through their upcasts."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from mqd_ledger.errors import BrokenPromise, UnknownEventType
from mqd_ledger.events import STORED_NAME, TYPES, Event
from mqd_ledger.upcasts import UPCASTS

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


def _upcasting(name: str) -> Callable[[bytes | str], Event]:
    """A decoder for an old stored name: its object goes through the upcasts until a current name is reached."""

    def decode_old(payload: bytes | str) -> Event:
        current, fields = name, msgspec.json.decode(payload)
        while current in UPCASTS:
            current, upcast = UPCASTS[current]
            fields = upcast(fields)
        return msgspec.convert(fields, TYPES[current])

    return decode_old


# Stored name -> bytes to event.
DECODERS: Mapping[str, Callable[[bytes | str], Any]] = MappingProxyType(
    {
        **{name: msgspec.json.Decoder(cls).decode for name, cls in TYPES.items()},
        **{name: _upcasting(name) for name in UPCASTS},
    }
)


def stored_names(*classes: type[Event]) -> tuple[str, ...]:
    """Every name under which events of these classes lie in logs: today's, and the older ones that lead to it."""
    names = [STORED_NAME[cls] for cls in classes]
    for name in names:  # it grows as older ones are found
        names += [old for old, (newer, _) in UPCASTS.items() if newer == name]
    return tuple(names)


def decode(name: str, payload: bytes | str) -> Event:
    """The event behind a stored name and its JSON.

    An unknown name stops the program: a ledger that guesses is worse than one that is down.
    """
    decoder = DECODERS.get(name)
    if decoder is None:
        raise UnknownEventType(
            f"The log holds an event of type {name!r}, which this version does not know. Known are {', '.join(sorted(DECODERS))}. "
            "Use the version of mqd-ledger that wrote it, or a newer one."
        )
    try:
        event: Event = decoder(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BrokenPromise(
            f"An event of type {name} holds a payload that is not of that type ({error}): it was altered. "
            "`mqd-ledger verify` finds the first event that was; restore the ledger from a backup or an export."
        ) from error
    return event
