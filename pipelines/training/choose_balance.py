"""Choose what counts beside a user's history: what features say, what all choose, and the trend.

A history says what a user likes, from few items. What else is known is safer, and says less: the
features of the user, and what the mean user likes, by whom popular items come first. So the score

    h . v_i + f . v_i + w_i    becomes    h . v_i + s (f . v_i) + w_i + b (m . v_i) + a t_i

where a user's vector is the sum of h of the histories and f of the features, m is the mean user's,
and t_i is the trend of an item, where it has one. s scales the vectors of users' features, and
b (m . v) is added to the first-order weight of each feature of items: it stays a factorization
machine. s, b and a are those that rank best for validation users who have a history, by the sum
of recall and NDCG. Others have the default user, who is placed afterwards.

Some hundred users tell single trials apart by chance as much as by what is right. So all are tried
with all, and means over trials decide, in which chance is less: a window and weight of the trend by
the mean over all s and b, and s and b by the mean over the trends next to it.

Sources: for shrinking what few observations say towards what is known before, C. Morris, Parametric
empirical Bayes inference, JASA 1983; for means over the other factors of a design, R. Fisher, The
Design of Experiments, 1935.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, sample_users
from pipelines.data.dataset import Dataset
from pipelines.data.recent import count_recent, trend_values, window_lengths
from pipelines.data.store_blocks import StoredInteractions
from pipelines.evaluation.evaluate import recall_and_ndcg
from pipelines.evaluation.metrics import Floats
from pipelines.evaluation.race import standard_error
from pipelines.progress import Advance, Reporter
from pipelines.training.calibrate import FEWEST, USERS, score_spread
from pipelines.training.decided import Balance, ChosenTrend
from pipelines.training.embed import Vectors, embed
from pipelines.training.fit import Fit, Fitted
from pipelines.training.initialize import mean_user
from towers.features.vocabulary import rows_of
from towers.interactions.interaction import FM
from towers.layers import FeatureTable

FEATURES = (1.0, 2.0)
"""The scales s of what users' features say that are tried; the first is as training left them."""
MEAN_USERS = (0.0, 0.25, 0.5, 1.0)
"""The shares b of the mean user that are tried, likewise."""
TRENDS = (0.0, 0.5, 1.0, 2.0, 3.0)
"""The weights a of the trend that are tried, in standard deviations of the scores."""
WINDOWS = 7
"""How many windows of the trend are tried at most, each half of the one before or shorter."""
MOST_SCORES = 100_000_000
"""How many scores one trial takes at most; so of large catalogues fewer users are asked."""


