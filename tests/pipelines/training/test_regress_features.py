"""Items are embedded as if they came later: by features that do not know them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, all_blocks, every_positive
from pipelines.data.dataset import assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.training.regress_features import embed_as_new
from tests.pipelines.training.starts import untrained

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

ITEMS = np.arange(12)


def test_an_item_as_new_is_the_same_wherever_training_put_it(
    tiny: Tiny, prepared: Prepared, tmp_path: Path
) -> None:
    config, likes = tiny.config(), every_positive(prepared.interactions("train"))
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=HeldInteractions(likes),
    )
    model = untrained(dataset, config, tmp_path).model
    as_new = embed_as_new(model, dataset, ITEMS, penalty=3.0)
    k = model.features.v.shape[1]
    moved = np.full((len(ITEMS), k), 5.0, dtype=np.float32)
    model.features.v.scatter_add(tf.IndexedSlices(moved, dataset.id_rows("item")[ITEMS]))
    before = model.features.v.numpy()
    np.testing.assert_allclose(embed_as_new(model, dataset, ITEMS, penalty=3.0), as_new, atol=1e-4)
    np.testing.assert_array_equal(model.features.v.numpy(), before)


def test_users_of_a_dataset_that_forgets_items_are_those_who_never_chose_them(
    tiny: Tiny, prepared: Prepared
) -> None:
    likes = every_positive(prepared.interactions("train"))
    dataset = assemble_dataset(
        tiny.config().schema,
        users=prepared.users,
        items=prepared.items,
        interactions=HeldInteractions(likes),
    )
    others = likes.toarray()
    others[:, ITEMS] = 0.0
    without = dataclasses.replace(dataset, interactions=HeldInteractions(sparse.csr_array(others)))
    (asked,), (wanted,) = all_blocks(dataset.interactions), all_blocks(without.interactions)
    found = dataset.forgetting(ITEMS).query_bags(asked).toarray()
    np.testing.assert_allclose(found, without.query_bags(wanted).toarray(), atol=1e-6)
    assert not np.allclose(found, dataset.query_bags(asked).toarray(), atol=1e-3)
