"""The folder of a search: which search it holds, and that one process at a time works in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.config import RunConfig
from pipelines.run import input_files
from pipelines.tuning.search_space import Dimension
from serving.atomic import locked, write_text_atomic
from towers.errors import ConfigError, TrainingError

SEARCH = "search.json"
"""The file that says which search a folder holds."""

WITHOUT_EFFECT = ("name", "index", "export")
"""What a configuration says that no trial depends on."""

Identity = Mapping[str, Any]
"""What makes a search the same one: its settings, its input and what it searches, by name."""


def identify(config: RunConfig, dimensions: Sequence[Dimension]) -> Identity:
    """Name a search by what its figures and its proposals depend on."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    fitted = {name: table for name, table in plain.items() if name not in WITHOUT_EFFECT}
    settings = pd.json_normalize(fitted).to_dict("records")[0]
    status = {str(path): path.stat() for path in input_files(config)}
    files = {name: f"{s.st_size} bytes, modified {s.st_mtime_ns}" for name, s in status.items()}
    searched = {f"search of {dimension.name}": dimension.among for dimension in dimensions}
    return {str(name): value for name, value in settings.items()} | files | searched


def check_folder(folder: Path, identity: Identity) -> None:
    """Refuse a folder that holds anything but this search.

    Raises:
        ConfigError: it is a file, or holds another search, or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder, received a file; name another --out")
    search = folder / SEARCH
    if search.exists():
        _check_same(folder, json.loads(search.read_text(encoding="utf-8")), identity)
    elif others := [path.name for path in _visible(folder)]:
        raise ConfigError(
            f"{folder}: expected a new or empty folder, or that of an earlier search, received "
            f"one with other files, such as {min(others)}; name another --out"
        )


@contextmanager
def claimed(folder: Path, identity: Identity) -> Iterator[None]:
    """Make the folder this search's, and keep other processes out of it.

    Raises:
        ConfigError: it holds anything but this search.
        TrainingError: another process works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", wait=False) as held:
        if not held:
            raise TrainingError(
                f"{folder}: the same search is going on in another process; wait for it, or name "
                "another --out"
            )
        check_folder(folder, identity)
        write_text_atomic(folder / SEARCH, json.dumps(identity, indent=2))
        yield


def _check_same(folder: Path, kept: Identity, identity: Identity) -> None:
    """Refuse to go on with a search that is another one."""
    changes = [
        f"{name} was {kept.get(name)!r} and is {identity.get(name)!r}"
        for name in sorted({*kept, *identity})
        if kept.get(name) != identity.get(name)
    ]
    if changes:
        raise ConfigError(
            f"{folder}: expected the settings and the data of the search that is kept there, but "
            f"{'; '.join(changes)}; restore what has changed, or name another --out"
        )


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, if it exists, but for hidden files."""
    return [path for path in folder.glob("*") if not path.name.startswith(".")]
