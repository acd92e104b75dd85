"""The promotion gate: whether a version may take the place of the one that is current.

A version becomes current only if it is not worse than the current one on the same held-out
interactions, which neither was trained on:

- what is held out of the new tables. Both rank the items of these for their users, by the histories
  that these tell of.
- what was held out from the current version, as far as it still is. Both rank the items of the
  current version for its users, by the vectors that they are published with. So tables in which
  interactions are mixed up do not pass because they are measured by themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import all_blocks, ids_of
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import Scorer, user_figures, user_metric
from pipelines.evaluation.left_out import LeftOut
from pipelines.evaluation.published import config_of, published_scorer
from pipelines.evaluation.race import standard_error
from pipelines.results import Promotion, Rule
from pipelines.training.embed import embed, match_scorer
from pipelines.training.parent import Parent, model_of, read_parent
from serving.search.index import Pairs
from serving.version.bundle import Bundle
from serving.version.embeddings import Embeddings
from serving.version.store import Store
from towers.errors import RecallError
from towers.features.schema import SIDES, Side

ERRORS = 2.0
"""The margin in standard errors of the difference between the two versions, by default."""
FEWEST_USERS = 2
"""The users from which on there is such an error."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """What versions are compared by."""

    dataset: Dataset
    """What the new version was trained on."""
    test: sparse.csr_array
    """The test positives, [n_users, n_items]."""
    left_out: LeftOut
    """What is not recommended."""


class Gate:
    """Compares new versions with the one that is current."""

    def __init__(
        self, config: RunConfig, prepared: Prepared, *, store: Store, rule: Rule = "not-worse"
    ) -> None:
        """Take the settings and the tables of a run, and the store that it publishes to."""
        self._config, self._prepared, self._store, self._rule = config, prepared, store, rule

    def judge(self, scorer: Scorer, held_out: HeldOut, *, own: Sequence[int]) -> Promotion:
        """Say whether a version that scores by `scorer` may become current, and why.

        Args:
            scorer: of the new version, by the rows of the run's tables.
            held_out: what the two are compared by.
            own: the versions that the run itself has published, which validation has compared.
        """
        current = self._store.current()
        verdict = Promotion(promoted=True, compared_with=current, metric=self._metric, why="")
        if current is None:
            return verdict | {"why": "no version was current"}
        if current in own:
            return verdict | {"compared_with": None, "why": "it validates best of this run"}
        if self._rule == "always":
            return verdict | {"compared_with": None, "why": "as --promote always says"}
        try:
            return verdict | self._compare(scorer, held_out, current=current)
        except RecallError as error:
            why = f"it cannot be compared with version {current}: {error}"
            return verdict | {"promoted": False, "why": why}

    @property
    def _metric(self) -> str:
        """The metric of the run where it is a mean over users, else recall at its cut-off."""
        return user_metric(self._config.evaluation.metric)

    def _compare(self, scorer: Scorer, held_out: HeldOut, *, current: int) -> Promotion:
        """Rank by both versions.

        Raises:
            RecallError: the current version cannot be read, or its features are not in the tables.
        """
        bundle = self._store.open(current, verify=False)
        config = config_of(bundle.manifest)
        config = dataclasses.replace(config, model=model_of(bundle.manifest))
        parent = read_parent(self._store, current, config=config, as_served=True)
        verdicts = []
        now = self._without_known(held_out.test, parent)
        if np.count_nonzero(np.diff(now.indptr)) >= FEWEST_USERS:
            other = self._scorer(bundle, parent, config, held_out.dataset)
            by = "of what is held out now"
            verdicts.append(self._measure(scorer, other, now, left_out=held_out.left_out, by=by))
        before = self._held_out_before(bundle, parent, held_out)
        users = np.flatnonzero(np.diff(before.indptr))
        if len(users) >= FEWEST_USERS:
            by = f"of what was held out from version {current}"
            new, old = self._as_published(scorer, bundle, parent)
            known = LeftOut(self._known_to_either(users, parent, held_out))
            verdicts.append(self._measure(new, old, before, left_out=known, by=by))
        if not verdicts:
            why = f"nothing is held out that neither it nor version {current} was trained on"
            return Promotion(promoted=False, why=why)
        decisive = next((one for one in verdicts if not one["promoted"]), verdicts[0])
        return decisive | {"why": "; ".join(one["why"] for one in verdicts)}

    def _measure(
        self, new: Scorer, old: Scorer, test: sparse.csr_array, *, left_out: LeftOut, by: str
    ) -> Promotion:
        """Compare two scorers by the test positives [n_users, n_items]."""
        first, second = (
            user_figures(each, test=test, left_out=left_out, metric=self._metric)
            for each in (new, old)
        )
        margin = self._margin(first - second, current=float(second.mean()))
        return Promotion(
            users=len(first),
            new=float(first.mean()),
            current=float(second.mean()),
            margin=margin,
            promoted=bool((first - second).mean() >= -margin),
            why=(
                f"{by}, it finds {self._metric} {first.mean():.4f} and the current version "
                f"{second.mean():.4f} for {len(first):,} users, with a margin of {margin:.4f}"
            ),
        )

    def _margin(self, difference: NDArray[np.float64], *, current: float) -> float:
        """How much worse is not worse."""
        share = self._config.evaluation.promotion_margin
        if share != "noise":
            return share * current
        return ERRORS * standard_error(difference)

    @cached_property
    def _ids(self) -> dict[Side, pd.Index]:
        """The ids of users and items by the rows of the new tables."""
        tables = self._prepared.tables
        return {side: pd.Index(ids_of(tables[side], tables[side].columns[0])) for side in SIDES}

    def _without_known(self, test: sparse.csr_array, parent: Parent) -> sparse.csr_array:
        """The test positives that the current version was not trained on."""
        return _without(test, parent.trained_on.pairs_among(self._ids))

    def _held_out_before(
        self, bundle: Bundle, parent: Parent, held_out: HeldOut
    ) -> sparse.csr_array:
        """What was held out from the current version, and the new one was not trained on either."""
        shape = held_out.test.shape
        if not bundle.held_out.exists():
            return sparse.csr_array(shape, dtype=np.int64)
        kept = dataclasses.replace(parent.trained_on, path=bundle.held_out)
        test = _matrix(kept.pairs_among(self._ids), shape=shape)
        blocks = all_blocks(held_out.dataset.interactions)
        trained = (
            (block.users[place], items.astype(np.int64))
            for block in blocks
            for place, items in [block.matrix.tocoo().coords]
        )
        return _without(test, trained)

    def _known_to_either(
        self, users: NDArray[np.int64], parent: Parent, held_out: HeldOut
    ) -> sparse.csr_array:
        """What either version was trained on of some users, [n_users, n_items]."""
        interactions = held_out.dataset.interactions
        is_asked = np.zeros(interactions.shape[0], dtype=np.bool_)
        is_asked[users] = True
        trained = (
            (rows[is_asked[rows]], items[is_asked[rows]])
            for rows, items in parent.trained_on.pairs_among(self._ids)
        )
        known = _matrix(trained, shape=interactions.shape)
        return sparse.csr_array(known + abs(interactions.of(users)))

    def _as_published(
        self, scorer: Scorer, bundle: Bundle, parent: Parent
    ) -> tuple[Scorer, Scorer]:
        """Score by the new version, and by the vectors that the current one was published with.

        Neither ranks an item that the current one does not have.
        """
        rows = {
            side: pd.Index(parent.trained_on.ids[side]).get_indexer(self._ids[side])
            for side in SIDES
        }
        paths: dict[Side, Path] = {"user": bundle.users, "item": bundle.items}
        vectors = {side: Embeddings.read(path).vectors for side, path in paths.items()}
        missing = rows["item"] < 0
        return (
            lambda users: np.where(missing, np.float32(-np.inf), scorer(users)),
            published_scorer(vectors, rows),
        )

    def _scorer(
        self, bundle: Bundle, parent: Parent, config: RunConfig, dataset: Dataset
    ) -> Scorer:
        """Score by the current version, which is told of the new tables and histories.

        Items keep the trend that they were published with.
        """
        schema = config.schema
        tables = {}
        for side in SIDES:
            table = self._prepared.tables[side]
            table = table.rename(columns={table.columns[0]: schema.id_column(side)})
            needed = [schema.id_column(side), *schema.columns(side).values(), *table.columns]
            tables[side] = table.reindex(columns=list(dict.fromkeys(needed)))
        if schema.trend is not None:
            items = Embeddings.read(bundle.items)
            values = items.column(schema.trend.column).to_numpy(zero_copy_only=False)
            trend = pd.Series(values, index=items.ids.values.to_pylist())
            tables["item"][schema.trend.column] = trend.reindex(self._ids["item"]).to_numpy()
        grown = assemble_dataset(
            schema,
            users=tables["user"],
            items=tables["item"],
            interactions=dataset.interactions,
            earlier=parent.vocabulary,
        )
        return match_scorer(embed(parent.model(grown.vocabulary), grown))


def _matrix(pairs: Iterable[Pairs], *, shape: tuple[int, int]) -> sparse.csr_array:
    """1 (int64) where a pair is, [n_users, n_items]."""
    found = [np.stack(pair) for pair in pairs]
    users, items = np.concatenate([np.empty((2, 0), np.int64), *found], axis=1)
    return sparse.csr_array((np.ones(len(users), np.int64), (users, items)), shape=shape)


def _without(test: sparse.csr_array, pairs: Iterable[Pairs]) -> sparse.csr_array:
    """The test positives that are not among some pairs, [n_users, n_items]."""
    rows, columns = (part.astype(np.int64) for part in test.tocoo().coords)
    keys, kept = rows * test.shape[1] + columns, np.ones(len(rows), dtype=np.bool_)
    for users, items in pairs:
        kept &= ~np.isin(keys, users * test.shape[1] + items)
    return _matrix([(rows[kept], columns[kept])], shape=test.shape)
