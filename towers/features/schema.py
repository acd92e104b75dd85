"""Schema: which columns describe a user and an item; `kinds` says how each becomes a bag."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from pydantic.dataclasses import dataclass

from towers.errors import ConfigError
from towers.features.kinds import (
    Categorical,
    Cross,
    Feature,
    Features,
    History,
    MultiValued,
    Numeric,
    Trend,
)
from towers.typed import STRICT

Side = Literal["user", "item"]
SIDES: tuple[Side, Side] = ("user", "item")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schema:
    """What the two towers read: the id column and the features of users and of items.

    The user tower reads the context of a query, too.
    """

    user_id: str
    item_id: str
    user: Features
    item: Features
    context: Features | None = None

    def __post_init__(self) -> None:
        context = () if self.context is None else self.context.features
        if len(context) > len(self.context_features) + len(self.context_crosses):
            raise ConfigError(
                "context.features: expected features of kind categorical, numeric or cross, "
                f"received {sorted({one.kind for one in context})}; a list or a history "
                "belongs to user.features"
            )
        for side in ("user", "item"):
            self._check_side(side)
        if self.histories and self.item_id_feature is None:
            raise ConfigError(
                "user.features: a history shares the vectors of the item ids, but the item ids are "
                f"not a feature; add a categorical item feature with column = {self.item_id!r}"
            )

        for history in self.histories:
            names = {feature.name for feature in self.item.features}
            unknown = sorted(set(history.item_features or ()) - names)
            if unknown:
                raise ConfigError(
                    "user.features: expected the history's item_features among the item features "
                    f"{sorted(names)}, received {unknown}; remove them, or add such item features"
                )

    @classmethod
    def of(
        cls,
        *,
        user_id: str,
        item_id: str,
        user: Features | None,
        item: Features | None,
        context: Features | None = None,
    ) -> Schema:
        """The schema; without features, users are their history and items their id."""
        return cls(
            user_id=user_id,
            item_id=item_id,
            user=user or Features(features=(History(),)),
            item=item or Features(features=(Categorical(column=item_id),)),
            context=context,
        )

    def features(self, side: Side) -> tuple[Feature, ...]:
        """The features of `side`, in the order in which the schema lists them."""
        return (self.user if side == "user" else self.item).features

    def tower_features(self, side: Side) -> tuple[Feature, ...]:
        """What the tower of `side` reads: for users, the context of a query too."""
        context = (*self.context_features, *self.context_crosses)
        return self.features(side) + (context if side == "user" else ())

    @property
    def context_crosses(self) -> tuple[Cross, ...]:
        """What features of the moment say together."""
        given = () if self.context is None else self.context.features
        return tuple(one for one in given if isinstance(one, Cross))

    @property
    def context_features(self) -> tuple[Categorical | Numeric, ...]:
        """The features of the moment at which a user asks, that are columns of it."""
        given = () if self.context is None else self.context.features
        return tuple(one for one in given if isinstance(one, Categorical | Numeric))

    def input_names(self, side: Side) -> list[str]:
        """The names of the inputs of `side`, weights included."""
        return [name for name, _ in self._inputs(side)]

    def columns(self, side: Side) -> dict[str, str]:
        """The column of each input of `side` in its table; histories and context have none."""
        others = {one.name for one in (*self.histories, *self.context_features) if side == "user"}
        return {name: column for name, column in self._inputs(side) if name not in others}

    def id_column(self, side: Side) -> str:
        """The column that holds the ids of `side`."""
        return self.user_id if side == "user" else self.item_id

    def id_input(self, side: Side) -> str | None:
        """The input that takes the ids of `side`; None if they are no feature."""
        for feature in self.features(side):
            if isinstance(feature, Categorical) and feature.column == self.id_column(side):
                return feature.name
        return None

    @property
    def has_newcomers(self) -> bool:
        """Whether users without a history are told from others: by features, but by no id."""
        is_described = len(self.features("user")) > len(self.histories)
        return bool(self.histories) and is_described and self.id_input("user") is None

    @property
    def history(self) -> History | None:
        """The history of the positives, if users have one."""
        return next((one for one in self.histories if one.behaviours is None), None)

    @property
    def histories(self) -> tuple[History, ...]:
        """All histories of users."""
        return tuple(one for one in self.user.features if isinstance(one, History))

    @property
    def trend(self) -> Trend | None:
        """The trend, if items have one."""
        found = [f for f in self.item.features if isinstance(f, Trend)]
        return found[0] if found else None

    @property
    def item_id_feature(self) -> Categorical | None:
        """The vocabulary feature of the item ids, if items have one; history shares its rows."""
        for feature in self.item.features:
            if (
                isinstance(feature, Categorical)
                and feature.column == self.item_id
                and feature.hash_buckets is None
            ):
                return feature
        return None

    def fingerprint(self) -> str:
        """A digest (hex, 16 characters) that changes when the meaning of any column does."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _inputs(self, side: Side) -> list[tuple[str, str]]:
        """Each input's name and column: those of the features, then those of weights."""
        features = self.tower_features(side)
        weights = [
            (feature.weights_name, feature.weights)
            for feature in features
            if isinstance(feature, MultiValued) and feature.weights
        ]
        own = [(f.name, f.column) for f in features if not isinstance(f, Cross)]
        return own + weights

    def crossed(self, cross: Cross, *, side: Side) -> list[Categorical]:
        """The features of a side, or of the context, that a feature of it crosses, in its order.

        Raises:
            ConfigError: a column is no categorical feature's of that side, or of the context.
        """
        of_moment = cross in self.context_crosses
        features = self.context_features if of_moment else self.features(side)
        found = {f.column: f for f in features if isinstance(f, Categorical)}
        if of_moment and not set(cross.columns) <= set(found):
            raise ConfigError(
                f"context.features: {cross.name!r}: expected columns of categorical features of "
                f"the context {sorted(found)}, received {list(cross.columns)}; a user or an item "
                "meets the moment in the model as it is, without a cross"
            )
        other: Side = "item" if side == "user" else "user"
        for column in cross.columns:
            if column in found:
                continue
            if column in self.columns(other).values():
                raise ConfigError(
                    f"{side}.features: {cross.name!r}: a column of the {side}s cannot be crossed "
                    f"with {column!r} of the {other}s: the towers keep users and items apart, so "
                    "that items are indexed once for all users; leave this cross to the model that "
                    "ranks the candidates"
                )
            raise ConfigError(
                f"{side}.features: {cross.name!r}: expected columns of categorical features of the "
                f"{side}s {sorted(found)}, received {column!r}; add it as such a feature, or "
                "remove it from the cross"
            )
        return [found[column] for column in cross.columns]

    def _check_side(self, side: Side) -> None:
        features = self.features(side)
        crosses = [f for f in self.tower_features(side) if isinstance(f, Cross)]
        names = self.input_names(side) + [cross.name for cross in crosses]
        columns = list(self.columns(side).values())
        for what, given in (("name", names), ("column", columns)):
            repeated = sorted({one for one in given if given.count(one) > 1})
            if repeated:
                raise ConfigError(
                    f"{side}.features: expected each {what} once, received {repeated} more than "
                    "once; remove the repetition, or give a feature a name of its own (a history: "
                    "another `column`)"
                )
        if not features:
            raise ConfigError(f"{side}.features: expected at least one feature, received none")
        self._check_counts(features, side=side)
        for cross in crosses:
            if len(set(cross.columns)) < len(cross.columns):
                raise ConfigError(
                    f"{side}.features: {cross.name!r}: expected each column once, received "
                    f"{list(cross.columns)}"
                )
            self.crossed(cross, side=side)
        histories = [f for f in features if isinstance(f, History)]
        if side == "item" and histories:
            raise ConfigError("item.features: a history belongs to users; move it to user.features")
        if sum(one.behaviours is None for one in histories) > 1:
            raise ConfigError(
                "user.features: expected at most one history of the positives, received several; "
                "name the behaviours of the others"
            )
        trends = [f for f in features if isinstance(f, Trend)]
        if side == "user" and trends:
            raise ConfigError("user.features: a trend belongs to items; move it to item.features")
        if len(trends) > 1:
            raise ConfigError("item.features: expected at most one trend, received several")
        if len(trends) == len(features):
            raise ConfigError(
                "item.features: expected other features than a trend, which has no vector; add the "
                "item ids, for example"
            )

    def _check_counts(self, features: Sequence[Feature], *, side: Side) -> None:
        """Refuse a `min_count` of 0 but for the item ids."""
        for one in features:
            if isinstance(one, Categorical) and not one.min_count and one != self.item_id_feature:
                raise ConfigError(
                    f"{side}.features: {one.name!r}: expected min_count = 1 or more, received 0, "
                    "which only the item ids take"
                )


def space_of(feature: Feature, *, side: Side, schema: Schema) -> str:
    """Name the token space whose rows a feature reads; a history may read the item ids' space."""
    if not isinstance(feature, History) or feature.vectors == "own":
        return f"{side}.{feature.name}"
    if schema.item_id_feature is None:
        raise ConfigError("item.features: expected the item ids as a feature, received none")
    return f"item.{schema.item_id_feature.name}"
