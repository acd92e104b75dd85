"""The search space: the hyperparameters, the range of each, and why it is searched."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from pipelines.config import RunConfig
from pipelines.tuning.trials import shown
from towers.errors import ConfigError
from towers.extras import missing

try:
    from optuna.distributions import CategoricalDistribution as Choice
    from optuna.distributions import FloatDistribution as Real
    from optuna.distributions import IntDistribution as Whole
except ImportError:
    raise missing("optuna", extra="tuning", task="fm-recall tune") from None

Distribution = Real | Whole | Choice

HARDEST = "training.negatives.hardest"
"""The hyperparameter whose range is in multiples of its default for the data."""

HISTORY = "user.history."
"""The prefix of the hyperparameters of the users' history feature."""

DIGITS = 3
"""Significant digits to which sampled values are rounded, so that they are easy to read."""


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter."""

    name: str
    """Its dotted name in the TOML file; `user.history` is the users' feature of kind history."""
    range: Distribution
    _: KW_ONLY
    why: str
    of_history: bool = False
    """Whether it has an effect only where users have a history."""
    on_request: bool = False
    """Whether it is searched only on request."""

    def describe(self) -> str:
        """One line: the name, the range and the reason."""
        return f"{self.name}: {self.among}; {self.why}"

    @property
    def among(self) -> str:
        """The range in words."""
        if isinstance(self.range, Choice):
            return "one of " + ", ".join(map(shown, self.range.choices))
        text = f"{self.range.low:g} to {self.range.high:g}"
        text += " times the default" if self.name == HARDEST else ""
        return text + (" (log)" if self.range.log else "")


SPACE = (
    Dimension(
        "training.learning_rate",
        Real(2e-4, 3e-3, log=True),
        why="too low is not done when the epochs are, too high overfits before",
    ),
    Dimension(
        "training.margin",
        Real(0.1, 1.0, log=True),
        why="how far a positive must be ahead before it is left alone",
    ),
    Dimension(
        "training.l2",
        Real(1e-5, 1e-1, log=True),
        why="the sparser the data, the more it takes against overfitting",
    ),
    Dimension(
        "user.history.popularity_power",
        Real(0.0, 0.7),
        why="how much less popular items say about a user; otherwise chosen with the start",
        of_history=True,
        on_request=True,
    ),
    Dimension(
        "training.history_dropout",
        Real(0.0, 0.3),
        why="newcomers' recommendations against those of users with a history",
        of_history=True,
    ),
    Dimension(
        HARDEST,
        Real(0.5, 2.0, log=True),
        why="few learn the top of the list, many forgive unlabelled positives",
    ),
    Dimension(
        "training.folds",
        Choice((3, 5, 10)),
        why="more folds make longer histories, and more steps an epoch",
    ),
    Dimension(
        "model.embedding_dim",
        Choice((64, 128, 256)),
        why="quality against memory, training time and latency",
        on_request=True,
    ),
)
"""Every hyperparameter that can be searched."""


def choose_dimensions(
    config: RunConfig, *, only: Sequence[str] = (), dims: bool = False
) -> tuple[Dimension, ...]:
    """The hyperparameters to search: those that `only` names or, by default, all but on request.

    Args:
        config: a hyperparameter without effect under it is not searched.
        only: dotted names.
        dims: whether to search the embedding dimension too.

    Raises:
        ConfigError: `only` names what cannot be searched.
    """
    usable = [found for found in SPACE if not found.of_history or config.schema.history]
    names = [found.name for found in usable]
    wanted = set(only) | ({"model.embedding_dim"} if dims else set())
    unknown = sorted(wanted - set(names))
    if unknown:
        raise ConfigError(
            f"--only: expected settings that can be searched, received {', '.join(unknown)}; "
            f"choose from {', '.join(names)}"
        )
    return tuple(
        found for found in usable if found.name in wanted or not (only or found.on_request)
    )


def settings_of(
    config: RunConfig, dimensions: Sequence[Dimension], *, hardest: int
) -> dict[str, Any]:
    """The value of each hyperparameter in `config`, by its dotted name.

    `hardest` is the default of `training.negatives.hardest` for these data.
    """
    values = {dimension.name: _value(config, dimension.name) for dimension in dimensions}
    if HARDEST in values and values[HARDEST] is None:
        values[HARDEST] = hardest
    return values


def distributions(
    dimensions: Sequence[Dimension], start: Mapping[str, Any], *, hardest: int
) -> dict[str, Distribution]:
    """The distribution of each hyperparameter: its range, widened to hold its value in `start`.

    The range of `training.negatives.hardest` is in multiples of `hardest`.
    """
    found: dict[str, Distribution] = {}
    for dimension in dimensions:
        space = dimension.range
        if dimension.name == HARDEST and isinstance(space, Real):
            low, high = (max(1, round(factor * hardest)) for factor in (space.low, space.high))
            space = Whole(low, high, log=True)
        found[dimension.name] = _widened(space, start[dimension.name])
    return found


def nearest(value: Any, distribution: Distribution) -> Any:
    """The value nearest to `value` in the range of a distribution; a log scale excludes 0."""
    if isinstance(distribution, Choice):
        return value
    return min(max(value, distribution.low), distribution.high)


def rounded(value: Any) -> Any:
    """Round a sampled float to a few significant digits; other values stay."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _value(config: RunConfig, name: str) -> Any:
    """Look a setting up by its dotted name."""
    if (history := config.schema.history) is not None and name.startswith(HISTORY):
        name = name.removeprefix(HISTORY)
        return history.power if name == "popularity_power" else getattr(history, name)
    return functools.reduce(getattr, name.split("."), config)


def _widened(distribution: Distribution, value: Any) -> Distribution:
    """Widen the range of a distribution to hold `value`, where its scale can."""
    if isinstance(distribution, Choice):
        return Choice(list(dict.fromkeys([*distribution.choices, value])))
    if distribution.log and value <= 0:
        return distribution
    low, high = min(distribution.low, value), max(distribution.high, value)
    return type(distribution)(low, high, log=distribution.log)
