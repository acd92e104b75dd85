"""Choose how much of each shell of an index is searched: the least that finds enough."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from pipelines.results import AnnSetting
from serving.search.scann_index import ScannSettings

TRADES = np.geomspace(1e-7, 1e2, 400)
"""What a further neighbour may cost, in microseconds a query of all: the trades that are tried."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Option:
    """One way to search a shell, as measured."""

    settings: ScannSettings
    cost_us: float
    found: NDArray[np.int64]
    """How many of each query's exact neighbours it finds, [n]."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice:
    """One option a shell."""

    options: tuple[Option, ...]
    cost_us: float
    reached: Mapping[str, float]
    """The recall of each group of queries."""
    surely: float
    """The lowest of these, each less two standard errors."""

    def setting(self, *, is_chosen: bool) -> AnnSetting:
        """The same as a line of the report."""
        trees = [option.settings for option in self.options if option.settings.num_leaves]
        return AnnSetting(
            leaves_to_search=sum(each.leaves_to_search for each in trees),
            leaves=sum(each.num_leaves or 0 for each in trees),
            reorder=sum(each.reorder for each in trees),
            recall=min(self.reached.values()),
            cost_us=self.cost_us,
            chosen=is_chosen,
        )


def choose_effort(
    shells: Sequence[Sequence[Option]], groups: Mapping[str, slice], *, k: int, recall: float
) -> tuple[Choice, list[Choice]]:
    """Take one option of each shell, so that each group of queries finds enough at the least cost.

    What one shell finds does not depend on the others, so the measures of the shells add up. For a
    price of a neighbour, each shell takes the option with the best bargain; the lowest price at
    which enough are found decides. Then one shell, or two at once, take other options as long as
    that is cheaper and enough are found all the same. The same measures give the same choice.

    Args:
        shells: the options of each shell, at least one.
        groups: which of the queries are of a group, by its name.
        k: the neighbours of a query.
        recall: the share of them that is enough; it is reached two standard errors above it.

    Returns:
        The choice, or the one that finds most where none finds enough; and the best bargains.
    """
    shells = [undominated(options) for options in shells]
    bargains = list(_bargains(shells, groups, k=k))
    enough = [choice for choice in bargains if choice.surely >= recall]
    if not enough:
        return max(bargains, key=lambda choice: choice.surely), bargains
    best = min(enough, key=lambda choice: choice.cost_us)
    while (cheaper := _cheaper(best, shells, groups, k=k, recall=recall)) is not None:
        best = cheaper
    return best, bargains if best in bargains else [*bargains, best]


def _bargains(
    shells: Sequence[Sequence[Option]], groups: Mapping[str, slice], *, k: int
) -> Iterator[Choice]:
    """The different choices that some price of a neighbour makes, the cheapest first."""
    last: tuple[Option, ...] = ()
    for price in TRADES:
        taken = tuple(
            min(options, key=lambda option: option.cost_us - price * int(option.found.sum()))
            for options in shells
        )
        if taken != last:
            yield _choice(taken, groups, k=k)
        last = taken


def _cheaper(
    best: Choice,
    shells: Sequence[Sequence[Option]],
    groups: Mapping[str, slice],
    *,
    k: int,
    recall: float,
) -> Choice | None:
    """The cheapest choice that finds enough and differs in two shells; None if there is none."""
    found: list[Choice] = []
    for changed in combinations(range(len(shells)), min(2, len(shells))):
        for options in product(*(shells[number] for number in changed)):
            taken = list(best.options)
            for number, option in zip(changed, options, strict=True):
                taken[number] = option
            if sum(option.cost_us for option in taken) < best.cost_us:
                found.append(_choice(tuple(taken), groups, k=k))
    enough = [choice for choice in found if choice.surely >= recall]
    return min(enough, key=lambda choice: choice.cost_us, default=None)


def undominated(options: Sequence[Option]) -> list[Option]:
    """The options by cost, without those that find no more than a cheaper one."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: option.cost_us):
        if not kept or option.found.sum() > kept[-1].found.sum():
            kept.append(option)
    return kept


def _choice(options: tuple[Option, ...], groups: Mapping[str, slice], *, k: int) -> Choice:
    """Add up what the options find and cost."""
    found = sum(option.found for option in options)
    shares = np.minimum(found, k) / k
    each = {name: shares[part] for name, part in groups.items() if len(shares[part])}
    return Choice(
        options=options,
        cost_us=sum(option.cost_us for option in options),
        reached={name: float(part.mean()) for name, part in each.items()},
        surely=min(_surely(part) for part in each.values()),
    )


def _surely(shares: NDArray[np.float64]) -> float:
    """The mean less two standard errors."""
    return float(shares.mean()) - 2 * float(shares.std()) / math.sqrt(len(shares))


def cost_us(settings: ScannSettings, *, size: int, width: int) -> float:
    """Estimate the microseconds that a search of `size` vectors [width] takes a query.

    Fitted to the processor time of batches, divided by two cores. What decides is the ratio of the
    parts. For one query alone, scoring vectors and scanning codes take four times as long both.
    """
    call = 3.0
    if settings.num_leaves is None:
        return call + 1.65e-5 * size * width
    leaves = 7e-5 * settings.num_leaves * width
    scanned = size * settings.leaves_to_search / settings.num_leaves
    codes = 1.65e-5 * scanned * width / settings.dimensions_per_block
    return call + leaves + codes + settings.reorder * (0.01 + 1.5e-4 * width)


def with_effort(settings: ScannSettings, *, leaves: int, reorder: int) -> ScannSettings:
    """The same build with other search settings."""
    return replace(settings, leaves_to_search=leaves, reorder=reorder)
