"""What is not recommended to users: what they know, and what is not there yet when they ask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from pipelines.evaluation.metrics import Flags, Floats, Rows


@dataclass(frozen=True, eq=False)
class NotYet:
    """From when on each item is there, and when each user asks."""

    there: Floats
    """The time from which each item is there, [n_items]; minus infinity where none is known."""
    asked: Floats
    """The time at which each user asks, [n_users]; infinity where none is known."""

    def of(self, users: Rows) -> Flags:
        """Which items are not there yet for some users, [n, n_items]."""
        return self.there > self.asked[users, np.newaxis]

    def by_the_last(self, users: Rows) -> Flags:
        """Which items are there when the last of some users asks, [n_items]."""
        return self.there <= float(self.asked[users].max(initial=-np.inf))

    def describe(self, users: Rows) -> str:
        """Say how many items are not ranked for some users, in a sentence."""
        ordered = np.sort(self.there)
        missing = len(ordered) - np.searchsorted(ordered, self.asked[users], side="right")
        return (
            f"evaluation: {np.count_nonzero(self.there > self.asked[users].min(initial=np.inf)):,} "
            f"of {len(ordered):,} items are not there yet when some of {len(users):,} test users "
            f"ask, {missing.mean() if len(users) else 0.0:,.1f} for a user on average, and are not "
            "ranked for them"
        )


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What is not recommended to users."""

    seen: scipy.sparse.csr_array
    """[n_users, n_items]; nonzero where the user knows the item."""
    not_yet: NotYet | None = None
    """What is not there yet, of the same users and items; None where every item is."""

    def take(self, users: Rows) -> LeftOut:
        """The same of some users [n], who may come more than once."""
        seen = scipy.sparse.csr_array(self.seen[users])
        if self.not_yet is None:
            return LeftOut(seen)
        return LeftOut(seen, NotYet(self.not_yet.there, self.not_yet.asked[users]))

    def offered(self, scores: NDArray[np.float32], users: Rows) -> NDArray[np.float32]:
        """The scores of some users [n, n_items], of which those are -inf that are not there yet."""
        if self.not_yet is None:
            return scores
        return np.where(self.not_yet.of(users), np.float32(-np.inf), scores)
