from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, every_positive
from pipelines.data.dataset import assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.left_out import NotYet
from pipelines.progress import Reporter
from pipelines.training.decided import Unchosen
from pipelines.training.embed import embed, embed_without_ids
from pipelines.training.fit import Fit, Fitted
from pipelines.training.folds import FoldBatches
from pipelines.training.model import build_model
from pipelines.training.place_unchosen import measure_unchosen, place_unchosen
from towers.errors import ConfigError
from towers.features.kinds import Categorical, Features
from towers.features.schema import Schema

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

N_UNCHOSEN = 12
UNCHOSEN = np.arange(N_UNCHOSEN)
RANDOM = np.random.default_rng(1)

World = tuple[Fitted, Fit]


@pytest.fixture
def world(tiny: Tiny, prepared: Prepared, tmp_path: Path) -> World:
    """The first items are in the table, and nobody has chosen them; validation wants a few."""
    ids = {"kind": "categorical", "column": "item_id", "min_count": 0}
    tags = {"kind": "multi_valued", "column": "tags"}
    config = tiny.config(item={"features": [ids, tags]})
    likes = every_positive(prepared.interactions("train")).tolil()
    likes[:, UNCHOSEN] = 0.0
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=HeldInteractions(sparse.csr_array(likes)),
    )
    model = build_model(
        config, FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    )
    features = model.features  # as if training had taught something
    features.v.assign_add(0.1 * RANDOM.standard_normal(features.v.shape).astype(np.float32))
    features.w.assign_add(0.1 * RANDOM.standard_normal(features.w.shape).astype(np.float32))
    job = Fit(
        dataset=dataset,
        config=config,
        epochs=1,
        mined=None,
        validation=every_positive(prepared.interactions("validation")),
        directory=tmp_path,
        logs=tmp_path,
    )
    checkpoint = str(tmp_path / "epoch-1")
    return Fitted(model=model, best_epoch=1, records=(), checkpoint=checkpoint, mined=None), job


def test_the_ids_of_unchosen_items_have_rows_and_are_unknown_to_training(world: World) -> None:
    _, job = world
    items, rows = job.dataset.unchosen
    np.testing.assert_array_equal(items, UNCHOSEN)
    assert (rows >= 0).all()
    np.testing.assert_array_equal(np.flatnonzero(~job.dataset.knows_item), UNCHOSEN)


@pytest.mark.parametrize("placed", [None, Unchosen(scale=0.25, term=-0.5)])
def test_their_scores_are_those_of_their_features_times_a_scale_and_with_a_term(
    world: World, placed: Unchosen | None
) -> None:
    fitted, job = world
    before, alone = (
        embed(fitted.model, job.dataset)["item"],
        embed_without_ids(fitted.model, job.dataset, UNCHOSEN),
    )
    found = place_unchosen(fitted, job, Reporter(), placed=placed)
    after = embed(found.model, job.dataset)["item"]
    expected = alone if placed is None else placed.scale * alone
    expected[:, 0] += 0.0 if placed is None else placed.term
    np.testing.assert_allclose(after[UNCHOSEN], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after[N_UNCHOSEN:], before[N_UNCHOSEN:])
    # an item that comes later has the vector of its features, whatever became of the others
    later = embed_without_ids(found.model, job.dataset, UNCHOSEN)
    np.testing.assert_array_equal(later, alone)
    found.model.features.v.assign(tf.zeros_like(found.model.features.v))
    tf.train.Checkpoint(model=found.model).read(found.checkpoint)
    np.testing.assert_allclose(embed(found.model, job.dataset)["item"], after)


def test_the_rarer_validation_chooses_them_the_lower_they_are(world: World) -> None:
    fitted, job = world
    likes = job.validation
    assert likes is not None

    def mean_score(times: int) -> float:
        """Where they are when each of some users wants so many of them."""
        wanted = likes.tolil()
        wanted[:, UNCHOSEN] = 0.0
        wanted[:20, UNCHOSEN[:times]] = 1.0
        measured = measure_unchosen(
            fitted, dataclasses.replace(job, validation=sparse.csr_array(wanted))
        )
        assert measured is not None
        assert 0.0 < measured.scale <= 1.0
        users = embed(fitted.model, job.dataset)["user"].mean(axis=0)
        items = embed_without_ids(fitted.model, job.dataset, UNCHOSEN)
        return float(np.mean(measured.scale * items @ users) + measured.term)

    never, seldom, often = mean_score(0), mean_score(1), mean_score(12)
    assert never <= seldom < often


def test_only_item_ids_take_a_min_count_of_zero() -> None:
    with pytest.raises(ConfigError, match=r"item\.features: 'brand': expected min_count = 1 or mo"):
        Schema.of(
            user_id="user",
            item_id="item",
            user=None,
            item=Features(
                features=(Categorical(column="item"), Categorical(column="brand", min_count=0))
            ),
        )


def test_items_that_are_not_there_yet_do_not_say_how_often_others_are_chosen(world: World) -> None:
    fitted, job = world
    assert job.validation is not None
    late, there = np.arange(N_UNCHOSEN // 2), np.zeros(len(job.dataset.item_ids))
    wanted = job.validation.toarray()
    wanted[:, late] = 0.0
    job = dataclasses.replace(job, validation=sparse.csr_array(wanted))
    there[late] = 1.0
    asked = np.zeros(len(job.dataset.user_ids))

    def level(items: NDArray[np.int64], not_yet: NotYet | None) -> float:
        """The mean score that these items are given."""
        found = measure_unchosen(fitted, dataclasses.replace(job, not_yet=not_yet))
        assert found is not None
        vectors = embed(fitted.model, job.dataset, only_users=job.asked)["user"][job.asked]
        without = embed_without_ids(fitted.model, job.dataset, items)
        return float((without @ vectors.mean(axis=0)).mean() * found.scale + found.term)

    assert level(np.setdiff1d(UNCHOSEN, late), NotYet(there, asked)) > level(UNCHOSEN, None)
    nothing = NotYet(there=np.ones_like(there), asked=asked)
    assert measure_unchosen(fitted, dataclasses.replace(job, not_yet=nothing)) is None
