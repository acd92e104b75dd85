"""A run's TOML file with some settings changed, to be run from another folder."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from pipelines.config import file_tables
from serving.atomic import write_text_atomic

Toml = dict[str, Any]
"""A run's settings as plain values, as its TOML file gives them."""


def moved(raw: Toml, source: Path, *, target: Path) -> Toml:
    """Rewrite the relative table paths of a file in the folder `source` for the folder `target`."""
    raw = copy.deepcopy(raw)
    back = Path(os.path.relpath(source.resolve(), target.resolve()))
    for table in file_tables(raw):
        if not Path(table["path"]).is_absolute():
            table["path"] = str(back / table["path"])
    return raw


def changed(raw: Toml, settings: Mapping[str, Any]) -> Toml:
    """Set settings by their dotted names; None leaves one open, as if it were not there.

    `user.history` is the users' feature of that kind. Users without features have their history
    alone, which is then written out.
    """
    raw = copy.deepcopy(raw)
    for name, value in settings.items():
        *path, key = name.split(".")
        table = _history(raw) if path == ["user", "history"] else _table(raw, path)
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    return raw


def write_toml(path: Path, raw: Toml, *, comment: Sequence[str]) -> None:
    """Write a TOML file below lines of comment, all of it or nothing."""
    lines = [f"# {line}\n" for line in comment]
    write_text_atomic(path, "".join(lines) + "\n" + tomli_w.dumps(raw))


def _table(raw: Toml, path: Sequence[str]) -> Toml:
    """Find a table, making it if need be."""
    for name in path:
        raw = raw.setdefault(name, {})
    return raw


def _history(raw: Toml) -> Toml:
    """Find the history among the users' features."""
    user = raw.setdefault("user", {"features": [{"kind": "history"}]})
    found: Toml = next(feature for feature in user["features"] if feature["kind"] == "history")
    return found
