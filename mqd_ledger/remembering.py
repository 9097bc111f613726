"""What a reactor keeps outside the State, taken from it and given back, so that a run's rehearsal can begin at a snapshot.

A reactor that answers from the State alone is a `KeepsNothing`; one that keeps something offers `save` and `load`. Where one of a
run's reactors is neither, a snapshot of that run says nothing of any, and a restart rehearses the whole run, as it always can.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Remembering(Protocol):
    def save(self) -> Any:
        """What JSON can hold, from which `load` makes the same again; None where that cannot be."""

    def load(self, value: Any) -> None:
        """Be what was saved. Called on a new one, before it is shown anything."""


class KeepsNothing:
    """Base of reactors whose answers follow from the event and the State."""

    def save(self) -> list[Any]:
        return []

    def load(self, value: Any) -> None:
        """There is nothing to know."""


def memory_of(reactors: Iterable[object]) -> list[Any] | None:
    """What reactors keep, in their order; None if one of them does not offer it."""
    memory: list[Any] = []
    for reactor in reactors:
        kept = reactor.save() if isinstance(reactor, Remembering) else None
        if kept is None:
            return None
        memory.append(kept)
    return memory


def give_back(memory: Sequence[Any], reactors: Sequence[object]) -> None:
    """To new reactors of the same kinds, in the same order."""
    for kept, reactor in zip(memory, reactors, strict=True):
        assert isinstance(reactor, Remembering)
        reactor.load(kept)
