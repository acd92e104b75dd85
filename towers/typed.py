"""Strict, frozen dataclasses for configuration, and the errors they give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from towers.errors import ConfigError

STRICT = ConfigDict(extra="forbid", strict=True)
"""Unknown keys and wrong types are errors; nothing is coerced but an integer into a float."""

T = TypeVar("T")


def parse(kind: type[T], raw: Mapping[str, Any], *, where: str) -> T:
    """Build a configuration dataclass from plain values, as a TOML file gives them.

    Args:
        kind: the dataclass.
        raw: its fields by name; nested tables are mappings.
        where: what to call the source in an error, such as the file's path.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type or range. The
            message names each key at fault, what was expected and what was received.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(dict(item))}" for item in error.errors())
        raise ConfigError(f"{where}: {error.error_count()} problem(s)\n{problems}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _describe(problem: dict[str, Any]) -> str:
    """Say one problem as `key: expected ..., received ...; remedy`."""
    key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    received = problem.get("input")
    if problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return f"{key}: unknown key, received {received!r}; remove it or check its spelling"
    if problem["type"] in {"missing", "missing_argument"}:
        return f"{key}: required, but not given; add it"
    return f"{key}: {problem['msg']}, received {received!r}"
