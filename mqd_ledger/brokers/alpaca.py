"""Alpaca as a broker: `AlpacaBroker` answers the questions of `base.py` and performs effects, one request each.

    alpaca_effects.py     what is sent, and what the answers mean to the ledger
    alpaca_questions.py   what is asked
    alpaca_updates.py     what its stream says
    alpaca_reading.py     its JSON
    alpaca_rest.py        its REST interface

Nothing that the world can cause is raised by `perform`: what is not known is an answer as well. A refusal of an order is believed
only where the broker has no order of that name, for an earlier attempt may have arrived after all.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from mqd_ledger.brokers.alpaca_effects import (
    Answer,
    Cancel,
    Effect,
    LookUp,
    Replace,
    Submit,
    answer_commands,
    body_of,
    change_of,
)
from mqd_ledger.brokers.alpaca_questions import AlpacaQuestions
from mqd_ledger.brokers.alpaca_reading import Unreadable, order_of
from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Ambiguous, BrokerFailure, Refused, Unauthorized, Urgency
from mqd_ledger.values import EPOCH, OrderState

__all__ = [
    "AlpacaBroker",
    "Answer",
    "Cancel",
    "Effect",
    "LookUp",
    "Replace",
    "Submit",
    "answer_commands",
]

GRACE = 10.0  # seconds after an attempt in which "no such order" proves nothing
DUPLICATE = "client_order_id must be unique"  # the code that comes with it stands for other things as well
GONE = (OrderState.CANCELED, OrderState.EXPIRED, OrderState.REJECTED)


class AlpacaBroker(AlpacaQuestions):
    def __init__(self, rest: AlpacaRest, clock: Callable[[], datetime], *, grace: float = GRACE) -> None:
        super().__init__(rest)
        self._clock = clock
        self._grace = timedelta(seconds=grace)
        self._attempted: dict[str, datetime] = {}  # when an attempt without an answer was given up

    def perform(self, effect: Effect) -> Answer:
        """Send one effect, or ask what became of it. Called by worker threads."""
        try:
            return _PERFORM[type(effect)](self, effect)
        except Ambiguous as failure:
            if isinstance(effect, Submit | Replace):
                self._attempted[_name(effect)] = self._clock()
            return Answer("unknown", reason=str(failure))
        except (BrokerFailure, Unreadable) as failure:
            return Answer("unknown", reason=str(failure))

    def _submit(self, effect: Submit) -> Answer:
        urgency = Urgency.EXIT if effect.closes else Urgency.ENTRY
        try:
            return _accepted(self.rest.post("/orders", body_of(effect), urgency))
        except Unauthorized as failure:
            return Answer("refused", reason=str(failure))
        except Refused as verdict:
            found = self.order(effect.client_order_id)
            if found is None and DUPLICATE in verdict.message:
                return Answer("unknown", reason=verdict.message)
            if found is None:
                return Answer("refused", reason=verdict.message)
            if (found.symbol, found.side, found.quantity) != (effect.symbol, effect.side, effect.quantity):
                other = f"{found.side} {found.quantity} {found.symbol}"
                return Answer("refused", reason=f"the broker has another order of this name already: {other}")
            return Answer("accepted", found)

    def _cancel(self, effect: Cancel) -> Answer:
        """A cancel that is taken is only a request: what comes of it is told later."""
        broker_order_id = effect.broker_order_id or self._broker_id(effect.client_order_id)
        try:
            self.rest.delete(f"/orders/{broker_order_id}")
        except Refused as verdict:
            found = self.order_by_broker_id(broker_order_id)
            if found is None or found.state is None:
                return Answer("unknown", found, verdict.message)
            is_over = found.state in GONE or found.status == "pending_cancel"
            return Answer("accepted" if is_over else "refused", found, verdict.message)
        return Answer("accepted")

    def _replace(self, effect: Replace) -> Answer:
        broker_order_id = effect.broker_order_id or self._broker_id(effect.client_order_id)
        try:
            return _accepted(self.rest.patch(f"/orders/{broker_order_id}", change_of(effect)))
        except Refused as verdict:
            if DUPLICATE in verdict.message:
                found = self.order(effect.replacement_id)
                return Answer("unknown" if found is None else "accepted", found, verdict.message)
            return Answer("refused", self.order_by_broker_id(broker_order_id), verdict.message)

    def _look_up(self, effect: LookUp) -> Answer:
        name = effect.client_order_id
        asked_at = self._clock()
        found = self.order(name)
        if found is not None:
            self._attempted.pop(name, None)
            return Answer("accepted", found)
        if asked_at - max(effect.attempt_at, self._attempted.get(name, EPOCH)) < self._grace:
            return Answer("unknown", reason="the broker has no such order yet")
        self._attempted.pop(name, None)
        return Answer("absent", reason="the broker has no such order")

    def _broker_id(self, client_order_id: str) -> str:
        """Of an order whose acknowledgement has not come: the broker may have it all the same."""
        found = self.order(client_order_id)
        if found is None:
            raise Ambiguous(f"there is no order {client_order_id} yet")
        return found.broker_order_id


_PERFORM: Mapping[type[Effect], Callable[[AlpacaBroker, Any], Answer]] = MappingProxyType(
    {
        Submit: AlpacaBroker._submit,  # noqa: SLF001  the table of this class's own methods
        Cancel: AlpacaBroker._cancel,  # noqa: SLF001
        Replace: AlpacaBroker._replace,
        LookUp: AlpacaBroker._look_up,  # noqa: SLF001
    }
)


def _name(effect: Submit | Replace) -> str:
    return effect.client_order_id if isinstance(effect, Submit) else effect.replacement_id


def _accepted(raw: object) -> Answer:
    if not isinstance(raw, Mapping):
        raise Unreadable("The answer to an order is no order.")
    return Answer("accepted", order_of(raw))
