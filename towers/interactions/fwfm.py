"""FwFM: the field-weighted factorization machine, a weight for each pair of fields.

With f(i) the field of feature i, a pair of features adds r_f(i)f(j) <v_i, v_j> x_i x_j. Let s_f be
the sum of a user's v_i x_i over field f, and t_g that of an item over field g. Then

    user x item = sum_f sum_g r_fg <s_f, t_g> = sum_c < sum_f A_fc s_f , sum_g B_gc t_g >

for each A, B with A B' = R: blocks of k coordinates, as many as R has user fields or item fields,
whichever are fewer (A or B is then the identity), or its rank where that is asked for. Weights of
two fields of an item are in its score within itself, and those of two fields of a user, whose terms
are the same for all items, do not exist.

Source: J. Pan et al., Field-weighted Factorization Machines for Click-Through Rate Prediction in
Display Advertising, WWW 2018; of low rank: H. Almagor and Y. Hoshen, You Say Factorization Machine,
I Say Neural Network, RecSys 2022.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from towers import fm
from towers.dense import Dense
from towers.features.fields import Fields
from towers.features.schema import Side
from towers.interactions.field_sums import FieldSums, own_rows
from towers.interactions.interaction import Active, Floats, add_coupled

FIELD_WEIGHTS = "field_weights"
"""How the names of the field weights end, by which an optimizer can find them."""


class FwFM(tf.Module):
    """A weight for each pair of fields. All weights are 1 at the start, where it is the FM."""

    blocks = 1
    adds_up = True

    def __init__(self, fields: Fields, *, rank: int | None = None, seed: int = 0) -> None:
        """Give every pair of fields the weight 1.

        Args:
            fields: of the two sides.
            rank: of the weights between users and items; None, or no less than the fewer fields:
                one for each pair.
            seed: of what a low rank needs at random, so that its columns learn different things.
        """
        super().__init__(name="fwfm")
        n_user, n_item = fields.count("user"), fields.count("item")
        self._sums = {"user": FieldSums(fields, "user"), "item": FieldSums(fields, "item")}
        self._within = _weights("within", np.ones((n_item, n_item)))
        self._rank = rank if rank is not None and rank < min(n_user, n_item) else None
        if self._rank is None:
            self._between = _weights("between", np.ones((n_user, n_item)))
        else:
            users, items = np.zeros((n_user, self._rank)), np.ones((n_item, self._rank))
            users[:, 0] = 1.0
            items[:, 1:] = np.random.default_rng(seed).normal(size=(n_item, self._rank - 1))
            self._of_user, self._of_item = _weights("user", users), _weights("item", items)

    @property
    def _n_blocks(self) -> int:
        """How many blocks of k coordinates the coupled parts have."""
        return self._rank or min(sums.n_fields for sums in self._sums.values())

    @property
    def repeats(self) -> tuple[int, int]:
        """The side that the weights are applied to has the plain machine's sum in each block."""
        if self._rank is not None:
            return 1, 1
        return (self._n_blocks, 1) if self._is_of_items else (1, self._n_blocks)

    @property
    def _is_of_items(self) -> bool:
        """Whether the blocks are those of the item fields, which are fewer."""
        return self._sums["item"].n_fields <= self._sums["user"].n_fields

    def width(self, k: int) -> int:
        """A block of k for each field of the side that has fewer, or for each rank."""
        return self._n_blocks * k

    def between(self) -> tf.Tensor:
        """R, the weights of a user field with an item field, [n_user, n_item]."""
        return tf.matmul(self._mix("user"), self._mix("item"), transpose_b=True)

    def within(self) -> tf.Tensor:
        """The weights of two item fields, [n_item, n_item], symmetric."""
        weights = tf.convert_to_tensor(self._within)
        return (weights + tf.transpose(weights)) / 2

    def user_vector(
        self,
        x: tf.SparseTensor,
        v: tf.Tensor,
        *,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[1 ; sum_f A_fc s_f for each c]; [b, 1 + width]."""
        sums, fields = self._sums["user"], self._sums["user"].entries(x, rows)
        coupled = self._mixed("user", sums.vectors(x, v, fields=fields, dense=dense, rows=rows))
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
        """[first order + weighted pairs within the item ; sum_g B_gc t_g for each c].

        Pairs: 1/2 [ sum_g sum_h r_gh <t_g, t_h> - sum_g r_gg sum_(i in g) |v_i|^2 x_i^2 ].
        """
        sums, fields = self._sums["item"], self._sums["item"].entries(x, rows)
        of_fields = sums.vectors(x, v, fields=fields, dense=dense, rows=rows)
        norms = tf.reduce_sum(tf.square(tf.gather(tf.convert_to_tensor(v), x.indices[:, 1])), 1)
        of_dense = None
        if dense is not None:
            of_dense = dense, tf.reduce_sum(tf.square(own_rows(dense, v)), axis=1)
        squares = sums.numbers(x, norms, fields=fields, dense=of_dense, rows=rows)
        weights = tf.cast(self.within(), v.dtype)
        weighted = tf.einsum("bgk,gh->bhk", of_fields, weights)
        pairs = tf.reduce_sum(weighted * of_fields, axis=[1, 2])
        pairs -= tf.linalg.matvec(squares, tf.linalg.diag_part(weights))
        bias = fm.first_order(x, w, dense=dense) + pairs / 2
        return tf.concat([bias[:, tf.newaxis], self._mixed("item", of_fields)], axis=1)

    def join(self, users: Floats, others: Floats) -> Floats:
        """The coupled parts are sums over features, which add up."""
        return add_coupled(users, others)

    def as_one(self, dense: Dense, v: tf.Tensor, w: tf.Tensor | None) -> Active:
        """Pairs among the numbers count by the weight of the vector's field with itself."""
        vector, first = fm.as_one(dense, v, None if w is None else tf.zeros_like(w))
        if w is None or first is None:
            return {"v": vector}
        field = self._sums["item"].of(tf.constant(dense.first))
        weight = tf.linalg.diag_part(tf.cast(self.within(), v.dtype))[field]
        return {"v": vector, "w": tf.linalg.matvec(dense.x, own_rows(dense, w)) + weight * first}

    def effective(self, active: Active, *, side: Side) -> Active:
        """Block c of v_i is A_f(i)c v_i, or B_f(i)c v_i of items."""
        v, fields = active["v"], self._sums[side].of(active["row"])

        def blocks(weights: tf.Tensor) -> tf.Tensor:
            """Each row's vector times each of its field's weights [n_fields, n]."""
            of_row = tf.gather(tf.cast(weights, v.dtype), fields)
            found = of_row[..., tf.newaxis] * v[:, :, tf.newaxis, :]
            shape = tf.stack([tf.shape(v)[0], tf.shape(v)[1], weights.shape[1] * v.shape[2]])
            return tf.reshape(found, shape)

        found = active | {"v": blocks(self._mix(side))}
        if side == "item":
            alone = tf.eye(self._sums["item"].n_fields)
            found |= {"left": blocks(self.within()), "right": blocks(alone)}
        return found

    def _mix(self, side: Side) -> tf.Tensor:
        """A or B: how much each field of a side counts in each block, [n_fields, n_blocks]."""
        if self._rank is not None:
            return tf.convert_to_tensor(self._of_user if side == "user" else self._of_item)
        if (side == "item") == self._is_of_items:
            return tf.eye(self._n_blocks)
        weights = tf.convert_to_tensor(self._between)
        return weights if side == "user" else tf.transpose(weights)

    def _mixed(self, side: Side, of_fields: tf.Tensor) -> tf.Tensor:
        """Mix the sums of fields [b, n_fields, k] into blocks, [b, n_blocks k]."""
        mix = tf.cast(self._mix(side), of_fields.dtype)
        blocks = tf.einsum("bfk,fc->bck", of_fields, mix)
        n, k = mix.shape[1], of_fields.shape[2]
        return tf.reshape(blocks, tf.stack([tf.shape(of_fields)[0], n * k]))


def _weights(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tf.Variable:
    """Trainable weights."""
    return tf.Variable(values, dtype=tf.float32, name=f"{name}_{FIELD_WEIGHTS}")
