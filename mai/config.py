"""TOML -> frozen dataclass. An unknown key is an error that names the nearest key.

A recipe is a TOML file whose tables and keys are the fields of a dataclass (nested dataclasses are tables).
`--set table.key=value` overrides one key; the value is read as TOML, and as text where it is none.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mai.errors import ConfigError

T = TypeVar("T")


def read(cls: type[T], path: Path, overrides: Iterable[str] = ()) -> T:
    """Read a TOML file into the dataclass `cls`.

    Args:
        cls: a frozen dataclass; fields without a default must stand in the file.
        path: the TOML file.
        overrides: `table.key=value` texts, applied in order.

    Raises:
        ConfigError: the file is missing or not TOML, a key is unknown, a value is of the wrong kind.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe {path} is not valid TOML: {error}.") from error
    for text in overrides:
        override(values, text)
    return build(cls, values, where=path.name)


def override(values: dict[str, Any], text: str) -> None:
    """Set one key of nested tables by a text `table.key=value`, in place.

    Raises:
        ConfigError: the text has no `=`, or a table on the way is a value.
    """
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes key=value, not '{text}'.")
    try:
        value: Any = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {text}: '{table}' is not a table.")
    values[last] = value


def build(cls: type[T], values: Mapping[str, Any], where: str = "recipe") -> T:
    """Make the dataclass `cls` from nested mappings, checking every key and value kind.

    Raises:
        ConfigError: as `read` does; the message says where.
    """
    assert dataclasses.is_dataclass(cls)  # a programmer's mistake, not input
    fields = {f.name: f for f in dataclasses.fields(cls)}
    kinds = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(sorted(fields))}."
            raise ConfigError(f"{where}: unknown key '{key}'.{hint}")
    made = {key: _value(kinds[key], value, f"{where}: {key}") for key, value in values.items()}
    for name, f in fields.items():
        if name not in made and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: the key '{name}' is missing.")
    try:
        return cls(**made)
    except ValueError as error:  # a dataclass checks ranges in __post_init__
        raise ConfigError(f"{where}: {error}") from error


def need(holds: bool, key: str, value: Any, what: str) -> None:
    """Range check for the `__post_init__` of a dataclass that `build` makes.

    Raises:
        ValueError: `holds` is false; `build` makes a ConfigError of it that says where.
    """
    if not holds:
        raise ValueError(f"{key} takes {what}, not {value!r}.")


def need_share(key: str, value: float) -> None:
    """The same for a share, 0..1."""
    need(0 <= value <= 1, key, value, "0 to 1")


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is a table, not {value!r}.")
        return build(kind, value, where)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        for option in typing.get_args(kind):
            if option is not type(None):
                return _value(option, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is a list, not {value!r}.")
        return tuple(_value(typing.get_args(kind)[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is a table, not {value!r}.")
        return value
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise ConfigError(
                f"{where} is one of {', '.join(map(str, typing.get_args(kind)))}; not {value!r}."
            )
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind in (int, float) and isinstance(value, bool)):
        raise ConfigError(f"{where} takes {_kind_name(kind)}, not {value!r}.")
    return value


def _kind_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(kind, str(kind))


def to_dict(value: Any) -> dict[str, Any]:
    """A dataclass as plain values, for cards and run folders."""
    return dataclasses.asdict(value)
