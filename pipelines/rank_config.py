"""RankConfig: the settings of the second stage, `[rank]` of a run's configuration."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from towers.errors import ConfigError
from towers.ranking.settings import RankerSettings
from towers.typed import STRICT

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RankCross:
    """A feature of the user (or of the moment) and one of the item, taken together."""

    user: str
    """The name of a feature of the user or of the context, with tokens or buckets."""
    item: str
    """The name of a feature of the item, likewise."""
    buckets: PositiveInt = 10_000
    """How many rows the combinations are hashed into."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RankConfig:
    """How the candidates of recall are ranked: `fm-recall rank`."""

    solver: Literal["sgd", "mcmc"] = "sgd"
    """How the ranker is fitted. `sgd`: by epochs of lazy Adam; `mcmc`: by Gibbs sampling of a
    Bayesian machine, of kind `fm`, with myFM (pip install 'fm-recall[mcmc]'): nothing to tune, for
    some ten thousand to a million examples."""
    samples: PositiveInt = 10
    """With `mcmc`: how many draws the ranker is the mean of, at even distances behind the first
    twentieth of the `epochs`; its vectors have as many times `embedding_dim` numbers."""
    model: RankerSettings = dataclasses.field(default_factory=RankerSettings)
    """The ranker, which reads the features of the run, and the score of recall."""
    crosses: tuple[RankCross, ...] = ()
    """Features of a user and an item taken together, which the towers cannot have."""
    not_chosen: tuple[str, ...] = ()
    """The behaviours that say that an item was shown and not chosen: exposures. Default: those with
    role = "negative"; where there are none, candidates of recall that were not chosen are drawn."""
    candidates: PositiveInt = 200
    """How many of recall's candidates are ranked: in training, and by default when serving."""
    negatives: PositiveInt = 4
    """Without exposures: how many candidates that were not chosen are drawn for each that was."""
    validation_fraction: Share = 0.2
    """The share of the users with held-out interactions who decide when to stop, and the gate."""
    test_fraction: Share = 0.2
    """The share of them for the final figures."""
    epochs: PositiveInt = 60
    """Passes over the examples at most."""
    patience: PositiveInt = 3
    """Stop after this many epochs without a better `metric` of validation."""
    metric: Literal["auc", "log_loss"] = "auc"
    """What decides between epochs: `auc`, the order of examples, which is what a ranked list needs;
    `log_loss`, which asks for probabilities, and is at its best some epochs sooner."""
    batch_size: PositiveInt = 4096
    """Examples of a step."""
    learning_rate: PositiveFloat = 5e-3
    """Of lazy Adam, at first."""
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Factor of the learning rate for each epoch without a better `metric` of validation."""
    first_order_rate: PositiveFloat = 1.0
    """Factor of the learning rate for first-order weights."""
    k: PositiveInt = 10
    """The cut-off of the NDCG by which the ranked list is compared with recall's order."""

    def __post_init__(self) -> None:
        if self.solver == "mcmc" and self.model.kind != "fm":
            raise ConfigError(
                'rank.solver: expected rank.model.kind = "fm" with "mcmc", which samples the plain '
                f'machine, received {self.model.kind!r}; set kind = "fm", or solver = "sgd"'
            )
