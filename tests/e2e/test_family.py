"""Runs with each member of the family: from tables to SavedModels, answers and explanations."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import IndexConfig, ModelConfig, RunConfig
from pipelines.run import run
from pipelines.training.parent import read_parent
from serving.version.store import Store
from serving.version.vocabulary_files import read_vocabulary
from tests.e2e.conftest import Published, make_config, publish_once
from tests.e2e.test_identity import encode
from tests.without_graphs import TOWERS, without_graphs
from towers.directions import DIRECTIONS
from towers.errors import ConfigError
from towers.features.fields import Fields
from towers.features.schema import Side
from towers.interactions.member import Member

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

Floats = NDArray[np.float64]

USERS, ITEMS = [0, 7, 20, -1], [0, 3, 11, 50, 119]
MEMBERS = ["fwfm", "ffm", "fm3"]


@pytest.fixture(scope="module", params=MEMBERS)
def published(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    frames: dict[str, pd.DataFrame],
) -> Published:
    config = member_config(request.param)
    with without_graphs(but=(*TOWERS, "u2i")):
        return publish_once(tmp_path_factory, f"family-{request.param}", config, frames)


def member_config(member: Member) -> RunConfig:
    config = make_config(index=IndexConfig(kind="exact"), rounds=0, epochs=3, dim=3)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, interaction=member))


class Machine:
    """The parameters that a bundle keeps, and the naive sum of its member, in float64."""

    def __init__(self, published: Published) -> None:
        bundle = published.open().bundle
        self.member = published.config.model.interaction
        self.fields = Fields.build(published.config.schema, read_vocabulary(bundle.vocabulary))
        self._checkpoint = tf.train.load_checkpoint(str(bundle.checkpoint / "model"))
        self.w, self.v = self.read("first_order"), self.read("vectors")
        self.bags = {
            "user": encode(published, bundle, "user", USERS),
            "item": encode(published, bundle, "item", ITEMS),
        }

    def read(self, name: str) -> Floats:
        key = f"model/features/{name}/.ATTRIBUTES/VARIABLE_VALUE"
        found: Floats = self._checkpoint.get_tensor(key).astype(float)
        return found

    def pairs(self, of_i: Side, of_j: Side) -> Floats:
        """What each feature of a side adds with each of another, [n_rows, n_rows]."""
        f, g = self.fields.of(of_i), self.fields.of(of_j)
        if self.member == "fwfm":
            weights = self.read("interaction/_between")
            if of_i == of_j:
                weights = self.read("interaction/_within")
                weights = (weights + weights.T) / 2
            return weights[np.ix_(f, g)] * (self.v @ self.v.T)
        if self.member == "ffm":
            n = len(self.fields.item)
            v = self.v.reshape(len(self.v), -1, 3)
            met = v[:, g], v[:, f + (n if of_i == "user" else 0)]
            products: Floats = np.einsum("ijk,jik->ij", *met)
            return products
        return self.v @ self.v.T

    def sums(self, x: Floats, order: int) -> Floats:
        """Sum the products of as many different features' vectors, [k]."""
        brought, active = self.v * x[:, np.newaxis], np.flatnonzero(x)
        chosen = itertools.combinations(active, order)
        products = np.array([np.prod(brought[list(some)], axis=0) for some in chosen])
        total: Floats = products.reshape(-1, self.v.shape[1]).sum(axis=0)
        return total

    def score(self, user: Floats, item: Floats) -> float:
        """All sums over features, their pairs and triples but those of the user alone."""
        own = item @ self.w + sum(
            float(self.pairs("item", "item")[i, j] * item[i] * item[j])
            for i, j in itertools.combinations(np.flatnonzero(item), 2)
        )
        total = float(own + user @ self.pairs("user", "item") @ item)
        if self.member == "fm3":
            one, two = ([self.sums(x, order) for order in (1, 2)] for x in (user, item))
            triples = self.sums(item, 3) + one[0] * two[1] + one[1] * two[0]
            total += float(self.read("interaction/_triples") @ triples)
        return total


