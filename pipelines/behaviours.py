"""Behaviours: the kinds of things that users do with items, and what a run makes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass

from towers.errors import ConfigError
from towers.features.schema import Schema
from towers.typed import STRICT

CHOSEN, LIKED, DISLIKED = "chosen", "liked", "disliked"
"""What all interactions are called where no column tells them apart, and what ratings are called
that are at least `positive_rating`, and that are lower."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Behaviour:
    """What one kind of event means; its name is the value of the column `interactions.event`."""

    role: Literal["target", "negative", "other"] = "other"
    """`target`: its events are positives, which the model is to rank high; `negative`: explicit
    negatives, which it is to rank below the user's positives; `other`: neither."""
    weight: PositiveFloat = 1.0
    """A factor of the weights of its positives, or negatives, in the loss."""
    seen: bool = True
    """Whether an item counts as seen by it: see docs/events.md."""

    def __post_init__(self) -> None:
        if self.role == "target" and not self.seen:
            raise ConfigError(
                "data.behaviours: expected targets that count as seen, received one with "
                "seen = false; positives are not recommended again, so remove the setting"
            )


Behaviours = Mapping[str, Behaviour]
"""All behaviours of a run by name. The code of one is its place, from 0."""


def resolve(given: Behaviours, *, has_event: bool, has_rating: bool) -> dict[str, Behaviour]:
    """Say which behaviours interactions have; without a column, all are one target.

    With events and ratings, rows that have a rating are liked or disliked, whatever their event.

    Raises:
        ConfigError: nothing tells the given behaviours apart, or none is a target.
    """
    if has_event and has_rating:
        given = {LIKED: Behaviour(role="target"), DISLIKED: Behaviour()} | dict(given)
    if has_event:
        if not any(one.role == "target" for one in given.values()):
            raise ConfigError(
                "data.behaviours: expected at least one with role = 'target', whose events are the "
                f"positives, received {sorted(given) or 'none'}; add [data.behaviours.NAME] for "
                "values of the column data.interactions.event"
            )
        return dict(given)
    known = {CHOSEN: Behaviour(role="target")}
    if has_rating:
        known = {LIKED: Behaviour(role="target"), DISLIKED: Behaviour()}
    unknown = sorted(set(given) - set(known))
    if unknown or (given and not has_rating):
        raise ConfigError(
            f"data.behaviours: received {sorted(given)}, but no column tells them apart; name it "
            "in data.interactions.event, or use ratings, whose behaviours are called "
            f"{LIKED!r} and {DISLIKED!r}"
        )
    found = known | dict(given)
    if has_rating and (found[LIKED].role, found[DISLIKED].role == "target") != ("target", False):
        raise ConfigError(
            f"data.behaviours: expected {LIKED!r} as a target and {DISLIKED!r} as none, received "
            f"the roles {found[LIKED].role!r} and {found[DISLIKED].role!r}; where all ratings are "
            "positives, leave out data.interactions.rating"
        )
    return found


def check_columns(
    event: str | None, behaviour: str | None, rating: str | None, positive_rating: float | None
) -> None:
    """Refuse columns of interactions that do not go together.

    Raises:
        ConfigError: with the remedy.
    """
    if event is not None and behaviour is not None:
        raise ConfigError(
            "data.interactions: expected event (a column) or behaviour (of all rows), received "
            "both; leave out one of them"
        )
    if (rating is None) != (positive_rating is None):
        raise ConfigError(
            "data.interactions: rating and positive_rating belong together, but only one is "
            "given; give both or neither"
        )


def check_constant(named: set[str], known: Behaviours) -> None:
    """Refuse tables all of whose rows are of a behaviour that there is not.

    Raises:
        ConfigError: with the names.
    """
    unknown = sorted(named - set(known))
    if unknown:
        raise ConfigError(
            f"data: behaviour: expected names among {list(known)}, received {unknown}; correct "
            "them, or add data.behaviours"
        )


def check_test(test: str | None, *, has_event: bool) -> None:
    """Refuse a column of events in the test table alone.

    Raises:
        ConfigError: there is one.
    """
    if test is not None and not has_event:
        raise ConfigError(
            f"split.test.event: received {test!r}, but data.interactions has no column of events; "
            "name it in data.interactions.event"
        )


def check_histories(schema: Schema, behaviours: Behaviours) -> None:
    """Refuse histories of behaviours that there are not.

    Raises:
        ConfigError: with the names.
    """
    for history in schema.histories:
        unknown = sorted(set(history.behaviours or ()) - set(behaviours))
        if unknown:
            raise ConfigError(
                f"user.features: history {history.name!r}: expected behaviours among "
                f"{list(behaviours)}, received {unknown}; correct them, or add data.behaviours"
            )


def with_role(behaviours: Behaviours, role: str) -> NDArray[np.bool_]:
    """Which codes have a role, [n_behaviours]."""
    return np.array([one.role == role for one in behaviours.values()], dtype=np.bool_)


def weights_of(behaviours: Behaviours) -> NDArray[np.float32]:
    """The factor of each code, [n_behaviours]."""
    return np.array([one.weight for one in behaviours.values()], dtype=np.float32)


def count_as_seen(behaviours: Behaviours) -> NDArray[np.bool_]:
    """Which codes count as seen, [n_behaviours]."""
    return np.array([one.seen for one in behaviours.values()], dtype=np.bool_)
