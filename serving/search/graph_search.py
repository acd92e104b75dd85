"""Search inside a TensorFlow graph: exact with TensorFlow's own operations, or by ScaNN's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
import tensorflow as tf
from scann import scann_ops
from scann.proto.scann_pb2 import ScannConfig

from serving.search.index import Vectors
from serving.search.scann_index import ScannIndex, ScannSettings

Search = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Answers queries [b, d] and k (int32 scalar) with rows [b, min(k, size)] int64 and their scores,
best first; -1 and -inf where there is none. A `tf.Module` that holds what it searches."""


class ExactSearch(tf.Module):
    """Scores every vector, with operations of TensorFlow's own only; ties go to the lower row."""

    def __init__(self, vectors: Vectors) -> None:
        """Search `vectors` [size, d]."""
        super().__init__()
        self._vectors = tf.Variable(vectors, trainable=False, name="vectors")

    def __call__(self, queries: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Search`."""
        k = tf.minimum(k, self._vectors.shape[0])
        scores, rows = tf.math.top_k(tf.matmul(queries, self._vectors, transpose_b=True), k)
        return _masked(rows, scores)


class ScannSearch(tf.Module):
    """Searches by an index of ScaNN's, with ScaNN's operations.

    These know no vectors in bfloat16: such are reordered by TensorFlow's operations.
    """

    def __init__(self, folder: Path, *, settings: ScannSettings, size: int) -> None:
        """Read the index of `size` vectors that `ScannIndex.save` wrote to `folder`."""
        super().__init__()
        self._settings, self._size = settings, size
        values = _read(folder)
        self._bfloat16: tf.Variable | None = None
        if settings.num_leaves is not None and settings.storage == "bfloat16":
            bits = np.load(folder / "bfloat16_dataset.npy", mmap_mode="r")
            self._bfloat16 = tf.Variable(tf.bitcast(bits, tf.bfloat16), trainable=False)
            values["scann_config"] = [_without_reordering(values["scann_config"][0])]
        self._state = {
            name: tf.Variable(value, trainable=False, name=name) for name, value in values.items()
        }
        self._shared_name = f"scann-{uuid4()}"

    @classmethod
    def of(cls, index: ScannIndex) -> ScannSearch:
        """Take over what `index` holds, and its settings."""
        with TemporaryDirectory() as folder:
            index.save(Path(folder))
            return cls(Path(folder), settings=index.settings, size=index.size)

    def __call__(self, queries: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Search`."""
        k = tf.minimum(k, self._size)
        if self._settings.num_leaves is None:
            return _masked(*self._search(queries, k, reorder=-1, leaves=-1))
        leaves, reorder = self._settings.effort(
            tf.cast(k, tf.int64), size=self._size, smaller=tf.minimum, larger=tf.maximum
        )
        leaves, reorder = tf.cast(leaves, tf.int32), tf.cast(reorder, tf.int32)
        search = self._search if self._bfloat16 is None else self._search_bfloat16
        rows, scores = search(queries, k, reorder=reorder, leaves=leaves)
        short = tf.reduce_any(tf.math.is_nan(scores), axis=1)  # its leaves have fewer than k
        again = tf.where(short)
        more_rows, more_scores = search(
            tf.gather_nd(queries, again), k, reorder=reorder, leaves=self._settings.num_leaves
        )
        rows = tf.tensor_scatter_nd_update(rows, again, more_rows)
        scores = tf.tensor_scatter_nd_update(scores, again, more_scores)
        return _masked(rows, scores)

    def release(self) -> None:
        """Free the searcher that calls outside of a graph have made; another call makes it anew."""
        tf.raw_ops.DestroyResourceOp(resource=self._searcher())

    def _searcher(self) -> tf.Tensor:
        """ScaNN's searcher: made at the first call, and kept by its shared name."""
        return scann_ops.tensors_to_scann(**self._state, shared_name=self._shared_name)

    def _search(
        self, queries: tf.Tensor, k: tf.Tensor, *, reorder: tf.Tensor, leaves: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Search so many leaves; NaN is the score of a row that was not found.

        ScaNN's operation returns fewer than k columns where no query found k; and none at all for
        no queries.
        """
        rows, scores = scann_ops.scann_search_batched(
            self._searcher(), queries, k, reorder, leaves, True
        )
        missing = [[0, 0], [0, k - tf.shape(scores)[1]]]
        scores = tf.pad(scores, missing, constant_values=np.nan)
        return tf.ensure_shape(tf.pad(rows, missing), [None, None]), scores

    def _search_bfloat16(
        self, queries: tf.Tensor, k: tf.Tensor, *, reorder: tf.Tensor, leaves: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The same, with ScaNN's best `reorder` rows scored here, as they are in bfloat16."""
        rows, rough = self._search(queries, reorder, reorder=reorder, leaves=leaves)
        vectors = tf.cast(tf.gather(self._bfloat16, rows), tf.float32)
        scores = tf.linalg.matvec(vectors, queries)
        scores, places = tf.math.top_k(tf.where(tf.math.is_nan(rough), -np.inf, scores), k)
        scores = tf.where(tf.math.is_inf(scores), np.nan, scores)
        return tf.gather(rows, places, batch_dims=1), scores


def _masked(rows: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Set what was not found, which has no number for a score, to row -1 and score -inf."""
    nothing = tf.math.is_nan(scores)
    rows = tf.where(nothing, tf.constant(-1, tf.int64), tf.cast(rows, tf.int64))
    return rows, tf.where(nothing, -np.inf, scores)


def _read(folder: Path) -> dict[str, Any]:
    """What an index holds, as the inputs of ScaNN's operation that makes a searcher of it.

    The names are those of the files that ScaNN writes; an empty value stands for one it does not.
    """
    arrays = {"dataset": np.float32, "datapoint_to_token": np.int32, "hashed_dataset": np.uint8}
    arrays |= {"int8_dataset": np.int8, "int8_multipliers": np.float32, "dp_norms": np.float32}
    values: dict[str, Any] = {}
    for name, dtype in arrays.items():
        path = folder / f"{name}.npy"
        values[name] = np.load(path, mmap_mode="r") if path.exists() else np.zeros([], dtype)
    for name in ("scann_config", "serialized_partitioner", "ah_codebook"):
        path = folder / f"{name}.pb"
        values[name] = [path.read_bytes()] if path.exists() else b""
    return values | {"x": values.pop("dataset")}


def _without_reordering(config: bytes) -> bytes:
    """ScaNN's configuration of an index, for a search that ends before its best are reordered."""
    parsed = ScannConfig.FromString(config)
    parsed.ClearField("exact_reordering")
    without: bytes = parsed.SerializeToString()
    return without
