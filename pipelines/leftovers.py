"""What killed processes have left in a models directory, and what nobody works on any more."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.job_folder import LOCK, find_unfinished
from serving.atomic import PARTIAL, locked, remove_folder
from serving.version.store import Store

RUNS = ".run-*"
"""The folders of runs, in a models directory."""
SETTLED_S = 3600.0
"""What ends in `.partial` and is no folder of a job counts as left after this long."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file or a folder that no published version needs, and that nobody works in."""

    path: Path
    what: str
    n_bytes: int
    changed: float
    """When something in it changed last: seconds since 1970."""


def find_leftovers(models: Path) -> list[Leftover]:
    """List what is left over in a models directory."""
    found = [
        _describe(path, "a run that was interrupted, and can be gone on with")
        for path in find_unfinished(models, RUNS)
    ]
    found += [
        _describe(path, "a version that was being written") for path in Store(models).abandoned()
    ]
    found += [_describe(path, "unfinished or half-removed") for path in _partial(models)]
    return found


def remove(models: Path, leftover: Leftover) -> bool:
    """Remove one, unless somebody has begun to work in it; whether it was removed."""
    path = leftover.path
    if path in Store(models).abandoned():
        Store(models).remove_abandoned()
    elif path.match(RUNS):
        with suppress(FileNotFoundError), locked(path / LOCK, wait=False) as held:
            if held:
                remove_folder(path)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()


def _partial(models: Path) -> Iterator[Path]:
    places = [models, models / "versions", models / "journal", models / "models"]
    for place in places:
        for path in sorted(place.glob(f".*{PARTIAL}")):
            if time.time() - path.lstat().st_mtime > SETTLED_S:
                yield path


def _describe(path: Path, what: str) -> Leftover:
    files = [path] if path.is_symlink() or path.is_file() else [path, *path.rglob("*")]
    stats = [file.lstat() for file in files]
    return Leftover(
        path=path,
        what=what,
        n_bytes=sum(stat.st_size for stat in stats),
        changed=max(stat.st_mtime for stat in stats),
    )
