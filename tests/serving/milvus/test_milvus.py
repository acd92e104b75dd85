"""Publishing to Milvus and searching there: in Milvus Lite and, where marked, in a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.publishing import milvus_collection as collection
from pipelines.publishing.publish_milvus import publish_milvus
from serving.milvus import connection as milvus_connection
from serving.milvus.index import MilvusIndex, indexes_in
from serving.retrieval.retriever import Retriever
from serving.server.runtime import loader as loading
from serving.server.runtime.loader import Loader
from serving.server.runtime.metrics import Metrics
from serving.server.runtime.statuses import Statuses
from tests.serving.milvus.milvus_support import Cuttable, MilvusServer
from towers.directions import DIRECTIONS
from towers.errors import ConfigError, IndexUnavailableError, RecallGateError

pytestmark = pytest.mark.slow

USER, ITEM = 2**40 + 3, "item 3"
SOURCES: dict[str, Any] = {"u2i": USER, "u2u": USER, "i2i": ITEM, "i2u": ITEM}
FILTERS: tuple[dict[str, Any], ...] = (
    {"column": "genres", "in": ["x"]},
    {"not": {"column": "item_id", "equals": "line\nbreak"}},  # not what Milvus can be asked
    {"not": {"column": "price", "range": {"lt": 0.5}}},
    {"or": [{"column": "title", "equals": "Title 7"}, {"column": "item_id", "in": ["item 9"]}]},
    {"and": [{"column": "price", "range": {"gt": 0}}, {"column": "genres", "equals": "y"}]},
    {"column": "title", "equals": "none such"},
)
CHANGE: dict[str, Any] = {
    "upsert": [
        {"item_id": "n\"e'w\\", "genres": ["fresh", "x"], "price": 3.0, "title": "New"},
        {"item_id": "item 5", "genres": ["fresh"], "price": -2.0},
        {"item_id": "two\nlines", "title": "x" * 70_000},
    ],
    "delete": ["item 88", "item 7", "none such"],
}


@pytest.fixture
def milvus(tmp_path: Path) -> Cuttable:
    return Cuttable(str(tmp_path / "m.db"))


def collections(milvus: Cuttable) -> set[str]:
    return set(milvus.call("list", lambda client, t: client.list_collections(timeout=t)))


def aliases(milvus: Cuttable) -> set[str]:
    """The collections that the aliases name."""
    return {
        milvus.call("alias", lambda client, t, name=name: client.describe_alias(name, timeout=t))[
            "collection_name"
        ]
        for name in (f"fm_recall_{direction}" for direction in DIRECTIONS)
    }


def overlap(models: Path, milvus: Cuttable, direction: str, **query: Any) -> float:
    """The share of the exact answer that comes from Milvus; the scores must agree."""
    return compare(
        Retriever.open(models, version=1),
        Retriever.open(models, index=indexes_in(milvus)),
        direction,
        **query,
    )


def compare(exact: Retriever, other: Retriever, direction: str, **query: Any) -> float:
    query = {"id": SOURCES[direction], "k": 10} | query
    expected, found = (one.retrieve(direction, **query) for one in (exact, other))
    key = expected.columns[0]
    both = expected.merge(found, on=key)
    np.testing.assert_allclose(both["score_x"], both["score_y"], rtol=1e-4, atol=1e-5)
    assert len(found) == len(expected)
    assert not found[key].duplicated().any()
    assert found["score"].is_monotonic_decreasing
    return len(both) / len(expected) if len(expected) else 1.0


def check_answers(exact: Retriever, other: Retriever) -> None:
    """Every direction, filter and depth gives the exact answers."""
    for direction in SOURCES:
        for k in (1, 10, 1000):
            assert compare(exact, other, direction, k=k) == 1
    for where in FILTERS:
        for k in (5, 1000):
            assert compare(exact, other, "u2i", k=k, where=where, exclude_seen=True) == 1
            assert compare(exact, other, "i2i", k=k, where=where) == 1
    assert compare(exact, other, "i2u", where={"column": "city", "equals": "a"}) == 1


def test_answers_are_the_exact_ones_also_after_changes(models: Path, milvus: Cuttable) -> None:
    published = publish_milvus(models, milvus)
    assert [one.direction for one in published] == list(DIRECTIONS)
    assert [one.recall for one in published] == [1.0] * 4
    exact, other = (
        Retriever.open(models, version=1),
        Retriever.open(models, index=indexes_in(milvus)),
    )
    check_answers(exact, other)
    for one in (exact, other):
        one.apply(one.change("item", **CHANGE))
    assert exact.index_sizes() == other.index_sizes()
    check_answers(exact, other)
    for where in ({"column": "genres", "in": ["fresh"]}, {"column": "title", "equals": "New"}):
        assert compare(exact, other, "u2i", where=where) == 1


@pytest.mark.slow
def test_a_graph_finds_nearly_all(
    models: Path, milvus: Cuttable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "FEW", 0)
    assert all(
        one.recall and one.recall >= 0.9 for one in publish_milvus(models, milvus, recall=0.9)
    )
    shares = [overlap(models, milvus, "u2i", id=USER + n) for n in range(0, 40, 10)]
    assert np.mean(shares) >= 0.9
    assert overlap(models, milvus, "u2i", k=1000) == 1


def test_filters_are_milvus_s_where_it_can(models: Path, milvus: Cuttable) -> None:
    publish_milvus(models, milvus)
    index = Retriever.open(models, index=indexes_in(milvus)).parts.index("u2i")
    assert isinstance(index, MilvusIndex)
    retriever = Retriever.open(models)
    found = {}
    for number, where in enumerate(FILTERS):
        question = retriever.ask("u2i", ids=[USER], where=where)
        view = index.filtered(question.where) if question.where is not None else None
        if view is not None:
            rows, _ = view.search(retriever.catalogue("user").vectors[:2], 1000)
            expected = retriever.catalogue("item").matching(question.where)  # type: ignore[arg-type]
            np.testing.assert_array_equal(np.sort(rows[0][rows[0] >= 0]), expected)
            found[number] = len(expected)
    assert sorted(found) == [0, 2, 3, 4, 5]


@pytest.mark.slow
def test_again_writes_nothing_and_old_versions_go(models: Path, milvus: Cuttable) -> None:
    publish_milvus(models, milvus, version=1)
    first = collections(milvus)
    assert aliases(milvus) == first
    publish_milvus(models, milvus, keep=1)
    both = collections(milvus)
    assert first < both
    assert aliases(milvus) == both - first
    milvus.cut_at = "write"  # going back needs no writing
    assert [one.recall for one in publish_milvus(models, milvus, version=1)] == [None] * 4
    assert aliases(milvus) == first
    assert collections(milvus) == both
    publish_milvus(models, milvus, keep=0)
    assert collections(milvus) == aliases(milvus) == both - first


@pytest.mark.slow
@pytest.mark.parametrize("task", ["write fm_recall_u2u", "rename fm_recall_i2i", "switch the al"])
def test_what_is_interrupted_is_finished_by_the_same_call(
    models: Path, milvus: Cuttable, task: str
) -> None:
    publish_milvus(models, milvus, version=1)
    before = aliases(milvus)
    milvus.cut_at = task
    with pytest.raises(IndexUnavailableError):
        publish_milvus(models, milvus)
    milvus.cut_at = None
    assert aliases(milvus) == before
    publish_milvus(models, milvus, keep=0)
    assert aliases(milvus) == collections(milvus)
    assert not aliases(milvus) & before
    assert overlap(models, milvus, "u2u") == 1


@pytest.mark.slow
def test_again_undoes_changes(models: Path, milvus: Cuttable) -> None:
    publish_milvus(models, milvus)
    changed = Retriever.open(models, index=indexes_in(milvus))
    changed.apply(changed.change("item", delete=[f"item {n}" for n in range(100)]))
    publish_milvus(models, milvus, again=True)
    index = Retriever.open(models, index=indexes_in(milvus)).parts.index("u2i")
    assert isinstance(index, MilvusIndex)
    rows, _ = index.ask(np.ones((1, 7), dtype=np.float32), 120, limit=120)
    assert (rows >= 0).all()


@pytest.mark.slow
def test_one_that_does_not_find_enough_is_not_published(
    models: Path, milvus: Cuttable, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_milvus(models, milvus, version=1)
    before = aliases(milvus)
    monkeypatch.setattr(collection, "SETTLE_S", 0.0)
    monkeypatch.setattr(collection, "measure_recall", lambda *_: np.array([0.5]))
    with pytest.raises(RecallGateError, match=r"expected recall@100 of 0.95 .* received 0.5000"):
        publish_milvus(models, milvus)
    assert aliases(milvus) == before


@pytest.mark.slow
def test_changes_wait_while_milvus_is_away(models: Path, milvus: Cuttable) -> None:
    publish_milvus(models, milvus)
    exact, other = (
        Retriever.open(models, version=1),
        Retriever.open(models, index=indexes_in(milvus)),
    )
    other.retrieve("u2i", id=USER)
    other.index_sizes()
    milvus.is_cut = True
    for one in (exact, other):
        one.apply(one.change("item", **CHANGE))
    with pytest.raises(IndexUnavailableError):
        other.retrieve("u2i", id=USER)
    milvus.is_cut = False
    check_answers(exact, other)
    index = other.parts.index("u2i")
    assert isinstance(index, MilvusIndex)
    rows, _ = index.ask(np.ones((1, 7), dtype=np.float32), 130, limit=130)
    present = np.flatnonzero(other.catalogue("item").is_present)
    np.testing.assert_array_equal(np.sort(rows[0][rows[0] >= 0]), present)


def test_a_version_that_is_not_there(models: Path, milvus: Cuttable) -> None:
    with pytest.raises(
        IndexUnavailableError, match=r"write it by: fm-recall publish MODELS --to milvus"
    ):
        Retriever.open(models, index=indexes_in(milvus)).retrieve("u2i", id=USER)


@pytest.mark.parametrize("wrong", [{"keep": -1}, {"recall": 1.5}])
def test_settings_out_of_range(models: Path, milvus: Cuttable, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected keep of at least 0 and recall within"):
        publish_milvus(models, milvus, **wrong)


@pytest.mark.slow
def test_the_server_loads_a_version_once_it_is_there_and_milvus_too(
    models: Path, milvus: Cuttable, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(
        models,
        replay=lambda retriever: None,
        statuses=Statuses(),
        metrics=Metrics(),
        index=indexes_in(milvus),
    )
    assert loader.prepare(None) is None
    publish_milvus(models, milvus)
    assert loader.prepare(None) is None  # it is not time yet
    monkeypatch.setattr(loading, "AGAIN_S", 0.0)
    milvus.is_cut = True
    again = Loader(
        models,
        replay=lambda retriever: None,
        statuses=Statuses(),
        metrics=Metrics(),
        index=indexes_in(milvus),
    )
    assert again.prepare(None) is None
    milvus.is_cut = False
    served = again.prepare(None)
    assert served is not None
    assert isinstance(served.retriever.parts.index("i2u"), MilvusIndex)
    assert again.prepare(served.retriever.bundle.manifest) is None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.mark.milvus
def test_a_real_server_with_changes_and_a_restart(
    models: Path, server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "FEW", 100)  # items have a graph, users none
    milvus = Cuttable(server.uri)
    published = publish_milvus(models, milvus)
    assert all(one.recall is not None and one.recall >= 0.95 for one in published)
    assert aliases(milvus) == {one.collection for one in published} == collections(milvus)
    exact, other = (
        Retriever.open(models, version=1),
        Retriever.open(models, index=indexes_in(milvus)),
    )
    check_answers(exact, other)
    for one in (exact, other):
        one.apply(one.change("item", **CHANGE))
    check_answers(exact, other)
    server.kill()
    began = time.monotonic()
    with pytest.raises(IndexUnavailableError, match=r"Milvus at http://127.0.0.1:\d+: search"):
        other.retrieve("u2i", id=USER)
    assert time.monotonic() - began < 12
    late: dict[str, Any] = {
        "upsert": [{"item_id": "late", "genres": ["fresh"]}],
        "delete": ["item 9"],
    }
    for one in (exact, other):
        one.apply(one.change("item", **late))
    server.start()
    end = time.monotonic() + 60
    while True:
        try:
            other.retrieve("u2i", id=USER)
            break
        except IndexUnavailableError:
            assert time.monotonic() < end
            time.sleep(milvus_connection.LOOK_EVERY_S)
    check_answers(exact, other)
