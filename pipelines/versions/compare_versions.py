"""Compare two published versions: their settings, data, figures, vectors, answers and indexes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.length_spread import length_spread
from pipelines.results import flatten
from serving.retrieval.retriever import Retriever
from serving.version.bundle import Bundle
from serving.version.index_record import IndexRecord
from serving.version.manifest import MANIFEST
from towers.errors import ConfigError
from towers.features.schema import SIDES

Pair = tuple[Any, Any]
"""A value of the first version, and of the second; None where it has none."""

SEGMENTS = ("all", "warm_users", "cold_users", "warm_items", "cold_items", "new_items")
"""The segments whose figures are compared."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How much the lists of two versions agree, for a sample of the users that both have."""

    n_users: int
    k: int
    shared: float
    """The mean share of a list that is in the other's too."""
    first: float
    """The share of the users whose first item is the same."""
    equal: float
    """The share of the users whose lists have the same items."""


@dataclass(frozen=True, kw_only=True)
class ComparedVersions:
    """What differs between two versions."""

    versions: tuple[int, int]
    settings: Mapping[str, Pair]
    """The settings that differ, by dotted name."""
    counts: Mapping[str, Pair]
    """Users, items, training interactions, and how many of them both versions have."""
    figures: Mapping[str, Pair]
    """Recall, NDCG and coverage at the cut-off of the metric that decided, by segment, as each was
    measured on what had been held out from it: not the same interactions, if the tables differ."""
    lengths: Mapping[str, Pair]
    """The spread of the lengths of the vectors."""
    index: Mapping[str, Pair]
    """By direction: the kind of the index, the recall that it was published with, and its MiB;
    and the microseconds that a user of the sample took here, in one batch."""
    overlap: Overlap | None
    """Of the lists of u2i, without what was seen; None where no user is in both versions."""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        plain: dict[str, Any] = dataclasses.asdict(self)
        return plain


def compare_versions(
    models: str | Path, first: int, second: int, *, k: int = 20, n_users: int = 1000, seed: int = 0
) -> ComparedVersions:
    """Compare two versions of a models directory.

    Args:
        models: the directory.
        first: a version.
        second: the other.
        k: how many items the lists have that are compared.
        n_users: how many users are drawn among those that both versions have.
        seed: decides the draw.

    Raises:
        BundleError: there is no such version, or it is damaged.
        ConfigError: k or n_users is below 1.
    """
    if k < 1 or n_users < 1:
        raise ConfigError(f"compare: expected k and users of at least 1, received {k}, {n_users}")
    pair = Retriever.open(models, version=first), Retriever.open(models, version=second)
    return compare_opened(pair, k=k, n_users=n_users, seed=seed)


def compare_opened(
    pair: tuple[Retriever, Retriever], *, k: int, n_users: int, seed: int = 0
) -> ComparedVersions:
    """Compare two versions that are open; see `compare_versions`."""
    overlap, costs = _overlap(pair, k=k, n_users=n_users, seed=seed)
    settings = [flatten(each.bundle.manifest.config) for each in pair]
    figures = [_figures(each.bundle) for each in pair]
    return ComparedVersions(
        versions=(pair[0].version, pair[1].version),
        settings={name: both for name, both in _paired(*settings).items() if both[0] != both[1]},
        counts=_paired(_counts(*pair), _counts(*reversed(pair))),
        figures=_paired(*figures),
        lengths=_paired(*(_lengths(each) for each in pair)),
        index=_paired(*(_flat(index_costs(each.bundle)) for each in pair)) | costs,
        overlap=overlap,
    )


def _paired(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Pair]:
    """The values of both by name, in the order of the first."""
    names = dict.fromkeys([*first, *second])
    return {name: (first.get(name), second.get(name)) for name in names}


def _mib(files: Iterable[Path]) -> float:
    return round(sum(path.stat().st_size for path in files) / 2**20, 2)


def _flat(costs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}, {what}": x for name, one in costs.items() for what, x in one.items()}


