"""Place newcomers: users without a history, and the default user, of whom nothing is known.

Training shows what to recommend to users by their histories. Who has none has, beside what the
features say, the vector of the mean user, whose score of an item is the mean of all users' scores,
times a scale: how much it counts beside features and the items' first-order terms. Validation
decides the scales, by the sum of recall and NDCG: of newcomers, where users are asked for by their
features alone; and of the default user, where they are asked for as if nothing were known of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, sample_users
from pipelines.evaluation.evaluate import recall_and_ndcg
from pipelines.progress import Reporter
from pipelines.training.calibrate import FEWEST, USERS
from pipelines.training.embed import embed_items, embed_users
from pipelines.training.fit import Fit, Fitted
from pipelines.training.initialize import mean_user, set_columns
from towers.dense import Dense

SCALES = (1.0, 0.5, 2.0, 0.25, 4.0, 0.0)
"""The scales of the default user that are tried; the first of equally good ones is taken."""
NEWCOMERS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Those of newcomers, likewise."""


def measure_newcomers(
    fitted: Fitted, job: Fit, *, term: NDArray[np.float32] | float = 0.0
) -> float | None:
    """Choose how often the mean user is added to the features of who has no history.

    Asked for are the validation users without a history, or all of them where these are few.

    Args:
        fitted: the model, calibrated; its newcomers are changed.
        job: its data, with a validation part.
        term: what trends add to the score of each item, [n_items].

    Returns:
        None where there is no validation part, or no feature that newcomers have.
    """
    dataset, row = job.dataset, job.dataset.vocabulary.newcomer_row
    if job.validation is None or row is None:
        return None
    test = _sample(job, job.validation)
    users = np.flatnonzero(np.diff(test.indptr))
    without = users[np.diff(job.known.indptr)[users] == 0]
    if len(without) >= FEWEST:
        test, users = HeldInteractions(test).of(without), without
    entries = np.ones(len(users), np.float32), (np.arange(len(users)), np.full(len(users), row))
    bags = sparse.csr_array(dataset.user_bags[users])
    bags = sparse.csr_array(bags + sparse.csr_array(entries, shape=bags.shape))
    dense = dataset.dense("user").take(users)
    trials = _Trials(fitted, job, test=test, term=term, queries=(bags, dense), users=users)
    return trials.best(NEWCOMERS, row=row)


def measure_default_user(
    fitted: Fitted, job: Fit, *, term: NDArray[np.float32] | float = 0.0
) -> float | None:
    """Choose the scale of the mean user that is best for who is not known at all.

    Args:
        fitted: the model, calibrated; its default user is changed.
        job: its data, with a validation part.
        term: what trends add to the score of each item, [n_items].

    Returns:
        None where there is no validation part, or no default user.
    """
    dataset, row = job.dataset, job.dataset.vocabulary.default_user_row
    if job.validation is None or row is None:
        return None
    test = _sample(job, job.validation)
    entry = np.ones(1, np.float32), ([0], [row])
    bags = sparse.csr_array(entry, shape=(1, dataset.vocabulary.n_rows))
    trials = _Trials(fitted, job, test=test, term=term, queries=(bags, None))
    return trials.best(SCALES, row=row)


def place_newcomers(
    fitted: Fitted,
    job: Fit,
    reporter: Reporter,
    *,
    newcomers: float | None,
    default_user: float | None,
) -> Fitted:
    """Set both to multiples of the mean user, in place, and in a checkpoint.

    Args:
        fitted: the model, calibrated.
        job: its data.
        reporter: is told the scales.
        newcomers: what `measure_newcomers` found; by default 0.
        default_user: what `measure_default_user` found; by default 1.
    """
    vocabulary = job.dataset.vocabulary
    if vocabulary.default_user_row is None:
        return fitted
    mean = mean_user(fitted.model.features, job.dataset)
    newcomers = 0.0 if newcomers is None else newcomers
    default_user = 1.0 if default_user is None else default_user
    if vocabulary.newcomer_row is not None:
        _place(fitted, vocabulary.newcomer_row, np.float32(newcomers) * mean)
        reporter.say(
            f"  users without a history: what is known of them, and {newcomers:g} times the mean "
            "user"
        )
    _place(fitted, vocabulary.default_user_row, np.float32(default_user) * mean)
    reporter.say(f"  users of whom nothing is known: {default_user:g} times the mean user")
    return fitted.kept(newcomer_scale=newcomers, default_user_scale=default_user)


class _Trials:
    """Measures recall and NDCG of validation users by queries that stand for them."""

    def __init__(
        self,
        fitted: Fitted,
        job: Fit,
        *,
        test: sparse.csr_array,
        term: NDArray[np.float32] | float,
        queries: tuple[sparse.csr_array, Dense | None],
        users: NDArray[np.int64] | None = None,
    ) -> None:
        """Take bags and vectors of queries, of the users of `test`; by default, of one for all."""
        self._fitted, self._job, self._test, self._term = fitted, job, test, term
        items = job.dataset.dense("item")
        self._items = embed_items(fitted.model, job.dataset.item_bags, dense=items)
        self._mean = mean_user(fitted.model.features, job.dataset)
        self._queries = queries
        self._place = np.zeros(test.shape[0], dtype=np.int64)
        if users is not None:
            self._place[users] = np.arange(len(users))

    def best(self, scales: Sequence[float], *, row: int) -> float:
        """The first of the best multiples of the mean user as the vector of a row."""

        def measured(scale: float) -> float:
            _place(self._fitted, row, np.float32(scale) * self._mean)
            bags, dense = self._queries
            vectors = embed_users(self._fitted.model, bags, dense=dense)
            figures = recall_and_ndcg(
                lambda asked: vectors[self._place[asked]] @ self._items.T + self._term,
                test=self._test,
                left_out=self._job.left_out,
                metric=self._job.config.evaluation.metric,
            )
            return float(figures.mean())

        return max(scales, key=measured)


def _sample(job: Fit, validation: sparse.csr_array) -> sparse.csr_array:
    """The positives of some validation users."""
    return sample_users(HeldInteractions(validation), limit=USERS, seed=job.config.seed)


def _place(fitted: Fitted, row: int, vector: NDArray[np.float32]) -> None:
    """Set the vector [1, k] of a row."""
    set_columns(fitted.model.features.v, vector, rows=np.array([row]))
