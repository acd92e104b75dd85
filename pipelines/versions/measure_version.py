"""Measure a published version, or two side by side, on a table of interactions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import EvaluationConfig
from pipelines.data.blocks import HeldInteractions, sample_users
from pipelines.data.positives import Positives, read_positives
from pipelines.evaluation.bootstrap import LEVEL, paired_intervals
from pipelines.evaluation.evaluate import Evaluation, Scorer, evaluate, popularity_scorer
from pipelines.evaluation.left_out import LeftOut, NotYet
from pipelines.evaluation.published import config_of
from pipelines.progress import Reporter
from pipelines.results import metric_names
from pipelines.versions.shared_rows import SharedRows, id_kinds
from serving.retrieval.notebook import notebook_html
from serving.retrieval.retriever import Retriever
from towers.errors import ConfigError, DataError

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better the version is than the other by one metric, over the same users."""

    segment: str
    metric: str
    n_users: int
    value: float
    """The mean over users of its figure minus the other's."""
    low: float
    """The ends of the interval that the bootstrap gives; chance alone may explain a difference
    whose interval holds 0."""
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The figures of one version, or of two, on one table."""

    version: int
    against: int | None
    exclude_seen: bool
    metric: str
    """The deciding metric of the version's run, such as `recall@20`."""
    counts: Mapping[str, int]
    """What became of the rows of the table, by name."""
    notes: Sequence[str]
    """What was not ranked, if anything."""
    evaluations: Mapping[str, Evaluation]
    """By name: `popularity`, then each version, such as `version 3`."""
    differences: Sequence[Difference]
    """With `against`, of each segment with users and of each metric that is a mean over users."""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        plain: dict[str, Any] = {
            name: getattr(self, name) for name in ("version", "against", "exclude_seen", "metric")
        }
        return plain | {
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "evaluations": {name: found.to_dict() for name, found in self.evaluations.items()},
            "interval": LEVEL,
            "differences": [dataclasses.asdict(each) for each in self.differences],
        }

    def to_frame(self) -> pd.DataFrame:
        """One row for each segment and metric: the figures by name, and the difference if any."""
        found = {(each.segment, each.metric): each for each in self.differences}
        rows: list[dict[str, Any]] = []
        names = list(self.evaluations)
        for segment, one in self.evaluations[names[0]].segments.items():
            for metric in one.figures:
                row: dict[str, Any] = {"segment": segment, "users": one.n_users, "metric": metric}
                row |= {
                    name: each.segments[segment].figures[metric]
                    for name, each in self.evaluations.items()
                }
                if self.against is not None:
                    each = found.get((segment, metric))
                    row |= {
                        "difference": each and each.value,
                        "low": each and each.low,
                        "high": each and each.high,
                    }
                rows.append(row)
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        """What a notebook shows: the deciding metric, by segment."""
        frame = self.to_frame()
        return notebook_html(frame[(frame["metric"] == self.metric) & (frame["users"] > 0)])


def measure_version(
    models: str | Path,
    table: str | Path | pd.DataFrame,
    *,
    version: int | None = None,
    against: int | None = None,
    exclude_seen: bool = True,
    k: Sequence[int] = (),
    separator: str | None = None,
    reporter: Reporter | None = None,
) -> Measured:
    """Measure a version as its run was evaluated: every item ranked for each user of the table.

    But for items that are not there yet when a user asks, where the version has dates of items and
    the table has times; see docs/evaluate.md.

    Lists are ranked by the published vectors, without an index between. A user that the version
    does not have is asked for as one about whom nothing is known. Two versions rank the items of
    both; neither finds an item that it lacks. Segments are by what the first was trained on.

    Args:
        models: a models directory, or one version's folder.
        table: interactions, read as the version's own were; see `read_positives`.
        version: which; default: the current.
        against: a second version, for the same users and positives.
        exclude_seen: leave out what users know from the training of either version, as the
            version's `evaluation.leave_out` says; and positives that either was trained on.
            Otherwise all items are ranked, and all positives count.
        k: the cut-offs; default: those of the version's run.
        separator: of a CSV file with a header line; default: as the version's table was.
        reporter: shows progress; silent by default.

    Raises:
        BundleError: there is no such version, or it is damaged.
        ConfigError: there is no such table, it lacks a column, a cut-off is below 1, or a version
            is to be measured against itself.
        DataError: the table cannot be read, or has no positive to measure by.
    """
    reporter = reporter or Reporter()
    retrievers = [Retriever.open(models, version=version)]
    if against is not None:
        if against == retrievers[0].version:
            raise ConfigError(f"against: expected another version than {against}, received that")
        retrievers.append(Retriever.open(models, version=against))
    config = config_of(retrievers[0].bundle.manifest, "evaluation", "seed")
    rules = _with_cutoffs(config.evaluation, k)
    with reporter.stage("read"):
        positives = read_positives(
            table if isinstance(table, pd.DataFrame) else Path(table),
            config.data,
            id_kinds=id_kinds(retrievers),
            separator=separator,
        )
        shared = SharedRows.of(retrievers, positives.pairs)
        test, counts, asked = _choose_test(shared, positives, exclude_seen=exclude_seen)
        test = sample_users(HeldInteractions(test), limit=rules.test_users, seed=config.seed)
        counts["users"] = int(np.count_nonzero(np.diff(test.indptr)))
        counts["positives"] = int(test.nnz)
        nothing = sparse.csr_array(test.shape, dtype=np.int64)
        seen = shared.seen(what=rules.leave_out) if exclude_seen else nothing
        left_out = LeftOut(seen, _not_yet(shared, asked) if rules.items == "there" else None)
        notes = _notes(left_out, test)
        for note in notes:
            reporter.say(f"  {note}")
    scorers: dict[str, Scorer] = {"popularity": popularity_scorer(shared.item_counts)}
    scorers |= {f"version {r.version}": shared.scorer(place) for place, r in enumerate(retrievers)}
    evaluations = {}
    for name, scorer in scorers.items():
        with (
            reporter.stage(f"rank by {name}"),
            reporter.bar(name, counts["users"], unit="users") as advance,
        ):
            evaluations[name] = evaluate(
                scorer,
                train=shared.trained_on(0),
                test=test,
                config=rules,
                left_out=left_out,
                item_counts=shared.item_counts,
                keep_users=against is not None and name != "popularity",
                advance=advance,
            )
    _, first, *others = evaluations.values()
    return Measured(
        version=retrievers[0].version,
        against=against,
        exclude_seen=exclude_seen,
        metric=rules.metric,
        counts=counts,
        notes=notes,
        evaluations=evaluations,
        differences=_differences(first, others[0]) if others else (),
    )


