"""Shared rows: the users of a table and the items of some versions, numbered once for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.columns.ids import IdKind
from pipelines.evaluation.evaluate import Scorer
from pipelines.evaluation.published import published_scorer
from pipelines.versions.dates import read_dates
from serving.retrieval.retriever import Retriever
from towers.errors import ConfigError
from towers.features.schema import SIDES, Side

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedRows:
    """The pairs of a table by rows that do not depend on the version."""

    retrievers: Sequence[Retriever]
    users: Rows
    """The row of each pair's user, in order of first occurrence in the table."""
    items: Rows
    """The row of each pair's item, the first version's items first; -1 where no version has it."""
    rows: Sequence[dict[Side, Rows]]
    """By version, its own row of each user and of each item; -1 where it has none."""

    @classmethod
    def of(cls, retrievers: Sequence[Retriever], pairs: pd.DataFrame) -> SharedRows:
        """Number the users of `pairs`, with `user_id` and `item_id`, and all versions' items."""
        users, user_ids = pd.factorize(pairs["user_id"])
        ids = [r.catalogue("item").published.ids.to_numpy() for r in retrievers]
        item_ids = pd.Index(ids[0])
        for others in ids[1:]:
            item_ids = item_ids.append(pd.Index(others)).drop_duplicates()
        rows: list[dict[Side, Rows]] = [
            {
                "user": r.catalogue("user").find(np.asarray(user_ids)),
                "item": r.catalogue("item").find(item_ids.to_numpy()),
            }
            for r in retrievers
        ]
        return cls(
            retrievers=retrievers,
            users=users.astype(np.int64),
            items=item_ids.get_indexer(pd.Index(pairs["item_id"])).astype(np.int64),
            rows=rows,
        )

    @property
    def n_versions(self) -> int:
        """How many versions there are."""
        return len(self.retrievers)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of users, and of items."""
        return len(self.rows[0]["user"]), len(self.rows[0]["item"])

    @property
    def n_newcomers(self) -> int:
        """How many users the first version does not have."""
        return int(np.count_nonzero(self.rows[0]["user"] < 0))

    @property
    def item_counts(self) -> Rows:
        """The positives of each item in the training of the first version, [n_items]."""
        counts = np.zeros(self.shape[1], dtype=np.int64)
        known = self.rows[0]["item"] >= 0
        matrix = self.retrievers[0].parts.seen.matrix
        found = np.bincount(matrix.indices, minlength=matrix.shape[1])
        counts[known] = found[self.rows[0]["item"][known]]
        return counts

    def there_from(self) -> NDArray[np.float64] | None:
        """From when on each item was there, [n_items], as the first version that has it knows.

        Minus infinity of an item of unknown date; None where no version was measured by dates.
        """
        dates = [read_dates(retriever.bundle) for retriever in self.retrievers]
        found = np.full(self.shape[1], -np.inf)
        for rows, of_version in reversed(list(zip(self.rows, dates, strict=True))):
            known = rows["item"] >= 0
            found[known] = -np.inf if of_version is None else of_version[rows["item"][known]]
        return None if all(one is None for one in dates) else found

    def trained_on(self, version: int) -> sparse.csr_array:
        """The positives of the users that a version was trained on, by its place."""
        return self._shared(self.retrievers[version].parts.seen.matrix, version)

    def seen(self, *, what: Literal["seen", "positives"]) -> sparse.csr_array:
        """What the users know from any of the versions, [n_users, n_items]."""
        found = [self.trained_on(place) for place in range(self.n_versions)]
        if what == "seen":
            judged = [retriever.parts.seen.judged for retriever in self.retrievers]
            found += [
                self._shared(matrix, place)
                for place, matrix in enumerate(judged)
                if matrix is not None
            ]
        return sparse.csr_array(sum(found[1:], start=found[0]))

    def scorer(self, version: int) -> Scorer:
        """The scores of a version; of a user whom it does not have, as if nothing were known."""
        retriever, rows = self.retrievers[version], dict(self.rows[version])
        users, items = (retriever.catalogue(side).vectors for side in ("user", "item"))
        unknown = rows["user"] < 0
        if unknown.any():
            newcomer = retriever.encode("user", retriever.tower("user").pack({}, size=1))
            rows["user"] = np.where(unknown, len(users), rows["user"])
            users = np.concatenate([users, newcomer])
        return published_scorer({"user": users, "item": items}, rows)

    def _shared(self, matrix: sparse.csr_array, version: int) -> sparse.csr_array:
        """Entries of a version's users and items by the shared rows, as int64."""
        rows = self.rows[version]
        known = np.flatnonzero(rows["user"] >= 0)
        places, columns = matrix[rows["user"][known]].tocoo().coords
        shared = np.full(matrix.shape[1], -1, dtype=np.int64)
        is_here = rows["item"] >= 0
        shared[rows["item"][is_here]] = np.flatnonzero(is_here)
        ones = np.ones(len(places), dtype=np.int64)
        return sparse.csr_array((ones, (known[places], shared[columns])), shape=self.shape)


def id_kinds(retrievers: Sequence[Retriever]) -> dict[Side, IdKind]:
    """What the ids of users and of items are, the same in all versions.

    Raises:
        ConfigError: they are integers in one version, and text in another.
    """
    found: dict[Side, IdKind] = {}
    for side in SIDES:
        kinds: dict[int, IdKind] = {
            r.version: "integer" if r.catalogue(side).id_dtype == np.int64 else "text"
            for r in retrievers
        }
        if len(set(kinds.values())) > 1:
            said = ", ".join(f"{kind} in version {version}" for version, kind in kinds.items())
            raise ConfigError(
                f"{side} ids: expected one type in both versions, received {said}; measure each "
                "version by itself"
            )
        found[side] = kinds[retrievers[0].version]
    return found
