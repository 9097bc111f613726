"""Run an old log's inputs through the engine again, with broker and strategies: everything recorded has to come out again.

`redecide` trusts the recorded signals and fills and proves the handlers; this proves the strategies' and the simulated broker's
code as well, so it needs the strategies to be there.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from mqd_ledger.engine import Engine, rehearse
from mqd_ledger.envelope import stored_names
from mqd_ledger.errors import BrokenPromise
from mqd_ledger.events import Event, RunStarted
from mqd_ledger.log import LogReader
from mqd_ledger.runs import MakeReactors, fold
from mqd_ledger.strategies import registry


class _NothingMore:
    """A journal for a log that is complete: whatever is decided beyond it was never recorded."""

    def record(self, events: Sequence[Event], recorded_at: datetime, *_: int) -> int:
        raise BrokenPromise(
            f"The log ends at {recorded_at:%Y-%m-%dT%H:%M:%SZ}, but the engine goes on with "
            f"{', '.join(type(event).__name__ for event in events)}: the last turn was never finished."
        )


ReactorsOf = Callable[[str], MakeReactors]  # by the mode of a run


def rerun(log: LogReader, reactors_of: ReactorsOf) -> int:
    """Rehearse every run of a log; how many there were. The first event that comes out differently raises."""
    started = list(log.replay(types=stored_names(RunStarted)))
    starts = [recorded.position for recorded in started]
    state = fold(log, upto=starts[0] - 1 if starts else None)
    for recorded, start, end in zip(started, starts, [*starts[1:], log.head.position + 1], strict=True):
        assert isinstance(recorded.event, RunStarted)
        specs = recorded.event.strategies
        strategies = {spec.strategy: registry.load(spec.strategy, spec.source, spec.parameters)[1] for spec in specs}
        engine = Engine(state, _NothingMore(), reactors_of(recorded.event.mode)(state, strategies))
        rehearse(engine, log.replay(after=start - 1, upto=end - 1))
    return len(starts)
