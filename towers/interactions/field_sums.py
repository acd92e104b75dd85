"""FieldSums: the sums of the features of each field of a bag."""

from __future__ import annotations

import tensorflow as tf

from towers.dense import Dense
from towers.features.fields import Fields
from towers.features.schema import Side


class FieldSums(tf.Module):
    """Sums by the fields of one side."""

    def __init__(self, fields: Fields, side: Side) -> None:
        """Keep which field each row of the feature table belongs to."""
        super().__init__(name=f"{side}_fields")
        self.n_fields = fields.count(side)
        # a constant would be written into every graph
        self._fields = tf.Variable(fields.of(side), trainable=False, name=f"{side}_fields")

    def of(self, rows: tf.Tensor) -> tf.Tensor:
        """The places of the fields of some rows of the feature table, int64 of the same shape."""
        places = tf.gather(tf.convert_to_tensor(self._fields), tf.maximum(rows, 0))
        return tf.cast(places, tf.int64)

    def entries(self, x: tf.SparseTensor, rows: tf.Tensor | None) -> tf.Tensor:
        """The fields of the entries of x [b, n], whose columns stand for `rows`; [n_entries]."""
        column = x.indices[:, 1]
        return self.of(column if rows is None else tf.gather(rows, column))

    def vectors(
        self,
        x: tf.SparseTensor,
        v: tf.Tensor,
        *,
        fields: tf.Tensor,
        dense: Dense | None,
        rows: tf.Tensor | None,
    ) -> tf.Tensor:
        """Sum v_i x_i over the features of each field of each row of x; [b, n_fields, c].

        `fields` are those of the entries of x.
        """
        n = self.n_fields
        query, column = x.indices[:, 0], x.indices[:, 1]
        apart = tf.SparseTensor(
            tf.stack([query * n + fields, column], axis=1),
            x.values,
            tf.stack([x.dense_shape[0] * n, x.dense_shape[1]]),
        )
        sums = tf.sparse.sparse_dense_matmul(apart, v)
        if dense is not None:
            by_field = dense.x[:, tf.newaxis, :] * self._is_of(dense, rows, dense.x.dtype)
            flat = tf.reshape(by_field, tf.stack([tf.shape(sums)[0], tf.shape(dense.x)[1]]))
            sums += tf.matmul(flat, own_rows(dense, v))
        return tf.reshape(sums, tf.stack([-1, n, tf.shape(v)[1]]))

    def numbers(
        self,
        x: tf.SparseTensor,
        values: tf.Tensor,
        *,
        fields: tf.Tensor,
        dense: tuple[Dense, tf.Tensor] | None,
        rows: tf.Tensor | None,
    ) -> tf.Tensor:
        """Sum x_i^2 times a number of each entry of x over each field; [b, n_fields].

        `values` [n_entries] are these numbers, and beside `dense` stand those of its columns [m].
        """
        at = x.indices[:, 0] * self.n_fields + fields
        size = x.dense_shape[0] * self.n_fields
        sums = tf.math.unsorted_segment_sum(tf.square(x.values) * values, at, size)
        sums = tf.reshape(sums, [-1, self.n_fields])
        if dense is None:
            return sums
        numbers, of_columns = dense
        is_of = self._is_of(numbers, rows, values.dtype)[0]
        return sums + tf.matmul(
            tf.square(numbers.x) * of_columns[tf.newaxis], is_of, transpose_b=True
        )

    def of_columns(self, dense: Dense, rows: tf.Tensor | None) -> tf.Tensor:
        """The places of the fields of the columns of `dense`, [m]."""
        column = tf.cast(dense.first, tf.int64) + tf.range(tf.shape(dense.x, tf.int64)[1])
        return self.of(column if rows is None else tf.gather(rows, column))

    def _is_of(self, dense: Dense, rows: tf.Tensor | None, dtype: tf.DType) -> tf.Tensor:
        """1 where a column of `dense` is of a field, else 0; [1, n_fields, m]."""
        columns = self.of_columns(dense, rows)
        return tf.one_hot(columns, self.n_fields, axis=0, dtype=dtype)[tf.newaxis]


def own_rows(dense: Dense, table: tf.Tensor) -> tf.Tensor:
    """The rows of w or v that belong to the dense features."""
    first = tf.cast(dense.first, tf.int64)
    return tf.convert_to_tensor(table)[first : first + tf.shape(dense.x, tf.int64)[1]]
