"""Served: one loaded version, and the signatures of its SavedModels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from serving.retrieval.parts import OpenIndex
from serving.retrieval.retriever import Retriever
from serving.search.index import Rows, Vectors
from serving.version.bundle import Bundle
from serving.version.saved_models.names import RANK
from serving.version.saved_models.tower import join_packed
from towers.directions import DIRECTIONS
from towers.errors import BundleError
from towers.features.schema import Side

MODELS = ("user_tower", "item_tower", *DIRECTIONS, RANK)
"""The models that a version can have."""

Packed = Mapping[str, NDArray[Any]]
Signatures = Mapping[str, SignatureDef]


@dataclass(frozen=True, eq=False)
class Served:
    """A version that answers.

    It stays in memory while a request refers to it, so a request is answered by one version, even
    if another is loaded in the meantime.
    """

    version: int
    retriever: Retriever
    signatures: Mapping[str, Signatures]
    """The signatures of each model that the version has, by its name."""

    @classmethod
    def open(cls, bundle: Bundle, *, index: OpenIndex | None = None) -> Served:
        """Take the parts of a bundle; `warm` loads them. `index` opens indexes not in it.

        Raises:
            BundleError: a SavedModel cannot be read.
        """
        models = {
            name: _read_signatures(bundle.model(name) / "saved_model.pb")
            for name in MODELS
            if bundle.model(name).is_dir()
        }
        return cls(bundle.version, Retriever(bundle, index=index), models)


@dataclass(frozen=True)
class Encode:
    """One side's tower as a function of a batch; equal for one version and side."""

    retriever: Retriever
    side: Side

    def __call__(self, several: Sequence[Packed]) -> list[Vectors]:
        """Compute the vectors [n, 1 + d] of each of several packed features, in one pass."""
        vectors = self.retriever.encode(self.side, join_packed(several))
        sizes = [len(next(iter(packed.values()))) for packed in several]
        return np.split(vectors, np.cumsum(sizes)[:-1])


@dataclass(frozen=True)
class Show:
    """What a table says of rows as a function of a batch; equal for the same table and columns."""

    retriever: Retriever
    side: Side
    columns: tuple[str, ...] | None
    """Those to show; None: all."""

    def __call__(self, several: Sequence[Rows]) -> list[pd.DataFrame]:
        """Show the rows of each of several requests, in one look at the table.

        Raises:
            QueryError: there is no such column.
        """
        shown = self.retriever.catalogue(self.side).show(np.concatenate(several), self.columns)
        ends = np.cumsum([len(rows) for rows in several]).tolist()
        starts = [0, *ends[:-1]]
        return [shown.iloc[start:end] for start, end in zip(starts, ends, strict=True)]


def _read_signatures(path: Path) -> Signatures:
    """Read the signatures of a SavedModel, and nothing else of it."""
    try:
        saved = SavedModel.FromString(path.read_bytes())
        return dict(saved.meta_graphs[0].signature_def)
    except (OSError, DecodeError, IndexError) as error:
        raise BundleError(
            f"{path}: expected a SavedModel, received {error}; publish again, or roll back to "
            "another version"
        ) from None
