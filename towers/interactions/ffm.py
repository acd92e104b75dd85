"""FFM: the field-aware factorization machine, a vector for each field that a feature meets.

Feature i has a vector v_i^(g) for each field g. With f(i) its own field, a pair of features adds
<v_i^(f(j)), v_j^(f(i))> x_i x_j. Let s_f^(g) be the sum of a user's v_i^(g) x_i over its field f,
and t_g^(f) that of an item's v_j^(f) x_j over its field g. Then

    user x item = sum_f sum_g < s_f^(g) , t_g^(f) >

so that the coupled part has a block of k coordinates for each pair of a user field and an item
field. Vectors are for the item fields first and then for the user fields, side by side in the
columns of v. No feature of a user meets another in a score that differs between items, so that
vectors for user fields serve the item's side alone.

Source: Y. Juan, Y. Zhuang, W.-S. Chin and C.-J. Lin, Field-aware Factorization Machines for CTR
Prediction, RecSys 2016.
"""

from __future__ import annotations

import tensorflow as tf

from towers import fm
from towers.dense import Dense
from towers.features.fields import Fields
from towers.features.schema import Side
from towers.interactions.field_sums import FieldSums, own_rows
from towers.interactions.interaction import Active, Floats, add_coupled


class FFM(tf.Module):
    """A vector for each field that a feature meets; where all are equal, it is the FM."""

    adds_up = True

    def __init__(self, fields: Fields) -> None:
        """Take the fields of the two sides."""
        super().__init__(name="ffm")
        self._n_user, self._n_item = fields.count("user"), fields.count("item")
        self.blocks = self._n_item + self._n_user
        self.repeats = (self._n_item, self._n_user)
        self._sums = {"user": FieldSums(fields, "user"), "item": FieldSums(fields, "item")}

    def width(self, k: int) -> int:
        """A block of k for each pair of a user field and an item field."""
        return self._n_user * self._n_item * k

    def user_vector(
        self,
        x: tf.SparseTensor,
        v: tf.Tensor,
        *,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[1 ; s_f^(g) for each f and g]; [b, 1 + width]."""
        coupled = self._flat(self._of_fields("user", x, v, dense=dense, rows=rows)[0])
        return tf.concat([tf.ones_like(coupled[:, :1]), coupled], axis=1)

    def item_vector(
        self,
        x: tf.SparseTensor,
        w: tf.Tensor,
        v: tf.Tensor,
        *,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[first order + pairs within the item ; t_g^(f) for each f and g].

        Pairs: 1/2 [ sum_g sum_h <t_g^(h), t_h^(g)> - sum_g sum_(i in g) |v_i^(g)|^2 x_i^2 ].
        """
        for_items, for_users = self._of_fields("item", x, v, dense=dense, rows=rows)
        pairs = tf.reduce_sum(for_items * tf.transpose(for_items, [0, 2, 1, 3]), axis=[1, 2, 3])
        sums = self._sums["item"]
        fields = sums.entries(x, rows)
        of_entries = tf.gather(tf.convert_to_tensor(v), x.indices[:, 1])
        of_dense = None
        if dense is not None:
            of_columns = self._squares(own_rows(dense, v), sums.of_columns(dense, rows))
            of_dense = dense, of_columns
        squares = self._squares(of_entries, fields)
        squares = sums.numbers(x, squares, fields=fields, dense=of_dense, rows=rows)
        bias = fm.first_order(x, w, dense=dense) + (pairs - tf.reduce_sum(squares, axis=1)) / 2
        coupled = self._flat(tf.transpose(for_users, [0, 2, 1, 3]))
        return tf.concat([bias[:, tf.newaxis], coupled], axis=1)

    def join(self, users: Floats, others: Floats) -> Floats:
        """The coupled parts are sums over features, which add up."""
        return add_coupled(users, others)

    def as_one(self, dense: Dense, v: tf.Tensor, w: tf.Tensor | None) -> Active:
        """Pairs among the numbers are those of their vectors for the field that they are of."""
        vector, _ = fm.as_one(dense, v, None)
        if w is None:
            return {"v": vector}
        fields = self._sums["item"].of_columns(dense, None)
        norms = tf.linalg.matvec(tf.square(dense.x), self._squares(own_rows(dense, v), fields))
        field = self._sums["item"].of(tf.constant([dense.first]))
        own = tf.reduce_sum(tf.square(self._own(vector, tf.repeat(field, tf.shape(vector)[0]))), 1)
        return {"v": vector, "w": tf.linalg.matvec(dense.x, own_rows(dense, w)) + (own - norms) / 2}

    def effective(self, active: Active, *, side: Side) -> Active:
        """Block (f, g) of a user's v_i is v_i^(g), if f is its field; of an item's, v_i^(f)."""
        shape, k = tf.shape(active["v"])[:2], active["v"].shape[2] // self.blocks
        v = tf.reshape(active["v"], tf.concat([shape, [self.blocks, k]], axis=0))
        for_items, for_users = v[:, :, : self._n_item], v[:, :, self._n_item :]
        sums = self._sums[side]
        own = tf.one_hot(sums.of(active["row"]), sums.n_fields, dtype=v.dtype)

        def blocks(values: tf.Tensor, *, own_first: bool) -> tf.Tensor:
            """Vectors [b, m, n, k] where the other place of a block is the feature's own field."""
            axis = (3, 2) if own_first else (2, 3)
            found = tf.expand_dims(values, axis[1]) * tf.expand_dims(
                tf.expand_dims(own, axis[0]), 4
            )
            return tf.reshape(found, tf.concat([shape, [sums.n_fields * values.shape[2] * k]], 0))

        if side == "user":
            return active | {"v": blocks(for_items, own_first=True)}
        return active | {
            "v": blocks(for_users, own_first=False),
            "left": blocks(for_items, own_first=True),
            "right": blocks(for_items, own_first=False),
        }

    def _of_fields(
        self,
        side: Side,
        x: tf.SparseTensor,
        v: tf.Tensor,
        *,
        dense: Dense | None,
        rows: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The sums of each field's vectors for item fields and for user fields, [b, n, m, k]."""
        sums = self._sums[side]
        found = sums.vectors(x, v, fields=sums.entries(x, rows), dense=dense, rows=rows)
        shape = tf.stack(
            [tf.shape(found)[0], sums.n_fields, self.blocks, v.shape[1] // self.blocks]
        )
        found = tf.reshape(found, shape)
        return found[:, :, : self._n_item], found[:, :, self._n_item :]

    def _flat(self, pairs: tf.Tensor) -> tf.Tensor:
        """Blocks [b, n_user, n_item, k] as coordinates."""
        width = self._n_user * self._n_item * pairs.shape[3]
        return tf.reshape(pairs, tf.stack([tf.shape(pairs)[0], width]))

    def _own(self, v: tf.Tensor, fields: tf.Tensor) -> tf.Tensor:
        """The vector of each of n features [n, blocks k] for an item field of its own, [n, k]."""
        by_field = tf.reshape(v, tf.stack([-1, self.blocks, v.shape[1] // self.blocks]))
        return tf.gather(by_field, fields, batch_dims=1)

    def _squares(self, v: tf.Tensor, fields: tf.Tensor) -> tf.Tensor:
        """The squared lengths of these, [n]."""
        return tf.reduce_sum(tf.square(self._own(v, fields)), axis=1)
