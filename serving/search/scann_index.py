"""One index of ScaNN's, built and searched through its own Python API.

Building is not deterministic. So an index is built once and stored; everything else that searches
by it, such as a SavedModel, reads what was stored.

Source: R. Guo et al., Accelerating Large-Scale Inference with Anisotropic Vector Quantization,
ICML 2020.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from scann import scann_ops_pybind
from scann.scann_ops.py.scann_builder import ReorderType

from serving.search.index import N_CPUS, Found, Rows, Vectors, check_queries
from towers.errors import BundleError, ConfigError
from towers.typed import STRICT

ASSETS = "scann_assets.pbtxt"
"""ScaNN's list of the files in an index's folder."""

FEWEST = 16
"""A tree's quantization has this many centres, so that it needs as many vectors to learn from."""


TRAINED_ON, FEWEST_TRAINED_ON = 128, 100_000
"""Leaves are learned from so many vectors for each, and from so many in all, or from all there are.
With 50 for each, which is ScaNN's way for a million vectors, four times the leaves are searched."""

FEWEST_FOR_TREE = 20_000
"""Scoring fewer vectors than this one by one takes a fraction of a millisecond, and is exact."""

LARGEST_SHARE = 256
"""Queries that one thread takes at a time."""

Storage = Literal["float32", "bfloat16", "int8"]
"""How many bytes a coordinate takes that is scored exactly: four, two or one."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScannSettings:
    """How an index is built, and how much of it is searched."""

    num_leaves: PositiveInt | None
    """Into how many leaves a tree cuts the vectors; None: no tree, every vector is scored."""
    leaves_to_search: PositiveInt = 1
    """The leaves whose vectors are scored, roughly."""
    reorder: PositiveInt = 100
    """The best of those, which are scored exactly."""
    recall_k: PositiveInt = 100
    """The k for which these two suffice; a larger k gets more of both, in proportion."""
    dimensions_per_block: PositiveInt = 2
    """Coordinates that are quantized together."""
    residuals: bool = True
    """Whether what is quantized is the difference from the centre of the leaf, or the vector."""
    anisotropic_threshold: PositiveFloat = 0.2
    """How much more an error along a vector counts than one across it."""
    anisotropic_centres: PositiveFloat | None = None
    """How much more it counts for the centre of a leaf too; None: centres are means."""
    storage: Storage = "float32"
    """How a tree keeps the vectors that it reorders by. Scores are the inner products with what is
    kept: with float32 the vectors, with bfloat16 their 8 leading bits, with int8 each coordinate's
    255 steps up to the largest there was when the index was built; beyond it, it is cut off."""

    def __post_init__(self) -> None:
        if self.num_leaves is not None and self.leaves_to_search > self.num_leaves:
            raise ConfigError(
                f"leaves_to_search: expected at most num_leaves = {self.num_leaves}, received "
                f"{self.leaves_to_search}"
            )
        if self.reorder < self.recall_k:
            raise ConfigError(
                f"reorder: expected at least recall_k = {self.recall_k}, received {self.reorder}"
            )

    def effort(
        self,
        k: Any,
        *,
        size: int,
        smaller: Callable[..., Any] = min,
        larger: Callable[..., Any] = max,
    ) -> tuple[Any, Any]:
        """How many of a tree's leaves to search, and vectors to reorder, for the k best of `size`.

        With `smaller` and `larger` from TensorFlow, k is an int64 tensor and so are the answers.
        """
        k = larger(k, self.recall_k)
        leaves = -(-self.leaves_to_search * k // self.recall_k)
        reorder = -(-self.reorder * k // self.recall_k)
        return smaller(leaves, self.num_leaves), smaller(reorder, size)


def choose_settings(n: int, *, recall_k: int = 100, storage: Storage = "float32") -> ScannSettings:
    """Say how to index `n` vectors: a tree of about 2 sqrt(n) leaves, or none for few vectors.

    The search settings are a middle way, to begin with; measure which are needed.
    """
    reorder = 4 * recall_k
    if n < max(FEWEST_FOR_TREE, 10 * recall_k):
        return ScannSettings(num_leaves=None, reorder=reorder, recall_k=recall_k)
    num_leaves = 2 * math.isqrt(n)
    return ScannSettings(
        num_leaves=num_leaves,
        leaves_to_search=max(1, num_leaves // 20),
        reorder=reorder,
        recall_k=recall_k,
        storage=storage,
    )


class SearchOnce(Protocol):
    """Searches the leaves that the settings name, or all; -1 and -inf where they end."""

    def __call__(self, queries: Vectors, k: int, *, all_leaves: bool = False) -> Found:
        """See `Index.search`."""
        ...


def search_all_if_short(search_once: SearchOnce, queries: Vectors, k: int) -> Found:
    """Search, and once more with all leaves for the queries that found fewer than k."""
    rows, scores = search_once(queries, k)
    short = (rows[:, -1:] < 0).any(axis=1)  # what is missing is missing at the end
    if short.any():
        rows[short], scores[short] = search_once(queries[short], k, all_leaves=True)
    return rows, scores


@dataclasses.dataclass(frozen=True, eq=False)
class ScannIndex:
    """Vectors in ScaNN's hands. `dataclasses.replace` gives the same ones other search settings."""

    searcher: Any
    """ScaNN's own."""
    settings: ScannSettings
    width: int
    """The length of a vector."""

    @classmethod
    def build(cls, vectors: Vectors, settings: ScannSettings) -> ScannIndex:
        """Index `vectors` [size, d]: learn the leaves and the quantization from them.

        Raises:
            ConfigError: there are fewer vectors than leaves, or than a tree needs at least.
        """
        size, width = vectors.shape
        vectors = np.ascontiguousarray(vectors)
        builder = scann_ops_pybind.builder(vectors, settings.recall_k, "dot_product")
        if settings.num_leaves is None:
            builder.score_brute_force()
        elif size < max(FEWEST, settings.num_leaves):
            raise ConfigError(
                f"num_leaves: expected at most {size}, one a vector, and at least {FEWEST} "
                f"vectors, received {settings.num_leaves}; use num_leaves = None for few vectors"
            )
        else:
            builder.tree(
                settings.num_leaves,
                settings.leaves_to_search,
                training_sample_size=max(FEWEST_TRAINED_ON, TRAINED_ON * settings.num_leaves),
                avq=settings.anisotropic_centres,
            )
            builder.score_ah(
                settings.dimensions_per_block,
                anisotropic_quantization_threshold=settings.anisotropic_threshold,
                residual_quantization=settings.residuals,
            )
            builder.reorder(settings.reorder, ReorderType[settings.storage.upper()])
        return cls(builder.build(), settings, width)

    @classmethod
    def load(cls, folder: Path, *, settings: ScannSettings, width: int) -> ScannIndex:
        """Read the index that `save` wrote to `folder`, wherever that folder is now.

        Raises:
            BundleError: the folder does not hold a whole index.
        """
        try:
            assets = (folder / ASSETS).read_text(encoding="utf-8")
            searcher = scann_ops_pybind.scann_pybind.ScannNumpy(str(folder), assets)
        except (OSError, RuntimeError) as error:
            raise BundleError(
                f"{folder}: expected a ScaNN index, received {error}; publish again, or roll back "
                "to another version"
            ) from None
        return cls(scann_ops_pybind.ScannSearcher(searcher), settings, width)

    def save(self, folder: Path) -> None:
        """Write the index to `folder`, which is made if need be; it holds no absolute path."""
        folder.mkdir(parents=True, exist_ok=True)
        self.searcher.serialize(str(folder), relative_path=True)

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return int(self.searcher.size())

    def upsert(self, slots: Rows, vectors: Vectors) -> None:
        """Replace the vectors [n, d] in `slots`; a slot of -1 adds one at the end."""
        if len(slots):
            numbers = [int(slot) if slot >= 0 else None for slot in slots]
            self.searcher.searcher.upsert(numbers, np.ascontiguousarray(vectors), len(numbers))

    def delete(self, slot: int) -> None:
        """Remove the vector in `slot`, to which the last one moves."""
        self.searcher.searcher.delete([slot])

    def search(self, queries: Vectors, k: int) -> Found:
        """Find min(k, size) rows of high inner products; see `Index.search`.

        Where the leaves that the settings name have fewer than k vectors, all leaves are searched.
        """
        return search_all_if_short(self.search_once, queries, k)

    def search_once(self, queries: Vectors, k: int, *, all_leaves: bool = False) -> Found:
        """Search the leaves that the settings name, or all; -1 and -inf where they end.

        Raises:
            QueryError: as `search`.
        """
        check_queries(queries, k, width=self.width)
        return self.search_checked(queries, k, all_leaves=all_leaves)

    def search_checked(self, queries: Vectors, k: int, *, all_leaves: bool = False) -> Found:
        """As `search_once`, for queries of which it is known that they can be searched for."""
        size = self.size
        k = min(k, size)
        if not len(queries) or not k:
            return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        leaves, reorder = -1, -1
        if self.settings.num_leaves is not None:
            leaves, reorder = self.settings.effort(k, size=size)
            leaves = self.settings.num_leaves if all_leaves else leaves
        if len(queries) == 1:  # which takes a tenth less time than a batch of one
            return _one_row(*self.searcher.search(queries[0], k, reorder, leaves), k=k)
        share = -(-len(queries) // N_CPUS)
        rows, scores = self.searcher.search_batched_parallel(
            queries, k, reorder, leaves, batch_size=min(share, LARGEST_SHARE)
        )
        rows = rows.astype(np.int64)
        missing = np.isnan(scores)
        if missing.any():
            rows[missing], scores[missing] = -1, -np.inf
        return rows, scores


def _one_row(rows: Rows, scores: Vectors, *, k: int) -> Found:
    """What was found for one query [m], as [1, k]; -1 and -inf beyond."""
    if len(rows) == k:
        return rows.astype(np.int64)[np.newaxis], scores[np.newaxis]
    found: Found = np.full((1, k), -1), np.full((1, k), -np.inf, dtype=np.float32)
    found[0][0, : len(rows)], found[1][0, : len(rows)] = rows, scores
    return found
