"""Choose the start: the powers of popularity with which untrained vectors rank best.

Nothing has to be trained to rank with the initial vectors, so that the choice takes seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import HeldInteractions, left_out, sample_users
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import evaluate
from pipelines.progress import Reporter
from pipelines.training.embed import embed, match_scorer
from pipelines.training.initialize import START_POWER, initialize, new_table
from towers.features.kinds import POPULARITY_POWER, Feature, Features, History, Trend
from towers.layers import FeatureTable
from towers.two_tower import TwoTower

START_POWERS = (0.0, 0.2, 0.4)
"""p: an item's vector is count^p times its singular vector."""
HISTORY_POWERS = (0.0, 0.25, 0.5)
"""What a history's power is beyond p, so that p alone changes no user."""
Powers = dict[str, float]
"""`start_power` and `popularity_power`, as the configuration calls them."""

USERS = (1000, 4000)
"""With how many validation users all powers are compared, and then the best of them, at most."""
FINALISTS = 3


def settled(config: RunConfig) -> RunConfig:
    """The same settings with the scale of histories that the items' features ask for."""
    with_vectors = [one for one in config.schema.item.features if not isinstance(one, Trend)]
    return with_histories(config, scale=float(len(with_vectors)))


def choose_start(
    config: RunConfig,
    dataset: Dataset,
    *,
    spectral: NDArray[np.float32],
    validation: sparse.csr_array,
    reporter: Reporter,
) -> Powers:
    """Choose the powers that are not set: the best deciding metric of untrained vectors.

    The best few of all are compared once more with more users, since most differ by little.

    Args:
        config: settled, with the spectral start and a history; what it sets is kept.
        dataset: the training part, under any powers.
        spectral: its `start_vectors`.
        validation: positives that decide, [n_users, n_items]; at least one.
        reporter: is told what was chosen.
    """
    table = new_table(dataset, config)

    def measured(candidates: list[Powers], users: int) -> list[tuple[float, Powers]]:
        """The metric of each of some powers with so many users, the best first."""
        test = sample_users(HeldInteractions(validation), limit=users, seed=config.seed)
        found = []
        for powers in candidates:
            one = with_powers(config, **powers)
            data = dataset.with_schema(one.schema)
            initialize(table, data, config=one, spectral=spectral)
            found.append((_measure(table, data, one, test=test), powers))
        return sorted(found, key=lambda pair: -pair[0])

    found = measured(_candidates(config), USERS[0])
    best, n_users = found, int(np.count_nonzero(np.diff(validation.indptr)))
    if len(found) > 1 and n_users > USERS[0]:
        best = measured([powers for _, powers in found[:FINALISTS]], USERS[1])
    figure, chosen = best[0]
    vectors = "solved vectors" if config.training.solver == "als" else "singular vectors"
    reporter.say(
        f"  items start at count^{chosen['start_power']:g} times their {vectors}, histories "
        f"weigh them by count^-{chosen['popularity_power']:g}: untrained "
        f"{config.evaluation.metric} {figure:.4f}, the best of {len(found)}"
    )
    return chosen


def _measure(
    table: FeatureTable, dataset: Dataset, config: RunConfig, *, test: sparse.csr_array
) -> float:
    """The deciding metric of untrained vectors for the users with test items."""
    users = np.flatnonzero(np.diff(test.indptr))
    settings = config.evaluation
    settings = dataclasses.replace(settings, k=(int(settings.metric.partition("@")[2]),))
    vectors = embed(TwoTower(table, margin=0.0, hardest=1, l2=0.0), dataset, only_users=users)
    found = evaluate(
        match_scorer(vectors),
        train=dataset.interactions.of(users),
        seen=left_out(dataset.interactions, users, what=settings.leave_out),
        test=test,
        config=settings,
        item_counts=dataset.interactions.item_counts,
    )
    return found.metric(settings.metric)


def _candidates(config: RunConfig) -> list[Powers]:
    """The powers to choose from; the default comes first, so that ties keep it."""
    history, start = config.schema.history, config.model.start_power
    power = None if history is None else history.popularity_power
    found = [
        {"start_power": p, "popularity_power": p + more if power is None else power}
        for p in (START_POWERS if start is None else (start,))
        for more in (HISTORY_POWERS if power is None else (0.0,))
    ]
    default = powers_of(config)
    return sorted(found, key=lambda one: sum(abs(one[name] - default[name]) for name in default))


def powers_of(config: RunConfig) -> Powers:
    """The powers that are set, or else their defaults."""
    history, start = config.schema.history, config.model.start_power
    return {
        "start_power": START_POWER if start is None else start,
        "popularity_power": POPULARITY_POWER if history is None else history.power,
    }


def with_powers(config: RunConfig, *, start_power: float, popularity_power: float) -> RunConfig:
    """The same settings with these powers where they set none."""
    if config.model.start_power is None:
        model = dataclasses.replace(config.model, start_power=start_power)
        config = dataclasses.replace(config, model=model)
    return with_histories(config, popularity_power=popularity_power)


def with_histories(config: RunConfig, **values: float) -> RunConfig:
    """The same settings with these values of users' histories where they set none."""
    return fill_histories(config, lambda _: values)


def fill_histories(
    config: RunConfig, values_of: Callable[[History], Mapping[str, float]]
) -> RunConfig:
    """The same settings with what `values_of` says of each history where they set nothing."""

    def fill(feature: Feature) -> Feature:
        if not isinstance(feature, History):
            return feature
        missing: dict[str, Any] = {
            name: value
            for name, value in values_of(feature).items()
            if getattr(feature, name) is None
        }
        return dataclasses.replace(feature, **missing)

    features = tuple(fill(feature) for feature in config.schema.user.features)
    if features == config.schema.user.features:
        return config
    return dataclasses.replace(config, user=Features(features=features))
