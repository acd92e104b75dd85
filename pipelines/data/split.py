"""Decide how the positives are divided into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config import SplitConfig
from towers.errors import ConfigError, DataError


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

    def check(self) -> None:
        """Refuse a split with nothing to train on.

        Raises:
            DataError: with the sizes.
        """
        if self.train == 0:
            raise DataError(
                f"split: expected training interactions, received none: all {self.all:,} are in "
                f"validation ({self.validation:,}) or test ({self.test:,}); lower "
                "split.test_fraction or split.validation_fraction"
            )


@dataclass(frozen=True, kw_only=True)
class Split:
    """How positives are divided.

    By time, the latest interactions of all are the test part, and the latest of the rest the
    validation part. At random, each user gives its share of interactions to either, rounded, but
    keeps at least one in training; a hash of seed, user and item decides which.
    """

    by_time: bool
    test: float
    """The share of the test part."""
    validation: float
    """The share of the validation part in what is left."""

    @classmethod
    def of(cls, config: SplitConfig, *, has_times: bool, has_test: bool) -> Split:
        """What is asked for; a table of test interactions takes the place of a share.

        Raises:
            ConfigError: a split by time, of interactions that have none.
        """
        if config.by == "time" and not has_times:
            raise ConfigError(
                "split.by: expected timestamps to split by time, received interactions without; "
                'name their column in data.interactions.timestamp, or set split.by = "random"'
            )
        return cls(
            by_time=has_times and config.by != "random",
            test=0.0 if has_test else config.test_fraction,
            validation=config.validation_fraction,
        )

    def sizes(self, n_rows: int) -> PartSizes:
        """How many of all rows each part has, where time divides them."""
        n_rest = round(n_rows * (1.0 - self.test))
        n_train = round(n_rest * (1.0 - self.validation))
        return PartSizes(train=n_train, validation=n_rest - n_train, test=n_rows - n_rest)
