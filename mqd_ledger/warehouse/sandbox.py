"""What a query may be: one statement that reads, whoever wrote it.

In DuckDB a SELECT can write files, as `with x as (copy …)` or inside `query('…')`, and a file that may be read may be written too.
So the statement's syntax tree, as DuckDB itself parsed it, may only hold the nodes and the table functions that are listed here;
anything else is refused. Behind that stand a read-only transaction, no access to files other than the sealed segments of this
ledger's cache, and a configuration that is locked.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb
import msgspec

from mqd_ledger.errors import BadInput

# Nodes that only read. DuckDB 2.0 also has COPY_QUERY_NODE, DELETE_QUERY_NODE, INSERT_QUERY_NODE, UPDATE_QUERY_NODE, …
QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# Functions in FROM that touch neither a file, nor the settings, nor memory by its address, and take no SQL as text.
TABLE_FUNCTIONS = frozenset(
    {
        "duckdb_columns",
        "duckdb_functions",
        "duckdb_keywords",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_views",
        "generate_series",
        "histogram",
        "histogram_values",
        "json_each",
        "json_tree",
        "range",
        "repeat",
        "unnest",
    }
)
_EXPLAIN = re.compile(r"\s*explain\b(\s+analyze\b)?(\s*\([^)]*\))?", re.IGNORECASE)
_ALLOWED = (
    "A query is one SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW or SUMMARIZE, or EXPLAIN in front of one of these."
)


class Query(NamedTuple):
    """A statement that only reads, and the names of the tables it mentions (in lower case)."""

    sql: str
    tables: frozenset[str]


def read_only(connection: duckdb.DuckDBPyConnection, sql: str) -> Query:
    """The query behind `sql`, or BadInput."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise BadInput(f"This SQL cannot be read: {first_sentence(error)}") from error
    if len(statements) != 1:
        raise BadInput(f"{_ALLOWED} Found were {len(statements)} statements; give exactly one.")
    (statement,) = statements
    text = str(statement.query).strip()
    if statement.type == duckdb.StatementType.EXPLAIN:
        text = _EXPLAIN.sub("", text, count=1)
    elif statement.type != duckdb.StatementType.SELECT:
        raise BadInput(f"{_ALLOWED} This is {_kind(statement, text)}, and a ledger is only ever read in SQL.")
    tables: set[str] = set()
    for node in _nodes(_syntax_tree(connection, text)):
        kind = node.get("type")
        if kind == "BASE_TABLE":
            tables.add(str(node["table_name"]).lower())
        elif kind == "TABLE_FUNCTION":
            _check_function(str(node["function"]["function_name"]))
        elif isinstance(kind, str) and kind.endswith("_NODE") and kind not in QUERY_NODES:
            verb = kind.removesuffix("_NODE").removesuffix("_QUERY")
            raise BadInput(f"{_ALLOWED} This one has {verb} inside, and a ledger is only ever read in SQL.")
    return Query(str(statement.query), frozenset(tables))


def _kind(statement: duckdb.Statement, text: str) -> str:
    first = text.split(None, 1)[0].upper()
    return first if statement.type == duckdb.StatementType.MULTI else statement.type.name


def _check_function(name: str) -> None:
    if name.lower() not in TABLE_FUNCTIONS:
        raise BadInput(
            f"The function {name} cannot be used in FROM: queries read this ledger's views, no files and no settings. "
            f"Allowed there are {', '.join(sorted(TABLE_FUNCTIONS))}."
        )


def _syntax_tree(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    try:
        row = connection.execute("select json_serialize_sql(?)", [sql]).fetchone()
        assert row is not None  # a select without from has one row
        tree = msgspec.json.decode(row[0])
    except (RecursionError, duckdb.Error) as error:
        raise BadInput("This SQL is nested too deeply to be checked. Give it as several steps (with … as).") from error
    if tree["error"]:
        raise BadInput(f"{_ALLOWED} This one is not: {tree['error_message']}")
    return tree["statements"]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object in the tree, however deep."""
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def first_sentence(error: duckdb.Error) -> str:
    """What DuckDB says, without the picture of the place."""
    message = str(error).split("\n\nLINE", 1)[0]
    return " ".join(line.strip() for line in message.splitlines() if line.strip())
