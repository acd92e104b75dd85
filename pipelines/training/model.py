"""Build a model to be trained on a dataset: its table, its initial vectors and its optimizer."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.data.blocks import all_blocks
from pipelines.data.dataset import Dataset
from pipelines.training.folds import FoldBatches
from pipelines.training.parent import Parent
from towers.layers import FIRST_ORDER, FeatureTable
from towers.optimizer import LazyAdam
from towers.start import fit_map, spectral_vectors
from towers.two_tower import TwoTower

ENOUGH = 2**26
"""Interactions that the initial vectors are computed from, at most."""

REFERENCE_DIM = 128
"""The number of dimensions that a learning rate is given for."""


def build_model(
    config: RunConfig, batches: FoldBatches, *, parent: Parent | None = None
) -> TwoTower:
    """Make a model whose learning rate falls to zero over all epochs' batches.

    It knows nothing, or what `parent` has learned; the dataset's vocabulary has then grown from the
    parent's. The optimizer starts anew either way.
    """
    training = config.training
    features = FeatureTable(
        batches.dataset.vocabulary.n_rows,
        embedding_dim=config.model.embedding_dim,
        init_scale=config.model.init_norm / math.sqrt(config.model.embedding_dim),
        seed=config.seed,
    )
    if parent is None:
        _initialize(features, batches.dataset, config=config)
    else:
        _inherit(features, batches.dataset, config=config, parent=parent)
    model = TwoTower(features, margin=training.margin, hardest=batches.hardest, l2=training.l2)
    steps = batches.n_batches * training.epochs
    # Adam moves every entry by about the rate, so a vector of k entries sqrt(k) times as far
    rate = training.learning_rate * math.sqrt(REFERENCE_DIM / config.model.embedding_dim)
    rate = keras.optimizers.schedules.CosineDecay(rate, max(steps, 1))
    optimizer = LazyAdam(rate, rates={FIRST_ORDER: training.first_order_rate})
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer)
    return model


def _initialize(features: FeatureTable, dataset: Dataset, *, config: RunConfig) -> None:
    """Set the vectors that do not start at random."""
    k = config.model.embedding_dim
    # an unknown token says nothing, until rare ones have taught its row something
    oov_rows = dataset.vocabulary.oov_rows
    _set_columns(features.v, tf.zeros([len(oov_rows), k]), rows=np.array(oov_rows, dtype=np.int64))
    if config.model.init == "spectral" and dataset.schema.history is not None:
        known = dataset.history_rows >= 0
        vectors = _start_vectors(dataset, config)[known]
        vectors *= np.float32(config.model.init_norm / math.sqrt(k))
        _set_columns(features.v, vectors, rows=dataset.history_rows[known])


def _inherit(
    features: FeatureTable, dataset: Dataset, *, config: RunConfig, parent: Parent
) -> None:
    """Take over what a parent has learned, and place the items that are new to histories.

    Where vectors start at the interactions' singular vectors, so do the new ones among the old.
    """
    parent.teach(features, dataset.vocabulary)
    rows, n_old = dataset.history_rows, parent.vocabulary.n_rows
    is_old, is_new = (rows >= 0) & (rows < n_old), rows >= n_old
    if config.model.init == "spectral" and is_old.any() and is_new.any():
        vectors = _start_vectors(dataset, config)
        learned = fit_map(vectors[is_old], parent.vectors[rows[is_old]])
        _set_columns(features.v, vectors[is_new] @ learned, rows=rows[is_new])


def _start_vectors(dataset: Dataset, config: RunConfig) -> NDArray[np.float32]:
    """The interactions' singular vectors of the items, [n_items, at most k].

    Of many interactions, those of some blocks are taken: their users are a random sample.
    """
    interactions = dataset.interactions
    total = max(int(interactions.item_counts.sum()), 1)
    n_blocks = max(1, interactions.n_blocks * ENOUGH // total)
    return spectral_vectors(
        lambda: (block.matrix for block in islice(all_blocks(interactions), n_blocks)),
        config.model.embedding_dim,
        user_counts=interactions.user_counts,
        item_counts=interactions.item_counts,
        seed=config.seed,
    )


def _set_columns(v: tf.Variable, values: tf.Tensor, *, rows: NDArray[np.int64]) -> None:
    """Set the first columns of some rows of v to `values` [n_rows, at most k]."""
    rest = tf.gather(v, rows)[:, values.shape[1] :]
    v.scatter_update(tf.IndexedSlices(tf.concat([values, rest], axis=1), rows))
