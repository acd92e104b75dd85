"""The u2i SavedModel's score is the factorization machine's own, less what is the user's alone.

The machine's features are those of the user and those of the item. An item in a user's history is
a feature of the user, and another one than the item's own id, though the two share a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from serving.version.bundle import Bundle
from serving.version.vocabulary_files import read_vocabulary
from towers.dense import Dense
from towers.features.encoder import Encoder
from towers.features.past_items import PastItems
from towers.features.schema import Side
from towers.features.vocabulary import Scalar, Space, Tokens

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.e2e.conftest import Published

Floats = NDArray[np.float64]
USERS = [0, 1, 2, 20, 46, -1]
"""The last has no interaction."""


@dataclass(frozen=True)
class Machine:
    """The weights and the bags that a bundle keeps, in float64."""

    w: Floats
    v: Floats
    bags: Mapping[str, Floats]
    """Of the users asked about, and of all items, [n, n_rows]; with the numbers of vectors."""

    def score(self, user: Floats, item: Floats) -> float:
        """FM(user and item) without w0, as it is defined: sums over features and their pairs."""
        x = np.concatenate([user, item])
        w, v = np.concatenate([self.w, self.w]), np.concatenate([self.v, self.v])
        active = np.flatnonzero(x)
        total = float(w[active] @ x[active])
        for place, i in enumerate(active):
            for j in active[place + 1 :]:
                total += float(v[i] @ v[j]) * x[i] * x[j]
        return total


def test_bags_hold_every_kind_of_feature(machine: Machine, published: Published) -> None:
    vocabulary = read_vocabulary(published.open().bundle.vocabulary)
    used = np.flatnonzero(np.concatenate([*machine.bags.values()]).any(axis=0))
    firsts = [first_row(space) for space in vocabulary.spaces.values()]
    of_space = np.searchsorted(np.sort(firsts), used, side="right") - 1
    assert set(of_space.tolist()) == set(range(len(vocabulary.spaces)))
    assert (machine.w[used] != 0.0).any()


def test_scores_of_u2i_are_those_of_the_factorization_machine(
    machine: Machine, full: Floats, scores: Floats
) -> None:
    nothing = np.zeros_like(machine.w)
    dropped = [[machine.score(user, nothing)] for user in machine.bags["user"]]
    np.testing.assert_allclose(scores, full - np.array(dropped), rtol=1e-4, atol=1e-5)


def test_order_of_u2i_is_that_of_the_factorization_machine(full: Floats, scores: Floats) -> None:
    ranked = np.take_along_axis(full, np.argsort(-scores, axis=1), axis=1)
    assert (np.diff(ranked, axis=1) <= 1e-5).all()
    assert (ranked[:, 0] > ranked[:, -1] + 0.1).all()


def test_scores_of_u2i_are_the_products_of_the_stored_vectors(
    published: Published, scores: Floats
) -> None:
    retriever = published.open()
    users, items = retriever.catalogue("user").vectors[USERS], retriever.catalogue("item").vectors
    np.testing.assert_allclose(scores, users @ items.T, rtol=1e-5, atol=1e-5)


def test_stored_vectors_are_the_towers_own(machine: Machine, published: Published) -> None:
    retriever, v = published.open(), machine.v
    users, items = machine.bags["user"] @ v, machine.bags["item"] @ v
    nothing = np.zeros_like(machine.w)
    own = [machine.score(nothing, item) for item in machine.bags["item"]]
    stored = retriever.catalogue("user").vectors[USERS]
    np.testing.assert_array_equal(stored[:, 0], 1.0)
    np.testing.assert_allclose(stored[:, 1:], users, rtol=1e-4, atol=1e-5)
    stored = retriever.catalogue("item").vectors
    np.testing.assert_allclose(stored, np.column_stack([own, items]), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def machine(published: Published) -> Machine:
    bundle = published.open().bundle
    n_items = len(published.frames["items"])
    checkpoint = tf.train.load_checkpoint(str(bundle.checkpoint / "model"))
    w, v = (
        checkpoint.get_tensor(f"model/features/{name}/.ATTRIBUTES/VARIABLE_VALUE").astype(float)
        for name in ("first_order", "vectors")
    )
    bags = {
        "user": encode(published, bundle, "user", USERS),
        "item": encode(published, bundle, "item", list(range(n_items))),
    }
    return Machine(w, v, bags)


@pytest.fixture(scope="module")
def full(machine: Machine) -> Floats:
    """FM(x) of each user with each item."""
    users, items = machine.bags["user"], machine.bags["item"]
    return np.array([[machine.score(user, item) for item in items] for user in users])


@pytest.fixture(scope="module")
def scores(published: Published) -> Floats:
    """What the u2i SavedModel gives the users for every item, in the order of the table."""
    retriever = published.open()
    model = tf.saved_model.load(str(retriever.bundle.model("u2i")))
    inputs = {name: tf.constant(x) for name, x in published.packed("user", USERS).items()}
    nothing = tf.zeros([len(USERS), 0], tf.string)
    n_items = tf.fill([len(USERS)], retriever.catalogue("item").size)
    answer = model.signatures["top_k"](**inputs, k=n_items, exclude=nothing)
    found = []
    for ids, of_user in zip(answer["ids"].numpy(), answer["scores"].numpy(), strict=True):
        by_id = dict(zip([item.decode() for item in ids], of_user.astype(float), strict=True))
        found.append([by_id[item] for item in retriever.parts.items.ids.to_numpy()])
    return np.array(found)


def encode(published: Published, bundle: Bundle, side: Side, rows: list[int]) -> Floats:
    schema, vocabulary = published.open().parts.schema, read_vocabulary(bundle.vocabulary)
    pasts = {}
    if side == "user":
        ids = published.frames["items"]["item_id"].to_numpy()
        bags = encode(published, bundle, "item", list(range(len(ids)))).astype(np.float32)
        vectors = vocabulary.dense_rows("item")
        dense = Dense(bags[:, vectors], vectors.start)
        of_items = sparse.csr_array(np.where(np.isin(range(vocabulary.n_rows), vectors), 0, bags))
        for history in schema.histories:
            pasts[history.name] = PastItems.build(
                schema, vocabulary, history=history, ids=ids, item_bags=of_items, dense=dense
            )
    encoder = Encoder(schema, vocabulary, side=side, pasts=pasts)
    inputs = {name: tf.constant(x) for name, x in published.packed(side, rows).items()}
    found: Floats = tf.sparse.to_dense(encoder(inputs)).numpy().astype(float)
    numbers = encoder.dense(inputs)
    assert numbers is not None
    assert not found[:, numbers.rows].any()
    found[:, numbers.rows] = numbers.x.numpy()
    return found


def first_row(space: Space) -> int:
    if isinstance(space, Tokens):
        return space.oov_row
    return space.row if isinstance(space, Scalar) else space.first_row
