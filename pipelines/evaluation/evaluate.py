"""Evaluate a scorer over the full corpus: no sampled candidates, train items masked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from pipelines.config import EvaluationConfig
from pipelines.evaluation.left_out import LeftOut
from pipelines.evaluation.metrics import Flags, Floats, Rows
from pipelines.evaluation.ranking import rank_items
from pipelines.evaluation.segments import Decile, DecileTally, Segment, SegmentTally
from pipelines.results import metric_names
from towers.errors import ConfigError, DataError, TrainingError

Scorer = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Answers user rows [batch] with the scores [batch, n_items] of every item."""

HISTORY_LENGTHS = ((1, 4), (5, 19), (20, None))
"""The first and the last number of train interactions of the users of a segment."""

BATCH = 256
"""Users that are scored at once, at most."""

LARGEST_BLOCK = 2**26
"""Scores held at once (256 MiB in float32); a large corpus is scored for fewer users at a time."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a scorer achieves, for all users and for warm and cold users and items."""

    segments: Mapping[str, Segment]
    """`all`; `warm_users` and `cold_users`, with and without a train interaction, and users by how
    many they have; `warm_items` and `cold_items`, with at least and with fewer than
    `cold_item_interactions` of them, and `new_items`, with none. Lists rank the full corpus, but
    for `cold_items_alone` and `new_items_alone`, where these items are ranked among themselves."""
    deciles: tuple[Decile, ...]
    """By popularity of the test items, least popular first: see `segments.popularity_deciles`."""
    decile_k: int
    """The K of the recall in `deciles`: that of the configured metric."""
    by_user: Mapping[str, Mapping[str, Floats]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """By segment and metric the figure of each user, in order of the users, where they were asked
    for; coverage has none."""

    def metric(self, name: str, segment: str = "all") -> float:
        """The figure called `name`, such as `recall@20`.

        Raises:
            ConfigError: there is no such segment or metric, or the segment has no users.
        """
        if segment not in self.segments:
            raise ConfigError(
                f"evaluation segment: expected one of {list(self.segments)}, received {segment!r}"
            )
        found = self.segments[segment]
        if not found.n_users:
            raise ConfigError(
                f"evaluation segment {segment!r}: expected users with test items, received none; "
                "hold out more interactions"
            )
        if name not in found.figures:
            raise _unknown_metric(name, known=list(found.figures))
        return found.figures[name]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON and without NaN."""
        plain = dataclasses.asdict(dataclasses.replace(self, by_user={}))
        del plain["by_user"]
        return plain | {"deciles": list(plain["deciles"])}


def popularity_scorer(popularity: NDArray[np.int64]) -> Scorer:
    """Score every item by its popularity [n_items], the same for every user: the baseline.

    The scores are dense ranks of the popularity (0 = least popular), so that float32 keeps counts
    apart that it would round to one.
    """
    ranks = np.unique(popularity, return_inverse=True)[1].astype(np.float32)
    return lambda user_rows: np.broadcast_to(ranks, (len(user_rows), len(ranks)))


def evaluate(
    scorer: Scorer,
    *,
    train: scipy.sparse.csr_array,
    test: scipy.sparse.csr_array,
    config: EvaluationConfig,
    left_out: LeftOut | None = None,
    item_counts: NDArray[np.int64] | None = None,
    keep_users: bool = False,
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """Rank the full corpus for every user with test items, and measure the lists.

    What is left out is masked; a test item among it cannot be found, and counts as missed.

    Args:
        scorer: gives the scores; an item of -inf is not recommended.
        train: [n_users, n_items]; nonzero where the user has the item. Only the rows of users with
            test items are looked at.
        test: [n_users, n_items]; nonzero where the user should be recommended the item.
        config: the cut-offs, the metric that decides, and what a cold item is.
        left_out: what is not recommended to the users; only the train items by default.
        item_counts: the train positives of each item, [n_items]; counted in `train` by default.
        keep_users: whether the figures of each user are given too, as `by_user`.
        advance: called with the number of users after each batch.

    Raises:
        ConfigError: `config.metric` is not measured at any cut-off of `config.k`.
        DataError: train and test differ in shape.
        TrainingError: a score is NaN or +inf, or the scores have the wrong shape.
    """
    _check(train, test, config=config)
    train, test = _positives(train), _positives(test)
    left_out = LeftOut(train) if left_out is None else left_out
    popularity = train.sum(axis=0) if item_counts is None else item_counts
    segments = _segments(train, test, popularity=popularity, config=config, keep=keep_users)
    alone = _segments_alone(test, popularity=popularity, config=config, keep=keep_users)
    deciles = DecileTally(test, popularity=popularity, k=int(config.metric.partition("@")[2]))
    k = max(config.k)
    for batch, scores, seen, scratch in _batches(scorer, test, left_out):
        ranked = rank_items(scores, k, exclude=seen, scratch=scratch)
        _count(batch, ranked, test, tallies=[*segments.values(), deciles])
        for segment in alone.values():
            places = segment.concerns(batch)
            if len(places):
                ranked = segment.rank_alone(scores, k, exclude=seen, places=places)
                _count(batch[places], ranked, test, tallies=[segment])
        if advance is not None:
            advance(len(batch))
    tallies = segments | alone
    return Evaluation(
        segments={name: tally.result() for name, tally in tallies.items()},
        deciles=deciles.result(),
        decile_k=deciles.k,
        by_user={name: tally.by_user for name, tally in tallies.items()} if keep_users else {},
    )


def user_metric(metric: str) -> str:
    """The metric that users have of their own: in place of coverage, which is no mean, recall."""
    name, _, k = metric.partition("@")
    return f"recall@{k}" if name == "coverage" else metric


def user_figures(
    scorer: Scorer,
    *,
    test: scipy.sparse.csr_array,
    left_out: LeftOut,
    metric: str,
) -> Floats:
    """Measure one metric for each user with test items, in the order of their rows.

    Args:
        scorer: gives the scores.
        test: [n_users, n_items]; as `evaluate` takes it.
        left_out: likewise.
        metric: such as `recall@20`; see `user_metric`.

    Raises:
        TrainingError: as `evaluate`.
    """
    metric = user_metric(metric)
    k = int(metric.partition("@")[2])
    return _figures_at(k, scorer, test=test, left_out=left_out)[metric]


def recall_and_ndcg(
    scorer: Scorer, *, test: scipy.sparse.csr_array, left_out: LeftOut, metric: str
) -> Floats:
    """The sum of recall and NDCG at the K of a metric for each user, as `user_figures` does one.

    Chance moves it less than either: to decide among many trials by few users.
    """
    k = int(metric.partition("@")[2])
    found = _figures_at(k, scorer, test=test, left_out=left_out)
    return found[f"recall@{k}"] + found[f"ndcg@{k}"]


def _figures_at(
    k: int, scorer: Scorer, *, test: scipy.sparse.csr_array, left_out: LeftOut
) -> Mapping[str, Floats]:
    """The figures at K of each user with test items, by metric."""
    test = _positives(test)
    n_users, n_items = test.shape
    tally = SegmentTally(
        test,
        users=np.ones(n_users, dtype=np.bool_),
        items=np.ones(n_items, dtype=np.bool_),
        popularity=np.zeros(n_items, dtype=np.int64),
        cutoffs=[k],
        keep=True,
    )
    for batch, scores, seen, scratch in _batches(scorer, test, left_out):
        ranked = rank_items(scores, k, exclude=seen, scratch=scratch)
        _count(batch, ranked, test, tallies=[tally])
    return tally.by_user


def _batches(
    scorer: Scorer, test: scipy.sparse.csr_array, left_out: LeftOut
) -> Iterator[tuple[Rows, NDArray[np.float32], scipy.sparse.csr_array, NDArray[np.float32]]]:
    """The users with test items, in batches.

    Yields:
        Their rows; their scores [batch, n_items], -inf of what is not there yet; what they have
        seen, likewise; and memory to rank them in.
    """
    n_items, known = test.shape[1], _positives(left_out.seen)
    users = np.flatnonzero(np.diff(test.indptr))
    batch_size = max(1, min(BATCH, LARGEST_BLOCK // max(n_items, 1)))
    scratch = np.empty((min(batch_size, len(users)), n_items), dtype=np.float32)
    for start in range(0, len(users), batch_size):
        batch = users[start : start + batch_size]
        scores = left_out.offered(_scores(scorer, batch, n_items=n_items), batch)
        yield batch, scores, known[batch], scratch


def _count(
    batch: Rows,
    ranked: Rows,
    test: scipy.sparse.csr_array,
    *,
    tallies: Iterable[SegmentTally | DecileTally],
) -> None:
    """Count the lists `ranked` of a batch of users."""
    found = _found(ranked, test[batch])
    for tally in tallies:
        tally.add(batch, ranked, found)


def _check(
    train: scipy.sparse.csr_array, test: scipy.sparse.csr_array, *, config: EvaluationConfig
) -> None:
    if train.shape != test.shape:
        raise DataError(
            f"train and test: expected one shape, received {train.shape} and {test.shape}; "
            "number users and items once for both"
        )
    known = metric_names(config.k)
    if config.metric not in known:
        raise _unknown_metric(config.metric, known=known)


def _unknown_metric(name: str, *, known: list[str]) -> ConfigError:
    return ConfigError(
        f"evaluation.metric: expected one of {known}, received {name!r}; choose one of them, or "
        "add its cut-off to evaluation.k"
    )


def _positives(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """A copy with 1 (int64) for each nonzero, once, in order of item row."""
    flags = (matrix.data != 0).astype(np.int64)
    parts = (flags, matrix.indices, matrix.indptr)
    positives = scipy.sparse.csr_array(parts, shape=matrix.shape, copy=True)
    positives.sum_duplicates()
    positives.eliminate_zeros()
    positives.data[:] = 1
    return positives


def _segments(
    train: scipy.sparse.csr_array,
    test: scipy.sparse.csr_array,
    *,
    popularity: NDArray[np.int64],
    config: EvaluationConfig,
    keep: bool,
) -> dict[str, SegmentTally]:
    """One empty tally a segment."""
    history = np.diff(train.indptr)
    warm_items = popularity >= config.cold_item_interactions
    any_user, any_item = np.ones_like(history, dtype=np.bool_), np.ones_like(warm_items)
    members = {
        "all": (any_user, any_item),
        "warm_users": (history > 0, any_item),
        "cold_users": (history == 0, any_item),
        "warm_items": (any_user, warm_items),
        "cold_items": (any_user, ~warm_items),
        "new_items": (any_user, popularity == 0),
    }
    for first, last in HISTORY_LENGTHS:
        name = f"users_with_{first}_to_{last}" if last else f"users_with_{first}_or_more"
        members[name] = ((history >= first) & (history <= (last or np.inf)), any_item)
    return {
        name: SegmentTally(
            test, users=users, items=items, popularity=popularity, cutoffs=config.k, keep=keep
        )
        for name, (users, items) in members.items()
    }


def _segments_alone(
    test: scipy.sparse.csr_array,
    *,
    popularity: NDArray[np.int64],
    config: EvaluationConfig,
    keep: bool,
) -> dict[str, SegmentTally]:
    """One empty tally for each kind of items that are ranked among themselves."""
    users = np.ones(test.shape[0], dtype=np.bool_)
    members = {
        "cold_items_alone": popularity < config.cold_item_interactions,
        "new_items_alone": popularity == 0,
    }
    return {
        name: SegmentTally(
            test, users=users, items=items, popularity=popularity, cutoffs=config.k, keep=keep
        )
        for name, items in members.items()
    }


def _scores(scorer: Scorer, users: Rows, *, n_items: int) -> NDArray[np.float32]:
    """The users' scores, of the shape that a scorer promises."""
    scores = scorer(users)
    if scores.shape != (len(users), n_items):
        raise TrainingError(
            f"scorer: expected scores of shape {(len(users), n_items)} (users, items), received "
            f"{scores.shape}; score every item for each user row"
        )
    return scores


def _found(ranked: Rows, test: scipy.sparse.csr_array) -> Flags:
    """Flag the ranked items [n_users, k_max] that are in their user's row of `test`."""
    n_users, n_items = test.shape
    wanted = np.repeat(np.arange(n_users), np.diff(test.indptr)) * n_items + test.indices
    listed = np.arange(n_users)[:, np.newaxis] * n_items + ranked
    return (ranked >= 0) & np.isin(listed, wanted)
