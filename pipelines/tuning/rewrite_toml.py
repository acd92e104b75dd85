"""Rewrite a run's TOML file: with some settings changed, and for another folder."""

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
    """Set settings by their dotted names; None removes a setting, so that its default counts.

    `user.history` is the users' feature of kind history. Where the file declares no user features,
    that feature is the default, and is written out here.
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
    """Write a TOML file that begins with lines of comment."""
    lines = [f"# {line}\n" for line in comment]
    write_text_atomic(path, "".join(lines) + "\n" + tomli_w.dumps(raw))


def _table(raw: Toml, path: Sequence[str]) -> Toml:
    """The table at a path, made if it does not exist."""
    for name in path:
        raw = raw.setdefault(name, {})
    return raw


def _history(raw: Toml) -> Toml:
    """The table of the users' feature of kind history."""
    user = raw.setdefault("user", {"features": [{"kind": "history"}]})
    found: Toml = next(feature for feature in user["features"] if feature["kind"] == "history")
    return found
