"""Divide the positives into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.config import SplitConfig
from pipelines.interactions import Tables
from towers.errors import ConfigError, DataError

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The three parts, each in the form and the order of `Tables.interactions`."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame


def split_interactions(tables: Tables, *, config: SplitConfig, seed: int) -> Split:
    """Divide `tables.interactions`; test interactions in a table of their own stay the test part.

    By time, the latest interactions of all are the test part, and the latest of the rest the
    validation part. At random, each user gives its share of interactions to either, rounded, but
    keeps at least one in training; the same for the same seed.

    Raises:
        ConfigError: a split by time without timestamps.
        DataError: nothing is left to train on.
    """
    rows = tables.interactions
    has_times = "timestamp" in rows.columns
    if config.by == "time" and not has_times:
        raise ConfigError(
            "split.by: expected timestamps to split by time, received interactions without; name "
            'their column in data.interactions.timestamp, or set split.by = "random"'
        )
    test_fraction = config.test_fraction if tables.test is None else 0.0
    fractions = {"test_fraction": test_fraction, "validation_fraction": config.validation_fraction}
    if has_times and config.by != "random":
        part = _parts_by_time(len(rows), **fractions)
    else:
        part = _parts_at_random(rows["user_id"], **fractions, seed=seed)
    train, validation, test = (
        rows[part == name].reset_index(drop=True) for name in (TRAIN, VALIDATION, TEST)
    )
    if len(train) == 0:
        raise DataError(
            f"split: expected training interactions, received none: all {len(rows):,} are in "
            f"validation ({len(validation):,}) or test ({len(test):,}); lower "
            "split.test_fraction or split.validation_fraction"
        )
    return Split(
        train=train, validation=validation, test=test if tables.test is None else tables.test
    )


def _parts_by_time(
    n_rows: int, *, test_fraction: float, validation_fraction: float
) -> NDArray[np.int8]:
    """Give each row its part, [n_rows]; rows are in order of time."""
    n_rest = round(n_rows * (1.0 - test_fraction))
    n_train = round(n_rest * (1.0 - validation_fraction))
    part = np.full(n_rows, TEST, dtype=np.int8)
    part[:n_rest] = VALIDATION
    part[:n_train] = TRAIN
    return part


def _parts_at_random(
    user_id: pd.Series, *, test_fraction: float, validation_fraction: float, seed: int
) -> NDArray[np.int8]:
    """Give each row its part, [n_rows], user by user."""
    user, _ = pd.factorize(user_id)
    order = np.random.default_rng(seed).permutation(len(user))
    rank = np.empty(len(user), dtype=np.int64)  # among the rows of its user, in random order
    rank[order] = pd.Series(user[order]).groupby(user[order]).cumcount()
    n_rows = np.bincount(user)
    n_test = np.minimum(np.rint(n_rows * test_fraction), n_rows - 1)
    n_rest = n_rows - n_test
    n_validation = np.minimum(np.rint(n_rest * validation_fraction), n_rest - 1)
    part = np.full(len(user), TRAIN, dtype=np.int8)
    part[rank < (n_test + n_validation)[user]] = VALIDATION
    part[rank < n_test[user]] = TEST
    return part
