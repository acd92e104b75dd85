"""Each member of the family in float64 against its definition, a naive sum over features."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tests.examples import examples
from towers import fm, fm_numpy
from towers.dense import Dense
from towers.features.fields import Fields
from towers.features.schema import Side
from towers.interactions.ffm import FFM
from towers.interactions.fm3 import FM3
from towers.interactions.fwfm import FwFM
from towers.interactions.interaction import FM, Interaction

Array = NDArray[np.float64]

REALS = st.floats(-2.0, 2.0, allow_subnormal=False)
VALUES = REALS | st.just(0.0)  # multi-hot: many features are not active
MEMBERS = ["fm", "fwfm", "fwfm, rank 1", "fwfm, rank 2", "ffm", "fm3"]


@dataclass(frozen=True)
class Case:
    """A member with parameters, and values of users and items, whose rows may be the same ones."""

    member: str
    interaction: Interaction
    fields: Fields
    k: int
    w: Array
    v: Array
    users: Array
    items: Array

    def pair(self, i: int, of_i: Side, j: int, of_j: Side) -> float:
        """What a pair of features adds, by the definition of the member."""
        v = self.v
        if isinstance(self.interaction, FwFM):
            sides = {of_i, of_j}
            f, g = (int(self.fields.of(side)[row]) for row, side in ((i, of_i), (j, of_j)))
            if sides == {"user", "item"}:
                f, g = (f, g) if of_i == "user" else (g, f)
                return float(self.interaction.between().numpy()[f, g]) * float(v[i] @ v[j])
            return float(self.interaction.within().numpy()[f, g]) * float(v[i] @ v[j])
        if isinstance(self.interaction, FFM):
            met = self.vector(i, of_j, j), self.vector(j, of_i, i)
            return float(met[0] @ met[1])
        return float(v[i] @ v[j])

    def vector(self, i: int, side: Side, j: int) -> Array:
        """The vector of feature i of an FFM for the field of feature j of a side."""
        place = int(self.fields.of(side)[j]) + (len(self.fields.item) if side == "user" else 0)
        vector: Array = self.v[i].reshape(-1, self.k)[place]
        return vector

    def triples(self, active: list[tuple[Side, int, float]]) -> float:
        """The triples of the FM of order three that hold a feature of the item."""
        if not isinstance(self.interaction, FM3):
            return 0.0
        weights = self.interaction.triples(tf.float64).numpy()
        return sum(
            float(weights @ (self.v[i] * self.v[j] * self.v[t])) * x * y * z
            for (one, i, x), (two, j, y), (three, t, z) in itertools.combinations(active, 3)
            if "item" in (one, two, three)
        )

    def score(self, user: Array, item: Array) -> float:
        """The match score: all but what is the user's alone."""
        active: list[tuple[Side, int, float]] = [
            *(("user", row, x) for row, x in enumerate(user.tolist()) if x),
            *(("item", row, x) for row, x in enumerate(item.tolist()) if x),
        ]
        total = sum(self.w[row] * x for side, row, x in active if side == "item")
        for (of_i, i, x), (of_j, j, y) in itertools.combinations(active, 2):
            if (of_i, of_j) != ("user", "user"):
                total += self.pair(i, of_i, j, of_j) * x * y
        return float(total) + self.triples(active)


@st.composite
def cases(draw: st.DrawFn, members: list[str] = MEMBERS) -> Case:
    n_rows, k = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    n_user, n_item = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    fields = Fields(
        user=tuple("abc"[:n_user]),
        item=tuple("def"[:n_item]),
        of_user=draw(hnp.arrays(np.int16, n_rows, elements=st.integers(0, n_user - 1))),
        of_item=draw(hnp.arrays(np.int16, n_rows, elements=st.integers(0, n_item - 1))),
    )
    member = draw(st.sampled_from(members))
    interaction = make(member, fields, k)
    if isinstance(interaction, tf.Module):
        for one in interaction.trainable_variables:
            one.assign(draw(hnp.arrays(np.float32, one.shape, elements=st.sampled_from(WEIGHTS))))
    sizes = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    users, items = (draw(hnp.arrays(np.float64, (size, n_rows), elements=VALUES)) for size in sizes)
    w = draw(hnp.arrays(np.float64, n_rows, elements=REALS))
    v = draw(hnp.arrays(np.float64, (n_rows, interaction.blocks * k), elements=REALS))
    return Case(member, interaction, fields, k, w, v, users, items)


WEIGHTS = [-1.5, -0.25, 0.0, 0.5, 1.0, 2.0]
"""Which float32 holds exactly."""


def make(member: str, fields: Fields, k: int) -> Interaction:
    name, _, rank = member.partition(", rank ")
    if name == "fwfm":
        return FwFM(fields, rank=int(rank) if rank else None)
    if name == "ffm":
        return FFM(fields)
    return FM3(k) if name == "fm3" else FM()


def sparse(x: Array) -> tf.SparseTensor:
    return tf.sparse.from_dense(tf.constant(x))


def assert_exact(received: Any, expected: Any) -> None:
    np.testing.assert_allclose(received, expected, rtol=1e-9, atol=1e-9)


def vectors(case: Case, interaction: Interaction | None = None) -> tuple[Array, Array]:
    v, made = tf.constant(case.v), interaction or case.interaction
    users = made.user_vector(sparse(case.users), v).numpy()
    return users, made.item_vector(sparse(case.items), tf.constant(case.w), v).numpy()


