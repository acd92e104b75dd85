"""Shells: vectors cut by length into parts that each have an index of ScaNN's.

Inner products favour long vectors. A single tree, whose leaves and codes are made for the many
short ones, loses the few long ones, which most queries look for. So vectors of about one length
share a tree, and the longest are scored one by one.

Source: X. Yan et al., Norm-Ranging LSH for Maximum Inner Product Search, NeurIPS 2018.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.search.equal_vectors import Places
from serving.search.index import Rows
from serving.search.scann_index import ScannIndex, ScannSettings
from towers.errors import BundleError

FILE = "shells.npz"
"""The file that says which rows a shell holds."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shell:
    """The vectors of a range of lengths."""

    index: ScannIndex
    rows: Rows
    """The row of each vector, in the order in which the index holds them."""
    longest: float
    """The length of the longest; infinity where it is not known."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shells:
    """An index as it is built and stored: its shells, the longest vectors first."""

    shells: tuple[Shell, ...]
    places: Places | None = None
    """Where equal vectors share a place: the rows at each. The rows of a shell are places then."""

    @property
    def settings(self) -> tuple[ScannSettings, ...]:
        """How each shell was built, and how much of it is searched."""
        return tuple(shell.index.settings for shell in self.shells)

    @property
    def size(self) -> int:
        """How many vectors there are."""
        held = sum(shell.index.size for shell in self.shells)
        return held if self.places is None else len(self.places.rows)

    def save(self, folder: Path) -> None:
        """Write the index to the folder `folder`, which is made anew."""
        shutil.rmtree(folder, ignore_errors=True)
        for number, shell in enumerate(self.shells):
            shell.index.save(folder / str(number))
        arrays: dict[str, Any] = {
            f"rows-{number}": shell.rows for number, shell in enumerate(self.shells)
        }
        if self.places is not None:
            arrays |= {"starts": self.places.starts, "rows": self.places.rows}
        longest = np.array([shell.longest for shell in self.shells])
        np.savez(folder / FILE, longest=longest, **arrays)

    @classmethod
    def load(cls, folder: Path, *, settings: Sequence[ScannSettings], width: int) -> Shells:
        """Read the index that `save` wrote to `folder`, or one tree of an earlier version's.

        Raises:
            BundleError: the folder does not hold a whole index.
        """
        if not (folder / FILE).exists() and len(settings) == 1:
            index = ScannIndex.load(folder, settings=settings[0], width=width)
            return cls((Shell(index, np.arange(index.size), np.inf),))
        try:
            with np.load(folder / FILE) as held:
                arrays = {name: held[name] for name in held.files}
            places = Places(arrays["starts"], arrays["rows"]) if "starts" in arrays else None
            rows = [arrays[f"rows-{number}"] for number in range(len(settings))]
            longest = arrays["longest"].tolist()
        except (OSError, KeyError, ValueError) as error:
            raise BundleError(
                f"{folder / FILE}: expected the rows of {len(settings)} shells, received {error}; "
                "publish again, or roll back to another version"
            ) from None
        loaded = [
            ScannIndex.load(folder / str(number), settings=each, width=width)
            for number, each in enumerate(settings)
        ]
        return cls(tuple(map(Shell, loaded, rows, longest)), places)
