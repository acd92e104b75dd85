"""The content baseline: items whose features are like those of a user's past items, by TF-IDF."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

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
    vectors = _tf_idf(counts).astype(np.float32)

    def score(user_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        past = known[user_rows]
        ones = sparse.csr_array((np.ones_like(past.data), past.indices, past.indptr), past.shape)
        return np.asarray((ones @ vectors @ vectors.T).toarray(), dtype=np.float32)

    return score


def _tf_idf(counts: sparse.csr_array) -> sparse.csr_array:
    """Weigh counts by ln((1 + n) / (1 + n_items_with_the_feature)) + 1, in rows of length 1.

    The smoothed inverse document frequency that scikit-learn uses; an empty row stays empty.
    """
    n_with = np.bincount(counts.indices, weights=counts.data != 0, minlength=counts.shape[1])
    weighted = counts.multiply(np.log((1 + counts.shape[0]) / (1 + n_with)) + 1).tocsr()
    lengths = np.sqrt(weighted.power(2).sum(axis=1))
    return sparse.csr_array(weighted.multiply((1 / np.where(lengths > 0, lengths, 1))[:, None]))
