"""Items of few interactions go back to where the start has them, whatever training has turned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.training.embed import embed
from pipelines.training.fit import START, Fit
from pipelines.training.place_rare import FEW, place_rare
from tests.pipelines.training.starts import untrained


def test_the_vectors_of_rare_items_are_those_of_the_start_in_the_coordinates_of_the_model(
    popular_job: Fit, tmp_path: Path
) -> None:
    dataset = popular_job.dataset
    fitted = untrained(dataset, popular_job.config, tmp_path)
    table, rng = fitted.model.features, np.random.default_rng(4)
    start = embed(fitted.model, dataset)["item"]
    tf.train.Checkpoint(model=fitted.model).write(str(tmp_path / START))
    k = table.v.shape[1]
    turn = np.linalg.qr(rng.standard_normal((k, k)))[0].astype(np.float32)
    table.v.assign(table.v @ turn)
    counts, rows = dataset.interactions.item_counts, dataset.id_rows("item")
    is_rare = (counts > 0) & (counts <= FEW)
    spoilt = np.flatnonzero(is_rare)
    assert 0 < len(spoilt) < len(counts)
    noise: NDArray[np.float32] = rng.normal(0.0, 0.5, (len(spoilt), k)).astype(np.float32)
    table.v.scatter_add(tf.IndexedSlices(noise, rows[spoilt]))
    before = embed(fitted.model, dataset)["item"]
    place_rare(fitted, popular_job, start=tmp_path / START)
    after = embed(fitted.model, dataset)["item"]
    np.testing.assert_array_equal(after[~is_rare], before[~is_rare])
    expected = np.concatenate([start[spoilt, :1], start[spoilt, 1:] @ turn], axis=1)
    left = np.linalg.norm(after[spoilt] - expected) / np.linalg.norm(before[spoilt] - expected)
    assert left < 0.25  # users who have such items are spoilt too, and the map with them