@given(cases())
@settings(max_examples=examples(120))
def test_the_product_of_the_vectors_is_the_naive_sum(case: Case) -> None:
    users, items = vectors(case)
    width = case.interaction.width(case.k)
    assert users.shape == (len(case.users), 1 + width)
    assert items.shape == (len(case.items), 1 + width)
    assert (users[:, 0] == 1).all()
    expected = [[case.score(user, item) for item in case.items] for user in case.users]
    assert_exact(users @ items.T, expected)


@given(cases(), st.data())
@settings(max_examples=examples(60))
def test_dense_numbers_and_the_rows_of_a_batch_make_no_difference(
    case: Case, data: st.DataObject
) -> None:
    """As a batch has them: some rows of the table, whose first columns may be dense."""
    users, items = vectors(case)
    rows = np.array(data.draw(st.permutations(range(len(case.w)))), dtype=np.int64)
    n_dense = data.draw(st.integers(0, len(rows)))
    first = data.draw(st.integers(0, n_dense))
    w, v, at = tf.constant(case.w[rows]), tf.constant(case.v[rows]), tf.constant(rows)

    def split(x: Array) -> tuple[tf.SparseTensor, Dense]:
        rest = x[:, rows].copy()
        numbers = rest[:, first:n_dense].copy()
        rest[:, first:n_dense] = 0.0
        return sparse(rest), Dense(tf.constant(numbers), first)

    x, dense = split(case.users)
    assert_exact(case.interaction.user_vector(x, v, dense=dense, rows=at).numpy(), users)
    x, dense = split(case.items)
    assert_exact(case.interaction.item_vector(x, w, v, dense=dense, rows=at).numpy(), items)


@given(cases(), st.data())
@settings(max_examples=examples(60))
def test_effective_vectors_and_their_terms_sum_to_the_vectors(
    case: Case, data: st.DataObject
) -> None:
    """With some features of one field as one feature, as explanations have vectors."""
    users, items = vectors(case)
    v, w = tf.constant(case.v), tf.constant(case.w)
    first = data.draw(st.integers(0, len(case.w) - 1))
    last = data.draw(st.integers(first, len(case.w)))
    for side, x, expected in (("user", case.users, users), ("item", case.items, items)):
        of = case.fields.of("user" if side == "user" else "item")
        if len(set(of[first:last].tolist())) > 1:
            last = first + 1
        rest, dense = x.copy(), Dense(tf.constant(x[:, first:last]), first)
        rest[:, first:last] = 0.0
        rows = np.arange(len(case.w))
        one = case.interaction.as_one(dense, v, w if side == "item" else None)
        active = {
            "row": tf.constant(np.tile(np.append(rows, first), (len(x), 1))),
            "x": tf.constant(np.column_stack([rest, np.ones(len(x))])),
            "v": tf.concat([tf.tile(v[tf.newaxis], [len(x), 1, 1]), one["v"][:, tf.newaxis]], 1),
        }
        for name in set(one) - {"v", "w"}:
            nothing = tf.zeros([len(x), len(rows), case.k], tf.float64)
            active[name] = tf.concat([nothing, one[name][:, tf.newaxis]], 1)
        if side == "item":
            own = one["w"][:, tf.newaxis]
            active["w"] = tf.concat([tf.tile(w[tf.newaxis], [len(x), 1]), own], 1)
        found = case.interaction.effective(active, side="user" if side == "user" else "item")
        arrays = {name: values.numpy() for name, values in found.items()}
        for place, vector in enumerate(expected):
            values = arrays["x"][place]
            assert_exact(values @ arrays["v"][place], vector[1:])
            if side == "item":
                left, right = (arrays.get(name, arrays["v"])[place] for name in ("left", "right"))
                pairs = fm_numpy.pair_terms(values, left, values, right)
                assert_exact(pairs, pairs.T)
                total = values @ arrays["w"][place] + pairs[np.triu_indices(len(values), 1)].sum()
                assert_exact(total, vector[0])
                within = fm_numpy.coupled_pairs(values[np.newaxis], left, right)
                assert_exact(values @ arrays["w"][place] + within, vector[0])


@pytest.mark.parametrize("member", MEMBERS)
@given(data=st.data())
@settings(max_examples=examples(8))
def test_every_member_starts_as_the_factorization_machine(member: str, data: st.DataObject) -> None:
    case = data.draw(cases([member]))
    made = make(member, case.fields, case.k)
    plain = case.v[:, : case.k]
    v = tf.constant(np.tile(plain, (1, made.blocks)))
    w, users, items = tf.constant(case.w), sparse(case.users), sparse(case.items)
    scores = tf.matmul(
        made.user_vector(users, v), made.item_vector(items, w, v), transpose_b=True
    ).numpy()
    expected = fm.user_vector(users, tf.constant(plain)).numpy()
    assert_exact(scores, expected @ fm.item_vector(items, w, tf.constant(plain)).numpy().T)


@given(cases(), st.data())
@settings(max_examples=examples(40))
def test_what_two_bags_hold_together_is_joined(case: Case, data: st.DataObject) -> None:
    is_first = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(case.w), max_size=len(case.w)))
    )
    v = tf.constant(case.v)
    one, other, both = (
        case.interaction.user_vector(sparse(x), v).numpy()
        for x in (case.users * is_first, case.users * ~is_first, case.users)
    )
    assert_exact(case.interaction.join(one, other), both)
