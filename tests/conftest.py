"""How every test runs: Hypothesis finds the same examples on every machine, and leaves nothing in the tree.

Look for new ones with: python3 tools/dev.py test --hypothesis-profile=explore
"""

from hypothesis import settings

settings.register_profile("same-everywhere", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=1000, deadline=None, database=None)
settings.load_profile("same-everywhere")
