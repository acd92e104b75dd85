"""Build a model to be trained on a dataset: its table, its initial vectors and its optimizer."""

from __future__ import annotations

import math

import numpy as np
import tf_keras as keras
from numpy.typing import NDArray

from pipelines.behaviours import with_role
from pipelines.config import RunConfig
from pipelines.data.dataset import Dataset
from pipelines.progress import Reporter
from pipelines.training.folds import FoldBatches
from pipelines.training.initialize import (
    history_scale,
    initialize,
    interaction_of,
    is_placed,
    new_table,
    set_columns,
    start_vectors,
)
from pipelines.training.parent import Parent
from towers.layers import FIRST_ORDER, FeatureTable
from towers.optimizer import LazyAdam
from towers.start import fit_map
from towers.two_tower import TwoTower

REFERENCE_DIM = 128
"""The embedding dimension for which the configured learning rate is meant."""
STEPS_TOGETHER = 8
"""How many steps are run between two returns to Keras' loop, which reads all metrics each time."""


def build_model(
    config: RunConfig,
    batches: FoldBatches,
    *,
    parent: Parent | None = None,
    spectral: NDArray[np.float32] | None = None,
    reporter: Reporter | None = None,
    is_restored: bool = False,
) -> TwoTower:
    """Make a model whose learning rate falls to zero over all epochs' batches.

    Its parameters start at initial values or, with a `parent`, at what the parent has learned; the
    dataset's vocabulary then extends the parent's. The optimizer has no state in either case.
    `spectral` is what `start_vectors` found, where it is known already; `reporter` is told of what
    is solved. A model that is restored from a checkpoint next needs no initial values.
    """
    training = config.training
    interaction = interaction_of(config, batches.dataset.vocabulary)
    features = new_table(batches.dataset, config, interaction=interaction)
    if is_restored:
        pass
    elif parent is None:
        initialize(features, batches.dataset, config=config, spectral=spectral, reporter=reporter)
    else:
        _inherit(features, batches.dataset, config=config, parent=parent)
    has_explicit = with_role(config.data.kinds, "negative").any()
    workers = batches.workers if batches.workers.count > 1 else None
    model = TwoTower(
        features,
        margin=training.margin,
        hardest=batches.hardest,
        l2=training.l2,
        explicit_share=training.negatives.explicit_share if has_explicit else 0.0,
        exchange=workers,
    )
    steps = batches.n_batches * training.epochs
    # Adam moves each entry by about the rate, and so a vector of k entries by sqrt(k) times it;
    # histories of a larger scale go with shorter vectors
    rate = training.learning_rate * math.sqrt(REFERENCE_DIM / config.model.embedding_dim)
    rate /= math.sqrt(history_scale(config))
    rate = keras.optimizers.schedules.CosineDecay(rate, max(steps, 1))
    optimizer = LazyAdam(
        rate,
        rates={FIRST_ORDER: training.first_order_rate},
        add_up=workers.add_up if workers else None,
    )
    # a batch gathers each row of the table once; see `BATCH_SPEC`
    optimizer.has_repeats = workers is not None or bool(features.interaction_weights)
    optimizer.build(model.trainable_variables)
    # collectives do not run within a loop of TensorFlow's
    model.compile(optimizer=optimizer, steps_per_execution=1 if workers else STEPS_TOGETHER)
    return model


def _inherit(
    features: FeatureTable, dataset: Dataset, *, config: RunConfig, parent: Parent
) -> None:
    """Take over what a parent has learned, and place the items that are new to histories.

    Where vectors start at the interactions' singular vectors, so do the new ones among the old.
    """
    parent.teach(features, dataset.vocabulary)
    rows, n_old = dataset.history_rows, parent.vocabulary.n_rows
    is_old, is_new = (rows >= 0) & (rows < n_old), rows >= n_old
    if is_placed(config) and is_old.any() and is_new.any():
        vectors = start_vectors(dataset, config)
        learned = fit_map(vectors[is_old], parent.vectors[rows[is_old]])
        set_columns(features.v, vectors[is_new] @ learned, rows=rows[is_new])
