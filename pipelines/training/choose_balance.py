"""Choose what counts beside a user's history: what features say, what all choose, and the trend.

A history says what a user likes, from few items. What else is known is safer, and says less: the
features of the user, and what the mean user likes, by whom popular items come first. So the score

    h . v_i + f . v_i + w_i    becomes    h . v_i + s (f . v_i) + w_i + b (m . v_i) + a t_i

where a user's vector is the sum of h of the histories and f of the features, m is the mean user's,
and t_i is the trend of an item, where it has one. s scales the vectors of users' features, and
b (m . v) is added to the first-order weight of each feature of items: it stays a factorization
machine. s, b and a are those that rank best for validation users who have a history, by the sum
of recall and NDCG: of one of them, chance would decide among so many trials. Others have the
default user, who is placed afterwards.

Source: for shrinking what few observations say towards what is known before, C. Morris, Parametric
empirical Bayes inference, JASA 1983.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
TRENDS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""The weights a of the trend that are tried, in standard deviations of the scores."""
FEW_TRENDS = (0.5, 1.0, 2.0, 3.0)
"""Those of them that are tried with each s and b, and every third window."""
FIRST_TREND = 1.0
"""The weight with which windows are compared at first."""
MOST_SCORES = 100_000_000
"""How many scores one trial takes at most; so of large catalogues fewer users are asked."""


AS_TRAINED = Balance()
"""What leaves a model as it is."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One of those that are compared."""

    balance: Balance = AS_TRAINED
    window: int = 0
    """The place of the trend's window."""
    trend: float = 0.0
    """Its weight, in standard deviations of the scores."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BesideHistories:
    """What counts beside histories, as validation has chosen it."""

    balance: Balance
    trend: ChosenTrend | None
    """None where items have none."""
    figures: Floats
    """The sum of recall and NDCG of each user who decided, [n]."""


class _Trials:
    """Measures trials on the same validation users."""

    def __init__(
        self, fitted: Fitted, job: Fit, *, test: sparse.csr_array, trends: list[NDArray[np.float32]]
    ) -> None:
        self._job, self._test, self._trends = job, test, trends
        self._spreads: dict[Balance, float] = {}
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

    def most(self, n_windows: int) -> int:
        """How many trials there are at most."""
        if not n_windows:
            return len(self.balances)
        tried = (len(self.balances) - 1) * len(FEW_TRENDS) * -(-n_windows // 3)
        return tried + 2 * n_windows + len(TRENDS) + 1

    def _balanced(self, balance: Balance) -> Vectors:
        """Vectors of the users who are asked, [n, 1 + k], and of all items."""
        items = self._vectors["item"].copy()
        items[:, 0] += np.float32(balance.mean_user) * self._popular
        users = self._vectors["user"][self._users]
        return {"user": users + np.float32(balance.features - 1.0) * self._said, "item": items}

    def weight(self, trial: Trial) -> float:
        """The first-order weight of a trial's trend."""
        return trial.trend * self._spread(trial.balance)

    def _spread(self, balance: Balance) -> float:
        """The standard deviation of the scores."""
        if balance not in self._spreads:
            vectors = self._balanced(balance)
            self._spreads[balance] = score_spread(vectors["user"], vectors["item"])
        return self._spreads[balance]

    def measure(self, trial: Trial) -> Floats:
        """The sum of recall and NDCG of each user, at the K of the metric that decides."""
        vectors = self._balanced(trial.balance)
        if trial.trend:
            vectors["item"][:, 0] += np.float32(self.weight(trial)) * self._trends[trial.window]
        return recall_and_ndcg(
            lambda users: vectors["user"][self._place[users]] @ vectors["item"].T,
            test=self._test,
            left_out=self._job.left_out,
            metric=self._job.config.evaluation.metric,
        )

    def best(self, trials: Sequence[Trial], advance: Advance) -> tuple[Trial, Floats]:
        """The first of the best, and its figures."""
        found = {}
        for trial in trials:
            found[trial] = self.measure(trial)
            advance(1)
        best = max(found, key=lambda trial: found[trial].mean())
        return best, found[best]


def choose_balance(
    fitted: Fitted, job: Fit, reporter: Reporter, *, stored: StoredInteractions | None
) -> BesideHistories | None:
    """Choose s, b, and the window and weight of the trend, by the validation metric.

    The trend is chosen with all else as training left it, and then with each s and b. These are
    kept where they are better by more than one standard error of the paired difference.

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
        _, counts = count_recent(stored, lengths)
        trends = [trend_values(row, stored.item_counts) for row in counts]
    trials = _Trials(fitted, job, test=_deciding(job, validation), trends=trends)
    with reporter.bar("what counts beside histories", trials.most(len(lengths))) as advance:
        found, figures = _choose(trials, n_windows=len(lengths), advance=advance)
    trend = None
    if lengths:
        trend = ChosenTrend(window=lengths[found.window], weight=trials.weight(found))
    return BesideHistories(balance=found.balance, trend=trend, figures=figures)


def _choose(trials: _Trials, *, n_windows: int, advance: Advance) -> tuple[Trial, Floats]:
    """The best trial, which leaves the balance as it is where that is about as good."""

    def windows(trial: Trial, *, step: int = 1) -> list[Trial]:
        if not n_windows or not trial.trend:
            return [trial]
        return [replace(trial, window=window) for window in range(0, n_windows, step)]

    kept = Trial()
    if n_windows:
        kept, _ = trials.best(windows(Trial(trend=FIRST_TREND)), advance)
    weights = [replace(kept, trend=trend) for trend in (TRENDS if n_windows else (0.0,))]
    kept, before = trials.best(weights, advance)
    others = [
        one
        for balance in trials.balances[1:]
        for trend in (FEW_TRENDS if n_windows else (0.0,))
        for one in windows(Trial(balance=balance, trend=trend), step=3)
    ]
    if not others:
        return kept, before
    moved, figures = trials.best(others, advance)
    gain = figures - before
    if gain.mean() <= standard_error(gain):
        return kept, before
    return trials.best(windows(moved), advance) if moved.trend else (moved, figures)


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
