"""What a version says about itself is there, and true."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections import defaultdict
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipelines.config import RunConfig
from serving.retrieval.retriever import Retriever
from towers.typed import parse

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.e2e.conftest import Published

PACKAGES = ("tensorflow", "tf_keras", "tensorflow-recommenders", "scann", "numpy")


@pytest.mark.parametrize("version", [1, 2])
def test_configuration_and_schema_are_those_of_the_run(exact: Published, version: int) -> None:
    manifest = exact.open(version).bundle.manifest
    config = parse(RunConfig, manifest.config, where="manifest")
    # the rest is as it was asked for; of the start, what was not set was chosen
    asked = dataclasses.replace(config, user=exact.config.user, model=exact.config.model)
    assert asked == exact.config
    for name, value in dataclasses.asdict(exact.config.model).items():
        assert value is None or value == getattr(config.model, name)
    assert None not in {history.popularity_power for history in config.schema.histories}
    assert manifest.schema_fingerprint == config.schema.fingerprint()
    assert (manifest.version, manifest.name) == (version, exact.config.name)


def test_packages_are_those_installed(published: Published) -> None:
    packages = dict(published.open().bundle.manifest.packages)
    packages.pop("fm-recall", None)
    expected = {name: metadata.version(name) for name in PACKAGES}
    assert packages == expected | {"python": platform.python_version()}


def test_every_file_has_its_checksum(published: Published) -> None:
    bundle = published.open().bundle
    sums = {
        path.relative_to(bundle.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bundle.path.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert {name: record.sha256 for name, record in bundle.manifest.files.items()} == sums


def test_first_version_has_no_parent_and_mined_nothing(exact: Published) -> None:
    manifest = exact.open(version=1).bundle.manifest
    assert (manifest.parent_version, manifest.mined) == (None, None)
    assert mined_share(exact, 0) == 0.0


def test_second_version_was_mined_with_the_first(exact: Published) -> None:
    manifest = exact.open(version=2).bundle.manifest
    ranks = list(exact.config.training.negatives.mined_ranks)
    queries = len(exact.frames["users"])
    assert manifest.parent_version == 1
    assert manifest.mined == {"version": 1, "ranks": ranks, "queries": queries}
    assert mined_share(exact, 1) > 0.0


@pytest.mark.parametrize("version", [1, 2])
def test_metrics_are_those_of_the_vectors_published(exact: Published, version: int) -> None:
    retriever = exact.open(version)
    metrics = retriever.bundle.manifest.metrics
    written = json.loads(retriever.bundle.metrics.read_text(encoding="utf-8"))
    assert written["rounds"][version - 1]["evaluation"] == metrics
    assert written["rounds"] == exact.results["rounds"][:version]
    for k in exact.config.evaluation.k:
        expected = recall_of_test_items(exact, retriever, k=k)
        assert 0.0 < expected < 1.0
        assert metrics["segments"]["all"]["figures"][f"recall@{k}"] == pytest.approx(expected)


def test_seen_pairs_are_the_interactions_learned_from(published: Published) -> None:
    retriever = published.open()
    rows, columns = (each.astype(np.int64) for each in retriever.parts.seen.matrix.nonzero())
    users, items = retriever.catalogue("user").ids(rows), retriever.catalogue("item").ids(columns)
    pairs = zip(users, items, strict=True)
    kept = zip(published.kept["user_id"], published.kept["item_id"], strict=True)
    assert set(pairs) == set(kept)


def test_index_of_a_small_corpus_finds_all_and_says_so(published: Published) -> None:
    bundle = published.open().bundle
    index = bundle.manifest.index
    assert index["kind"] == published.config.index.kind
    for name, direction in index["directions"].items():
        assert direction["recall"] == 1.0
        assert [shell["num_leaves"] for shell in direction["shells"]] in ([], [None])
        assert (direction["shells"] == []) == (index["kind"] == "exact")
        assert direction["missed"] == ""
        assert not bundle.index(name).exists()
    assert published.results["rounds"][-1]["ann"] == []


def mined_share(published: Published, number: int) -> float:
    """The share of the sampled negatives of a round that were mined."""
    sampling = published.results["rounds"][number]["sampling"]
    return float(sampling["share of sampled negatives"]["mined"])


def recall_of_test_items(published: Published, retriever: Retriever, *, k: int) -> float:
    """Rank all items for each user by the stored vectors, without those it has, and count hits."""
    held_out: dict[int, set[str]] = defaultdict(set)
    for user, item in published.held_out[["user_id", "item_id"]].itertuples(index=False):
        held_out[user].add(item)
    shares = []
    for user, wanted in held_out.items():
        row = retriever.catalogue("user").rows([user])[0]
        scores = retriever.catalogue("item").vectors @ retriever.catalogue("user").vectors[row]
        scores[retriever.parts.seen.of("user", row)] = -np.inf
        best = retriever.catalogue("item").ids(np.argsort(-scores)[:k])
        shares.append(len(wanted & set(best)) / len(wanted))
    return float(np.mean(shares))
