from __future__ import annotations

import numpy as np
import tensorflow as tf

from towers import fm
from towers.layers import FIRST_ORDER, FeatureTable, ItemTower, UserTower


def table(*, n_rows: int = 6, embedding_dim: int = 3, seed: int = 1) -> FeatureTable:
    return FeatureTable(n_rows, embedding_dim=embedding_dim, init_scale=0.02, seed=seed)


def bags() -> tf.SparseTensor:
    return tf.sparse.from_dense(tf.constant([[1.0, 0.0, -0.5], [0.0, 0.0, 0.0]]))


def test_first_order_starts_at_zero_and_vectors_as_scaled_noise() -> None:
    large = table(n_rows=2000, embedding_dim=16)
    assert not np.any(large.w.numpy())
    v = large.v.numpy()
    assert abs(v.mean()) < 5 * 0.02 / np.sqrt(v.size)
    assert abs(v.std() / 0.02 - 1) < 5 / np.sqrt(2 * v.size)


def test_the_same_seed_starts_the_same() -> None:
    np.testing.assert_array_equal(table(seed=4).v.numpy(), table(seed=4).v.numpy())
    assert np.any(table(seed=4).v.numpy() != table(seed=5).v.numpy())


def test_the_table_gathers_rows_and_its_gradients_stay_sparse() -> None:
    features = table()
    features.w.assign(tf.range(6.0))
    rows = tf.constant([4, 2], tf.int64)
    with tf.GradientTape() as tape:
        w, v = features(rows)
        total = tf.reduce_sum(w) + tf.reduce_sum(v)
    assert w.numpy().tolist() == [4.0, 2.0]
    np.testing.assert_array_equal(v.numpy(), features.v.numpy()[[4, 2]])
    for gradient in tape.gradient(total, [features.w, features.v]):
        assert isinstance(gradient, tf.IndexedSlices)
        assert gradient.indices.numpy().tolist() == [4, 2]


def test_the_optimizer_can_find_the_first_order_weights_by_name() -> None:
    names = [variable.name.split(":")[0] for variable in table().trainable_variables]
    assert [name.endswith(FIRST_ORDER) for name in names] == [True, False]


def test_the_table_is_rebuilt_from_its_configuration() -> None:
    again = FeatureTable.from_config(table(seed=9).get_config())
    np.testing.assert_array_equal(again.v.numpy(), table(seed=9).v.numpy())


def test_the_towers_are_the_equations() -> None:
    x, w, v = bags(), tf.constant([1.0, 2.0, 3.0]), tf.constant([[1.0, 0.5]] * 3)
    np.testing.assert_array_equal(UserTower()(x, v), fm.user_vector(x, v))
    np.testing.assert_array_equal(ItemTower()(x, w, v), fm.item_vector(x, w, v))