def test_scores_of_the_saved_model_are_the_naive_sums(published: Published) -> None:
    machine, retriever = Machine(published), published.open()
    model = tf.saved_model.load(str(retriever.bundle.model("u2i")))
    inputs = {name: tf.constant(x) for name, x in published.packed("user", USERS).items()}
    nothing, size = tf.zeros([len(USERS), 0], tf.string), retriever.catalogue("item").size
    answer = model.signatures["top_k"](**inputs, k=tf.fill([len(USERS)], size), exclude=nothing)
    ids = retriever.parts.items.ids.to_numpy()[ITEMS]
    for place, user in enumerate(machine.bags["user"]):
        found = dict(
            zip(answer["ids"][place].numpy(), answer["scores"][place].numpy(), strict=True)
        )
        received = [found[one.encode()] for one in ids]
        expected = [machine.score(user, item) for item in machine.bags["item"]]
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_what_was_learned_is_no_plain_machine(published: Published) -> None:
    machine = Machine(published)
    if machine.member == "ffm":
        of_features = machine.v.reshape(len(machine.v), -1, 3)
        assert (of_features != of_features[:, :1]).any()
    learned = {"fwfm": ["_between", "_within"], "fm3": ["_triples"], "ffm": []}
    for name in learned[machine.member]:
        found, start = machine.read(f"interaction/{name}"), float(machine.member == "fwfm")
        assert (found != start).all()
        assert np.isfinite(found).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_explanations_sum_to_the_scores_in_each_direction(
    published: Published, direction: str
) -> None:
    retriever, chosen = published.open(), DIRECTIONS[direction]
    for row in (0, 46):
        (id,) = retriever.catalogue(chosen.source).ids(np.array([row])).tolist()
        hits = retriever.retrieve(direction, id=id, k=12)
        raw = published.features(chosen.source, [row])
        features = {name: values[0] for name, values in raw.items()}
        for place, source in itertools.product((0, 11), ({"id": id}, {"features": features})):
            found = retriever.explain(direction, source=source, target={"id": hits.iloc[place, 0]})
            ranked = float(hits["score"].iloc[place])
            assert found.score == pytest.approx(ranked, rel=1e-4, abs=1e-5)
            total = sum(part.value for part in found.parts())
            assert total == pytest.approx(ranked, rel=1e-4, abs=1e-5)
            assert sum(part.value for part in found.fields) == pytest.approx(total, abs=1e-9)


def test_fresh_items_are_found_and_count_in_histories(published: Published) -> None:
    retriever, raw = published.open(), published.features("item", [5])
    columns = published.config.schema.columns("item")
    record = {columns[name]: values[0] for name, values in raw.items()} | {"item_id": "new"}
    retriever.apply(retriever.change("item", upsert=[record]))
    features = {"history": ["new"]}
    hits = retriever.retrieve("u2i", features=features, k=121).set_index("id")["score"]
    found = retriever.explain("u2i", source={"features": features}, target={"id": "new"})
    assert found.score == pytest.approx(hits["new"], rel=1e-4, abs=1e-5)
    assert any(str(part.source).startswith("history.") for part in found.fields)
    assert "new" in retriever.retrieve("i2i", id=raw["item_id"][0], k=120)["id"].tolist()


def test_what_was_learned_is_read_again(published: Published) -> None:
    config, store = published.config, Store(published.root)
    parent = read_parent(store, 1, config=config)
    model = parent.model(parent.vocabulary)
    assert bool(model.features.interaction_weights) == (config.model.interaction != "ffm")
    for name, variable in model.features.interaction_weights.items():
        np.testing.assert_array_equal(variable.numpy(), parent.learned[name])
    retriever = published.open()
    x = tf.sparse.from_dense(Machine(published).bags["item"].astype(np.float32))
    again = model.item_tower(x, model.features.w, model.features.v).numpy()
    stored = retriever.catalogue("item").vectors[ITEMS]
    np.testing.assert_allclose(again[:, 1:], stored[:, 1:], rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"model\.interaction was .*, is fm"):
        read_parent(store, 1, config=dataclasses.replace(config, model=ModelConfig()))


@pytest.mark.parametrize("published", ["fwfm"], indirect=True)
def test_a_run_continues_from_what_was_learned(
    published: Published, frames: Mapping[str, pd.DataFrame], tmp_path: Path
) -> None:
    shutil.copytree(published.root, tmp_path / "models", symlinks=True)
    config = published.config
    soon = dataclasses.replace(config.training, continued_epochs=1)
    config = dataclasses.replace(config, training=soon)
    with without_graphs(but=TOWERS):
        results = run(config, tmp_path / "models", frames=frames, from_version=1)
    assert results["promotion"]["compared_with"] == 1
