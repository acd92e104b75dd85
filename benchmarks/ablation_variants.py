"""The grid of the ablation: the ways to choose negatives, and the data sets they are tried on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config import NegativesConfig, RunConfig, TrainingConfig, load_config
from pipelines.data.dataset import Dataset
from pipelines.training.folds import FoldBatches

K = 20
"""The cut-off of every figure."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A data set's run file, at a size whose fits are short enough for a grid of them."""

    title: str
    path: Path
    epochs: int
    embedding_dim: int
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Other settings of training that make a fit short."""

    def load(self, *, epochs: int | None = None) -> RunConfig:
        """Read the run file; its model, its epochs and what is measured are set for the grid."""
        config = load_config(self.path)
        training = {**self.training, "epochs": epochs or self.epochs}
        return dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, embedding_dim=self.embedding_dim),
            training=dataclasses.replace(config.training, **training),
            evaluation=dataclasses.replace(config.evaluation, k=(K,), metric=f"recall@{K}"),
        )


HERE = Path(__file__).parent
SETUPS: Mapping[str, Setup] = {
    "gowalla": Setup(
        title="Gowalla",
        path=HERE / "gowalla.toml",
        epochs=3,
        embedding_dim=64,
        training={"batch_size": 1024, "learning_rate": 1.4e-3},
    ),
    "movielens-1m": Setup(
        title="MovieLens 1M", path=HERE / "movielens-1m.toml", epochs=4, embedding_dim=64
    ),
}


@dataclass(frozen=True, kw_only=True)
class Mining:
    """Negatives that the round before retrieves for a query's user."""

    miner: str
    """The variant whose model retrieves them."""
    count: int = 16
    ranks: tuple[int, int] = (50, 500)
    """The first and the last rank that they are drawn from."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A change of the negatives; what is not given stays as the run file has it."""

    name: str
    group: str
    change: str
    """What it is, in words."""
    sample: int | None = None
    """Items drawn for a batch, all uniformly."""
    popular: float | None = None
    """The share of a batch's sample that is drawn by popularity instead, as large as it is."""
    power: float = 0.75
    """The power of the popularity in that draw."""
    hardest: float | None = None
    """How many of the hardest count, in multiples of the automatic number; inf: all of them."""
    suppression: float | None = None
    """t of popularity suppression, in multiples of `median_share`."""
    mining: Mining | None = None
    """Mined negatives; None: none at all."""

    def configure(self, base: RunConfig, dataset: Dataset) -> RunConfig:
        """Change `base`, a configuration for `dataset`, whose size the relative settings need."""
        training = base.training
        negatives = self._sample(training, dataset)
        if self.hardest is not None:
            resampled = dataclasses.replace(training, negatives=negatives)
            batches = FoldBatches.build(dataset, resampled, mined=None, seed=base.seed)
            mined = self.mining.count if self.mining else 0
            wanted = min(self.hardest * batches.hardest, _sample_size(batches) + mined)
            negatives = dataclasses.replace(negatives, hardest=max(1, round(wanted)))
        negatives = dataclasses.replace(negatives, mined=0)
        if self.mining is not None:
            count, ranks = self.mining.count, self.mining.ranks
            negatives = dataclasses.replace(negatives, mined=count, mined_ranks=ranks)
        training = dataclasses.replace(training, negatives=negatives)
        if self.suppression is not None:
            threshold = self.suppression * median_share(dataset.interactions.item_counts)
            training = dataclasses.replace(training, positive_suppression=threshold)
        return dataclasses.replace(base, training=training)

    def _sample(self, training: TrainingConfig, dataset: Dataset) -> NegativesConfig:
        """Change how many items a batch samples, and how."""
        negatives = training.negatives
        if self.sample is not None:
            negatives = dataclasses.replace(negatives, uniform=self.sample, popularity=0)
        if self.popular is None:
            return negatives
        size = _sample_size(FoldBatches.build(dataset, training, mined=None, seed=0))
        popular = round(self.popular * size)
        return dataclasses.replace(
            negatives, uniform=size - popular, popularity=popular, popularity_power=self.power
        )


def median_share(popularity: NDArray[np.int64]) -> float:
    """The share of the interactions that the item of a median interaction has.

    Half of all interactions are with items of a smaller share; `popularity` [n_items] counts them.
    """
    ascending = np.sort(popularity)
    running = np.cumsum(ascending)
    median = ascending[np.searchsorted(running, running[-1] / 2)]
    return float(median / running[-1])


def _sample_size(batches: FoldBatches) -> int:
    return batches.sampler.uniform + batches.sampler.popularity


def _hardest() -> list[Variant]:
    return [
        Variant(
            name=f"hardest-x{factor:g}",
            group="hardest m",
            change=f"{factor:g} times the automatic m",
            hardest=factor,
        )
        for factor in (0.5, 2.0)
    ]


def _popularity() -> list[Variant]:
    return [
        Variant(
            name=f"popular-{name}-{power:g}",
            group="popularity^alpha",
            change=f"{name} of the sample by popularity^{power:g}",
            popular=share,
            power=power,
        )
        for name, share, power in (
            ("half", 0.5, 0.5),
            ("half", 0.5, 1.0),
        )
    ]


def _mined() -> list[Variant]:
    """One round of mining: several windows of ranks, and several counts from one of them."""
    minings = [
        *(Mining(miner="base", ranks=ranks) for ranks in ((1, 20), (20, 100), (50, 500))),
        Mining(miner="base", count=64),
    ]
    return [
        Variant(
            name=_name(mining),
            group="mined by the round before",
            change=f"{mining.count} from ranks {mining.ranks[0]} to {mining.ranks[1]}",
            mining=mining,
        )
        for mining in minings
    ]


def _name(mining: Mining) -> str:
    suffix = "" if mining.count == Mining.count else f"-x{mining.count}"
    return f"mined-{mining.ranks[0]}-{mining.ranks[1]}{suffix}"


def _few() -> list[Variant]:
    """Samples so small that their negatives are easy, without and with mined ones."""
    few = Variant(name="few", group="few negatives", change="a sample of 64", sample=64)
    mean = dataclasses.replace(
        few, name="few-all", change="the mean over a sample of 64", hardest=math.inf
    )
    variants = []
    for plain in (few, mean):
        mined = dataclasses.replace(
            plain,
            name=f"{plain.name}-mined",
            change=f"{plain.change}, and 16 from ranks 50 to 500",
            mining=Mining(miner=plain.name),
        )
        variants += [plain, mined]
    return variants


BASE = Variant(name="base", group="base", change="a uniform sample, of which the hardest m count")
SUPPRESSED = Variant(  # about half of the positives are kept: Gowalla 46%, MovieLens 1M 53%
    name="suppress-0.11",
    group="suppression of popular positives",
    change="t is 0.11 of the median interaction's item share",
    suppression=0.11,
)
SECOND_ROUND = Variant(
    name="mined-2-rounds",
    group="mined in several rounds",
    change="2 rounds of 16 from ranks 50 to 500",
    mining=Mining(miner="mined-50-500"),
)
VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (
        BASE,
        *_hardest(),
        *_popularity(),
        SUPPRESSED,
        *_mined(),
        SECOND_ROUND,
        *_few(),
    )
}
"""Every variant by name; one that mines comes after its miner."""
