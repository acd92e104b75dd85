from __future__ import annotations

import numpy as np
from scipy import sparse

from pipelines.evaluation.content_baseline import content_scorer


def test_items_rank_by_rare_features_that_a_user_s_items_have() -> None:
    """An item that nobody has chosen is found by what it is, and long lists have no advantage."""
    content = sparse.csr_array(
        np.array(
            [
                [1, 1, 0, 0],  # the user's item
                [1, 0, 0, 0],  # shares what every item has
                [1, 1, 0, 0],  # shares the rare feature too
                [1, 1, 1, 0],  # and has another
                [0, 0, 0, 1],
            ],
            dtype=np.float32,
        )
    )
    known = sparse.csr_array(np.array([[3, 0, 0, 0, 0], [0] * 5], dtype=np.float32))
    scores = content_scorer(content, known=known)(np.array([0, 1]))
    assert scores.dtype == np.float32
    assert scores[0, 2] == scores[0, 0] > scores[0, 3] > scores[0, 1] > scores[0, 4] == 0
    np.testing.assert_array_equal(scores[1], 0.0)


def test_a_feature_weighs_what_its_rarity_says() -> None:
    """ln((1 + n) / (1 + n_with)) + 1 for each of four items, in vectors of length 1."""
    content = sparse.csr_array(np.array([[2, 0], [1, 1], [1, 0], [0, 0]], dtype=np.float32))
    known = sparse.csr_array(np.array([[1, 0, 0, 0]], dtype=np.float32))
    common, rare = np.log(5 / 4) + 1, np.log(5 / 2) + 1
    expected = [[1.0, common / np.hypot(common, rare), 1.0, 0.0]]
    np.testing.assert_allclose(
        content_scorer(content, known=known)(np.array([0])), expected, rtol=1e-6
    )
