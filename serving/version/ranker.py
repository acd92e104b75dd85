"""RankModel: the ranker of a version, called with packed features of queries and of items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.version.saved_models.names import (
    EXPLAIN,
    ITEM,
    QUERY,
    RECALL,
    SCORES,
    rank_input,
)
from towers.errors import BundleError
from towers.features.schema import Side

Packed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class RankerRecord:
    """What a version says of its ranker."""

    kind: str
    fields: Sequence[str]
    """The names of its fields, in their order."""
    candidates: int
    """How many of recall's candidates it was trained to rank."""
    accepted: bool
    """Whether it has beaten recall's own order on validation."""
    figures: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> RankerRecord:
        """Read the file.

        Raises:
            BundleError: it is missing or damaged.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(
                f"{path}: expected what the ranker is, received {error}; run fm-recall rank again"
            ) from None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The two fields of each pair, in the order of the ranker's."""
        first, second = np.triu_indices(len(self.fields), 1)
        places = zip(first.tolist(), second.tolist(), strict=True)
        return [(self.fields[a], self.fields[b]) for a, b in places]


class RankModel:
    """Scores pairs of queries and items."""

    def __init__(self, path: Path, record: RankerRecord) -> None:
        """Load the SavedModel in the folder `path`.

        Raises:
            BundleError: there is none, or it is damaged.
        """
        self.record = record
        try:
            self._model = tf.saved_model.load(str(path))
        except (OSError, tf.errors.OpError) as error:
            raise BundleError(
                f"{path}: expected a SavedModel, received {error}; run fm-recall rank again"
            ) from None

    def score(
        self,
        sides: Mapping[Side, Packed],
        *,
        query: NDArray[np.int64],
        item: NDArray[np.int64],
        recall: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Compute the logits [n] of pairs.

        Args:
            sides: the features of the queries and of the items, as `Tower.pack` gives them.
            query: which of the queries each pair has, [n].
            item: which of the items, [n].
            recall: the score by which it was found, [n]; NaN where that is not known.
        """
        given = rank_inputs(sides, query=query, item=item, recall=recall)
        return self.call("serving_default", given)[SCORES]

    def explain(
        self,
        sides: Mapping[Side, Packed],
        *,
        query: NDArray[np.int64],
        item: NDArray[np.int64],
        recall: NDArray[np.float32],
    ) -> dict[str, NDArray[np.float32]]:
        """The parts of the same scores; see `pipelines.ranking.rank_graph.RankGraph`."""
        return self.call(EXPLAIN, rank_inputs(sides, query=query, item=item, recall=recall))

    def call(
        self, signature: str, inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[np.float32]]:
        """Call a signature with all its inputs."""
        given = {name: tf.constant(values) for name, values in inputs.items()}
        answer = self._model.signatures[signature](**given)
        return {name: values.numpy() for name, values in answer.items()}


def rank_inputs(
    sides: Mapping[Side, Packed],
    *,
    query: NDArray[np.int64],
    item: NDArray[np.int64],
    recall: NDArray[np.float32],
) -> dict[str, NDArray[Any]]:
    """The inputs of the SavedModel by name."""
    given: dict[str, NDArray[Any]] = {
        rank_input(side, name): values
        for side, packed in sides.items()
        for name, values in packed.items()
    }
    return given | {
        QUERY: query.astype(np.int64),
        ITEM: item.astype(np.int64),
        RECALL: recall.astype(np.float32),
    }
