"""Stored shapes are promises for ever: one example of every event as it was first written, read back byte for byte."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from mqd_ledger import events as e
from mqd_ledger import upcasts
from mqd_ledger.envelope import _upcasting, decode, encode, stored_names
from mqd_ledger.errors import UnknownEventType
from mqd_ledger.policy import Operation, Policy
from mqd_ledger.upcasts import UPCASTS
from tests.dsl import OPENING


class Stored(msgspec.Struct, forbid_unknown_fields=True):
    """One line of the file. New lines are added; none is ever changed or removed."""

    type: str
    payload: msgspec.Raw


LINES = (Path(__file__).parent / "golden/events.jsonl").read_bytes().splitlines()
EXAMPLES = [msgspec.json.decode(line, type=Stored) for line in LINES]


def test_every_type_that_can_be_stored_has_its_example_and_none_has_two() -> None:
    names = [example.type for example in EXAMPLES]
    assert sorted(names) == sorted({*e.TYPES, *UPCASTS}), (
        "add a line to tests/golden/events.jsonl for each new stored name"
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.type)
def test_an_example_is_read_and_written_again_byte_for_byte(example: Stored) -> None:
    event = decode(example.type, bytes(example.payload))
    if example.type in e.TYPES:
        assert type(event) is e.TYPES[example.type]
        assert encode(event) == bytes(example.payload)
        assert decode(example.type, encode(event)) == event


def values_of(thing: object) -> Iterator[tuple[str, object]]:
    assert isinstance(thing, msgspec.Struct)
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        yield f"{type(thing).__name__}.{name}", value
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, msgspec.Struct):
                yield from values_of(inner)


@pytest.mark.parametrize("example", [one for one in EXAMPLES if one.type in e.TYPES], ids=lambda example: example.type)
def test_every_field_of_an_example_says_something(example: Stored) -> None:
    event = decode(example.type, bytes(example.payload))
    nothing: tuple[object, ...] = (None, "", 0, (), {})
    empty = [name for name, value in values_of(event) if not isinstance(value, bool) and value in nothing]
    assert [name for name in empty if name != "Check.allowed"] == []


FILL = {"type": "OrderFilled.v1", "field": "cumulative_quantity", "value": "6"}
STATED = {"type": "OrderFilled.v1", "field": "stated_at", "value": "2026-01-05T14:31:00.123456789Z"}
STATUS = {"type": "OrderAnomalyFound.v1", "field": "status", "value": "held_for_review"}


@pytest.mark.parametrize("newer", (FILL, STATED, STATUS), ids=lambda newer: newer["field"])
def test_a_field_that_came_later_is_absent_in_older_events_and_stays_so(newer: dict[str, str]) -> None:
    (old,) = [bytes(example.payload) for example in EXAMPLES if example.type == newer["type"]]
    assert getattr(decode(newer["type"], old), newer["field"]) is msgspec.UNSET
    new = old[:-1] + b',"%s":"%s"}' % (newer["field"].encode(), newer["value"].encode())
    event = decode(newer["type"], new)
    assert str(getattr(event, newer["field"])) == newer["value"]
    assert encode(event) == new


def test_a_policy_of_before_there_was_an_operation_is_read_with_its_defaults() -> None:
    (old,) = [bytes(example.payload) for example in EXAMPLES if example.type == "RunStarted.v1"]
    started = decode("RunStarted.v1", old)
    assert isinstance(started, e.RunStarted)
    assert (started.policy.operation, started.policy.unattended) == (msgspec.UNSET, Operation())


def test_money_and_prices_are_stored_as_text_so_that_no_reader_makes_floats_of_them() -> None:
    for example in EXAMPLES:
        numbers = re.findall(rb'"(\w+)":-?\d+\.\d', bytes(example.payload))
        assert numbers == [], example.type
    hints: dict[str, Any] = get_type_hints(e.OrderFilled)
    assert hints["last_price"] is Decimal


def test_a_policy_that_names_a_limit_nobody_knows_is_not_read_past() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `wishes_max`"):
        msgspec.convert({"limits": {"wishes_max": 1}}, Policy)


def test_an_unknown_name_stops_the_program_and_says_what_is_known() -> None:
    with pytest.raises(UnknownEventType, match=r"'OrderTeleported.v1'.*OrderFilled.v1.*Use the version"):
        decode("OrderTeleported.v1", b"{}")


def test_an_older_shape_is_lifted_step_by_step_to_the_one_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two old shapes of RunEnded that never were: `why` became `text` became `reason`."""
    old: dict[str, tuple[str, upcasts.Upcast]] = {
        "RunEnded.v-1": ("RunEnded.v0", lambda fields: {**fields, "text": fields.pop("why")}),
        "RunEnded.v0": ("RunEnded.v1", lambda fields: {**fields, "reason": fields.pop("text")}),
    }
    monkeypatch.setattr("mqd_ledger.envelope.UPCASTS", old)
    today = e.RunEnded(OPENING, 7, "over")
    for name, field in (("RunEnded.v-1", b"why"), ("RunEnded.v0", b"text")):
        stored = b'{"occurred_at":"2026-01-05T14:30:00Z","run":7,"%s":"over"}' % field
        assert _upcasting(name)(stored) == today
    assert stored_names(e.RunStarted, e.RunEnded) == ("RunStarted.v1", "RunEnded.v1", "RunEnded.v0", "RunEnded.v-1")
