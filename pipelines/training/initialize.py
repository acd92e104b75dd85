"""Initialize the vectors of a model: where the interactions place items, features and users."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import all_blocks
from pipelines.data.dataset import Dataset
from pipelines.progress import Reporter
from pipelines.training.solve import solve_both, solve_for_histories
from towers.features.schema import space_of
from towers.features.vocabulary import Vocabulary, rows_of
from towers.interactions.family import make_interaction
from towers.interactions.interaction import Interaction
from towers.layers import FeatureTable
from towers.start import N_READS, fit_features, spectral_vectors

ENOUGH = 2**26
"""Interactions that the initial vectors are computed from, at most."""


START_POWER = 0.2
"""The degree power of the initial vectors where no validation has decided it."""


def is_placed(config: RunConfig) -> bool:
    """Whether items, and all that follows from them, start at vectors in closed form."""
    is_asked = config.model.init == "spectral" or config.training.solver == "als"
    return is_asked and config.schema.history is not None


def history_scale(config: RunConfig) -> float:
    """The scale of users' histories; 1 where they have none, and in versions that knew none."""
    history = config.schema.history
    return 1.0 if history is None else history.scale or 1.0


def new_table(
    dataset: Dataset, config: RunConfig, *, interaction: Interaction | None = None
) -> FeatureTable:
    """A feature table at random for a dataset's vocabulary, by default of the plain machine."""
    k = config.model.embedding_dim
    return FeatureTable(
        dataset.vocabulary.n_rows,
        embedding_dim=k,
        init_scale=_length(config) / math.sqrt(k),
        seed=config.seed,
        interaction=interaction,
    )


def interaction_of(config: RunConfig, vocabulary: Vocabulary) -> Interaction:
    """The member of the family that is configured, as it starts."""
    model = config.model
    return make_interaction(
        model.interaction,
        config.schema,
        vocabulary,
        k=model.embedding_dim,
        field_rank=model.field_rank,
        seed=config.seed,
    )


def initialize(
    features: FeatureTable,
    dataset: Dataset,
    *,
    config: RunConfig,
    spectral: NDArray[np.float32] | None = None,
    reporter: Reporter | None = None,
) -> None:
    """Set the parameters that do not start at random.

    With the spectral start, an item begins at its spectral vector times a power of its count: its
    features at what their regression says of it, which is all that an item without interactions
    has, and its id at the rest. First-order weights start where they cancel the pairs within an
    item, so that scores are those of the spectral vectors. Features of users start at the
    regression of their histories, what newcomers have at nothing, and the default user at the mean
    of all users. Where a feature has several vectors, each starts so: every member of the family
    starts as the plain machine.

    With the solver `als`, the vectors that it finds stand in place of the spectral ones. Users
    without a history and items then have the solution itself.
    """
    if features.interaction.blocks > 1:
        plain = new_table(dataset, config)
        initialize(plain, dataset, config=config, spectral=spectral, reporter=reporter)
        features.w.assign(plain.w)
        features.v.assign(tf.tile(plain.v, [1, features.interaction.blocks]))
        return
    k = config.model.embedding_dim
    # an unknown token says nothing, until rare ones have taught its row something; nor a context,
    # nor the id of an item that nobody has chosen
    silent = [*dataset.vocabulary.oov_rows, *context_rows(dataset), *dataset.unchosen[1]]
    default, newcomer = dataset.vocabulary.default_user_row, dataset.vocabulary.newcomer_row
    stand_ins = [row for row in (default, newcomer) if row is not None]
    rows = np.unique([*silent, *stand_ins]).astype(np.int64)
    set_columns(features.v, np.zeros((len(rows), k), dtype=np.float32), rows=rows)
    if dataset.past is None and config.training.solver == "als":
        start = _first_vectors(dataset, config, reporter=reporter)
        for one in solve_both(dataset, config, start=start, reporter=reporter):
            set_columns(features.v, one.vectors, rows=one.rows)
        _cancel_pairs(features, dataset)
    if dataset.past is None or not is_placed(config):
        return
    if spectral is None:
        spectral = start_vectors(dataset, config, reporter=reporter)
    vectors = _raised(spectral, dataset.interactions.item_counts, config=config)
    vectors *= np.float32(_length(config) / math.sqrt(k))
    for rows, placed in _split_items(dataset, vectors):
        set_columns(features.v, placed, rows=rows)
    known = dataset.history_rows >= 0
    for rows in own_rows(dataset):
        set_columns(features.v, vectors[known], rows=rows[known])
    _cancel_pairs(features, dataset)
    rows, placed = _place_users(dataset, features.v.numpy()[:, : vectors.shape[1]])
    set_columns(features.v, placed, rows=rows)
    if default is not None:
        set_columns(features.v, mean_user(features, dataset), rows=np.array([default]))


