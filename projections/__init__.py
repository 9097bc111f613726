"""The read side: what people ask, one file per question, built from the log alone.

To add a projection: write its file (`NAME`, `VERSION`, `READS`, `TABLES`, `apply`) and put it in `PROJECTIONS`; it builds itself at
the next reading. After a change of what it writes, raise its `VERSION`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from projections import (
    alerts,
    daily_limits,
    differences,
    equity,
    executions,
    lots,
    order_transitions,
    orders,
    pnl,
    positions,
    risk_decisions,
    strategies,
)
from projections.shape import Projection, Table

_MODULES: tuple[Projection, ...] = (
    alerts,
    daily_limits,
    differences,
    equity,
    executions,
    lots,
    order_transitions,
    orders,
    pnl,
    positions,
    risk_decisions,
    strategies,
)
PROJECTIONS: Mapping[str, Projection] = MappingProxyType({module.NAME: module for module in _MODULES})

# The public tables, by name.
TABLES: Mapping[str, Table] = MappingProxyType(
    {table.name: table for module in _MODULES for table in module.TABLES if table.public}
)
