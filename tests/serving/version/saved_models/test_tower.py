from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.search.index import N_CPUS
from serving.version.saved_models.tower import SHARE, Tower
from tests.serving.conftest import SCHEMA
from towers.errors import BundleError
from towers.features.packer import Input
from towers.features.schema import Side


def opened(models: Path, side: Side) -> Tower:
    return Tower(models / "models" / f"{side}_tower" / "1", schema=SCHEMA, side=side)


@pytest.mark.parametrize("side", ["user", "item"])
def test_raw_values_become_the_vectors_of_the_model(world: Any, models: Path, side: Side) -> None:
    tower = opened(models, side)
    rows = [3, 0, 17]
    batch = [world.features(side, row) for row in rows]
    columns = {name: [one[name][0] for one in batch] for name in tower.inputs}
    vectors = tower(tower.pack(columns, size=len(rows)))
    assert vectors.dtype == np.float32
    expected = world.sides[side].vectors[rows]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["user", "item"])
def test_many_at_once_have_the_vectors_that_few_have(world: Any, models: Path, side: Side) -> None:
    tower = opened(models, side)
    n_rows = len(world.sides[side].vectors)
    rows = [row % n_rows for row in range(N_CPUS * SHARE + 1)]
    batch = [world.features(side, row) for row in rows]
    columns = {name: [one[name][0] for one in batch] for name in tower.inputs}
    vectors = tower(tower.pack(columns, size=len(rows)))
    expected = world.sides[side].vectors[rows]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


def test_inputs_are_those_of_the_signature(models: Path) -> None:
    assert opened(models, "item").inputs == {
        "item_id": Input(dtype=object, is_id=True),
        "genres": Input(dtype=object, rank=2, separator="|"),
        "price": Input(dtype=np.float32),
    }


def test_damaged_model_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a SavedModel, received"):
        Tower(tmp_path, schema=SCHEMA, side="user")
    copy = tmp_path / "copy"
    shutil.copytree(models / "models" / "user_tower" / "1", copy)
    next(copy.glob("variables/*.index")).write_bytes(b"")
    with pytest.raises(BundleError, match="expected a SavedModel, received"):
        Tower(copy, schema=SCHEMA, side="user")


@pytest.mark.slow
def test_a_tower_with_branches_as_of_an_earlier_release_answers_the_same(
    models: Path, tmp_path: Path
) -> None:
    tower = opened(models, "item")
    module = tf.Module()
    module.model = tf.saved_model.load(str(models / "models" / "item_tower" / "1"))
    answer = module.model.signatures["serving_default"]

    def branched(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        vector = answer(**features)["vector"]
        return {"vector": tf.cond(tf.size(vector) > 0, lambda: vector + 1, lambda: vector)}

    graph = tf.function(branched, autograph=False)
    specs = answer.structured_input_signature[1]
    tf.saved_model.save(module, str(tmp_path), signatures=graph.get_concrete_function(**specs))
    packed = tower.pack({"price": [3.0]}, size=1)
    found = Tower(tmp_path, schema=SCHEMA, side="item")(packed)
    np.testing.assert_array_equal(found, tower(packed) + 1)


@pytest.mark.slow
def test_what_two_towers_both_hold_is_kept_once(models: Path) -> None:
    item, like, unlike = (opened(models, "item") for _ in range(3))
    packed = item.pack({"price": [3.0]}, size=1)
    vector = item(packed)
    assert not places(item) & places(like)
    item.share(like)
    assert places(item) == places(like)
    learned = [variable for variable in unlike.variables if variable.dtype.is_floating]
    for variable in learned:
        variable.assign(variable + 1)
    alone = places(unlike)
    unlike.share(item)
    assert places(unlike) == alone
    np.testing.assert_array_equal(item(packed), vector)
    for variable in learned:  # other tests are lent the model after this one
        variable.assign(variable - 1)


def places(tower: Tower) -> set[int]:
    """Where in memory a tower's numbers are."""
    values = [variable.read_value() for variable in tower.variables if variable.dtype.is_floating]
    return {np.asarray(memoryview(value)).ctypes.data for value in values}
