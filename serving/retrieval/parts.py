"""Parts: what a version consists of; each part is read from disk when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property

from serving.retrieval.catalogue import Catalogue
from serving.retrieval.explanation.feature_names import FeatureNames
from serving.search.index import Rows
from serving.search.live_growing import LiveGrowingIndex
from serving.search.live_index import LiveIndex
from serving.search.live_shells import open_shells
from serving.search.shells import Shells
from serving.version.bundle import Bundle
from serving.version.embeddings import Embeddings
from serving.version.index_record import IndexRecord
from serving.version.manifest import MANIFEST
from serving.version.ranker import RankerRecord, RankModel
from serving.version.recent import Recent
from serving.version.saved_models.names import RANK
from serving.version.saved_models.tower import Tower
from serving.version.seen import Seen
from serving.version.tables_read import TablesRead
from serving.version.vocabulary_files import read_vocabulary
from towers.directions import DIRECTIONS, Direction
from towers.errors import QueryError, UnknownIdError
from towers.features.past_items import PastItems
from towers.features.schema import Schema, Side
from towers.features.vocabulary import Vocabulary

OpenIndex = Callable[[Bundle, Direction, Catalogue], LiveIndex]
"""Opens the index of a direction, whose targets are in the catalogue."""

SHOWN_IDS = 10
"""The most unknown ids that a message lists."""


class Parts:
    """The catalogues, towers and indexes of one version."""

    def __init__(self, bundle: Bundle, *, index: OpenIndex | None = None) -> None:
        """Read from `bundle`; `index` opens indexes that are not in it."""
        self.bundle = bundle
        self._open_other = index
        self._towers: list[Tower] = []
        self.fresh_past: dict[str, PastItems] = {}
        """What items that were put in since bring to each history, where the version was published
        by a release whose towers have to be told all of it each time."""
        self.tower = cache(self._open_tower)
        self.catalogue = cache(self._open_catalogue)
        self.index = cache(self._open_index)
        self.past = cache(self._read_past)

    @cached_property
    def users(self) -> Embeddings:
        """All users, as published."""
        return Embeddings.read(self.bundle.users)

    @cached_property
    def items(self) -> Embeddings:
        """All items, as published."""
        return Embeddings.read(self.bundle.items)

    @cached_property
    def seen(self) -> Seen:
        """The training positives."""
        shape = (len(self.users.vectors), len(self.items.vectors))
        return Seen.read(self.bundle.seen, shape=shape, judged=self.bundle.judged)

    @cached_property
    def recent(self) -> Recent:
        """How often items were chosen of late.

        Raises:
            BundleError: the version does not know.
        """
        return Recent.read(self.bundle.recent)

    @cached_property
    def ranker_record(self) -> RankerRecord | None:
        """What the version says of its ranker; None if it has none."""
        path = self.bundle.ranker
        return RankerRecord.read(path) if path.exists() else None

    @cached_property
    def ranker(self) -> RankModel:
        """What ranks the items that were found.

        Raises:
            QueryError: the version has none.
        """
        if self.ranker_record is None:
            raise QueryError(
                f"rank: version {self.bundle.version} has no ranker; run fm-recall rank, or ask "
                "without it"
            )
        return RankModel(self.bundle.model(RANK), self.ranker_record)

    @cached_property
    def schema(self) -> Schema:
        """The features that the towers read."""
        return self.bundle.manifest.schema

    @cached_property
    def tables_read(self) -> TablesRead | None:
        """Which changes had been made when the tables were read; None where that is not known."""
        return TablesRead.read(self.bundle.tables_read)

    def null_values(self, side: Side) -> frozenset[str]:
        """The texts that meant a missing value in the table of a side."""
        return self.bundle.manifest.null_values(side)

    @property
    def history(self) -> str | None:
        """The name of the feature that takes a user's positives; None if there is none."""
        return None if self.schema.history is None else self.schema.history.name

    @property
    def history_column(self) -> str | None:
        """Where records and tables of users have the positives; see `history_columns`."""
        return self.history_columns.get(self.history or "")

    @cached_property
    def history_columns(self) -> dict[str, str | None]:
        """Where records and tables of users have each history: under the name of the feature.

        None if the users' own table has a column of that name, which is then what records and
        tables mean by it.
        """
        names = [history.name for history in self.schema.histories]
        return {name: None if name in self.users.columns else name for name in names}

    @cached_property
    def seen_histories(self) -> list[str]:
        """The names of the histories whose items count as seen by the user."""
        unseen = self.bundle.manifest.unseen_behaviours
        return [
            history.name
            for history in self.schema.histories
            if not unseen & set(history.behaviours or ())
        ]

    @cached_property
    def feature_names(self) -> FeatureNames:
        """What the rows of the feature table stand for; reads the vocabulary."""
        return FeatureNames(self.vocabulary, schema=self.schema)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Which row of the feature table belongs to which token."""
        return read_vocabulary(self.bundle.vocabulary)

    def known_rows(
        self, side: Side, ids: Sequence[int | str], *, remedy: str = "ask by features instead"
    ) -> Rows:
        """The row of each id.

        Raises:
            UnknownIdError: the version does not have some of them; the message ends with `remedy`.
            QueryError: an id is not of the type of the ids.
        """
        catalogue = self.catalogue(side)
        rows = catalogue.rows(ids)
        unknown = [id for id, row in zip(ids, rows.tolist(), strict=True) if row < 0]
        if unknown:
            raise UnknownIdError(
                f"{catalogue.id_column}: version {self.bundle.version} has no {side} "
                f"{', '.join(map(repr, unknown[:SHOWN_IDS]))}; {remedy}"
            )
        return rows

    def _read_past(self, history: str) -> Seen:
        """What users have in a history of theirs, from old to new, by its name."""
        if history == self.history:
            return self.seen
        shape = (len(self.users.vectors), len(self.items.vectors))
        return Seen.read(self.bundle.history(history), shape=shape)

    def _open_catalogue(self, side: Side) -> Catalogue:
        return Catalogue(self.users if side == "user" else self.items)

    def _open_tower(self, side: Side) -> Tower:
        tower = Tower(self.bundle.model(f"{side}_tower"), schema=self.schema, side=side)
        for other in self._towers:
            tower.share(other)
        self._towers.append(tower)
        return tower

    def _open_index(self, direction: str) -> LiveIndex:
        """Load the direction's trees; where it has none, search its vectors exactly."""
        chosen = DIRECTIONS[direction]
        if self._open_other is not None:
            return self._open_other(self.bundle, chosen, self.catalogue(chosen.target))
        where = str(self.bundle.path / MANIFEST)
        record = IndexRecord.from_dict(self.bundle.manifest.index, where=where)
        vectors = (self.users if chosen.target == "user" else self.items).vectors
        settings = record.directions[direction].trees
        if not settings:
            return LiveGrowingIndex(chosen.project(vectors))
        folder = self.bundle.index(direction)
        width = chosen.project(vectors[:1]).shape[1]
        return open_shells(Shells.load(folder, settings=settings, width=width))


def find_direction(name: str) -> Direction:
    """The direction called `name`.

    Raises:
        QueryError: there is no such direction.
    """
    if name not in DIRECTIONS:
        raise QueryError(f"direction: expected one of {list(DIRECTIONS)}, received {name!r}")
    return DIRECTIONS[name]
