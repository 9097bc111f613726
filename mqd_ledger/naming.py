"""How orders are named: `<ledger>-<run>-<number>`. No name is given twice: a broker refuses the second order, or takes it for the
first.
"""

import re

from mqd_ledger.state import State

_PARTS = re.compile(r"(\d{1,9})-(\d{6,9})", re.ASCII)


def next_name(state: State) -> str:
    run = state.run.run if state.run else 0
    return f"{state.ledger_id}-{run}-{state.orders_requested + 1:06d}"


def number_of(name: str, ledger_id: str) -> tuple[int, int] | None:
    """Run and number of an order of this ledger; None for one of somebody else."""
    own = f"{ledger_id}-"
    parts = _PARTS.fullmatch(name[len(own) :]) if ledger_id and name.startswith(own) else None
    return None if parts is None else (int(parts[1]), int(parts[2]))


def was_given(name: str, state: State) -> bool:
    """Whether this log has ever named an order so; if it is of this ledger and was not, the log has lost its end."""
    found = number_of(name, state.ledger_id)
    if found is None:
        return False
    run, number = found
    is_open_one = state.run is not None and state.run.run == run
    return number <= (state.orders_requested if is_open_one else state.last_numbers.get(run, 0))


def take(name: str, state: State) -> None:
    """Give neither this name nor one before it any more."""
    found = number_of(name, state.ledger_id)
    if found is None:
        return
    run, number = found
    if state.run is not None and state.run.run == run:
        state.orders_requested = max(state.orders_requested, number)
    else:
        state.last_numbers[run] = max(state.last_numbers.get(run, 0), number)
