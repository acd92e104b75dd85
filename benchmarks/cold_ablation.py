"""What each part of the cold start is worth on CiteULike-a: one left out at a time.

Run: .venv/bin/python -m benchmarks.cold_ablation --seeds 0
Run: .venv/bin/python -m benchmarks.cold_ablation --seeds 0 --only "as it is" "no ids are dropped"

The data, the split and the segments are those of `benchmarks.citeulike`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import sparse

from benchmarks.citeulike import CONFIG, DATA, Figures, fit_and_measure, read_split, table_of
from pipelines.config import RunConfig, load_config
from pipelines.progress import Reporter
from pipelines.training.choose_start import with_histories
from pipelines.training.fit import Fitted
from towers.features.kinds import Features, History
from towers.negatives import SharedSampler

Variant = Any
"""Makes the settings of a variant, within a context in which its parts are left out."""


@contextmanager
def as_it_is(config: RunConfig) -> Iterator[RunConfig]:
    """The product with its defaults."""
    yield config


@contextmanager
def every_item_is_a_negative(config: RunConfig) -> Iterator[RunConfig]:
    """Items without an interaction are sampled as negatives too."""
    build = SharedSampler.build

    def of_all(popularity: NDArray[np.int64], **settings: Any) -> SharedSampler:
        return build(np.maximum(popularity, 1), **settings)

    with patch.object(SharedSampler, "build", of_all):
        yield config


@contextmanager
def features_start_at_nothing(config: RunConfig) -> Iterator[RunConfig]:
    """The spectral start is given to ids alone."""

    def nothing(
        bags: sparse.csr_array, moments: NDArray[np.float32], **_: Any
    ) -> NDArray[np.float32]:
        return np.zeros_like(moments)

    with patch("pipelines.training.initialize.fit_features", nothing):
        yield config


@contextmanager
def histories_bring_ids_alone(config: RunConfig) -> Iterator[RunConfig]:
    """A history has the ids of its items, without their features."""
    features = tuple(
        dataclasses.replace(one, item_features=()) if isinstance(one, History) else one
        for one in config.schema.user.features
    )
    yield with_histories(dataclasses.replace(config, user=Features(features=features)), scale=1.0)


@contextmanager
def no_id_is_dropped(config: RunConfig) -> Iterator[RunConfig]:
    """Training always knows the ids."""
    yield dataclasses.replace(config, training=dataclasses.replace(config.training, id_dropout=0.0))


@contextmanager
def nothing_is_calibrated(config: RunConfig) -> Iterator[RunConfig]:
    """Unknown ids keep the first-order weight that training gives them."""

    def same(fitted: Fitted, *_: Any) -> Fitted:
        return fitted

    with patch("benchmarks.citeulike.calibrate", same):
        yield config


VARIANTS: dict[str, Variant] = {
    "as it is": as_it_is,
    "every item is a negative": every_item_is_a_negative,
    "features start at nothing": features_start_at_nothing,
    "histories bring ids alone": histories_bring_ids_alone,
    "no ids are dropped": no_id_is_dropped,
    "nothing is calibrated": nothing_is_calibrated,
}


def main() -> None:
    """Measure the variants, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    given = parser.parse_args()
    console, config = Console(highlight=False), load_config(given.config)
    split, found = read_split(given.data, config), dict[str, Figures]()
    for seed in given.seeds:
        for name in given.only:
            console.print(f"{name}, seed {seed}")
            with VARIANTS[name](dataclasses.replace(config, seed=seed)) as changed:
                figures = fit_and_measure(split, changed, Reporter(console))
            found[f"{name}, seed {seed}"] = figures
    console.print(table_of(found))


if __name__ == "__main__":
    main()
