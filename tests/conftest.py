"""How every test runs: Hypothesis finds the same examples on every machine, and every decision of a desk is taken again.

Look for new ones with: python3 tools/dev.py test --hypothesis-profile=explore
"""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from mqd_ledger.audit.redecide import redecide
from tests.dsl import DESKS

settings.register_profile("same-everywhere", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=1000, deadline=None, database=None)
settings.load_profile("same-everywhere")


@pytest.fixture(autouse=True)
def every_decision_is_taken_again() -> Iterator[None]:
    DESKS.clear()
    yield
    for desk in DESKS:
        redecide(desk.tape.recorded)
