"""The shape of a run's results: what `metrics.json` holds, and what the HTML report shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypedDict


class AnnSetting(TypedDict):
    """One setting of the approximate index, as measured against exact search."""

    leaves_to_search: int
    leaves: int
    """All that there are."""
    reorder: int
    recall: float
    """The share of the exact neighbours that it finds for the worst kind of query."""
    cost_us: float
    """What it is estimated to take a query in batches."""
    chosen: bool


class Reason(TypedDict):
    """A part of a score, in words."""

    text: str
    value: float


class Recommended(TypedDict):
    """An item that a user would be shown, and the largest parts of its score."""

    id: int | str
    title: str
    """Of the items' table, where a column looks like a title; else empty."""
    score: float
    reasons: list[Reason]


class SampleAnswer(TypedDict):
    """What a user who was drawn would be shown."""

    user: int | str
    past: list[str]
    """The latest items of the user's training interactions, the newest last."""
    n_past: int
    items: list[Recommended]


class Round(TypedDict):
    """One fit: round 0, or a refit with negatives mined by the round before."""

    round: int
    version: int
    """The bundle's version that the round published."""
    epochs: list[dict[str, float]]
    """Each with `epoch` (from 1), `loss`, `seconds`, the validation metric under its own name
    where there is one, and maybe `learning_rate`."""
    sampling: dict[str, Any]
    """Figures of the sampled positives and negatives in named groups, such as shares by source."""
    evaluation: dict[str, Any]
    """`Evaluation.to_dict()` over the test interactions."""
    ann: list[AnnSetting]
    """The settings tried for u2i; empty for an exact index."""
    index: list[str]
    """What is said of the index of each direction."""
    lengths: dict[str, dict[str, float]]
    """How long the vectors of users and of items are, without coordinate 0 where it is constant."""
    samples: NotRequired[list[SampleAnswer]]
    """What some users would be shown, with the reasons."""
    changes: NotRequired[dict[str, Any]]
    """`ComparedVersions.to_dict()` of the version that was current before, and this one."""
    index_costs: NotRequired[dict[str, dict[str, Any]]]
    """By direction, the kind of its index, what it found, and its MiB."""
    by_moment: NotRequired[dict[str, float]]
    """Where there is a context: the deciding metric over each user's test items at one moment,
    `with context` and `without context`."""


Rule = Literal["not-worse", "always"]
"""What makes a version current: `not-worse`, that it is not worse than the one that is; `always`,
whatever a comparison would say."""


class Promotion(TypedDict, total=False):
    """Whether a version may become current; `pipelines.publishing.promote` decides."""

    version: int
    """The version that is to become current."""
    promoted: bool
    why: str
    """A clause, such as that it is better by so much."""
    compared_with: int | None
    """The version that was current; None where the two were not compared."""
    metric: str
    users: int
    """The users that both ranked for, with test interactions that neither was trained on."""
    new: float
    """The figure of the new version; `current` is that of the other."""
    current: float
    margin: float
    """How much worse counts as not worse."""


class TimeLine(TypedDict):
    """How many interactions each part of the split has by time."""

    edges: list[float]
    """The ends of stretches of equal length, [n + 1], in the unit of the table."""
    parts: dict[str, list[int]]
    """By part, the interactions of each stretch, [n]."""


class Data(TypedDict):
    """What was read and how it was split."""

    lines: list[str]
    """Sentences, such as how the split was made and how many rows were set aside."""
    counts: dict[str, int]
    """Such as users, items and interactions by part of the split."""
    time_line: NotRequired[TimeLine]
    """Where interactions have times."""


class Timing(TypedDict):
    """How long one stage of the run took."""

    stage: str
    seconds: float


class Results(TypedDict):
    """Everything that a run found out; plain values, ready for JSON."""

    name: str
    created: str
    """ISO 8601, UTC."""
    config: dict[str, Any]
    """The settings by dotted name, such as `training.epochs`."""
    data: Data
    metric: str
    """The metric that decided when to stop and which round is current, such as `recall@20`."""
    required_recall: float
    """The recall that an approximate index must reach to be published."""
    rounds: list[Round]
    current_version: int | None
    """The version that the run left to be served, if any."""
    promotion: NotRequired[Promotion]
    """Of the last round that validated best of the run: whether its version may become current."""
    baseline: dict[str, Any]
    """`Evaluation.to_dict()` of the popularity baseline."""
    recent_baseline: NotRequired[dict[str, Any]]
    """The same of the popularity within the latest window, where validation is held out by time."""
    content_baseline: NotRequired[dict[str, Any]]
    """The same of the TF-IDF of item features, where items have other features than their id."""
    timings: list[Timing]


def served_round(results: Results) -> Round:
    """The round whose version a run left to be served.

    Raises:
        ValueError: it left none.
    """
    current = results["current_version"]
    found = [each for each in results["rounds"] if each["version"] == current]
    if not found:
        raise ValueError(f"current_version: expected that of a round, received {current}")
    return found[0]


def baselines(results: Results) -> dict[str, dict[str, Any]]:
    """The evaluations that need no training, by name: popularity, maybe of late, maybe content."""
    found = {"popularity": results["baseline"]}
    if "recent_baseline" in results:
        found["popularity of late"] = results["recent_baseline"]
    if "content_baseline" in results:
        found["TF-IDF of item features"] = results["content_baseline"]
    return found


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names such as `training.epochs`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def metric_names(cutoffs: Iterable[int]) -> list[str]:
    """Every metric at every cut-off, such as `recall@20`, in the order that reports keep."""
    order = ("recall", "ndcg", "hit_rate", "mrr", "coverage", "popularity")
    cutoffs = tuple(cutoffs)
    return [f"{name}@{k}" for name in order for k in cutoffs]