AS_TRAINED = Balance()
"""What leaves a model as it is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BesideHistories:
    """What counts beside histories, as validation has chosen it."""

    balance: Balance
    trend: ChosenTrend | None
    """None where items have none."""
    figures: Floats
    """The sum of recall and NDCG of each user who decided, [n]: the mean over the trends that are
    next to the one chosen."""


class _Trials:
    """Measures trials on the same validation users."""

    def __init__(
        self, fitted: Fitted, job: Fit, *, test: sparse.csr_array, trends: list[NDArray[np.float32]]
    ) -> None:
        self._job, self._test, self._trends = job, test, trends
        self._users = np.flatnonzero(np.diff(test.indptr))
        self._place = np.searchsorted(self._users, np.arange(test.shape[0]))
        self._vectors = embed(fitted.model, job.dataset, only_users=self._users)
        features = fitted.model.features
        self._said = np.zeros((len(self._users), self._vectors["user"].shape[1]), np.float32)
        self._popular = np.zeros(len(job.dataset.item_ids), np.float32)
        if is_balanced(features, job.dataset):
            self._said[:, 1:] = said_by_features(features, job.dataset)[self._users]
            self._popular = self._vectors["item"][:, 1:] @ mean_user(features, job.dataset)[0]

    @property
    def balances(self) -> list[Balance]:
        """Those that can differ in what they give; the first leaves all as it is."""
        features = FEATURES if self._said.any() else FEATURES[:1]
        mean_users = MEAN_USERS if self._popular.any() else MEAN_USERS[:1]
        return [Balance(features=s, mean_user=b) for s, b in product(features, mean_users)]

    def _balanced(self, balance: Balance) -> Vectors:
        """Vectors of the users who are asked, [n, 1 + k], and of all items."""
        items = self._vectors["item"].copy()
        items[:, 0] += np.float32(balance.mean_user) * self._popular
        users = self._vectors["user"][self._users]
        return {"user": users + np.float32(balance.features - 1.0) * self._said, "item": items}

    def spread(self, balance: Balance) -> float:
        """The standard deviation of the scores."""
        vectors = self._balanced(balance)
        return score_spread(vectors["user"], vectors["item"])

    def measure(self, advance: Advance) -> Floats:
        """The sum of recall and NDCG with each balance, window and weight of the trend.

        Returns:
            [n_balances, n_windows, len(TRENDS), n_users]; 1 and 1 in the middle without windows.
        """
        return np.stack([self._with_trends(balance, advance) for balance in self.balances])

    def _with_trends(self, balance: Balance, advance: Advance) -> Floats:
        """Likewise, with one balance; a weight of 0 is measured once."""
        vectors, unit = self._balanced(balance), self.spread(balance)
        users, items = vectors["user"], vectors["item"]

        def figures(term: NDArray[np.float32] | float) -> Floats:
            advance(1)
            return recall_and_ndcg(
                lambda asked: users[self._place[asked]] @ items.T + term,
                test=self._test,
                left_out=self._job.left_out,
                metric=self._job.config.evaluation.metric,
            )

        without = figures(0.0)
        rows = [
            np.stack([without, *(figures(np.float32(a * unit) * trend) for a in TRENDS[1:])])
            for trend in self._trends
        ]
        return np.stack(rows or [without[np.newaxis]])


def choose_balance(
    fitted: Fitted, job: Fit, reporter: Reporter, *, stored: StoredInteractions | None
) -> BesideHistories | None:
    """Choose s, b, and the window and weight of the trend, by the validation metric.

    Args:
        fitted: the model as `job` has trained it.
        job: its data and settings, with a validation part.
        reporter: shows how many trials are done.
        stored: its interactions, with times, where items have a trend.

    Returns:
        None without a validation part.
    """
    validation = job.validation
    if validation is None:
        return None
    lengths: list[float] = []
    trends: list[NDArray[np.float32]] = []
    if stored is not None and (lengths := window_lengths(stored)):
        lengths = apart(lengths)[:WINDOWS]
        _, counts = count_recent(stored, lengths)
        trends = [trend_values(row, stored.item_counts) for row in counts]
    trials = _Trials(fitted, job, test=_deciding(job, validation), trends=trends)
    n_trials = len(trials.balances) * (1 + len(lengths) * (len(TRENDS) - 1))
    with reporter.bar("what counts beside histories", n_trials) as advance:
        measured = trials.measure(advance)
    window, weight = best_trend(measured)
    near = around(measured, window, weight)
    best = int(near.mean(axis=-1).argmax())
    gain = near[best] - near[0]
    if job.parent is not None and gain.mean() <= standard_error(gain):
        best = 0  # an earlier version has its balance already, which chance would add to each time
    balance, trend = trials.balances[best], None
    if lengths:
        unit = trials.spread(balance)
        trend = ChosenTrend(window=lengths[window], weight=TRENDS[weight] * unit)
    return BesideHistories(balance=balance, trend=trend, figures=near[best])


def apart(lengths: Sequence[float]) -> list[float]:
    """Those of descending lengths that are at most half of the one before."""
    kept: list[float] = []
    for length in lengths:
        if not kept or length <= kept[-1] / 2:
            kept.append(length)
    return kept


def best_trend(measured: Floats) -> tuple[int, int]:
    """The window and weight that are best by the mean over balances and users."""
    means = measured.mean(axis=(0, -1))
    window, weight = np.unravel_index(means.argmax(), means.shape)
    return int(window), int(weight)


def around(measured: Floats, window: int, weight: int) -> Floats:
    """The mean over a trend and those next to it, [n_balances, n_users]."""
    windows, weights = (slice(max(place - 1, 0), place + 2) for place in (window, weight))
    return np.asarray(measured[:, windows, weights].mean(axis=(1, 2)))


def _deciding(job: Fit, validation: sparse.csr_array) -> sparse.csr_array:
    """The positives of the validation users who have a history; of all, where these are few."""
    with_history = np.flatnonzero(
        (np.diff(job.known.indptr) > 0) & (np.diff(validation.indptr) > 0)
    )
    held = HeldInteractions(validation)
    if len(with_history) >= FEWEST:
        held = HeldInteractions(held.of(with_history))
    limit = min(USERS, max(FEWEST, MOST_SCORES // validation.shape[1]))
    return sample_users(held, limit=limit, seed=job.config.seed)


def apply_balance(
    fitted: Fitted, job: Fit, reporter: Reporter, *, balance: Balance | None
) -> Fitted:
    """Give users' features and the mean user their weight, in place, and in a checkpoint.

    Nothing is done where nothing was chosen, or what was chosen leaves the model as it is.
    """
    features, dataset = fitted.model.features, job.dataset
    if balance is None or balance == AS_TRAINED or not is_balanced(features, dataset):
        return fitted
    mean = mean_user(features, dataset)[0]
    spaces = dataset.vocabulary.spaces
    rows = np.concatenate(
        [rows_of(space) for name, space in spaces.items() if name.startswith("item.")]
    )
    terms = np.float32(balance.mean_user) * (tf.gather(features.v, rows).numpy() @ mean)
    features.w.scatter_add(tf.IndexedSlices(terms, rows))
    rows = feature_rows(dataset)
    scaled = np.float32(balance.features) * tf.gather(features.v, rows).numpy()
    features.v.scatter_update(tf.IndexedSlices(scaled, rows))
    reporter.say(
        f"  beside histories: users' features count {balance.features:g} times, the mean user "
        f"{balance.mean_user:g} times"
    )
    return fitted.kept(balance=balance)


def is_balanced(features: FeatureTable, dataset: Dataset) -> bool:
    """Whether there is a history to weigh, in a plain factorization machine."""
    return isinstance(features.interaction, FM) and dataset.past is not None


def feature_rows(dataset: Dataset) -> NDArray[np.int64]:
    """The rows of what is known of users beside their ids and histories."""
    _, columns = dataset.content_bags("user")
    return np.concatenate([columns, np.r_[dataset.dense("user").rows]]).astype(np.int64)


def said_by_features(features: FeatureTable, dataset: Dataset) -> NDArray[np.float32]:
    """The part of users' vectors that comes from these rows, [n_users, k]."""
    (content, columns), dense = dataset.content_bags("user"), dataset.dense("user")
    v = features.v.numpy()
    return np.asarray(content @ v[columns] + dense.x @ v[dense.rows], dtype=np.float32)
