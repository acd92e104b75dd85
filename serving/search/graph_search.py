"""Search inside a TensorFlow graph: exact with TensorFlow's own operations, or by ScaNN's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scann import scann_ops
from scann.proto.scann_pb2 import ScannConfig

from serving.search.index import Vectors
from serving.search.live_shells import ROUNDING
from serving.search.scann_index import ScannIndex, ScannSettings
from serving.search.shells import Shells

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
    """Searches by one index of ScaNN's, with ScaNN's operations.

    These know no vectors in bfloat16: such are reordered by TensorFlow's operations.
    """

    def __init__(self, folder: Path, *, settings: ScannSettings, size: int) -> None:
        """Read the index of `size` vectors that `ScannIndex.save` wrote to `folder`."""
        super().__init__()
        self._settings, self.size = settings, size
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
        return _completed(self.once, queries, k)

    def once(
        self, queries: tf.Tensor, k: tf.Tensor, *, all_leaves: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Search the leaves that the settings name, or all; -1 and -inf where they end."""
        k = tf.minimum(k, self.size)
        if self._settings.num_leaves is None:
            return _masked(*self._search(queries, k, reorder=-1, leaves=-1))
        leaves, reorder = self._settings.effort(
            tf.cast(k, tf.int64), size=self.size, smaller=tf.minimum, larger=tf.maximum
        )
        leaves = self._settings.num_leaves if all_leaves else tf.cast(leaves, tf.int32)
        search = self._search if self._bfloat16 is None else self._search_bfloat16
        return _masked(*search(queries, k, reorder=tf.cast(reorder, tf.int32), leaves=leaves))

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


class ShellSearch(tf.Module):
    """Searches one shell after another, as `LiveShells` does."""

    def __init__(self, index: Shells, folder: Path) -> None:
        """Read what `index` holds from `folder`, to which it was saved."""
        super().__init__()
        self._size = index.size
        self._places: tuple[tf.Variable, ...] = ()
        self._shells = [
            ScannSearch(folder / str(number), settings=shell.index.settings, size=len(shell.rows))
            for number, shell in enumerate(index.shells)
        ]
        self._rows = [_constant(shell.rows) for shell in index.shells]
        self._longest = [shell.longest for shell in index.shells]
        if index.places is not None:
            places = index.places
            arrays = (places.starts[:-1], np.diff(places.starts), places.rows)
            self._places = tuple(map(_constant, arrays))

    @classmethod
    def of(cls, index: Shells) -> ShellSearch:
        """Take over what `index` holds, and its settings."""
        with TemporaryDirectory() as folder:
            index.save(Path(folder) / "index")
            return cls(index, Path(folder) / "index")

    def __call__(self, queries: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Search`."""
        k = tf.minimum(k, self._size)
        rows, scores = _completed(self._once, queries, k)
        return self._expanded(rows, scores, k) if self._places else (rows, scores)

    def release(self) -> None:
        """See `ScannSearch.release`."""
        for shell in self._shells:
            shell.release()

    def _once(
        self, queries: tf.Tensor, k: tf.Tensor, *, all_leaves: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The best of all shells; -1 and -inf where the leaves that were searched end."""
        k = tf.minimum(k, sum(shell.size for shell in self._shells))
        lengths = tf.norm(queries, axis=1) * (1 + ROUNDING)
        kth = tf.fill(tf.shape(lengths), -np.inf)
        found = []
        for shell, members, longest in zip(self._shells, self._rows, self._longest, strict=True):
            width = tf.minimum(k, shell.size)
            # a query of length 0 can reach 0, also in a shell whose longest vector is not known
            highest = tf.math.multiply_no_nan(tf.fill(tf.shape(lengths), longest), lengths)
            asked = tf.where(highest >= kth)
            places, best = shell.once(tf.gather_nd(queries, asked), width, all_leaves=all_leaves)
            best = _scattered(best, asked, like=lengths, fill=-np.inf)
            rows = tf.where(places < 0, places, tf.gather(members, tf.maximum(places, 0)))
            found.append((_scattered(rows, asked, like=lengths, fill=-1), best))
            if shell.size > 0:
                reached = best[:, -1]
                kth = tf.maximum(kth, tf.where(width < k, -np.inf, reached))
        scores, places = tf.math.top_k(tf.concat([each for _, each in found], axis=1), k)
        return tf.gather(tf.concat([each for each, _ in found], 1), places, batch_dims=1), scores

    def _expanded(
        self, places: tf.Tensor, scores: tf.Tensor, k: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows at the places found, k for each query; see `expand` in `equal_vectors`."""
        starts, counts, rows = self._places
        ends = tf.minimum(tf.cumsum(tf.gather(counts, places), axis=1), tf.cast(k, tf.int64))
        taken = tf.reshape(ends - tf.pad(ends, [[0, 0], [1, 0]])[:, :-1], [-1])
        first = tf.gather(starts, tf.reshape(places, [-1]))
        at = tf.ragged.range(first, first + taken).flat_values
        shape = tf.stack([tf.shape(places)[0], k])
        repeated = tf.repeat(tf.reshape(scores, [-1]), taken)
        return tf.reshape(tf.gather(rows, at), shape), tf.reshape(repeated, shape)


def _completed(
    once: Callable[..., tuple[tf.Tensor, tf.Tensor]], queries: tf.Tensor, k: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Search, and once more with all leaves for the queries that found fewer than k."""
    rows, scores = once(queries, k)
    again = tf.where(tf.reduce_any(rows < 0, axis=1))
    more_rows, more_scores = once(tf.gather_nd(queries, again), k, all_leaves=True)
    rows = tf.tensor_scatter_nd_update(rows, again, more_rows)
    return rows, tf.tensor_scatter_nd_update(scores, again, more_scores)


def _scattered(values: tf.Tensor, queries: tf.Tensor, *, like: tf.Tensor, fill: float) -> tf.Tensor:
    """Values [m, w] of some queries [m, 1] among all, of which `like` is [n]."""
    shape = tf.stack([tf.shape(like)[0], tf.shape(values)[1]])
    everyone = tf.fill(shape, tf.constant(fill, values.dtype))
    return tf.tensor_scatter_nd_update(everyone, queries, values)


def _constant(values: NDArray[np.int64]) -> tf.Variable:
    """Numbers that a SavedModel holds."""
    return tf.Variable(values, trainable=False)


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
