"""Who is not known is asked for as the mean user, as often as validation says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import HeldInteractions, Part, every_positive
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import evaluate, popularity_scorer
from pipelines.progress import Reporter
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import Fit, Fitted
from pipelines.training.initialize import initialize, mean_user, new_table
from pipelines.training.place_default_user import measure_default_user, place_default_user
from towers.features.vocabulary import DEFAULT_USER
from towers.two_tower import TwoTower

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


def untrained(dataset: Dataset, config: RunConfig, folder: Path) -> Fitted:
    """The start, as where it is published."""
    table = new_table(dataset, config)
    initialize(table, dataset, config=config)
    model = TwoTower(table, margin=0.0, hardest=1, l2=0.0)
    return Fitted(
        model=model, best_epoch=0, records=(), checkpoint=str(folder / "epoch-0"), mined=None
    )


def thinned(prepared: Prepared, part: Part) -> sparse.csr_array:
    """The interactions of a part, of which the first items keep all and the last a tenth."""
    found = every_positive(prepared.interactions(part)).tocoo()
    user, item = found.coords
    kept = np.random.default_rng(5).random(len(item)) < np.linspace(1.0, 0.1, found.shape[1])[item]
    entries = np.ones(kept.sum(), np.float32), (user[kept], item[kept])
    return sparse.csr_array(entries, shape=found.shape)


@pytest.fixture
def job(tiny: Tiny, prepared: Prepared, tmp_path: Path) -> Fit:
    """Of a schema with a spectral start, where some items are popular."""
    measured = {"k": [20], "metric": "ndcg@20"}
    config = tiny.config(model={"init": "spectral"}, evaluation=measured)
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=HeldInteractions(thinned(prepared, "train")),
    )
    return Fit(
        dataset=dataset,
        config=config,
        epochs=1,
        mined=None,
        validation=thinned(prepared, "validation"),
        directory=tmp_path,
        logs=tmp_path,
    )


def without_users(dataset: Dataset) -> Dataset:
    """The same, but that nothing is known of any user."""
    nothing = sparse.csr_array(np.zeros(dataset.interactions.shape, np.float32))
    bags = sparse.csr_array(np.zeros(dataset.user_bags.shape, np.float32))
    return dataclasses.replace(dataset, interactions=HeldInteractions(nothing), user_bags=bags)


def test_it_starts_at_the_mean_of_all_users(job: Fit, tmp_path: Path) -> None:
    model = untrained(job.dataset, job.config, tmp_path).model
    counts = job.dataset.interactions.user_counts
    users = embed(model, job.dataset)["user"][counts > 0, 1:]
    default = model.features.v.numpy()[job.dataset.vocabulary.default_user_row]
    np.testing.assert_allclose(default, users.mean(axis=0), rtol=1e-4, atol=1e-5)
    unknown = embed(model, without_users(job.dataset))["user"][:, 1:]
    np.testing.assert_allclose(unknown, np.broadcast_to(default, unknown.shape), rtol=1e-6)


def test_the_start_recommends_what_is_popular_to_who_is_not_known(
    job: Fit, prepared: Prepared, tmp_path: Path
) -> None:
    fitted = untrained(job.dataset, job.config, tmp_path)
    scale = measure_default_user(fitted, job)
    assert scale is not None
    fitted = place_default_user(fitted, job, Reporter(), scale=scale)
    assert fitted.default_user_scale == scale
    vectors, counts = (
        embed(fitted.model, without_users(job.dataset)),
        job.dataset.interactions.item_counts,
    )
    alike = [
        np.corrcoef(scores, counts)[0, 1]
        for scores in (vectors["item"] @ vectors["user"][0], vectors["item"][:, 0])
    ]
    assert alike[0] > 0.8
    assert alike[1] < 0.4, "the items' own scores say hardly anything"
    test, settings = thinned(prepared, "test"), job.config.evaluation
    train = sparse.csr_array(np.zeros(test.shape, np.float32))
    found, popular = (
        evaluate(scorer, train=train, test=test, config=settings).metric(settings.metric)
        for scorer in (match_scorer(vectors), popularity_scorer(counts))
    )
    assert found > 0.95 * popular


def test_validation_decides_how_much_the_mean_user_counts(job: Fit, tmp_path: Path) -> None:
    """A term that ranks by validation itself needs no user; one that ranks against it a lot."""
    assert job.validation is not None
    fitted = untrained(job.dataset, job.config, tmp_path)
    wanted = np.bincount(job.validation.indices, minlength=job.validation.shape[1])
    wanted = np.argsort(np.argsort(wanted)).astype(np.float32)
    items = embed(fitted.model, job.dataset)["item"][:, 1:]
    popular = items @ mean_user(fitted.model.features, job.dataset)[0]
    assert measure_default_user(fitted, job, term=1e3 * wanted) == 1.0
    scales = [measure_default_user(fitted, job, term=share * popular) for share in (-0.7, -3.0)]
    assert scales == [1.0, 4.0]
    without = dataclasses.replace(job, validation=None)
    assert measure_default_user(fitted, without) is None


def test_a_version_without_the_row_is_asked_as_before(job: Fit, tmp_path: Path) -> None:
    spaces = {k: v for k, v in job.dataset.vocabulary.spaces.items() if k != DEFAULT_USER}
    vocabulary = dataclasses.replace(job.dataset.vocabulary, spaces=spaces)
    dataset = dataclasses.replace(job.dataset, vocabulary=vocabulary)
    fitted = untrained(dataset, job.config, tmp_path)
    assert not embed(fitted.model, without_users(dataset))["user"][:, 1:].any()
    before = dataclasses.replace(job, dataset=dataset)
    assert measure_default_user(fitted, before) is None
    assert place_default_user(fitted, before, Reporter(), scale=1.0) is fitted
