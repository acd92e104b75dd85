"""Fold training: the batches of one epoch.

Each epoch cuts every user's items into folds at random. A fold's items are the positives of one
query, whose history holds the user's other folds, or only those before it: a positive is never in
its own history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import TrainingConfig
from pipelines.data.blocks import all_blocks
from pipelines.data.dataset import Dataset
from pipelines.data.events import Block
from pipelines.training.deal_folds import cut_folds, deal_folds
from pipelines.training.past_events import PastEvents, expand, past_events
from pipelines.training.queries import Queries, asked_at, filled, positions_in, times_of
from pipelines.workers.workers import ALONE, Workers
from serving.search.index import Pairs, contains
from towers.features.kinds import History
from towers.features.schema import Side
from towers.negatives import MinedNegatives, SharedSampler, keep_probability

SMALLEST_EPOCH = 100
"""The least steps of an epoch that the default batch size aims at."""
BATCH_SIZES = (64, 256)
"""The smallest and the largest default batch size."""

LEAST_DRAWS = 4
"""Draws of the uniform sample that cover the items at least, so that a small corpus is sampled too
and the other sources have something to add."""

FEWEST_HARDEST = 20
HARDEST_PER_OWN = 15
"""The hardest negatives that count, by choice: so many for each of a user's own items that the
sample is expected to hold, and never fewer than so many."""

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldBatches:
    """Makes the batches of an epoch, as `towers.two_tower.BATCH_SPEC` describes them."""

    dataset: Dataset
    config: TrainingConfig
    sampler: SharedSampler
    mined: MinedNegatives | None
    keep: NDArray[np.float64]
    """The probability to keep a positive of each item, [n_items]."""
    without_ids: Mapping[Side, NDArray[np.int64]]
    """The columns of the bags of sides that have ids to drop; see `Dataset.rows_without_ids`."""
    first_times: NDArray[np.float64] | None
    """When each item could be chosen first, [n_items]; None where that does not matter."""
    seed: int
    workers: Workers = ALONE
    """Those among whom the queries of each batch are shared out."""

    @classmethod
    def build(
        cls,
        dataset: Dataset,
        config: TrainingConfig,
        *,
        mined: MinedNegatives | None,
        seed: int,
        workers: Workers = ALONE,
    ) -> FoldBatches:
        """Prepare the samplers."""
        negatives = config.negatives
        n_chosen = int(np.count_nonzero(dataset.interactions.item_counts))
        sampler = SharedSampler.build(
            dataset.interactions.item_counts,
            uniform=min(negatives.uniform, max(1, n_chosen // LEAST_DRAWS)),
            by_popularity=negatives.popularity,
            power=negatives.popularity_power,
        )
        keep = keep_probability(
            dataset.interactions.item_counts, threshold=config.positive_suppression
        )
        return cls(
            dataset=dataset,
            config=config,
            sampler=sampler,
            mined=mined,
            keep=keep,
            without_ids=_without_ids(dataset) if config.id_dropout else {},
            first_times=dataset.first_times() if _only_past(dataset, config) else None,
            seed=seed,
            workers=workers,
        )

    @property
    def n_batches(self) -> int:
        """The number of steps in an epoch."""
        interactions = self.dataset.interactions
        blocks = interactions.block_of_user
        queries = np.bincount(blocks, self._queries_of_users, minlength=interactions.n_blocks)
        return int(np.ceil(queries / self.batch_size).sum())

    @property
    def batch_size(self) -> int:
        """The number of queries in a step, of all workers together."""
        if self.config.batch_size is not None:
            return self.config.batch_size
        return int(np.clip(self._queries_of_users.sum() // SMALLEST_EPOCH, *BATCH_SIZES))

    @property
    def hardest(self) -> int:
        """The number of hardest negatives of a query that the loss counts."""
        if self.config.negatives.hardest is not None:
            return self.config.negatives.hardest
        n_users, n_items = self.dataset.interactions.shape[0], len(self.sampler.candidates)
        density = int(self.dataset.interactions.item_counts.sum()) / (n_users * n_items)
        sampled = self.sampler.uniform + self.sampler.popularity
        return max(FEWEST_HARDEST, round(HARDEST_PER_OWN * density * sampled))

    @property
    def _only_past(self) -> bool:
        return _only_past(self.dataset, self.config)

    @property
    def _queries_of_users(self) -> NDArray[np.int64]:
        """The number of folds of each user that are not empty, [n_users]."""
        return np.minimum(self.dataset.interactions.user_counts, self.config.folds)

    def epoch(self, epoch: int) -> Iterator[Arrays]:
        """Yield the batches of one epoch; the same for the same seed and epoch.

        Blocks come in random order, and the queries of each in random order. Of several workers,
        each has its share of the queries of every batch, and draws negatives of its own.
        """
        rng = np.random.default_rng((self.seed, epoch))
        index, count = self.workers.index, self.workers.count
        own = rng if count == 1 else np.random.default_rng((self.seed, epoch, index + 1))
        assign = cut_folds if self._only_past else deal_folds
        interactions = self.dataset.interactions
        for block in all_blocks(interactions, rng.permutation(interactions.n_blocks).tolist()):
            folds = assign(block.matrix, self.config.folds, rng)
            order = rng.permutation(int(self._queries_of_users[block.users].sum()))
            yield from self._batches(block, folds, order, own)

    def _batches(
        self,
        block: Block,
        folds: NDArray[np.int64],
        order: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Iterator[Arrays]:
        """Yield the batches of a block, whose entries are dealt to `folds`, by an order of queries.

        Workers without a query of a batch get its first, of no weight: all take as many steps.
        """
        sizes = self._queries_of_users[block.users]
        users = np.repeat(np.arange(len(sizes)), sizes)
        fold = np.arange(len(users)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        size, index, count = self.batch_size, self.workers.index, self.workers.count
        pasts = past_events(block, self.dataset.schema.histories)
        for start in range(0, len(order), size):
            mine = order[start : start + size][index::count]
            chosen = mine if len(mine) else order[start : start + 1]
            queries = Queries(users[chosen], fold[chosen], np.full(len(chosen), -1))
            if self.dataset.context_bags is not None:
                is_dropped = rng.random(len(chosen)) < self.config.context_dropout
                queries = queries.by_moment(block, folds, is_dropped=is_dropped)
            batch = self._batch(queries, block=block, folds=folds, pasts=pasts, rng=rng)
            if not len(mine):
                batch["positive_weight"] = np.zeros_like(batch["positive_weight"])
            yield batch

    def _batch(
        self,
        queries: Queries,
        *,
        block: Block,
        folds: NDArray[np.int64],
        pasts: Mapping[str, PastEvents],
        rng: np.random.Generator,
    ) -> Arrays:
        """Assemble the batch of some queries, whose history is without their folds."""
        places, fold = queries.places, queries.folds
        matrix, users = block.matrix, block.users[places]
        query, entry = expand(matrix, places)
        item = matrix.indices[entry].astype(np.int64)
        in_fold = folds[entry] == fold[query]
        is_positive = in_fold & queries.are_at(block.moments[entry], query)
        kept = is_positive & self._kept(item, rng)
        shared, source = self.sampler.draw(rng)
        asked = asked_at(block, query[in_fold], entry[in_fold], n_queries=len(users))
        mined = self._mined(users, shared, rng, asked=asked)
        negatives = self.config.negatives
        explicit, explicit_weight = queries.draw_turned_down(
            block, rng, count=negatives.explicit if negatives.explicit_share else 0
        )
        codes, items = pd.factorize(
            np.concatenate([shared, item[kept], mined[mined >= 0], explicit[explicit >= 0]])
        )
        n_positive = int(kept.sum())
        mined_item, rest = filled(mined, codes[len(shared) + n_positive :])
        explicit_item, _ = filled(explicit, rest)
        is_context = folds[entry] < fold[query] if self._only_past else ~in_fold
        remembers = self._remembers(len(users), rng)
        is_past = is_context & remembers[query]
        past: dict[str | None, Pairs] = {None: (query[is_past], item[is_past])}
        if pasts:
            own = query[in_fold], item[in_fold], times_of(block, entry[in_fold])
            past |= self._earlier(pasts, places, own=own, remembers=remembers)
        bags = self._bags(users, past, items, moments=queries.moments, rng=rng)
        return bags | {
            "n_queries": np.int64(len(users)),
            "item_popularity": self.dataset.interactions.item_counts[items].astype(np.float32),
            "positive_query": query[kept].astype(np.int32),
            "positive_item": codes[len(shared) :][:n_positive].astype(np.int32),
            "positive_weight": matrix.data[entry[kept]] * self._user_weights(users)[query[kept]],
            "shared_source": source,
            "mined_item": mined_item,
            "explicit_item": explicit_item,
            "explicit_weight": explicit_weight,
            "known": np.concatenate(
                [positions_in(shared, query, item), self._later(shared, asked)]
            ),
        }

    def _user_weights(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """How much the positives of some users count, n^-g each; [n_users]."""
        counts = np.maximum(self.dataset.interactions.user_counts[users], 1)
        return np.asarray(counts**-self.config.user_weight_power, dtype=np.float32)

    def _earlier(
        self,
        pasts: Mapping[str, PastEvents],
        places: NDArray[np.int64],
        *,
        own: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
        remembers: NDArray[np.bool_],
    ) -> dict[str | None, Pairs]:
        """List the queries and items of histories of behaviours, before what each query asks for.

        Args:
            pasts: what the users of the block did, by history.
            places: of the queries' users in the block [n].
            own: the queries, the items and the times of the folds [m].
            remembers: which queries have histories, [n].
        """
        query, item, times = own
        begins = np.full(len(places), np.inf)
        if self._only_past:
            np.minimum.at(begins, query, times)
        begins[~remembers] = -np.inf
        return {
            name: events.before(begins, places, positives=(query, item))
            for name, events in pasts.items()
        }

    def _kept(self, item: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw which positives are kept under popularity suppression."""
        if self.config.positive_suppression == 0.0:
            return np.ones(len(item), dtype=np.bool_)
        return rng.random(len(item)) < self.keep[item]

    def _remembers(self, n_queries: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw which queries keep their history; the others train as newcomers without one."""
        return rng.random(n_queries) >= self.config.history_dropout

    def _later(self, shared: NDArray[np.int64], asked: NDArray[np.float64]) -> NDArray[np.int32]:
        """Pair each query with the positions of shared negatives that came later; [n, 2]."""
        if self.first_times is None:
            return np.empty((0, 2), dtype=np.int32)
        later = self.first_times[shared] > asked[:, np.newaxis]
        return np.argwhere(later).astype(np.int32)

    def _mined(
        self,
        users: NDArray[np.int64],
        shared: NDArray[np.int64],
        rng: np.random.Generator,
        *,
        asked: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Draw mined negatives that were there, without those among the shared negatives."""
        count = self.config.negatives.mined
        if self.mined is None or count == 0:
            return np.full((len(users), 1), -1, dtype=np.int64)
        drawn = self.mined.draw(users, rng, count=count)
        if self.first_times is not None:
            came = np.append(self.first_times, -np.inf)[drawn]
            drawn = np.where(came > asked[:, np.newaxis], -1, drawn)
        return np.where(contains(shared, drawn), -1, drawn)

    def _bags(
        self,
        users: NDArray[np.int64],
        past: Mapping[str | None, Pairs],
        items: NDArray[np.int64],
        *,
        moments: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Arrays:
        """Build the bags of the queries and the items over the rows that the batch touches.

        `past` are queries and items of histories by name, of the positives by None.
        """
        user_at, user_row, user_x = self._take("user", users, rng)
        item_at, item_row, item_x = self._take("item", items, rng)
        if self.dataset.context_bags is not None:
            asked = np.flatnonzero(moments >= 0)
            at, entry = expand(self.dataset.context_bags, moments[asked])
            user_at = np.concatenate([user_at, asked[at]])
            user_row = np.concatenate([user_row, self.dataset.context_bags.indices[entry]])
            user_x = np.concatenate([user_x, self.dataset.context_bags.data[entry]])
        for history in self.dataset.schema.histories:
            pairs = past[None if history.behaviours is None else history.name]
            past_at, past_row, past_x = self._past(history, *pairs, len(users))
            user_at = np.concatenate([user_at, past_at])
            user_row = np.concatenate([user_row, past_row])
            user_x = np.concatenate([user_x, past_x])
        first = self.dataset.vocabulary.dense_rows("user", "item")
        codes, rows = pd.factorize(np.concatenate([first, user_row, item_row]))
        codes, n_user = codes[len(first) :], len(user_row)
        # a feature that several past items bring is one entry
        bags = sparse.coo_array((user_x, (user_at, codes[:n_user])), (len(users), len(rows)))
        bags.sum_duplicates()
        return self._dense(users, past, items) | {
            "rows": rows.astype(np.int64),
            "user_indices": np.stack(bags.coords, axis=1).astype(np.int64),
            "user_values": bags.data,
            "item_indices": np.stack([item_at, codes[n_user:]], axis=1),
            "item_values": item_x,
        }

    def _dense(
        self,
        users: NDArray[np.int64],
        past: Mapping[str | None, Pairs],
        items: NDArray[np.int64],
    ) -> Arrays:
        """Give the vectors of the queries, with those of their past items, and of the items."""
        own, of_items = self.dataset.dense("user").x[users], self.dataset.dense("item").x[items]
        brought = np.zeros((len(users), of_items.shape[1]), dtype=np.float32)
        for history in self.dataset.schema.histories:
            x = self.dataset.pasts[history.name].dense.x
            if x.size:
                query, item = past[None if history.behaviours is None else history.name]
                n = len(users)
                brought += (
                    self.dataset.history_weights(history, users=query, items=item, n_users=n) @ x
                )
        return {
            "user_dense": np.concatenate([own, brought], axis=1),
            "item_dense": of_items,
        }

    def _past(
        self,
        history: History,
        query: NDArray[np.int64],
        past: NDArray[np.int64],
        n_queries: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """List the entries that past items bring to some queries: query, column, value."""
        bags = self.dataset.pasts[history.name].bags
        counted = self.dataset.history_weights(history, users=query, items=past, n_users=n_queries)
        owners = np.repeat(np.arange(n_queries), np.diff(counted.indptr))
        place, entry = expand(bags, counted.indices.astype(np.int64))
        values = bags.data[entry] * counted.data[place]
        return owners[place], bags.indices[entry].astype(np.int64), values

    def _take(
        self, side: Side, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """List the entries of some bags, some without their id: place in `rows`, column, value."""
        bags = self.dataset.user_bags if side == "user" else self.dataset.item_bags
        place, entry = expand(bags, rows)
        column = bags.indices[entry].astype(np.int64)
        if side in self.without_ids:
            is_new = rng.random(len(rows)) < self.config.id_dropout
            column = np.where(is_new[place], self.without_ids[side][entry], column)
        return place, column, bags.data[entry]


def _without_ids(dataset: Dataset) -> dict[Side, NDArray[np.int64]]:
    """The columns of the bags of sides whose ids can be dropped."""
    bags: dict[Side, sparse.csr_array] = {"user": dataset.user_bags, "item": dataset.item_bags}
    found = {side: dataset.rows_without_ids(side) for side in bags}
    return {side: rows for side, rows in found.items() if (rows != bags[side].indices).any()}


def _only_past(dataset: Dataset, config: TrainingConfig) -> bool:
    """Whether a query's history ends where its positives begin."""
    if config.contexts is None:
        return dataset.interactions.has_times
    return config.contexts == "past"