def _counts(version: Retriever, other: Retriever) -> dict[str, Any]:
    """How much a version knows, and how much of it the other does."""
    parts, found = version.parts, dict[str, Any]()
    for side in SIDES:
        ids = version.catalogue(side).published.ids
        found[f"{side}s"] = len(ids)
        others = other.catalogue(side).published.ids
        same_type = ids.dtype == others.dtype
        shared = int(np.count_nonzero(others.find(ids.to_numpy()) >= 0)) if same_type else 0
        found[f"{side}s only here"] = len(ids) - shared
    judged = parts.seen.judged
    return found | {
        "training interactions": int(parts.seen.matrix.nnz),
        "judged otherwise": 0 if judged is None else int(judged.nnz),
        "rows of the feature table": parts.vocabulary.n_rows,
    }


def _figures(bundle: Bundle) -> dict[str, float]:
    """The figures of the manifest, by metric and segment."""
    metrics = bundle.manifest.metrics
    k = metrics["decile_k"]
    return {
        f"{name}@{k} of {segment.replace('_', ' ')}": figures[f"{name}@{k}"]
        for segment in SEGMENTS
        if (figures := metrics["segments"].get(segment, {}).get("figures"))
        for name in ("recall", "ndcg", "coverage")
    }


def _lengths(version: Retriever) -> dict[str, float]:
    """The spread of the lengths of users' and items' vectors."""
    return {
        f"{side}s, {name}": length
        for side in SIDES
        for name, length in length_spread(version.catalogue(side).vectors).items()
    }


def index_costs(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """What is recorded of the index of each direction, and its size."""
    record = IndexRecord.from_dict(bundle.manifest.index, where=str(bundle.path / MANIFEST))
    found: dict[str, dict[str, Any]] = {}
    for name, one in record.directions.items():
        trees = [path for path in bundle.index(name).rglob("*") if path.is_file()]
        model = [path for path in bundle.model(name).rglob("*") if path.is_file()]
        found[name] = {
            "kind": f"{len(one.trees)} tree(s)" if one.trees else "exact",
            "recall": one.recall,
            "MiB of trees": _mib(trees),
            "MiB of SavedModel": _mib(model),
        }
    return found


def _overlap(
    pair: tuple[Retriever, Retriever], *, k: int, n_users: int, seed: int
) -> tuple[Overlap | None, dict[str, Pair]]:
    """Compare the lists of some users that both versions have, and time the answers."""
    tables = [each.catalogue("user").published.ids for each in pair]
    if tables[0].dtype != tables[1].dtype:
        return None, {}
    ids = tables[0].to_numpy()
    ids = ids[tables[1].find(ids) >= 0]
    if not len(ids):
        return None, {}
    chosen = np.random.default_rng(seed).permutation(ids)[:n_users].tolist()
    (first, first_us), (second, second_us) = (_ask(each, chosen, k=k) for each in pair)
    lists = list(zip(first, second, strict=True))
    overlap = Overlap(
        n_users=len(chosen),
        k=k,
        shared=float(np.mean([len({*a} & {*b}) / max(len(a), len(b), 1) for a, b in lists])),
        first=float(np.mean([a[:1] == b[:1] for a, b in lists])),
        equal=float(np.mean([{*a} == {*b} for a, b in lists])),
    )
    return overlap, {"u2i, µs a user": (first_us, second_us)}


def _ask(version: Retriever, users: list[Any], *, k: int) -> tuple[list[list[Any]], float]:
    """The items of each user's list, and the microseconds that a user took."""
    version.retrieve_batch("u2i", ids=users[:1], k=k, exclude_seen=True)  # reads the index
    start = time.perf_counter()
    hits = version.retrieve_batch("u2i", ids=users, k=k, exclude_seen=True)
    spent = time.perf_counter() - start
    found = zip(hits.ids, hits.rows >= 0, strict=True)
    return [ids[is_hit].tolist() for ids, is_hit in found], spent / len(users) * 1e6
