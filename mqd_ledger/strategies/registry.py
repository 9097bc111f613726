"""Which strategy a name means: a built-in one, or a class in a user's own file."""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from decimal import localcontext
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import msgspec
from pydantic import ValidationError

from mqd_ledger.errors import BadInput
from mqd_ledger.events import StrategySpec
from mqd_ledger.strategies.base import Strategy, StrategyParameters
from mqd_ledger.strategies.isolation import described
from mqd_ledger.strategies.vwap import VwapMeanReversion

REGISTRY: Mapping[str, type[Strategy]] = MappingProxyType({"vwap": VwapMeanReversion})


def load(name: str, source: str, parameters: Mapping[str, object]) -> tuple[StrategySpec, Strategy]:
    """The strategy behind a registered name or path/to/file.py:Class, and what the log records of it: `name` is its own there,
    and `parameters` are as recorded, or `values` of texts.
    """
    cls = _class_of(source)
    try:
        checked = cls.Parameters.model_validate(dict(parameters))
    except ValidationError as error:
        raise BadInput(_parameter_problems(source, cls.Parameters, error)) from None
    try:
        with localcontext():  # what it does to the arithmetic stays its own
            strategy = cls(checked)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise BadInput(f"Strategy {source} cannot be made: {described(error)}") from error
    if getattr(strategy, "parameters", None) is not checked:
        raise BadInput(
            f"Strategy {source} does not keep its parameters: its __init__ has to call super().__init__(parameters)."
        )
    return StrategySpec(name, source, _recorded(source, checked), _code_hash(cls)), strategy


def _recorded(source: str, parameters: StrategyParameters) -> dict[str, Any]:
    """Exactly as a log will give them back."""
    try:
        recorded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(parameters.model_dump(mode="json")))
    except ValueError as error:
        raise BadInput(f"Strategy {source} has a parameter that no log can hold: {error}.") from error
    return recorded


def values(texts: Mapping[str, str]) -> dict[str, object]:
    """Parameters as people write them: a list has commas and brackets, as in symbols=[SPY,QQQ]."""
    return {key: _value(text) for key, text in texts.items()}


def _value(text: str) -> object:
    if text.startswith("[") and text.endswith("]"):
        return [part.strip() for part in text[1:-1].split(",") if part.strip()]
    return text


def _class_of(name: str) -> type[Strategy]:
    if name in REGISTRY:
        return REGISTRY[name]
    file, separator, class_name = name.rpartition(":")
    if not separator or not file.endswith(".py"):
        raise BadInput(
            f"There is no strategy {name!r}. Known are {', '.join(sorted(REGISTRY))}; a strategy of your own is given as "
            "path/to/file.py:Class."
        )
    module = _import(Path(file))
    cls = getattr(module, class_name, None)
    if not (inspect.isclass(cls) and issubclass(cls, Strategy)):
        own = [
            key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__
        ]
        raise BadInput(
            f"{file} has no strategy class {class_name!r}; its classes are: {', '.join(own) or 'none'}. "
            "A strategy is a subclass of mqd_ledger.strategies.base.Strategy."
        )
    return cls


def _import(file: Path) -> ModuleType:
    if not file.is_file():
        raise BadInput(f"Strategy file {file} was not found (looked in {Path.cwd()}).")
    name = f"user_strategy_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with localcontext():
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise BadInput(f"Strategy file {file} does not import: {described(error)}") from error
    return module


def _code_hash(cls: type[Strategy]) -> str:
    """Of the file's text, with the line ends of every platform the same."""
    file = inspect.getsourcefile(cls)
    assert file is not None
    return hashlib.sha256(Path(file).read_text(encoding="utf-8").encode()).hexdigest()


def _parameter_problems(name: str, model: type[StrategyParameters], error: ValidationError) -> str:
    allowed = ", ".join(f"{key} ({field.default})" for key, field in model.model_fields.items())
    lines = [f"{'.'.join(map(str, one['loc']))}: found {one['input']!r}; {one['msg']}" for one in error.errors()]
    return f"Parameters of strategy {name}: " + "; ".join(lines) + f". Allowed are, with their defaults: {allowed}."
