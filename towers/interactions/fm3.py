"""FM3: the factorization machine of order three, with the ANOVA kernel.

Triples of features add sum_s l_s v_is v_js v_ts x_i x_j x_t, with a weight l_s for each of the k
coordinates, beside what pairs and single features add. For each coordinate, let e1, e2 and e3 be
the sums over one, two and three different features of one side: e1 = p1, e2 = (p1^2 - p2) / 2, and
e3 = (p1^3 - 3 p1 p2 + 2 p3) / 6, where p_m = sum_i (v_i x_i)^m. With those of a user, u, and of an
item, t, all terms but those of the user alone are

    e2(t) + l e3(t)    and    e1(u) (e1(t) + l e2(t)) + l e2(u) e1(t)

so that the triples of an item are in its score within itself, and the mixed ones are an inner
product of 2k coordinates: [e1 ; l e2] of the user with [e1 + l e2 ; e1] of the item.

Source: M. Blondel, A. Fujino, N. Ueda and M. Ishihata, Higher-Order Factorization Machines,
NeurIPS 2016, equations 5 and 9, with one table of vectors for all orders; the weights: M. Blondel,
M. Ishihata, A. Fujino and N. Ueda, Polynomial Networks and Factorization Machines, ICML 2016.
"""

from __future__ import annotations

import tensorflow as tf

from towers import fm
from towers.dense import Dense
from towers.features.schema import Side
from towers.interactions.field_sums import own_rows
from towers.interactions.interaction import Active, Floats, add_coupled

TRIPLE_WEIGHTS = "triple_weights"
"""The name of l, by which an optimizer can find it."""


class FM3(tf.Module):
    """Triples beside pairs. All weights of triples are 0 at the start, where it is the FM."""

    blocks = 1
    adds_up = False
    repeats = (1, 2)

    def __init__(self, k: int) -> None:
        """Give the triples of each of k coordinates the weight 0."""
        super().__init__(name="fm3")
        self._triples = tf.Variable(tf.zeros([k]), name=TRIPLE_WEIGHTS)

    def width(self, k: int) -> int:
        """Two blocks of k."""
        return 2 * k

    def triples(self, dtype: tf.DType) -> tf.Tensor:
        """l, the weights of the triples of each coordinate, [k]."""
        return tf.cast(self._triples, dtype)

    def user_vector(
        self,
        x: tf.SparseTensor,
        v: tf.Tensor,
        *,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[1 ; e1 ; l e2]; [b, 1 + 2k]."""
        del rows
        one, two, _ = _power_sums(x, v, dense=dense, upto=2)
        second = self.triples(v.dtype) * (tf.square(one) - two) / 2
        return tf.concat([tf.ones_like(one[:, :1]), one, second], axis=1)

    def item_vector(
        self,
        x: tf.SparseTensor,
        w: tf.Tensor,
        v: tf.Tensor,
        *,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[first order + sum of e2 + l e3 ; e1 + l e2 ; e1]; [b, 1 + 2k]."""
        del rows
        triples = self.triples(v.dtype)
        one, two, three = _power_sums(x, v, dense=dense, upto=3)
        pairs = (tf.square(one) - two) / 2
        within = pairs + triples * (one**3 - 3 * one * two + 2 * three) / 6
        bias = fm.first_order(x, w, dense=dense) + tf.reduce_sum(within, axis=1)
        return tf.concat([bias[:, tf.newaxis], one + triples * pairs, one], axis=1)

    def join(self, users: Floats, others: Floats) -> Floats:
        """Of two features in different bags, e2 has the product: l e1 e1' comes in."""
        joined, k = add_coupled(users, others), self._triples.shape[0]
        one, other = users[:, 1 : 1 + k], others[:, 1 : 1 + k]
        joined[:, 1 + k :] += self._triples.numpy() * one * other
        return joined

    def as_one(self, dense: Dense, v: tf.Tensor, w: tf.Tensor | None) -> Active:
        """Its `two` is the sum of the squares of what the numbers bring, [b, k]."""
        own = own_rows(dense, v)
        one, two, three = (tf.matmul(dense.x**m, own**m) for m in (1, 2, 3))
        found = {"v": one, "two": two}
        if w is None:
            return found
        within = (tf.square(one) - two) / 2
        within += self.triples(v.dtype) * (one**3 - 3 * one * two + 2 * three) / 6
        first = tf.linalg.matvec(dense.x, own_rows(dense, w))
        return found | {"w": first + tf.reduce_sum(within, axis=1)}

    def effective(self, active: Active, *, side: Side) -> Active:
        """Triples are shared out to their pairs: a mixed one by halves to its two mixed pairs.

        With a_i = v_i x_i and q_i = a_i^2 (for the numbers of a vector, the sum of theirs), the
        share of e2 of feature i is (a_i e1 - q_i) / 2. A triple of an item is by thirds in its
        three pairs.
        """
        x, v, triples = active["x"][..., tf.newaxis], active["v"], self.triples(active["v"].dtype)
        a = x * v
        q = active.get("two", tf.zeros_like(a))
        is_one = tf.reduce_any(q != 0, axis=2, keepdims=True)
        q = tf.where(is_one, q, tf.square(a))
        total = tf.reduce_sum(a, axis=1, keepdims=True)
        share = triples * tf.math.divide_no_nan(a * total - q, 2 * x)
        found = {name: values for name, values in active.items() if name != "two"}
        if side == "user":
            return found | {"v": tf.concat([v, share], axis=2)}
        own = (tf.square(a) - q) / 2
        left = v + triples * tf.math.divide_no_nan(a * (total - a) / 3 + own, x)
        right = triples * tf.math.divide_no_nan(own - tf.square(a) / 3, x)
        return found | {
            "v": tf.concat([v + share, v], axis=2),
            "left": tf.concat([left, v], axis=2),
            "right": tf.concat([v, right], axis=2),
        }


def _power_sums(
    x: tf.SparseTensor, v: tf.Tensor, *, dense: Dense | None, upto: int
) -> list[tf.Tensor]:
    """p_1 to p_upto of each row of x and each coordinate, [b, k] each; then nothing, up to p_3."""
    query, column = x.indices[:, 0], x.indices[:, 1]
    one = fm.pooled(x, v, dense=dense)
    brought = x.values[:, tf.newaxis] * tf.gather(tf.convert_to_tensor(v), column)
    found = [one]
    for m in range(2, upto + 1):
        sums = tf.math.unsorted_segment_sum(brought**m, query, tf.shape(one)[0])
        found.append(
            sums if dense is None else sums + tf.matmul(dense.x**m, own_rows(dense, v) ** m)
        )
    return found + [one] * (3 - upto)