def _choose_test(
    shared: SharedRows, positives: Positives, *, exclude_seen: bool
) -> tuple[sparse.csr_array, dict[str, int], pd.DataFrame]:
    """The positives to measure by, [n_users, n_items], and what became of the others.

    Also their rows of users and items, and their times, as a table.

    Raises:
        DataError: none is left.
    """
    known = shared.items >= 0
    pairs = shared.users[known], shared.items[known]
    times = positives.times[known]
    if exclude_seen:
        trained = [shared.trained_on(place) for place in range(shared.n_versions)]
        new = ~np.logical_or.reduce([_are_in(matrix, *pairs) for matrix in trained])
        pairs, times = (pairs[0][new], pairs[1][new]), times[new]
    counts = {
        "rows": positives.n_rows,
        "rejected": positives.n_rejected,
        "not positive": positives.n_not_positive,
        "of unknown items": int(np.count_nonzero(~known)),
        "trained on": int(np.count_nonzero(known)) - len(pairs[0]),
        "unknown users": shared.n_newcomers,
    }
    if not len(pairs[0]):
        raise DataError(
            f"expected positives to measure by, received none: of {len(positives.pairs):,} pairs "
            f"of a user and an item, {counts['of unknown items']:,} are of items that no version "
            f"has, and {counts['trained on']:,} were trained on; give later interactions, or "
            "measure with exclude_seen = false (--include-seen)"
        )
    ones = np.ones(len(pairs[0]), dtype=np.int64)
    asked = pd.DataFrame({"user": pairs[0], "item": pairs[1], "time": times})
    return sparse.csr_array((ones, pairs), shape=shared.shape), counts, asked


def _not_yet(shared: SharedRows, asked: pd.DataFrame) -> NotYet | None:
    """What is not there yet when users ask, which is when they choose for the last time.

    None where no version has dates of items, or the table no times.
    """
    there = shared.there_from()
    if there is None or not asked["time"].notna().any():
        return None
    latest = np.full(shared.shape[0], -np.inf)
    np.fmax.at(latest, asked["user"], asked["time"])
    np.fmin.at(there, asked["item"], asked["time"])
    return NotYet(there=there, asked=np.where(np.isfinite(latest), latest, np.inf))


def _notes(left_out: LeftOut, test: sparse.csr_array) -> tuple[str, ...]:
    """What is to be said of what is left out."""
    users = np.flatnonzero(np.diff(test.indptr))
    return () if left_out.not_yet is None else (left_out.not_yet.describe(users),)


def _are_in(matrix: sparse.csr_array, users: Rows, items: Rows) -> NDArray[np.bool_]:
    """Whether each pair has a stored entry in a matrix."""
    if not len(users):
        return np.zeros(0, dtype=np.bool_)
    return np.asarray(matrix[users, items]).ravel().astype(np.bool_)


def _with_cutoffs(rules: EvaluationConfig, k: Sequence[int]) -> EvaluationConfig:
    """The rules of an evaluation with other cut-offs, and a metric that is measured at one.

    Raises:
        ConfigError: a cut-off is below 1.
    """
    if not k:
        return rules
    if min(k) < 1:
        raise ConfigError(f"k: expected cut-offs of at least 1, received {list(k)}")
    name, _, _ = rules.metric.partition("@")
    cutoffs = tuple(dict.fromkeys(k))
    metric = rules.metric if rules.metric in metric_names(cutoffs) else f"{name}@{cutoffs[0]}"
    return dataclasses.replace(rules, k=cutoffs, metric=metric)


def _differences(first: Evaluation, second: Evaluation) -> list[Difference]:
    """Compare two evaluations of the same users, by segment and metric."""
    found = []
    for segment, figures in first.by_user.items():
        names = list(figures)
        if not names:
            continue
        others = second.by_user[segment]
        values = np.stack([figures[name] - others[name] for name in names], axis=1)
        low, high = paired_intervals(values)
        found += [
            Difference(
                segment=segment,
                metric=name,
                n_users=len(values),
                value=float(values[:, place].mean()),
                low=float(low[place]),
                high=float(high[place]),
            )
            for place, name in enumerate(names)
        ]
    return found
