"""Explanations of what whole runs published: features of every kind, in every direction."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from serving.retrieval.explanation.explain import Explanation
from serving.retrieval.explanation.feature_names import FeatureName
from serving.retrieval.retriever import Retriever
from serving.version.vocabulary_files import read_vocabulary
from tests.e2e.test_identity import encode
from towers.directions import DIRECTIONS
from towers.features.kinds import History
from towers.features.schema import Side
from towers.features.vocabulary import (
    Buckets,
    Coordinates,
    Hashed,
    Scalar,
    Space,
    Tokens,
    Vocabulary,
)

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.e2e.conftest import Published

N_USERS, N_ITEMS, LATEST = 50, 120, 8


@pytest.fixture(scope="module")
def retriever(published: Published) -> Retriever:
    return published.open()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("by", ["id", "features"])
def test_parts_sum_to_the_score_that_ranked_the_target(
    published: Published, retriever: Retriever, direction: str, by: str
) -> None:
    chosen = DIRECTIONS[direction]
    rng = np.random.default_rng(len(direction + by))
    n_sources = N_USERS if chosen.source == "user" else N_ITEMS
    for row in rng.choice(n_sources, 12, replace=False).tolist():
        source = given(published, retriever, direction, "source", row, by=by)
        hits = retriever.retrieve(direction, k=N_ITEMS, **source)
        for place in {0, 1, len(hits) - 1, int(rng.integers(len(hits)))}:
            target = {"id": hits.iloc[place, 0]}
            explanation = retriever.explain(direction, source=source, target=target)
            check_sum(explanation, float(hits["score"].iloc[place]))


def test_who_is_not_known_is_explained_as_the_default_user(
    published: Published, retriever: Retriever
) -> None:
    nobody = {"id": published.frames["users"]["user_id"].iloc[-1]}
    for source, unknown in [(nobody, {"user_id"}), ({"features": {}}, set())]:
        explanation = retriever.explain("u2i", source=source, target={"id": "物品 «3»"})
        fields = {part.source for part in explanation.fields if part.source is not None}
        assert fields == unknown | {"default user"}
        check_sum(explanation, explanation.score)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_features_of_someone_known_are_explained_as_its_id_is(
    published: Published, retriever: Retriever, direction: str
) -> None:
    for rows in [(3, 7), (20, 0), (46, 110 % N_USERS)]:
        ends = [
            {
                side: given(published, retriever, direction, side, row, by=by)
                for side, row in zip(("source", "target"), rows, strict=True)
            }
            for by in ("id", "features")
        ]
        known, described = (retriever.explain(direction, **end) for end in ends)
        assert known.score == pytest.approx(described.score, rel=1e-5, abs=1e-6)
        assert [(part.source, part.target) for part in known.parts()] == [
            (part.source, part.target) for part in described.parts()
        ]


def test_every_kind_of_feature_takes_part_under_its_name(
    published: Published, retriever: Retriever
) -> None:
    users: set[str] = set()
    items: set[str] = set()
    for user, item in itertools.product(range(6), range(20)):
        found = retriever.explain(
            "u2i",
            source=given(published, retriever, "u2i", "source", user, by="id"),
            target=given(published, retriever, "u2i", "target", item, by="id"),
        )
        users |= {name.field for name in found.source}
        items |= {name.field for name in found.target}
    schema = published.config.schema
    of_items = {feature.name for feature in schema.features("item")}
    brought = {f"history.{column}" for column in of_items - {schema.item_id}}
    assert users == {feature.name for feature in schema.features("user")} | brought
    assert items == of_items


def test_each_part_is_the_product_of_the_features_that_it_names(
    published: Published, retriever: Retriever
) -> None:
    """By the trained table and the vocabulary, for all features that a row can be told of."""
    machine = Machine(retriever)
    n_checked = n_of_vectors = 0
    for direction, rows in itertools.product(DIRECTIONS, [(3, 7), (20, 0), (0, 33)]):
        chosen = DIRECTIONS[direction]
        ends = {
            side: given(published, retriever, direction, side, row, by="id")
            for side, row in zip(("source", "target"), rows, strict=True)
        }
        found = retriever.explain(direction, **ends)
        machine.sides = {"source": chosen.source, "target": chosen.target}
        machine.bags = {
            end: encode(published, retriever.bundle, machine.sides[end], [row])[0]
            for end, row in zip(machine.sides, rows, strict=True)
        }
        vectors = [
            machine.pooled(names, end=end)
            for names, end in ((found.source, "source"), (found.target, "target"))
        ]
        lengths = np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1])
        scale = lengths if chosen.is_similarity else 1.0
        for part in found.parts():
            own = "source" if part.target is None else "target"
            features = [
                machine.term(name, end=end)
                for name, end in (
                    (part.source, "source"),
                    (part.target, "target"),
                    (part.other, own),
                )
                if name is not None
            ]
            if part.kind == "first_order":
                expected = features[0][0]
            else:
                expected = float(features[0][1] @ features[1][1] / scale)
            names = (part.source, part.target, part.other)
            has_vector = any(name and name.token.endswith(" numbers") for name in names)
            # the numbers of a vector are summed in float32, where they may cancel
            close = pytest.approx(expected, rel=1e-5, abs=1e-6 if has_vector else 1e-9)
            assert part.value == close
            n_checked += 1
            n_of_vectors += has_vector
    assert n_checked > 500
    assert n_of_vectors > 50


def test_history_is_the_latest_items_by_their_ids(
    published: Published, retriever: Retriever
) -> None:
    """A user with more items than count, too: the bundle keeps their order."""
    kept = published.kept.groupby("user_id")["item_id"].agg(list).to_dict()
    busy = [user for user, items in kept.items() if len(items) > LATEST]
    vocabulary = set(read_vocabulary(retriever.bundle.vocabulary).tokens("item.item_id").tokens)
    assert len(busy) > 5
    for user in busy:
        (item,) = retriever.catalogue("item").ids(np.array([0]))
        found = retriever.explain("u2i", source={"id": user}, target={"id": item})
        pulled = [name for name in found.source if name.field == "history"]
        latest = kept[user][-LATEST:]  # those without an id of their own count by their features
        assert {name.label for name in pulled} == {item for item in latest if item in vocabulary}
        assert [name.token for name in pulled] == [name.label for name in pulled]


def test_fields_carry_the_scores_of_a_sample(retriever: Retriever) -> None:
    found = retriever.explain_fields(n_users=12, k=4, seed=2)
    fields, samples = found.fields, found.samples
    assert found.n_users == 12
    assert len(samples) == 48
    assert fields["share"].sum() == pytest.approx(1)
    assert fields["mean_abs"].is_monotonic_decreasing
    for user, item, score, *values in samples.iloc[:9].itertuples(index=False):
        explanation = retriever.explain("u2i", source={"id": user}, target={"id": item})
        assert score == pytest.approx(explanation.score, rel=1e-5, abs=1e-5)
        expected = {
            (part.kind, part.source, part.target, part.other): part.value
            for part in explanation.fields
        }
        keys = fields[["kind", "source", "target", "other"]].itertuples(index=False, name=None)
        for key, value in zip(keys, values, strict=True):
            assert value == pytest.approx(expected.pop(key, 0.0), rel=1e-5, abs=1e-7)
        assert not any(expected.values())


class Machine:
    """The trained table, and the rows of tokens, without the serving code that names them."""

    def __init__(self, retriever: Retriever) -> None:
        checkpoint = tf.train.load_checkpoint(str(retriever.bundle.checkpoint / "model"))
        self.w, self.v = (
            checkpoint.get_tensor(f"model/features/{name}/.ATTRIBUTES/VARIABLE_VALUE").astype(float)
            for name in ("first_order", "vectors")
        )
        self.vocabulary: Vocabulary = read_vocabulary(retriever.bundle.vocabulary)
        self.bags: Mapping[str, NDArray[np.float64]] = {}
        """Of the source and the target that are explained, [n_rows] with the numbers of vectors."""
        self.sides: Mapping[str, Side] = {}
        """Of the source and the target."""

    def pooled(self, names: list[FeatureName], *, end: str) -> NDArray[np.float64]:
        pooled: NDArray[np.float64] = np.sum(
            [self.term(name, end=end)[1] for name in names], axis=0
        )
        return pooled

    def term(self, name: FeatureName, *, end: str) -> tuple[float, NDArray[np.float64]]:
        """w x and v x of one feature; of a vector, with the pairs of its numbers."""
        side = self.sides[end]
        space, _ = self.space(name, side=side)
        if isinstance(space, Coordinates):
            rows = space.first_row + np.arange(space.size)
            x, v = self.bags[end][rows], self.v[rows]
            products = np.tril(np.outer(x, x) * (v @ v.T), -1)
            return float(self.w[rows] @ x + products.sum()), x @ v
        row = self.row(name, side=side)
        return float(self.w[row] * name.x), self.v[row] * name.x

    def space(self, name: FeatureName, *, side: str) -> tuple[Space, str]:
        """The space of a feature's rows, and the field of the past items that brought it."""
        past, _, brought = name.field.partition(".")
        where = f"{side}.{name.field}"
        if past == History().column:
            where = f"item.{brought or 'item_id'}"
        return self.vocabulary.spaces[where], brought

    def row(self, name: FeatureName, *, side: str) -> int:
        space, brought = self.space(name, side=side)
        if isinstance(space, Scalar):
            return space.row
        if isinstance(space, Hashed):
            first = name.token.split(", ")[0].removeprefix("bucket ")
            hashed = first if brought else tf.strings.to_hash_bucket_fast(first, space.buckets)
            return space.first_row + int(hashed)
        if isinstance(space, Buckets):
            ranges = [*(f"{end:g}" for end in space.boundaries), ""]
            number = name.token.split(" ")[-1]
            if name.token.startswith(">="):
                return space.first_row + len(space.boundaries)
            return space.first_row + ranges.index(number)
        assert isinstance(space, Tokens)
        if not name.known:
            return space.oov_row
        token: Any = int(name.token) if space.is_integer else name.token
        return int(space.rows[space.tokens.tolist().index(token)])


def given(
    published: Published, retriever: Retriever, direction: str, end: str, row: int, *, by: str
) -> Mapping[str, Any]:
    """A source or a target by its id, or by the raw values that training had."""
    side = getattr(DIRECTIONS[direction], end)
    if by == "id":
        return {"id": retriever.catalogue(side).ids(np.array([row]))[0]}
    features = published.features(side, [row])
    return {"features": {name: values[0] for name, values in features.items()}}


def check_sum(explanation: Explanation, score: float) -> None:
    parts = explanation.parts()
    size = sum(abs(part.value) for part in parts)
    close = pytest.approx(score, abs=1e-6 * max(size, 1.0))
    assert explanation.score == close
    assert sum(part.value for part in parts) == close
    assert sum(part.value for part in explanation.fields) == close
    assert sum(part.value for part in explanation.parts(5)) + explanation.rest(5) == close
    values = [abs(part.value) for part in parts]
    assert values == sorted(values, reverse=True)
