"""The content baseline: items whose features are like those of a user's past items, by TF-IDF."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer

if TYPE_CHECKING:
    from pipelines.evaluation.evaluate import Scorer


def content_scorer(content: sparse.csr_array, *, known: sparse.csr_array) -> Scorer:
    """Score items by the cosine of TF-IDF vectors with the sum of those of a user's items.

    Nothing is learned, so that it shows what features are worth by themselves, also of items that
    nobody has chosen.

    Args:
        content: features of the items [n_items, n_features], as bags.
        known: the items of each user, [n_users, n_items].
    """
    counts = sparse.csr_array(abs(content))
    vectors = sparse.csr_array(TfidfTransformer().fit_transform(counts)).astype(np.float32)

    def score(user_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        past = known[user_rows]
        ones = sparse.csr_array((np.ones_like(past.data), past.indices, past.indptr), past.shape)
        return np.asarray((ones @ vectors @ vectors.T).toarray(), dtype=np.float32)

    return score
