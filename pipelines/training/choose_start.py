"""Choose the start: the powers of popularity with which untrained vectors rank best.

Nothing has to be trained to rank with the initial vectors, so that the choice takes seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import HeldInteractions, left_out
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import user_figures, user_metric
from pipelines.evaluation.left_out import LeftOut, NotYet
from pipelines.evaluation.metrics import Floats, Rows
from pipelines.evaluation.race import about_as_good, race
from pipelines.progress import Reporter
from pipelines.training.embed import Vectors, embed, match_scorer
from pipelines.training.initialize import START_POWER, initialize, new_table
from towers.features.kinds import POPULARITY_POWER, Feature, Features, History, Trend
from towers.two_tower import TwoTower

START_POWERS = (START_POWER, 0.0, 0.4)
"""p: an item's vector is count^p times its singular vector."""
HISTORY_POWERS = (0.25, 0.0, 0.5)
"""What a history's power is beyond p, so that p alone changes no user; the first is tried with all
p."""
Powers = dict[str, float]
"""`start_power` and `popularity_power`, as the configuration calls them."""
Choice = tuple[tuple[str, float], ...]
"""The same as something that does not change."""


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
    not_yet: NotYet | None = None,
    reporter: Reporter,
) -> Powers:
    """Choose the powers that are not set: the best deciding metric of untrained vectors.

    First p, and then the history's power with that p. They are raced, since a few users tell which
    powers are far behind, and only many of them which of the others is best. Of powers p about as
    good as the best, the smallest is taken: training learns what is popular, and goes further from
    a start that says less of it.

    Args:
        config: settled, with the spectral start and a history; what it sets is kept.
        dataset: the training part, under any powers.
        spectral: its `start_vectors`.
        validation: positives that decide, [n_users, n_items]; at least one.
        not_yet: what is not there yet when their users ask.
        reporter: is told what was chosen.
    """
    users = np.random.default_rng(config.seed).permutation(
        np.flatnonzero(np.diff(validation.indptr))
    )
    measured = _Starts(config, dataset, spectral=spectral, validation=validation, not_yet=not_yet)
    found = race(_candidates(config, HISTORY_POWERS[:1]), users, measured)
    best, tried = preferred(found), set(found)
    candidates = _candidates(with_start_power(config, dict(best)["start_power"]), HISTORY_POWERS)
    if len(candidates) > 1:
        found = race(candidates, users, measured)
        best, tried = preferred(found), tried | set(found)
    chosen = dict(best)
    vectors = "solved vectors" if config.training.solver == "als" else "singular vectors"
    reporter.say(
        f"  items start at count^{chosen['start_power']:g} times their {vectors}, histories "
        f"weigh them by count^-{chosen['popularity_power']:g}: untrained "
        f"{user_metric(config.evaluation.metric)} {found[best].mean():.4f} of "
        f"{len(found[best]):,} users; {len(tried)} were tried"
    )
    return chosen


def preferred(found: Mapping[Choice, Floats]) -> Choice:
    """The best of the smallest p among the powers that are about as good as the best.

    Args:
        found: the figures of users by powers, as a race leaves them.
    """
    _, close = about_as_good(found)
    least = min(dict(one)["start_power"] for one in close)
    return next(one for one in close if dict(one)["start_power"] == least)


class _Starts:
    """Measures untrained vectors of several powers, one after the other in one table.

    What was found of some users is kept, since one candidate is in both races.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        *,
        spectral: NDArray[np.float32],
        validation: sparse.csr_array,
        not_yet: NotYet | None,
    ) -> None:
        self._config, self._dataset, self._spectral = config, dataset, spectral
        self._held_out, self._not_yet = HeldInteractions(validation), not_yet
        self._table = new_table(dataset, config)
        self._model = TwoTower(self._table, margin=0.0, hardest=1, l2=0.0)
        self._found: dict[tuple[Choice, bytes], Floats] = {}

    def __call__(self, candidates: Sequence[Choice], users: Rows) -> list[Floats]:
        """The deciding metric of each of some users [m], ascending, for each of some powers."""
        evaluation, interactions = self._config.evaluation, self._dataset.interactions
        test = self._held_out.of(users)
        seen = left_out(interactions, users, what=evaluation.leave_out)
        for powers in candidates:
            if (powers, users.tobytes()) not in self._found:
                self._found[powers, users.tobytes()] = user_figures(
                    match_scorer(self._vectors(dict(powers), users)),
                    test=test,
                    left_out=LeftOut(seen, self._not_yet),
                    metric=evaluation.metric,
                )
        return [self._found[powers, users.tobytes()] for powers in candidates]

    def _vectors(self, powers: Powers, users: Rows) -> Vectors:
        """The untrained vectors of some users, and of all items."""
        config = with_powers(self._config, **powers)
        data = self._dataset.with_schema(config.schema)
        initialize(self._table, data, config=config, spectral=self._spectral)
        return embed(self._model, data, only_users=users)


def _candidates(config: RunConfig, beyond: Sequence[float]) -> list[Choice]:
    """The powers to choose from, those of histories so much beyond p; ties keep the first."""
    history, start = config.schema.history, config.model.start_power
    power = None if history is None else history.popularity_power
    return [
        (("start_power", p), ("popularity_power", p + more if power is None else power))
        for p in (START_POWERS if start is None else (start,))
        for more in (beyond if power is None else beyond[:1])
    ]


def powers_of(config: RunConfig) -> Powers:
    """The powers that are set, or else their defaults."""
    history, start = config.schema.history, config.model.start_power
    return {
        "start_power": START_POWER if start is None else start,
        "popularity_power": POPULARITY_POWER if history is None else history.power,
    }


def with_powers(config: RunConfig, *, start_power: float, popularity_power: float) -> RunConfig:
    """The same settings with these powers where they set none."""
    return with_histories(with_start_power(config, start_power), popularity_power=popularity_power)


def with_start_power(config: RunConfig, power: float) -> RunConfig:
    """The same settings with this power of the start where they set none."""
    if config.model.start_power is not None:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, start_power=power))


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
