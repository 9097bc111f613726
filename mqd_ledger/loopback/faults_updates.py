"""What becomes of trade updates on their way out: lost, doubled, late, in another order, damaged.

To add one: a function in `CHANGES` under the name of its row in `faults_table.FAULTS`. It gets the fault, the update and the
desk where updates wait, and gives the frames that go out now: (seconds to wait, the `data` of the frame).
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mqd_ledger.loopback.faults_table import Fault

Update = dict[str, Any]
Frame = tuple[float, Update | None]

FILLS = ("partial_fill", "fill")
ENDS = ("fill", "canceled", "expired", "rejected", "replaced", "done_for_day")
NEWS_KEPT = 1000  # orders whose `new` can be replayed


class Held(NamedTuple):
    """An update that waits for another one of its account; for one of its order, if `order_id` says which."""

    key: str
    order_id: str
    events: tuple[str, ...]  # empty: any
    update: Update


class Waiting:
    """Updates held back, and those that a replay repeats."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self._news: dict[str, Update] = {}

    def hold(self, update: Update, key: str, events: tuple[str, ...] = (), *, of_order: bool = True) -> list[Frame]:
        self.held.append(Held(key, order_id(update) if of_order else "", events, update))
        return []

    def released_by(self, update: Update, key: str) -> list[Frame]:
        """What has waited for this update and goes out after it."""
        if not self.held:
            return []
        free = [held for held in self.held if _answers(held, update, key)]
        self.held = [held for held in self.held if held not in free]
        return [(0.0, held.update) for held in free]

    def remember(self, update: Update) -> None:
        if update.get("event") == "new":
            self._news[order_id(update)] = update
            if len(self._news) > NEWS_KEPT:
                del self._news[next(iter(self._news))]

    def news_of(self, update: Update) -> list[Frame]:
        news = self._news.get(order_id(update))
        return [] if news is None else [(0.0, news)]


def _answers(held: Held, update: Update, key: str) -> bool:
    if held.key != key or held.update is update:
        return False
    if held.order_id and held.order_id != order_id(update):
        return False
    return not held.events or update.get("event") in held.events


def order_id(update: Update) -> str:
    return str(update["order"]["id"])


def facts_of(update: Update, key: str) -> dict[str, str]:
    """What a plan can match."""
    order = update["order"]
    names = {name: str(order.get(name) or "") for name in ("symbol", "status", "client_order_id")}
    return {"event": str(update.get("event")), "key": key, **names}


def words_of(update: Update) -> str:
    order = update["order"]
    return f"{update.get('event')} of {order.get('symbol')} {order.get('client_order_id')}"


def _lost(_fault: Fault, _update: Update, _key: str, _waiting: Waiting) -> Iterable[Frame]:
    return []


def _duplicated(fault: Fault, update: Update, _key: str, _waiting: Waiting) -> Iterable[Frame]:
    return [(0.0, update)] * int(fault.param("copies"))


def _reordered(_fault: Fault, update: Update, key: str, waiting: Waiting) -> Iterable[Frame]:
    return waiting.hold(update, key, of_order=False)


def _delayed(fault: Fault, update: Update, _key: str, _waiting: Waiting) -> Iterable[Frame]:
    return [(fault.seconds(), update)]


def _null(_fault: Fault, _update: Update, _key: str, _waiting: Waiting) -> Iterable[Frame]:
    return [(0.0, None)]


def _unknown_event(fault: Fault, update: Update, _key: str, _waiting: Waiting) -> Iterable[Frame]:
    return [(0.0, {**update, "event": fault.param("event")})]


def _unknown_status(fault: Fault, update: Update, _key: str, _waiting: Waiting) -> Iterable[Frame]:
    return [(0.0, {**update, "order": {**update["order"], "status": fault.param("status")}})]


def _no_event_id(_fault: Fault, update: Update, _key: str, _waiting: Waiting) -> Iterable[Frame]:
    return [(0.0, {name: value for name, value in update.items() if name != "event_id"})]


def _after_the_fill(_fault: Fault, update: Update, key: str, waiting: Waiting) -> Iterable[Frame]:
    return waiting.hold(update, key, (*FILLS, *ENDS))


def _after_the_end(_fault: Fault, update: Update, key: str, waiting: Waiting) -> Iterable[Frame]:
    return waiting.hold(update, key, ENDS)


def _replayed(fault: Fault, update: Update, _key: str, waiting: Waiting) -> Iterable[Frame]:
    again = [*waiting.news_of(update), (0.0, update)]
    return [(0.0, update), *again * int(fault.param("copies"))]


Change = Callable[[Fault, Update, str, Waiting], Iterable[Frame]]

CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        "lost": _lost,
        "duplicated": _duplicated,
        "reordered": _reordered,
        "delayed": _delayed,
        "null": _null,
        "unknown_event": _unknown_event,
        "unknown_status": _unknown_status,
        "no_event_id": _no_event_id,
        "after_the_fill": _after_the_fill,
        "after_the_end": _after_the_end,
        "replayed": _replayed,
    }
)

# The events that a kind is about, where it is not about all.
ABOUT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "after_the_fill": ("pending_new", "new"),
        "after_the_end": ("partial_fill",),
        "replayed": FILLS,
    }
)
