from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from towers.start import DAMPING, fit_features, fit_map, spectral_vectors


def random_interactions(n_users: int, n_items: int, *, density: float) -> sparse.csr_array:
    rng = np.random.default_rng(0)
    return sparse.csr_array((rng.random((n_users, n_items)) < density).astype(np.float32))


def placed(matrix: sparse.csr_array, k: int, *, seed: int, blocks: int = 1) -> Any:
    """Vectors from interactions whose users come in some blocks."""
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    sizes = np.diff(matrix.indptr)
    cuts = np.array_split(np.arange(matrix.shape[0]), blocks)
    return spectral_vectors(
        lambda: (matrix[users] for users in cuts),
        k,
        user_counts=sizes,
        item_counts=counts,
        seed=seed,
    )


@pytest.mark.parametrize("blocks", [2, 7])
def test_it_does_not_matter_in_how_many_blocks_the_users_come(blocks: int) -> None:
    matrix = random_interactions(60, 40, density=0.2)
    one, many = placed(matrix, 6, seed=3), placed(matrix, 6, seed=3, blocks=blocks)
    np.testing.assert_allclose(one @ one.T, many @ many.T, atol=1e-4)


def test_gram_matrix_is_that_of_the_exact_decomposition() -> None:
    matrix = random_interactions(60, 40, density=0.2)
    dense = matrix.toarray()
    scaled = dense
    for axis in (0, 1):
        sums = dense.sum(axis, keepdims=True)
        scaled = scaled / np.sqrt(sums + DAMPING * sums.mean())
    _, singular, right = np.linalg.svd(scaled)
    expected = right[:8].T * singular[:8] @ right[:8]
    vectors = placed(matrix, 8, seed=0).astype(np.float64)
    gram = vectors @ vectors.T
    np.testing.assert_allclose(gram / np.trace(gram), expected / np.trace(expected), atol=2e-3)


def test_two_camps_of_users_lie_apart() -> None:
    block = np.ones((10, 5), dtype=np.float32)
    camps = sparse.csr_array(np.block([[block, 0 * block], [0 * block, block]]))
    vectors = placed(camps, 2, seed=0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(unit[:5] @ unit[:5].T, 1.0, atol=1e-5)
    np.testing.assert_allclose(unit[:5] @ unit[5:].T, 0.0, atol=1e-5)


def test_a_few_that_hardly_touch_the_rest_take_no_component() -> None:
    """Camps come before pairs of a user and an item that have only each other."""
    block = np.ones((10, 5), dtype=np.float32)
    camps = np.kron(np.eye(3, dtype=np.float32), block)
    both = sparse.csr_array(sparse.block_diag([camps, np.eye(6)]).toarray())
    unit = placed(both, 3, seed=0)
    lengths = np.linalg.norm(unit, axis=1)
    assert lengths[15:].max() < 0.01 * lengths[:15].min()
    shared = unit[:15] @ unit[:15].T / np.outer(lengths[:15], lengths[:15])
    np.testing.assert_allclose(shared, np.kron(np.eye(3), np.ones((5, 5))), atol=0.01)


@pytest.mark.parametrize("k", [3, 64])
def test_root_mean_square_is_one_and_unseen_items_are_zero(k: int) -> None:
    matrix = random_interactions(30, 20, density=0.3)
    matrix = sparse.csr_array(sparse.hstack([matrix, sparse.csr_array((30, 4))]))
    vectors = placed(matrix, k, seed=1)
    assert vectors.shape == (24, min(k, 24))
    assert vectors.dtype == np.float32
    assert np.sqrt(np.mean(np.square(vectors))) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_array_equal(vectors[20:], 0.0)


def test_same_seed_same_vectors() -> None:
    matrix = random_interactions(30, 20, density=0.3)
    first, again = (placed(matrix, 4, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_no_interactions_give_zeros() -> None:
    empty = sparse.csr_array(np.zeros((4, 3), dtype=np.float32))
    np.testing.assert_array_equal(placed(empty, 2, seed=0), 0.0)


def test_a_map_takes_what_is_new_where_its_like_has_gone() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(60, 6)).astype(np.float32)
    turned, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    target = (0.3 * source @ turned).astype(np.float32)
    found = source[50:] @ fit_map(source[:50], target[:50])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, target[50:], atol=0.02)


@pytest.mark.parametrize("n", [1, 3])
def test_a_map_of_few_is_not_longer_than_they_are(n: int) -> None:
    rng = np.random.default_rng(1)
    source = rng.normal(size=(20, 8)).astype(np.float32)
    target = rng.normal(size=(n, 8)).astype(np.float32)
    found = source @ fit_map(source[:n], target)
    assert np.linalg.norm(found, axis=1).max() < 3 * np.linalg.norm(target, axis=1).max()


def test_a_map_of_nothing_is_zero() -> None:
    zeros = np.zeros((4, 3), dtype=np.float32)
    np.testing.assert_array_equal(fit_map(zeros, np.ones((4, 2), dtype=np.float32)), 0.0)


@pytest.mark.parametrize("penalty", [1.0, 0.1])
def test_features_are_fitted_as_by_ridge_regression(penalty: float) -> None:
    rng = np.random.default_rng(0)
    bags = random_interactions(80, 30, density=0.1)
    bags.data = rng.standard_normal(bags.nnz).astype(np.float32)
    bags.data[bags.indices == 0] *= 1000.0  # a number on another scale
    wanted = rng.standard_normal((80, 5)).astype(np.float32)
    x = bags.toarray().astype(np.float64)
    expected = np.linalg.solve(x.T @ x + penalty * np.eye(30), x.T @ wanted)
    found = fit_features(bags, np.asarray(bags.T @ wanted), penalty=penalty)
    np.testing.assert_allclose(x @ found, x @ expected, atol=5e-3)
    assert found.dtype == np.float32


def test_a_feature_that_nobody_has_stays_at_zero() -> None:
    bags = sparse.csr_array(np.array([[1.0, 0.0], [2.0, 0.0]], dtype=np.float32))
    found = fit_features(bags, np.asarray(bags.T @ np.ones((2, 3), dtype=np.float32)))
    np.testing.assert_allclose(found, [[0.5] * 3, [0.0] * 3], rtol=1e-6)
    assert fit_features(bags[:, :0], np.zeros((0, 3), dtype=np.float32)).shape == (0, 3)
