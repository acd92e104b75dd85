"""Who is not known is asked for as the mean user, as often as validation says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from scipy import sparse

from pipelines.data.blocks import HeldInteractions
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import evaluate, popularity_scorer
from pipelines.progress import Reporter
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import Fit
from pipelines.training.initialize import mean_user
from pipelines.training.place_newcomers import (
    measure_default_user,
    measure_newcomers,
    place_newcomers,
)
from tests.pipelines.training.starts import thinned, untrained
from towers.features.vocabulary import DEFAULT_USER


def without_users(dataset: Dataset) -> Dataset:
    """The same, but that nothing is known of any user."""
    nothing = sparse.csr_array(np.zeros(dataset.interactions.shape, np.float32))
    bags = sparse.csr_array(np.zeros(dataset.user_bags.shape, np.float32))
    return dataclasses.replace(dataset, interactions=HeldInteractions(nothing), user_bags=bags)


def test_it_starts_at_the_mean_of_all_users(popular_job: Fit, tmp_path: Path) -> None:
    model = untrained(popular_job.dataset, popular_job.config, tmp_path).model
    counts = popular_job.dataset.interactions.user_counts
    users = embed(model, popular_job.dataset)["user"][counts > 0, 1:]
    default = model.features.v.numpy()[popular_job.dataset.vocabulary.default_user_row]
    np.testing.assert_allclose(default, users.mean(axis=0), rtol=1e-4, atol=1e-5)
    unknown = embed(model, without_users(popular_job.dataset))["user"][:, 1:]
    np.testing.assert_allclose(unknown, np.broadcast_to(default, unknown.shape), rtol=1e-6)


def test_the_start_recommends_what_is_popular_to_who_is_not_known(
    popular_job: Fit, prepared: Prepared, tmp_path: Path
) -> None:
    fitted = untrained(popular_job.dataset, popular_job.config, tmp_path)
    scale = measure_default_user(fitted, popular_job)
    assert scale is not None
    fitted = place_newcomers(fitted, popular_job, Reporter(), newcomers=None, default_user=scale)
    assert fitted.default_user_scale == scale
    vectors, counts = (
        embed(fitted.model, without_users(popular_job.dataset)),
        popular_job.dataset.interactions.item_counts,
    )
    alike = [
        np.corrcoef(scores, counts)[0, 1]
        for scores in (vectors["item"] @ vectors["user"][0], vectors["item"][:, 0])
    ]
    assert alike[0] > 0.8
    assert alike[1] < 0.4, "the items' own scores say hardly anything"
    test, settings = thinned(prepared, "test"), popular_job.config.evaluation
    train = sparse.csr_array(np.zeros(test.shape, np.float32))
    found, popular = (
        evaluate(scorer, train=train, test=test, config=settings).metric(settings.metric)
        for scorer in (match_scorer(vectors), popularity_scorer(counts))
    )
    assert found > 0.95 * popular


def test_validation_decides_how_much_the_mean_user_counts(popular_job: Fit, tmp_path: Path) -> None:
    """A term that ranks by validation itself needs no user; one that ranks against it a lot."""
    assert popular_job.validation is not None
    fitted = untrained(popular_job.dataset, popular_job.config, tmp_path)
    wanted = np.bincount(popular_job.validation.indices, minlength=popular_job.validation.shape[1])
    wanted = np.argsort(np.argsort(wanted)).astype(np.float32)
    items = embed(fitted.model, popular_job.dataset)["item"][:, 1:]
    popular = items @ mean_user(fitted.model.features, popular_job.dataset)[0]
    assert measure_default_user(fitted, popular_job, term=1e3 * wanted) == 1.0
    scales = [
        measure_default_user(fitted, popular_job, term=share * popular) for share in (-0.7, -3.0)
    ]
    assert scales == [1.0, 4.0]
    without = dataclasses.replace(popular_job, validation=None)
    assert measure_default_user(fitted, without) is None


def test_validation_decides_what_is_added_to_the_features_of_newcomers(
    popular_job: Fit, tmp_path: Path
) -> None:
    """Nothing, where a term ranks by validation itself; a lot, where it ranks against all."""
    assert popular_job.validation is not None
    fitted = untrained(popular_job.dataset, popular_job.config, tmp_path)
    wanted = np.bincount(popular_job.validation.indices, minlength=popular_job.validation.shape[1])
    wanted = np.argsort(np.argsort(wanted)).astype(np.float32)
    items = embed(fitted.model, popular_job.dataset)["item"][:, 1:]
    mean = mean_user(fitted.model.features, popular_job.dataset)
    assert measure_newcomers(fitted, popular_job, term=1e3 * wanted) == 0.0
    assert measure_newcomers(fitted, popular_job, term=-4.0 * (items @ mean[0])) == 4.0
    assert measure_newcomers(fitted, dataclasses.replace(popular_job, validation=None)) is None
    described = without_users(popular_job.dataset)
    described = dataclasses.replace(described, user_bags=popular_job.dataset.user_bags)
    placed = place_newcomers(fitted, popular_job, Reporter(), newcomers=0.0, default_user=1.0)
    features = embed(placed.model, described)["user"][:, 1:]
    placed = place_newcomers(fitted, popular_job, Reporter(), newcomers=2.0, default_user=1.0)
    assert placed.newcomer_scale == 2.0
    found = embed(placed.model, described)["user"][:, 1:]
    np.testing.assert_allclose(found, features + 2.0 * mean, atol=1e-5)


def test_a_version_without_the_row_is_asked_as_before(popular_job: Fit, tmp_path: Path) -> None:
    spaces = {k: v for k, v in popular_job.dataset.vocabulary.spaces.items() if k != DEFAULT_USER}
    vocabulary = dataclasses.replace(popular_job.dataset.vocabulary, spaces=spaces)
    dataset = dataclasses.replace(popular_job.dataset, vocabulary=vocabulary)
    fitted = untrained(dataset, popular_job.config, tmp_path)
    assert not embed(fitted.model, without_users(dataset))["user"][:, 1:].any()
    before = dataclasses.replace(popular_job, dataset=dataset)
    assert measure_default_user(fitted, before) is None
    assert place_newcomers(fitted, before, Reporter(), newcomers=None, default_user=1.0) is fitted
