"""Divide the positives into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.config import SplitConfig
from pipelines.data.hashing import draws, hash_ids
from pipelines.data.interactions import Tables
from towers.errors import ConfigError, DataError

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The three parts, each in the form and the order of `Tables.interactions`."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class PartSizes:
    """The number of interactions of each part."""

    train: int
    validation: int
    test: int

    @property
    def all(self) -> int:
        """The number of interactions."""
        return self.train + self.validation + self.test


@dataclass(frozen=True, kw_only=True)
class Fractions:
    """The share of the test part, and of the validation part in what is left."""

    test: float
    validation: float

    @classmethod
    def of(cls, config: SplitConfig, *, has_test: bool) -> Fractions:
        """What is asked for; a table of test interactions takes the place of a share."""
        test = 0.0 if has_test else config.test_fraction
        return cls(test=test, validation=config.validation_fraction)

    def sizes(self, n_rows: int) -> PartSizes:
        """How many of all rows each part has."""
        n_rest = round(n_rows * (1.0 - self.test))
        n_train = round(n_rest * (1.0 - self.validation))
        return PartSizes(train=n_train, validation=n_rest - n_train, test=n_rows - n_rest)


def split_interactions(tables: Tables, *, config: SplitConfig, seed: int) -> Split:
    """Divide `tables.interactions`; test interactions in a table of their own stay the test part.

    By time, the latest interactions of all are the test part, and the latest of the rest the
    validation part. At random, each user gives its share of interactions to either, rounded, but
    keeps at least one in training; a hash of seed, user and item decides which.

    Raises:
        ConfigError: a split by time without timestamps.
        DataError: nothing is left to train on.
    """
    rows = tables.interactions
    by_time = is_by_time(config, has_times="timestamp" in rows.columns)
    fractions = Fractions.of(config, has_test=tables.test is not None)
    if by_time:
        part = _parts_by_time(fractions.sizes(len(rows)))
    else:
        draw = draws(hash_ids(rows["user_id"]), hash_ids(rows["item_id"]), seed=seed)
        part = parts_at_random(rows["user_id"], draw, fractions=fractions)
    train, validation, test = (
        rows[part == name].reset_index(drop=True) for name in (TRAIN, VALIDATION, TEST)
    )
    check_train(PartSizes(train=len(train), validation=len(validation), test=len(test)))
    return Split(
        train=train, validation=validation, test=test if tables.test is None else tables.test
    )


def is_by_time(config: SplitConfig, *, has_times: bool) -> bool:
    """Whether interactions are divided by time, rather than at random.

    Raises:
        ConfigError: they should be, but have no times.
    """
    if config.by == "time" and not has_times:
        raise ConfigError(
            "split.by: expected timestamps to split by time, received interactions without; name "
            'their column in data.interactions.timestamp, or set split.by = "random"'
        )
    return has_times and config.by != "random"


def check_train(sizes: PartSizes) -> None:
    """Refuse a split with nothing to train on.

    Raises:
        DataError: with the sizes.
    """
    if sizes.train == 0:
        raise DataError(
            f"split: expected training interactions, received none: all {sizes.all:,} are in "
            f"validation ({sizes.validation:,}) or test ({sizes.test:,}); lower "
            "split.test_fraction or split.validation_fraction"
        )


def parts_at_random(
    user: pd.Series, draw: NDArray[np.uint64], *, fractions: Fractions
) -> NDArray[np.int8]:
    """Give each row its part, [n_rows], user by user; the rows with the least draws are held out.

    Nothing but a user's own rows, in their order, decides on them.
    """
    codes, _ = pd.factorize(user)
    order = np.lexsort((draw, codes))
    n_rows = np.bincount(codes)
    starts = np.cumsum(n_rows) - n_rows
    rank = np.empty(len(codes), dtype=np.int64)  # among the rows of its user, by draw
    rank[order] = np.arange(len(codes)) - starts[codes[order]]
    n_test = np.minimum(np.rint(n_rows * fractions.test), n_rows - 1)
    n_rest = n_rows - n_test
    n_validation = np.minimum(np.rint(n_rest * fractions.validation), n_rest - 1)
    part = np.full(len(codes), TRAIN, dtype=np.int8)
    part[rank < (n_test + n_validation)[codes]] = VALIDATION
    part[rank < n_test[codes]] = TEST
    return part


def _parts_by_time(sizes: PartSizes) -> NDArray[np.int8]:
    """Give each row its part, [n_rows]; rows are in order of time."""
    names, counts = (TRAIN, VALIDATION, TEST), (sizes.train, sizes.validation, sizes.test)
    return np.repeat(np.array(names, dtype=np.int8), counts)
