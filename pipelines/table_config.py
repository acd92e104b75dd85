"""The tables of a run: where they are, how they are read, and which columns say what."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic.dataclasses import dataclass

from pipelines.behaviours import Behaviour, check_columns, check_constant, resolve
from towers.errors import ConfigError
from towers.typed import STRICT

NULL_VALUES = (
    *("NULL", "Null", "null", "NA", "N/A", "n/a", "<NA>", "#N/A"),
    *("NaN", "nan", "NaT", "None", "\\N"),
)
"""The usual spellings of a missing value."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FileFormat:
    """How to read a table: Parquet and JSON lines by their suffix, anything else as CSV.

    CSV and JSON lines may be compressed.
    """

    path: str = ""
    """A file, or a folder of files of one kind, which is read whole, with the folders in it;
    relative to the configuration file. Not needed where the Python API is given a DataFrame."""
    separator: str = ","
    """What stands between CSV fields; may be longer than one character."""
    encoding: str = "utf-8"
    """The encoding of the text of CSV or JSON lines."""
    quote: str = '"'
    """What stands around CSV fields that hold the separator or a line break; "" where quotation
    marks have no meaning, as they have none with a separator of several characters."""
    escape: str = ""
    """What makes the next character of a CSV field stand for itself, such as a backslash before a
    quotation mark; "" where nothing does, and a quotation mark is written twice."""
    columns: tuple[str, ...] = ()
    """Column names of a CSV file without a header line; empty: the first line is the header."""
    lists: Literal["id", "count", "values"] | None = None
    """For a text whose lines are lists of any length, with `separator` between values: what stands
    first. `id`: the id that the list belongs to; `count`: how many values follow; `values`: nothing
    of the kind, and then as with `count` a line's number from 0 is its id. Interactions have a row
    for each value, users and items one for each line; see docs/tables.md."""
    null_values: tuple[str, ...] = NULL_VALUES
    """Texts that mean that a value is missing, in a table of any kind; besides the empty text."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InteractionsTable(FileFormat):
    """Who interacted with what."""

    user: str = "user_id"
    """The column of user ids."""
    item: str = "item_id"
    """The column of item ids."""
    timestamp: str | None = None
    """The column of times: numbers (any unit), or dates in a common form, such as
    2016-04-20T13:05:00Z, 20.04.2016 13:05, April 20, 2016, or Wed, 20 Apr 2016 13:05:00 GMT."""
    timestamp_format: str | None = None
    """How times are written, where that cannot be found out (04/05/2016): a form in the notation of
    Python's strptime, such as "%d/%m/%Y %H:%M"; or s, ms, us or ns, the unit of numbers, which then
    become seconds."""
    rating: str | None = None
    """The column of ratings; with `positive_rating`, lower ratings are not positives, but say what
    a user knows."""
    positive_rating: float | None = None
    """The lowest rating that makes an interaction a positive. With `event` or `behaviour`, rows
    that have a rating are `liked` or `disliked`, and others are what their event says."""
    event: str | None = None
    """The column that names what the user did; `data.behaviours` says what each name means."""
    behaviour: str | None = None
    """What the user did, by a name of `data.behaviours`, where it is the same in all rows."""
    weight: str | None = None
    """The column of weights of the positives in the loss; positive numbers."""

    def __post_init__(self) -> None:
        check_columns(self.event, self.behaviour, self.rating, self.positive_rating)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EntityTable(FileFormat):
    """One row a user, or one row an item, with the columns that features read."""

    id: str
    """The column of ids."""
    source: Literal["file", "interactions"] = "file"
    """Where the table is. `file`: in `path`; `interactions`: in the rows of the interactions, which
    repeat the values of a user or an item each time: see docs/tables.md."""
    take: Literal["latest", "frequent"] | None = None
    """With `source = "interactions"`, which of several values of a column a user or an item has.
    `latest`: that of its latest row with a value; `frequent`: the most frequent, of equally
    frequent ones the latest. Default: `latest` where the interactions have times."""
    keep: tuple[str, ...] = ()
    """With `source = "interactions"`, further columns of the table, which no feature reads: to be
    shown and filtered by."""
    available_from: str | None = None
    """Of items: the column of the time from which an item could be chosen, such as a date of
    release, in the unit of the interactions' times. It is no negative of what was chosen before;
    where no time is given, or its first interaction came earlier, that counts."""
    available_format: str | None = None
    """How these times are written; see `timestamp_format`."""

    def __post_init__(self) -> None:
        if self.available_format is not None and self.available_from is None:
            raise ConfigError("available_format: expected with available_from, received without")
        for key, given in (("take", self.take), ("keep", self.keep)):
            if given and self.source == "file":
                raise ConfigError(
                    f'{key}: expected with source = "interactions", received {given!r} without; '
                    "a file has one row an id"
                )
        for field in dataclasses.fields(FileFormat):
            given = getattr(self, field.name)
            if self.source == "interactions" and given != field.default:
                raise ConfigError(
                    f'{field.name}: expected none with source = "interactions", whose own settings '
                    f"count, received {given!r}; remove one of the two"
                )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Where the tables are, and what happens to rows that break their rules."""

    interactions: InteractionsTable
    """Who interacted with what."""
    more_interactions: tuple[InteractionsTable, ...] = ()
    """Further tables of interactions: views, purchases and ratings, say, in a table each. All of
    them need `event` or `behaviour`, and the same kind of ids and times; see docs/events.md."""
    users: EntityTable | None = None
    """One row a user; needed where user features read columns."""
    items: EntityTable | None = None
    """One row an item; needed where item features read columns."""
    on_bad_rows: Literal["fail", "quarantine"] = "fail"
    """`fail`: stop and show the first rows at fault; `quarantine`: set them aside and go on."""
    behaviours: dict[str, Behaviour] = dataclasses.field(default_factory=dict)
    """What the events mean, by the names in `interactions.event`; events of other names are left
    out. With ratings their names are `liked`, a target, and `disliked`."""

    def __post_init__(self) -> None:
        check_constant({one.behaviour for one in self.tables if one.behaviour}, self.kinds)
        for one in self.tables if self.more_interactions else ():
            if one.event is None and one.behaviour is None:
                raise ConfigError(
                    "data.more_interactions: expected event or behaviour in each of the tables, "
                    f"data.interactions too, received neither for {one.path!r}; say what its rows "
                    "are"
                )
        if self.users is not None and self.users.available_from is not None:
            raise ConfigError(
                "data.users.available_from: expected in data.items alone, received "
                f"{self.users.available_from!r}; remove it"
            )
        dated = self.items is not None and self.items.available_from is not None
        if dated and self.interactions.timestamp is None:
            raise ConfigError(
                "data.items.available_from: expected interactions with times to compare it with, "
                "received none; set data.interactions.timestamp, or remove it"
            )

    @property
    def tables(self) -> tuple[InteractionsTable, ...]:
        """All tables of interactions."""
        return (self.interactions, *self.more_interactions)

    @property
    def has_event(self) -> bool:
        """Whether something but ratings tells behaviours apart."""
        return any(one.event is not None or one.behaviour is not None for one in self.tables)

    @property
    def kinds(self) -> dict[str, Behaviour]:
        """All behaviours by name; the code of one is its place."""
        has_rating = any(one.rating is not None for one in self.tables)
        return resolve(self.behaviours, has_event=self.has_event, has_rating=has_rating)
