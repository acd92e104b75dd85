"""Workers: what the processes that train one model tell each other.

Every worker holds the whole feature table and computes the gradient of its share of a batch. All
gather the rows that any of them has touched, with their gradients, and move them alike, so that the
tables stay equal, and what is sent depends on the batch and not on the table.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from towers.errors import ConfigError, EngineError, TrainingError
from towers.optimizer import Gradients

GROUP = 20_000
"""The number of the group of all workers, apart from those that `tf.distribute` gives."""

ABORTED = "Collective ops is aborted by:"
"""What TensorFlow says where a collective cannot go on."""


@dataclass(frozen=True)
class Workers:
    """The workers of a job, seen by one of them; worker 0 is the chief.

    Whoever waits for another that is gone gets an error within seconds: TensorFlow's coordination
    service listens for the heartbeats of all.
    """

    index: int = 0
    count: int = 1
    _turn: tf.Variable = field(default=None, repr=False)
    """How often they have gathered something; None alone."""

    @property
    def is_chief(self) -> bool:
        """Whether this one decides, evaluates and publishes."""
        return self.index == 0

    def share(self, weight: tf.Tensor) -> tf.Tensor:
        """This worker's part of the weight of all workers' batches, scalar float32.

        Args:
            weight: of each positive of its batch, [n].
        """
        own = tf.reduce_sum(weight)
        return tf.math.divide_no_nan(own, tf.reduce_sum(self._gather(own)))

    def add_up(self, pairs: Gradients) -> Gradients:
        """Add up the gradients of all workers, in the same order on each.

        Sparse ones, which have to be of the same rows, stay sparse: the rows of all workers one
        after the other, [sum of their numbers].
        """
        pairs = [pair for pair in pairs if pair[0] is not None]
        sparse = [pair for pair in pairs if isinstance(pair[0], tf.IndexedSlices)]
        dense = [pair for pair in pairs if not isinstance(pair[0], tf.IndexedSlices)]
        return [
            *(self._append_sparse(sparse) if sparse else ()),
            *(self._add_dense(dense) if dense else ()),
        ]

    def tell(self, message: Any = None) -> Any:
        """Give all workers what the chief says, a value that JSON can hold; the others listen.

        Every worker has to call it, and waits for the chief for as long as that takes.
        """
        if self.count == 1:
            return message
        text = json.dumps(message).encode() if self.is_chief else b""
        codes = np.frombuffer(text, dtype=np.uint8).astype(np.int32)
        length = int(tf.reduce_max(self._gather(tf.constant(len(codes)))))
        padded = tf.constant(np.pad(codes, (0, length - len(codes))))
        found = self._gather(padded)[0].numpy()
        return json.loads(found.astype(np.uint8).tobytes())

    def check_equal(self, variables: Sequence[tf.Variable], *, epoch: int) -> None:
        """Compare the checksum of all workers' variables.

        Raises:
            TrainingError: they differ.
        """
        if self.count == 1:
            return
        found = 0
        for variable in variables:
            found = zlib.crc32(np.ascontiguousarray(variable.numpy()).data, found)
        if len(set(sums := self._checksums(found))) > 1:
            lines = ", ".join(f"worker {n}: {one:08x}" for n, one in enumerate(sums))
            raise TrainingError(
                f"epoch {epoch}: expected equal tables on all workers, received the checksums "
                f"{lines}; see that all run on the same kind of machine with the same versions of "
                "everything; the same command goes on from the last finished epoch"
            )

    def check_same_job(self, fingerprint: str) -> None:
        """Compare the fingerprints (hex) of the jobs that the workers were started with.

        Raises:
            ConfigError: they differ.
        """
        if self.count == 1:
            return
        sums = self._checksums(zlib.crc32(fingerprint.encode()))
        others = [str(number) for number, one in enumerate(sums) if one != sums[0]]
        if others:
            raise ConfigError(
                "TF_CONFIG: expected all workers to have the same configuration and tables, "
                f"received others than worker 0 has on worker {', '.join(others)}; start all with "
                "the same command on the same files, at the same paths and with the same times"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Say in one line where another worker is gone.

        Raises:
            EngineError: it is, or does not answer any more.
        """
        try:
            yield
        except tf.errors.OpError as error:
            _, is_lost, why = str(error).partition(ABORTED)
            if self.count == 1 or not is_lost:
                raise
            raise EngineError(
                f"worker {self.index} of {self.count}: expected all workers to be at work, lost "
                f"another one ({why.strip().splitlines()[0]}); see which has ended first, and why, "
                "and start all of them again: they go on from the last finished epoch"
            ) from error

    def _checksums(self, own: int) -> list[int]:
        found = self._gather(tf.constant(own, tf.int64))
        return [int(one) for one in found.numpy()]

    def _append_sparse(self, pairs: Gradients) -> Gradients:
        """Put the rows of all workers, and what each gradient has for them, one after the other."""
        rows = pairs[0][0].indices
        size, widths = tf.shape(rows)[0], [variable.shape[1:] for _, variable in pairs]
        values = tf.concat([tf.reshape(one.values, [size, -1]) for one, _ in pairs], axis=1)
        sizes = self._gather(size)
        room = tf.reduce_max(sizes) - size  # what is gathered is of one shape
        found = (
            self._gather(tf.pad(rows, [[0, room]])),
            self._gather(tf.pad(values, [[0, room], [0, 0]])),
        )
        rows, values = (
            tf.concat([one[number, : sizes[number]] for number in range(self.count)], axis=0)
            for one in found
        )
        columns = tf.split(values, [width.num_elements() for width in widths], axis=1)
        return [
            (tf.IndexedSlices(tf.reshape(column, [-1, *width]), rows, one.dense_shape), variable)
            for column, width, (one, variable) in zip(columns, widths, pairs, strict=True)
        ]

    def _add_dense(self, pairs: Gradients) -> Gradients:
        """Add up small gradients, of parameters that every batch touches."""
        flat = tf.concat([tf.reshape(one, [-1]) for one, _ in pairs], axis=0)
        total = tf.reduce_sum(self._gather(flat), axis=0)
        parts = tf.split(total, [variable.shape.num_elements() for _, variable in pairs])
        return [
            (tf.reshape(part, variable.shape), variable)
            for part, (_, variable) in zip(parts, pairs, strict=True)
        ]

    def _gather(self, value: tf.Tensor) -> tf.Tensor:
        """Stack what all workers have, of one shape, in the order of their numbers.

        Every turn has a number of its own, by which TensorFlow knows what belongs together; shapes
        differ from turn to turn.
        """
        return tf.raw_ops.CollectiveGatherV2(
            input=value[tf.newaxis],
            group_size=self.count,
            group_key=GROUP,
            instance_key=self._turn.assign_add(1),
            ordering_token=[],
            communication_hint="ring",
        )


ALONE = Workers()
"""One process that trains by itself."""