def mean_user(features: FeatureTable, dataset: Dataset) -> NDArray[np.float32]:
    """The vector of the mean user, [1, blocks k], to stand for those of whom nothing is known.

    It is the sum over the mean bag of the users of the training part, with their histories.
    """
    users = np.flatnonzero(dataset.interactions.user_counts)
    v, n = features.v.numpy(), max(len(users), 1)
    own, dense = dataset.user_bags[users].sum(axis=0), dataset.dense("user").take(users)
    total = own @ v + dense.x.sum(axis=0) @ v[dense.rows]
    for history in dataset.schema.histories:
        past, items = dataset.pasts[history.name], np.zeros(len(dataset.item_ids))
        for block in all_blocks(dataset.interactions):
            items += dataset.history_of(block, history).sum(axis=0)
        total += (items @ past.bags) @ v + (items @ past.dense.x) @ v[past.dense.rows]
    return np.asarray(total[np.newaxis] / n, dtype=np.float32)


def start_vectors(
    dataset: Dataset, config: RunConfig, *, reporter: Reporter | None = None
) -> NDArray[np.float32]:
    """The vectors that items start at where users have a history, [n_items, at most k].

    The singular vectors of the interactions or, with the solver `als`, what that finds. Of many
    interactions, those of some blocks are taken: their users are a random sample.
    """
    start = _first_vectors(dataset, config, reporter=reporter)
    if config.training.solver == "als":
        return solve_for_histories(dataset, config, start=start, reporter=reporter)
    return start


