from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

from pipelines.config import RunConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import evaluate
from pipelines.progress import Reporter
from pipelines.training.choose_start import (
    HISTORY_POWERS,
    START_POWERS,
    Choice,
    choose_start,
    powers_of,
    preferred,
    settled,
    with_powers,
)
from pipelines.training.embed import embed, match_scorer
from pipelines.training.folds import FoldBatches
from pipelines.training.initialize import start_vectors
from pipelines.training.model import build_model
from towers.features.kinds import Features, History

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


@pytest.fixture(scope="module")
def validation(prepared: Prepared) -> Any:
    return every_positive(prepared.interactions("validation"))


def with_history(config: RunConfig, **changes: Any) -> RunConfig:
    """The same with other settings of the users' history."""
    features = tuple(
        dataclasses.replace(one, **changes) if isinstance(one, History) else one
        for one in config.schema.user.features
    )
    return dataclasses.replace(config, user=Features(features=features))


def choose(config: RunConfig, dataset: Dataset, validation: Any) -> tuple[dict[str, float], str]:
    said = io.StringIO()
    reporter = Reporter(Console(file=said, width=200))
    spectral = start_vectors(dataset, config)
    powers = choose_start(
        config, dataset, spectral=spectral, validation=validation, reporter=reporter
    )
    return powers, said.getvalue()


def untrained(config: RunConfig, dataset: Dataset, validation: Any) -> float:
    """The deciding metric of a model that is not trained."""
    dataset = dataset.with_schema(config.schema)
    batches = FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    found = evaluate(
        match_scorer(embed(build_model(config, batches), dataset)),
        train=every_positive(dataset.interactions),
        test=validation,
        config=config.evaluation,
    )
    return found.metric(config.evaluation.metric)


@pytest.mark.slow
def test_the_powers_are_those_whose_untrained_model_is_best(
    tiny: Tiny, dataset: Dataset, validation: Any
) -> None:
    config = with_history(settled(tiny.config()), popularity_power=None)
    powers, said = choose(config, dataset, validation)
    figures = [
        untrained(
            with_powers(config, start_power=p, popularity_power=p + more), dataset, validation
        )
        for p in START_POWERS
        for more in HISTORY_POWERS
    ]
    assert max(figures) > min(figures)  # there is something to choose
    assert untrained(with_powers(config, **powers), dataset, validation) == max(figures)
    assert f"untrained {config.evaluation.metric} {max(figures):.4f} of" in said
    assert "; 5 were tried" in said


def test_what_is_set_is_kept(tiny: Tiny, dataset: Dataset, validation: Any) -> None:
    config = with_history(settled(tiny.config()), popularity_power=0.7)
    powers, _ = choose(config, dataset, validation)
    assert powers["popularity_power"] == 0.7
    model = dataclasses.replace(config.model, start_power=0.3)
    config = dataclasses.replace(config, model=model)
    powers, _ = choose(config, dataset, validation)
    assert powers == {"start_power": 0.3, "popularity_power": 0.7} == powers_of(config)
    assert with_powers(config, start_power=0.0, popularity_power=0.0) == config


@pytest.mark.parametrize("scale", [None, 3.0])
def test_the_scale_of_histories_is_the_number_of_item_features(
    tiny: Tiny, scale: float | None
) -> None:
    config = with_history(tiny.config(), scale=scale)
    history = settled(config).schema.history
    assert history is not None
    assert history.scale == (scale or len(config.schema.item.features))


@pytest.mark.slow
def test_what_is_said_is_the_figure_of_all_who_were_asked(
    tiny: Tiny, dataset: Dataset, validation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.evaluation.race.FIRST", 1)  # one user drops nobody
    monkeypatch.setattr("pipelines.evaluation.race.GROWTH", 1000)
    config = with_history(settled(tiny.config()), popularity_power=None)
    powers, said = choose(config, dataset, validation)
    n_users = int(np.count_nonzero(np.diff(validation.indptr)))
    config = with_powers(config, **powers)
    figure = untrained(config, dataset, validation)
    assert n_users > 10
    assert f"untrained {config.evaluation.metric} {figure:.4f} of {n_users} users; 5" in said


def test_of_powers_about_as_good_the_smallest_is_taken() -> None:
    """Of equal p, the best; and of those that dropped out early, by the users who were asked."""

    def powers(p: float, b: float) -> Choice:
        return (("start_power", p), ("popularity_power", b))

    users = np.random.default_rng(0).random(100)
    found = {
        powers(0.2, 0.2): users,
        powers(0.0, 0.0): users[:50] * 0.992,
        powers(0.0, 0.25): users[:50] * 0.995,
        powers(0.0, 0.5): users[:50] * 0.9,
    }
    assert preferred(found) == powers(0.0, 0.25)
    assert preferred({one: found[one] for one in [powers(0.2, 0.2), powers(0.0, 0.5)]}) == powers(
        0.2, 0.2
    )
