"""What a run is asked for that the open one was not, in words: then the open one is ended and the next one started."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from msgspec import to_builtins

from mqd_ledger.events import RunStarted, Source, StrategySpec
from mqd_ledger.policy import Policy

SETTINGS = MappingProxyType({"limits": "risk"})  # parts of the policy that have another name in the settings


def changes(
    open_run: RunStarted | None, mode: str, source: Source, specs: tuple[StrategySpec, ...], policy: Policy
) -> str:
    """Empty if they are the same."""
    if open_run is None:
        return ""
    both = {
        "the mode": (open_run.mode, mode),
        "the bars": (open_run.source, source),
        "the strategies, their parameters or their code": (open_run.strategies, specs),
    }
    different = [what for what, (then, now) in both.items() if then != now]
    if open_run.policy != policy:
        different.append(f"the settings ({_other_settings(open_run.policy, policy)})")
    return f"other than it was: {', '.join(different)}." if different else ""


def _other_settings(then: Policy, now: Policy) -> str:
    """Each that is not what it was, under the key that --set takes."""
    before, after = (dict(_leaves(to_builtins(policy))) for policy in (then, now))
    names = [name for name in after | before if before.get(name) != after.get(name)]
    return ", ".join(f"{name} was {_shown(before.get(name))} and is {_shown(after.get(name))}" for name in names)


def _leaves(values: Mapping[str, object], section: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        key = f"{section}{SETTINGS.get(name, name)}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _shown(value: object) -> str:
    return "null" if value is None else str(value)
