"""Feature and Schema: which columns describe a user and an item, and how each becomes a bag.

A bag is a sparse vector x of a factorization machine: rows of the feature table with their
real values x_i. What each kind does with a missing or an unknown value:

| kind | a bag of | missing (null, "", NaN) | unknown token |
|---|---|---|---|
| categorical | its token's row, x = 1 | no row | the feature's out-of-vocabulary row |
| categorical, hashed | its bucket's row, x = 1 | no row | any token has a bucket |
| cross | the row of its tokens together, x = 1 | any missing: no row | as categorical |
| multi_valued | its tokens' rows, x by `combiner` | no row | the out-of-vocabulary row, once each |
| numeric | its one row, x = the scaled value | no row: as the mean or median | inf: no row |
| numeric, bucketed | its bucket's row, x = 1 | no row | outside the range: the end bucket |
| vector | a row for each of its d numbers, x = the scaled numbers | x = 0 | inf: x = 0 |
| history | its items' bags, times c pop^-b / sqrt(n) | no row | left out, and not counted in n |
| trend | its one row, x = the number | no row: as expected | inf: no row |

An out-of-vocabulary row starts at zero, so that it says nothing until tokens rarer than `min_count`
have taught it something.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from towers.errors import ConfigError
from towers.features.number_form import NumberForm
from towers.typed import STRICT

Side = Literal["user", "item"]
SIDES: tuple[Side, Side] = ("user", "item")

POPULARITY_POWER = 0.4
"""How much less popular items say about a user, where no validation has decided it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Categorical:
    """One token from a vocabulary, or from hashed buckets."""

    column: str
    kind: Literal["categorical"] = "categorical"
    name: str = ""
    """The input's name, where it is not the column's: letters, digits and _."""
    min_count: NonNegativeInt = 1
    """A token seen fewer times shares the out-of-vocabulary row. With 0, which only the item ids
    take, items of the table that nobody has chosen are told apart from items that come later."""
    hash_buckets: PositiveInt | None = None
    """Hash tokens into this many rows instead of learning a vocabulary."""

    def __post_init__(self) -> None:
        _fill(self, name=self.column)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cross:
    """The tokens of several categorical features of one side, taken together as one token.

    So what holds for the combination is learned, as for a city and a device. It has no input of its
    own. Features of a user and of an item cannot be crossed: the towers keep them apart, so that
    items are indexed once for all users.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=2)]
    """The columns of the categorical features that are crossed, of the same side."""
    name: str
    """What the feature is called in explanations."""
    kind: Literal["cross"] = "cross"
    min_count: PositiveInt = 1
    """A combination seen fewer times shares the out-of-vocabulary row."""
    hash_buckets: PositiveInt | None = None
    """Hash combinations into this many rows instead of learning a vocabulary."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultiValued:
    """A list of tokens, each with an optional weight."""

    column: str
    kind: Literal["multi_valued"] = "multi_valued"
    name: str = ""
    """The input's name, where it is not the column's: letters, digits and _."""
    separator: str = "|"
    """What stands between tokens where the column holds text rather than lists."""
    weights: str | None = None
    """The column of the tokens' weights; a weight that is missing or not finite counts as 1."""
    weights_name: str = ""
    """The name of the weights' input, where it is not the column's."""
    combiner: Literal["sum", "mean", "sqrtn"] = "sqrtn"
    """x_i = w_i, w_i / sum_j |w_j|, or w_i / sqrt(sum_j w_j^2)."""
    min_count: PositiveInt = 1
    """A token seen fewer times shares the out-of-vocabulary row."""
    hash_buckets: PositiveInt | None = None
    """Hash tokens into this many rows instead of learning a vocabulary."""

    def __post_init__(self) -> None:
        _fill(self, name=self.column, weights_name=self.weights or "")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Numeric:
    """A number, as a real-valued x or as a quantile bucket."""

    column: str
    kind: Literal["numeric"] = "numeric"
    name: str = ""
    """The input's name, where it is not the column's: letters, digits and _."""
    scale: Literal["robust", "standard", "none"] = "robust"
    """`robust`: x = (value - median) / (interquartile range / 1.349), cut off at `clip`;
    `standard`: x = (value - mean) / standard deviation; `none`: x = value. Only `robust` is
    bounded: elsewhere one value far out makes a long vector, which then leads every ranking."""
    clip: PositiveFloat = 3.0
    """With `robust`, x lies between -clip and clip."""
    buckets: Annotated[int, Field(ge=2)] | None = None
    """Cut the training values into this many quantile buckets, each a row with x = 1."""
    pattern: str | None = None
    """A regular expression for texts that are no plain numbers, such as `"([0-9.]+) ?lbs"`: the
    whole text matches it, and its groups are numbers; see docs/values.md."""
    factors: tuple[float, ...] = ()
    """What each group of `pattern` counts: with `"([0-9]+)' ?([0-9]+)\""` and [12, 1], 5' 8" is 68.
    Default: 1 each."""

    def __post_init__(self) -> None:
        _fill(self, name=self.column)
        if self.factors and self.pattern is None:
            raise ConfigError(f"{self.name}: factors: expected with a pattern, received without")
        if self.form is not None:
            _ = self.form.compiled

    @property
    def form(self) -> NumberForm | None:
        """How numbers are written, where not as plain numbers."""
        return None if self.pattern is None else NumberForm(self.pattern, self.factors)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Vector:
    """A list of d numbers, such as the embedding of a text or an image, as d real-valued x."""

    column: str
    kind: Literal["vector"] = "vector"
    name: str = ""
    """The input's name, where it is not the column's: letters, digits and _."""
    length: PositiveInt | None = None
    """d; a list of another length is a row at fault. Default: the length of most of the lists."""
    scale: Literal["unit", "standard", "none"] = "unit"
    """`unit`: x = the vector divided by its length, which bounds it; `standard`: each number less
    its mean, divided by its standard deviation and by sqrt(d); `none`: x = the numbers. Only
    `unit` is bounded: elsewhere one vector far out leads every ranking."""

    def __post_init__(self) -> None:
        _fill(self, name=self.column)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class History:
    """The items of a user's past, as a bag that shares the vectors of their ids and features."""

    kind: Literal["history"] = "history"
    column: str = "history"
    """The input's name; filled from the interactions in training, by the caller in serving.

    Where the users' table has a column of that name, records and tables of users mean the column:
    give the history another name to pass it there."""
    latest: PositiveInt = 500
    """Only the latest this many items count."""
    half_life: PositiveFloat | None = None
    """h in x_j = c 2^(-j/h), where j items came later and c makes the squares add up to 1: an item
    counts half as much as one that came h items later. Default: all count the same, 1/sqrt(n)."""
    popularity_power: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    """b in x_i = c pop_i^-b / sqrt(n): popular items say less about a user. Default: chosen on
    validation with the initial vectors, before anything is trained; 0.4 where nothing decides."""
    scale: PositiveFloat | None = None
    """The root mean square of c pop_i^-b. Default: how many features an item has, so that the
    second-order terms within items, which are the same for all users, do not cover those between
    users and items."""
    item_features: tuple[str, ...] | None = None
    """The names of the item features that each past item brings beside its id; default: all. So an
    item without interactions is found by those who like its kind, and counts once chosen."""
    behaviours: tuple[str, ...] | None = None
    """The names of the behaviours (`data.behaviours`) whose items it has; default: the positives.
    One history may be of the positives, and others of behaviours."""
    vectors: Literal["shared", "own"] = "shared"
    """`shared`: past items bring the vectors of their ids and features; `own`: a vector of their id
    for this history alone, which starts at the item's, so that what is looked at may say something
    else than what is bought."""

    @property
    def name(self) -> str:
        """The input's name; there is no column of another."""
        return self.column

    @property
    def power(self) -> float:
        """`popularity_power`, or its default where nothing has decided."""
        return POPULARITY_POWER if self.popularity_power is None else self.popularity_power


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Trend:
    """How much more often an item was chosen of late than its popularity lets expect.

    x = log((n + 1) / (m + 1)), where the item has n of the N choices of a window up to now, and m
    is N times its share of all choices. It has a first-order weight alone, so that it moves the
    item's bias and no vector. Training does not see it: window and weight are chosen on what was
    held out by time. `fm-recall refresh` counts it again, without training.
    """

    kind: Literal["trend"] = "trend"
    column: str = "trend"
    """The input's name, and the column that items get in what is published."""

    @property
    def name(self) -> str:
        """The input's name; there is no column of another."""
        return self.column


def _fill(feature: object, **defaults: str) -> None:
    """Set the fields of a new, frozen feature that are empty."""
    for field, value in defaults.items():
        object.__setattr__(feature, field, getattr(feature, field) or value)


Feature = Annotated[
    Categorical | Cross | MultiValued | Numeric | Vector | History | Trend,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Features:
    """The features of one side."""

    features: tuple[Feature, ...]


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
