"""What validation decides about a finished model, to be done to the one that is published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChosenTrend:
    """How the trend of items is counted, and what it is worth."""

    window: float
    """The length of its window, in the unit of the times."""
    weight: float
    """Its first-order weight."""


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What counts beside the histories of users; by default, as training left it."""

    features: float = 1.0
    """What the vectors of users' features are multiplied by."""
    mean_user: float = 0.0
    """How many times the mean user's score of an item is added to its first-order term."""


@dataclass(frozen=True, kw_only=True)
class Unchosen:
    """What is done to the scores of items that nobody has chosen."""

    scale: float
    """What they are multiplied by, at most 1."""
    term: float
    """What is then added."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decided:
    """What is done to a model after training, as validation has decided it.

    None of what nothing decides, and before it is done.
    """

    start_share: float = 0.0
    """How far the weights were moved back to the start, from 0 to 1."""
    balance: Balance | None = None
    """None too, where the balance is left as it is."""
    feature_penalty: float | None = None
    """The penalty of the regression that placed items' features; None where they were left."""
    unknown_item_weight: float | None = None
    """What was added to w of unknown item ids."""
    unchosen: Unchosen | None = None
    """None too, where every item has an interaction."""
    newcomer_scale: float | None = None
    """How many times the mean user's vector those have who have no history, beside features."""
    default_user_scale: float | None = None
    """The same of those of whom nothing is known."""
    trend: ChosenTrend | None = None
    """None too, where items have none."""
