"""Interaction: what tells the members of the family apart, and its plain member.

A member says how the features of one side become its vector, so that V_user . V_item is the
member's score of the pair, less what is the user's alone:

    V_user = [1 ; coupled part of the user]        V_item = [score within the item ; coupled part]

Whoever keeps, indexes or compares vectors need not know which member made them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from towers import fm
from towers.dense import Dense
from towers.features.schema import Side

Floats = NDArray[np.float32]

Active = dict[str, tf.Tensor]
"""The active features of a batch of users or items, padded: `row` [b, m], -1 in padding, and `x`
[b, m], `v` [b, m, c] and maybe others, 0 in padding."""


class Interaction(Protocol):
    """A member of the family. A `tf.Module` where it has parameters besides w and v."""

    blocks: int
    """How many vectors of length k a feature has, side by side in the columns of v."""
    adds_up: bool
    """Whether the coupled part of a user is a sum over the features of its bag."""
    repeats: tuple[int, int]
    """How often the coupled part of a user, and of an item, repeats what the plain machine has; so
    many times is its squared length at the start."""

    def width(self, k: int) -> int:
        """The number of coordinates of the coupled part."""

    def user_vector(
        self,
        x: tf.SparseTensor,
        v: tf.Tensor,
        *,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """V_user [b, 1 + width] of bags x [b, n] over vectors v [n, blocks k].

        `rows` [n] are the rows of the feature table that x's columns stand for; by default all.
        """

    def item_vector(
        self,
        x: tf.SparseTensor,
        w: tf.Tensor,
        v: tf.Tensor,
        *,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """V_item [b, 1 + width], likewise; w [n] are first-order weights."""

    def join(self, users: Floats, others: Floats) -> Floats:
        """V_user of what two bags hold together, by those of each; [n, 1 + width] all."""

    def as_one(self, dense: Dense, v: tf.Tensor, w: tf.Tensor | None) -> Active:
        """Take the numbers of one vector as one feature with x = 1, and no row, [b] each.

        `v` is the sum of theirs; `w`, where weights are given, their first-order terms and all
        that the member sums among them; and whatever else `effective` reads.
        """

    def effective(self, active: Active, *, side: Side) -> Active:
        """The same features with the vectors that the coupled part sums.

        `v` [b, m, width] such that the coupled part is sum_i x_i v_i. Of items also `left` and
        `right` [b, m, e], where these are others than v, such that <left_i, right_j> x_i x_j is
        what the pair i, j adds to the score within the item, in either order. What `row`, `x` and
        `w` are stays.
        """


class FM:
    """The factorization machine: each pair of features adds <v_i, v_j> x_i x_j."""

    blocks = 1
    adds_up = True
    repeats = (1, 1)

    def width(self, k: int) -> int:
        """One coordinate for each of k."""
        return k

    def user_vector(
        self,
        x: tf.SparseTensor,
        v: tf.Tensor,
        *,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """See `fm.user_vector`."""
        del rows
        return fm.user_vector(x, v, dense=dense)

    def item_vector(
        self,
        x: tf.SparseTensor,
        w: tf.Tensor,
        v: tf.Tensor,
        *,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """See `fm.item_vector`."""
        del rows
        return fm.item_vector(x, w, v, dense=dense)

    def join(self, users: Floats, others: Floats) -> Floats:
        """The coupled parts are sums over features, which add up."""
        return add_coupled(users, others)

    def as_one(self, dense: Dense, v: tf.Tensor, w: tf.Tensor | None) -> Active:
        """See `fm.as_one`."""
        vector, weight = fm.as_one(dense, v, w)
        return {"v": vector} if weight is None else {"v": vector, "w": weight}

    def effective(self, active: Active, *, side: Side) -> Active:
        """They are what they are."""
        del side
        return active


def add_coupled(users: Floats, others: Floats) -> Floats:
    """Add the coupled parts of user vectors [n, 1 + d], whose first coordinate stays 1."""
    first = users[:, :1]
    return np.concatenate([first, users[:, 1:] + others[:, 1:]], axis=1)
