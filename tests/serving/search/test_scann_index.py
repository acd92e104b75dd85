from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from google.protobuf import text_format
from scann.proto.scann_pb2 import ScannConfig

from serving.search.scann_index import ScannIndex, ScannSettings, Storage
from towers.errors import BundleError, ConfigError

VECTORS = np.random.default_rng(4).normal(size=(300, 5)).astype(np.float32)
TREE = ScannSettings(num_leaves=20, leaves_to_search=2, reorder=30, recall_k=10)
TREES = [dataclasses.replace(TREE, storage=storage) for storage in get_args(Storage)]


@pytest.fixture(scope="module")
def index() -> ScannIndex:
    return ScannIndex.build(VECTORS, TREE)


@pytest.mark.parametrize(("num_leaves", "expected"), [(20, 100_000), (2000, 256_000)])
def test_leaves_are_learned_from_enough_vectors(num_leaves: int, expected: int) -> None:
    vectors = np.random.default_rng(5).normal(size=(2000, 3)).astype(np.float32)
    index = ScannIndex.build(vectors, ScannSettings(num_leaves=num_leaves))
    config = text_format.Parse(str(index.searcher.config()), ScannConfig())
    assert config.partitioning.expected_sample_size == expected


@pytest.mark.parametrize("settings", [*TREES, ScannSettings(num_leaves=None)])
def test_stored_index_answers_the_same_wherever_it_is(
    tmp_path: Path, settings: ScannSettings
) -> None:
    index = ScannIndex.build(VECTORS, settings)
    index.save(tmp_path / "here" / "index")
    shutil.move(tmp_path / "here", tmp_path / "there")
    folder = tmp_path / "there" / "index"
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in folder.iterdir())
    loaded = ScannIndex.load(folder, settings=settings, width=5)
    assert loaded.size == 300
    for k in (7, 200):
        for expected, received in zip(
            index.search(VECTORS, k), loaded.search(VECTORS, k), strict=True
        ):
            np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("missing", ["scann_assets.pbtxt", "hashed_dataset.npy"])
def test_index_that_is_not_whole_is_refused(
    tmp_path: Path, index: ScannIndex, missing: str
) -> None:
    index.save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(BundleError, match=r"expected a ScaNN index, received .+; publish again"):
        ScannIndex.load(tmp_path, settings=TREE, width=5)


def test_search_once_stops_where_its_leaves_end(index: ScannIndex) -> None:
    little = dataclasses.replace(TREE, leaves_to_search=1, recall_k=30)
    index = dataclasses.replace(index, settings=little)
    rows, scores = index.search_once(VECTORS, 30)  # a leaf has 15 vectors in the mean
    assert (rows < 0).any()
    assert np.isneginf(scores[rows < 0]).all()
    assert np.isfinite(scores[rows >= 0]).all()
    rows, _ = index.search(VECTORS, 30)
    assert (rows >= 0).all()


def test_effort_grows_with_k_up_to_everything() -> None:
    assert [TREE.effort(k, size=300) for k in (1, 10, 25, 100, 300)] == [
        (2, 30),
        (2, 30),
        (5, 75),
        (20, 300),
        (20, 300),
    ]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="leaves_to_search: expected at most num_leaves = 4"):
        ScannSettings(num_leaves=4, leaves_to_search=5)
    with pytest.raises(ConfigError, match="reorder: expected at least recall_k = 100"):
        ScannSettings(num_leaves=4, reorder=99)
    with pytest.raises(ConfigError, match="num_leaves: expected at most 300"):
        ScannIndex.build(VECTORS, ScannSettings(num_leaves=301))
    with pytest.raises(ConfigError, match="at least 16"):
        ScannIndex.build(VECTORS[:15], ScannSettings(num_leaves=2))


def test_each_storage_takes_its_bytes_and_keeps_scores_so_exact(tmp_path: Path) -> None:
    vectors = np.random.default_rng(5).normal(size=(3000, 65)).astype(np.float32)
    queries = np.random.default_rng(6).normal(size=(40, 65)).astype(np.float32)
    spread = (queries @ vectors.T).std()
    sizes, errors = {}, {}
    for storage in get_args(Storage):
        every = ScannSettings(num_leaves=20, leaves_to_search=20, reorder=800, storage=storage)
        index = ScannIndex.build(vectors, every)
        rows, scores = index.search(queries, 100)
        true = np.take_along_axis(queries @ vectors.T, rows, axis=1)
        errors[storage] = float(np.abs(scores - true).max() / spread)
        index.save(tmp_path / storage)
        large = (tmp_path / storage).glob("*dataset.npy")
        sizes[storage] = sum(
            path.stat().st_size for path in large if path.name != "hashed_dataset.npy"
        )
    n = vectors.size
    assert sizes == {"float32": 4 * n + 128, "bfloat16": 2 * n + 128, "int8": n + 128}
    assert errors["float32"] < 1e-5
    assert 1e-4 < errors["bfloat16"] < 0.02
    assert errors["bfloat16"] < errors["int8"] < 0.06


def test_a_coordinate_beyond_those_it_was_built_from_is_cut_off_in_int8() -> None:
    vectors = np.random.default_rng(5).normal(size=(300, 5)).astype(np.float32)
    far = np.zeros((1, 5), np.float32)
    far[0, 0] = 50.0
    query = np.array([[1, 0, 0, 0, 0]], np.float32)
    found = {}
    for storage in get_args(Storage):
        every = ScannSettings(num_leaves=4, leaves_to_search=4, reorder=400, storage=storage)
        index = ScannIndex.build(vectors, every)
        index.upsert(np.array([-1]), far)
        (rows,), (scores,) = index.search(query, 301)
        found[storage] = float(scores[rows == 300][0])
    assert found["float32"] == found["bfloat16"] == 50.0
    assert found["int8"] == pytest.approx(np.abs(vectors[:, 0]).max(), rel=0.01)
