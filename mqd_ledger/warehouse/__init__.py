"""SQL over the ledger: ask with `run_query`, write the answer with `write_result`, see what there is with `views_help`."""

from mqd_ledger.warehouse.outputs import write_result
from mqd_ledger.warehouse.query import Result, run_query, views_help

__all__ = ["Result", "run_query", "views_help", "write_result"]