def _first_vectors(
    dataset: Dataset, config: RunConfig, *, reporter: Reporter | None
) -> NDArray[np.float32]:
    """What `model.init` says of the items, root mean square 1; [n_items, at most k]."""
    interactions, k = dataset.interactions, config.model.embedding_dim
    if config.model.init == "normal":
        rng = np.random.default_rng(config.seed)
        return rng.standard_normal((len(dataset.item_ids), k), dtype=np.float32)
    total = max(int(interactions.item_counts.sum()), 1)
    enough = max(1, interactions.n_blocks * ENOUGH // total)
    n_blocks = min(enough, interactions.n_blocks)
    with (reporter or Reporter()).bar("decomposition", N_READS * n_blocks) as advance:

        def read() -> Iterator[sparse.csr_array]:
            for block in islice(all_blocks(interactions), n_blocks):
                yield block.matrix
                advance(1)

        return spectral_vectors(
            read,
            k,
            user_counts=interactions.user_counts,
            item_counts=interactions.item_counts,
            seed=config.seed,
        )


def context_rows(dataset: Dataset) -> list[int]:
    """The rows of the features of the context."""
    schema, spaces = dataset.schema, dataset.vocabulary.spaces
    of_moment = (*schema.context_features, *schema.context_crosses)
    names = [space_of(one, side="user", schema=schema) for one in of_moment]
    return [int(row) for name in names for row in rows_of(spaces[name])]


def own_rows(dataset: Dataset) -> list[NDArray[np.int64]]:
    """The rows of items [n_items] in each history with vectors of its own; -1 for unknown ids."""
    found = []
    for history in dataset.schema.histories:
        if history.vectors == "own":
            space = dataset.vocabulary.tokens(space_of(history, side="user", schema=dataset.schema))
            position = pd.Index(space.tokens).get_indexer(pd.Index(dataset.item_ids))
            found.append(np.append(space.rows, -1)[position])
    return found


def _length(config: RunConfig) -> float:
    """The root mean square length of initial vectors, whatever the scale of histories."""
    return config.model.init_norm / math.sqrt(history_scale(config))


def _raised(
    vectors: NDArray[np.float32], counts: NDArray[np.int64], *, config: RunConfig
) -> NDArray[np.float32]:
    """Vectors of items [n_items, m] times c count^p, where c makes the mean square factor 1.

    The mean is over the interactions, as that of the weights of a history.
    """
    power = config.model.start_power
    factors = np.maximum(counts, 1) ** (START_POWER if power is None else power)
    mean_square = np.sum(counts * factors**2) / max(int(counts.sum()), 1)
    factors = (factors / math.sqrt(mean_square or 1.0)).astype(np.float32)
    return np.asarray(vectors * factors[:, np.newaxis])


def set_rows(table: tf.Variable, values: NDArray[Any], *, rows: NDArray[np.int64]) -> None:
    """Set some rows of w [n] or v [n, k]."""
    table.scatter_update(tf.IndexedSlices(values.astype(np.float32, copy=False), rows))


def set_columns(v: tf.Variable, vectors: NDArray[np.float32], *, rows: NDArray[np.int64]) -> None:
    """Set the first columns of some rows of v to `vectors` [n_rows, at most k]."""
    if vectors.shape[1] < v.shape[1]:
        vectors = np.concatenate(
            [vectors, tf.gather(v, rows).numpy()[:, vectors.shape[1] :]], axis=1
        )
    set_rows(v, vectors, rows=rows)


def _split_items(
    dataset: Dataset, wanted: NDArray[np.float32]
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Split what items [n_items, m] are to have in all into shares of their features and of ids.

    Returns:
        rows of the feature table [n] and their shares [n, m], of features and then of known ids.
    """
    (content, columns), vectors = dataset.content_bags("item"), dataset.dense("item")
    ids, rows = dataset.id_rows("item"), np.concatenate([columns, np.r_[vectors.rows]])
    known = np.flatnonzero((ids >= 0) & (dataset.interactions.item_counts > 0))
    if not len(rows):
        return [(ids[known], wanted[known])]
    chosen = np.flatnonzero(dataset.interactions.item_counts)
    x, dense, target = content[chosen], vectors.x[chosen], wanted[chosen]
    learned = fit_features(x, np.concatenate([x.T @ target, dense.T @ target]), dense=dense)
    said = content[known] @ learned[: len(columns)] + vectors.x[known] @ learned[len(columns) :]
    return [(rows, learned), (ids[known], wanted[known] - said)]


def _cancel_pairs(features: FeatureTable, dataset: Dataset) -> None:
    """Set the first-order weights that cancel the pairs within items."""
    for rows, placed in _split_items(dataset, -_pairs_within(dataset, features.v.numpy())):
        features.w.scatter_update(tf.IndexedSlices(placed[:, 0], rows))


def _pairs_within(dataset: Dataset, v: NDArray[np.float32]) -> NDArray[np.float32]:
    """The second-order terms within each item, [n_items, 1]; the equation is `fm.second_order`."""
    bags, dense = dataset.item_bags, dataset.dense("item")
    norms = np.sum(np.square(v), axis=1)
    squares = bags.power(2) @ norms + np.square(dense.x) @ norms[dense.rows]
    pooled = bags @ v + dense.x @ v[dense.rows]
    pairs = (np.sum(np.square(pooled), axis=1) - squares) / 2
    return np.asarray(pairs, dtype=np.float32)[:, np.newaxis]


def _place_users(
    dataset: Dataset, v: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Place the features of users where the histories of those who have them are: rows, vectors."""
    (content, columns), vectors = dataset.content_bags("user"), dataset.dense("user")
    rows = np.concatenate([columns, np.r_[vectors.rows]])
    moments = np.zeros((len(rows), v.shape[1]), dtype=np.float32)
    history, past = dataset.schema.history, dataset.past
    if len(rows) and history is not None and past is not None:
        pooled = past.bags @ v + past.dense.x @ v[past.dense.rows]
        for block in all_blocks(dataset.interactions):
            histories = dataset.history_of(block, history) @ pooled
            x, dense = content[block.users], vectors.x[block.users]
            moments += np.concatenate([x.T @ histories, dense.T @ histories])
    return rows, fit_features(content, moments, dense=vectors.x)
