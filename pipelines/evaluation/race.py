"""Compare candidates by the figures of the same users, and race them: who is behind drops out.

Users differ from each other far more than candidates do, so that the error of a comparison is that
of the mean difference over users, each of whom is asked of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from pipelines.evaluation.metrics import Floats, Rows

Candidate = TypeVar("Candidate", bound=Hashable)

ERRORS = 1.5
"""How many standard errors a race allows for; what chance then loses is mostly within `WORTH`."""
WORTH = 0.01
"""A candidate that is not better than the leader by more than this share of its figure is not
worth asking on."""
FIRST = 2000
"""How many users all candidates are asked of."""
GROWTH = 2
"""How many times as many have been asked after each further round."""


def standard_error(differences: Floats) -> float:
    """The standard error of the mean of the differences of users [n]; infinite for less than two.

    Source: of the mean of paired samples, W. S. Gosset (Student), Biometrika 1908.
    """
    if len(differences) <= 1:
        return math.inf
    return float(differences.std(ddof=1) / math.sqrt(len(differences)))


def near_best(
    figures: Mapping[Candidate, Floats], *, errors: float, worth: float = 0.0
) -> list[Candidate]:
    """The best candidate by its mean, and those that chance may keep from being it; in their order.

    Args:
        figures: of each candidate, those of the same users in the same order, [n].
        errors: how many standard errors chance is allowed.
        worth: how much better they must come to be, as a share of the best's mean.
    """
    best = max(figures, key=lambda one: figures[one].mean())
    behind = {one: figures[best] - figure for one, figure in figures.items()}
    least = worth * figures[best].mean()
    return [
        one
        for one, loss in behind.items()
        if one == best or loss.mean() + least <= errors * standard_error(loss)
    ]


def race(
    candidates: Sequence[Candidate],
    users: Rows,
    measure: Callable[[Sequence[Candidate], Rows], Sequence[Floats]],
) -> dict[Candidate, Floats]:
    """Ask ever more users of ever fewer candidates; those that were asked of the most users.

    A round asks new users alone. A candidate that cannot be better than the leader by what is worth
    it, or only by a rare chance, is not asked again. The race ends when one is left, or no users.

    Sources: O. Maron, A. Moore, Hoeffding races, NeurIPS 1994; by paired comparisons, M. Birattari
    et al., A racing algorithm for configuring metaheuristics, GECCO 2002.

    Args:
        candidates: at least one, each different.
        users: those who may be asked, [n], in the order in which they are; at least one.
        measure: the figures of some users [m], ascending, for each of some candidates.

    Returns:
        The figures of the users who were asked, by candidate; of those that dropped out, of the
        first of these users.
    """
    figures: dict[Candidate, Floats] = {one: np.empty(0) for one in candidates}
    asked_of = dict(figures)
    asked, wanted = 0, FIRST
    while asked < len(users) and (not asked or len(figures) > 1):
        batch, left = np.sort(users[asked:wanted]), list(figures)
        found = zip(left, measure(left, batch), strict=True)
        figures |= {one: np.concatenate([figures[one], more]) for one, more in found}
        asked_of |= figures
        figures = {one: figures[one] for one in near_best(figures, errors=ERRORS, worth=WORTH)}
        asked, wanted = asked + len(batch), wanted * GROWTH
    return asked_of


def about_as_good(figures: Mapping[Candidate, Floats]) -> tuple[Candidate, list[Candidate]]:
    """The winner of a race, and those to whom it is not worth being preferred, the best first.

    Args:
        figures: what `race` returns.
    """
    most = max(map(len, figures.values()))
    left = [one for one, found in figures.items() if len(found) == most]
    best = max(left, key=lambda one: figures[one].mean())

    def loss(one: Candidate) -> float:
        same = figures[best][: len(figures[one])]
        return float(1.0 - figures[one].mean() / same.mean()) if same.any() else 0.0

    return best, sorted((one for one in figures if loss(one) <= WORTH), key=loss)
