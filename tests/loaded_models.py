"""SavedModels that a test process loads once, and lends to one test after another.

Loading the two small towers of a version and calling them for the first time takes a second, and
hundreds of tests open a version.
"""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from serving.version.saved_models import tower
from serving.version.saved_models.names import past_function

CHANGES = tuple(past_function(how, "") for how in ("put", "add"))
"""How the functions are called that change a model, or how their names begin."""


@dataclass(eq=False)
class Loaded:
    """A model, and whether it may have been changed since."""

    model: Any
    is_changed: bool = False

    def restore(self, folder: Path) -> None:
        """Have the model be as a folder has it, which is as the one that it is from was then."""
        if self.is_changed:
            values = str(folder / "variables" / "variables")
            tf.train.Checkpoint(root=self.model).read(values).assert_existing_objects_matched()
            self.is_changed = False


class Lent:
    """A model that one tower has to itself, and that others may have after it."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def __getattr__(self, name: str) -> Any:
        if name.startswith(CHANGES):
            self._loaded.is_changed = True
        return getattr(self._loaded.model, name)


class LoadedModels:
    """Models by what is in their folders."""

    def __init__(self) -> None:
        self._free = defaultdict[str, list[Loaded]](list)
        self._load = tower.load

    def load(self, path: Path) -> Any:
        """Lend a model that is free; load one where there is none."""
        digest = _digest(path)
        if digest in self._free and not self._free[digest]:
            gc.collect()  # of towers that are done with
        try:
            loaded = self._free[digest].pop()
            loaded.restore(path)
        except IndexError:
            loaded = Loaded(self._load(path))
        lent = Lent(loaded)
        weakref.finalize(lent, self._free[digest].append, loaded).atexit = False
        return lent


@contextmanager
def loaded_once() -> Iterator[None]:
    """Load SavedModels of towers once where tests want the same again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tower, "load", LoadedModels().load)
        yield


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()
