"""The kinds of features, each a column and how it becomes a bag.

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

A user of whom nothing is known has one feature, that of the default user, x = 1. Nothing is known
where there is no row but out-of-vocabulary ones, no number of a vector, and no item in a history;
the context of a query says nothing of its user. Where users have histories and other features,
but no id, one of whom something is known, but no item in a history, has that of newcomers, x = 1.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from towers.errors import ConfigError
from towers.features.number_form import NumberForm
from towers.typed import STRICT

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
    is N times its share of all choices; 0 for an item that was chosen fewer than five times. It has
    a first-order weight alone, so that it moves the item's bias and no vector. Training does not
    see it: window and weight are chosen on what was held out by time. `fm-recall refresh` counts it
    again, without training.
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
