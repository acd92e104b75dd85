"""Imports every module where only some packages can be found. Run in a process of its own.

Reads the top-level names that are hidden, as a JSON list, from standard input; writes the modules
that could not be imported, with their errors, as JSON.
"""

from __future__ import annotations

import json
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pipelines
import serving
import towers
from towers.errors import RecallError


class Hidden(MetaPathFinder):
    """Finds nothing, and says so for the hidden ones before others are asked."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def main() -> None:
    sys.meta_path.insert(0, Hidden(json.load(sys.stdin)))
    errors: dict[str, str] = {}
    for package in (towers, serving, pipelines):
        for module in pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}."):
            try:
                import_module(module.name)
            except (ImportError, RecallError) as error:
                errors[module.name] = f"{type(error).__name__}: {error}"
    json.dump(errors, sys.stdout)


if __name__ == "__main__":
    main()
