"""Reading what older versions wrote: one function per old stored shape, from its JSON object to the next version's.

To change an event's shape: give the new shape the next stored name in `events.TYPES`, move the old name here with the function
that makes the new object from the old one, and keep the old stored example in `tests/golden/events.jsonl` for ever.
"""

from collections.abc import Callable, Mapping
from typing import Any

Upcast = Callable[[dict[str, Any]], dict[str, Any]]

# Old stored name -> (the name of the next shape, how the old object becomes it). Followed until a name is in `events.TYPES`.
UPCASTS: Mapping[str, tuple[str, Upcast]] = {}
