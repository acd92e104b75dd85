from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf

from serving.retrieval.retriever import Retriever
from serving.version.seen import Seen
from towers.errors import BundleError, QueryError

ROW = 3
USER, ITEM = 2**40 + ROW, f"item {ROW}"
SOURCES: dict[str, Any] = {"u2i": USER, "u2u": USER, "i2i": ITEM, "i2u": ITEM}


@pytest.fixture(scope="module")
def exact(models: Path) -> Retriever:
    return Retriever.open(models, version=1)


@pytest.fixture(scope="module")
def scann(models: Path) -> Retriever:
    return Retriever.open(models)


def ids(frame: pd.DataFrame) -> list[Any]:
    return frame.iloc[:, 0].tolist()


def single(features: dict[str, list[Any]]) -> dict[str, Any]:
    return {name: values[0] for name, values in features.items()}


@pytest.mark.parametrize("direction", SOURCES)
def test_exact_answer_is_the_full_ranking_without_the_source_itself(
    world: Any, exact: Retriever, direction: str
) -> None:
    expected, scores = world.rank(direction, ROW)
    others = expected != SOURCES[direction]
    frame = exact.retrieve(direction, id=SOURCES[direction], k=1000)
    assert ids(frame) == expected[others].tolist()
    np.testing.assert_allclose(frame["score"], scores[others], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("direction", SOURCES)
@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_answers_are_those_of_the_saved_models(
    world: Any, request: pytest.FixtureRequest, direction: str, kind: str
) -> None:
    retriever: Retriever = request.getfixturevalue(kind)
    side = "user" if direction[0] == "u" else "item"
    features = world.features(side, ROW)
    model = world.model(direction, kind)
    signature = world.towers[side].signature
    tensors = {name: tf.constant(x, signature[name].dtype) for name, x in features.items()}
    unwanted = [USER] if direction == "u2u" else []
    exclude = tf.constant([unwanted], tf.int64 if direction[-1] == "u" else tf.string)
    answer = model(tensors, k=tf.constant([20]), exclude=exclude)
    names = [x.decode() if isinstance(x, bytes) else x for x in answer["ids"][0].numpy()]
    for query in ({"id": SOURCES[direction]}, {"features": single(features)}):
        frame = retriever.retrieve(direction, k=20, exclude=unwanted, **query)
        np.testing.assert_allclose(frame["score"], answer["scores"][0], rtol=1e-4, atol=1e-5)
        assert ids(frame) == names


def test_sets_and_frames_are_read_as_lists_are(exact: Retriever) -> None:
    unwanted = ids(exact.retrieve("u2i", id=USER, k=5))
    expected = ids(exact.retrieve("u2i", id=USER, exclude=unwanted))
    assert ids(exact.retrieve("u2i", id=USER, exclude=set(unwanted))) == expected
    features: dict[str, list[Any]] = {"city": ["a", None], "history": [["item 3"], []]}
    found = exact.retrieve_batch("u2i", features=pd.DataFrame(features))
    np.testing.assert_array_equal(found.ids, exact.retrieve_batch("u2i", features=features).ids)


def test_frame_has_the_id_the_score_and_what_is_to_be_shown(exact: Retriever) -> None:
    frame = exact.retrieve("u2i", id=USER, k=4)
    assert list(frame) == ["id", "score", "item.genres", "item.price", "item.title"]
    assert list(frame.index) == [0, 1, 2, 3]
    assert frame["item.title"].tolist() == [name.replace("item", "Title") for name in ids(frame)]
    assert exact.retrieve("u2u", id=USER)["id"].dtype == np.int64


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_exclusions_leave_room_for_others(request: pytest.FixtureRequest, kind: str) -> None:
    retriever: Retriever = request.getfixturevalue(kind)
    unwanted = ids(retriever.retrieve("u2i", id=USER, k=30))
    found = ids(retriever.retrieve("u2i", id=USER, k=30, exclude=[*unwanted, "item none"]))
    assert len(set(found) - set(unwanted)) == 30
    everything = ids(retriever.retrieve("u2i", id=USER, k=120))
    assert retriever.retrieve("u2i", id=USER, exclude=everything).empty


def test_seen_targets_are_left_out_both_ways(world: Any, exact: Retriever) -> None:
    user_ids, item_ids = (world.sides[side].ids.to_numpy() for side in ("user", "item"))
    has = world.seen.matrix.toarray()
    found = ids(exact.retrieve("u2i", id=USER, k=1000, exclude_seen=True))
    assert set(found) == set(item_ids[~has[ROW]])
    found = ids(exact.retrieve("i2u", id=ITEM, k=1000, exclude_seen=True))
    assert set(found) == set(user_ids[~has[:, ROW]])


def test_what_was_judged_is_left_out_both_ways(
    world: Any, exact: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_ids, item_ids = (world.sides[side].ids.to_numpy() for side in ("user", "item"))
    judged = np.zeros(world.seen.matrix.shape, dtype=np.bool_)
    judged[ROW, 3:9] = judged[5:20, ROW] = True
    has = world.seen.matrix.toarray() | judged
    seen = Seen(world.seen.matrix, scipy.sparse.csr_array(judged))
    monkeypatch.setitem(vars(exact.parts), "seen", seen)
    found = ids(exact.retrieve("u2i", id=USER, k=1000, exclude_seen=True))
    assert set(found) == set(item_ids[~has[ROW]])
    found = ids(exact.retrieve("i2u", id=ITEM, k=1000, exclude_seen=True))
    assert set(found) == set(user_ids[~has[:, ROW]])


def test_history_given_counts_as_seen(exact: Retriever) -> None:
    history = ["item 5", "item 9", "new item"]
    assert {"item 5", "item 9"} < set(
        ids(exact.retrieve("u2i", features={"history": history}, k=1000))
    )
    found = exact.retrieve("u2i", features={"history": history}, k=1000, exclude_seen=True)
    assert len(found) == 118
    assert not {"item 5", "item 9"} & set(ids(found))


def test_nothing_known_still_has_an_answer(exact: Retriever) -> None:
    """That of the default user, who is one feature more than the items' own quality."""
    items = exact.catalogue("item").vectors
    parts = exact.explain("u2i", source={"features": {}}, target={"id": ITEM}).parts()
    assert {str(part.source) for part in parts if part.source} == {"default user: 1"}
    own = sum(part.value for part in parts if part.source is None)
    assert own == pytest.approx(items[ROW, 0], abs=1e-5)
    best = exact.retrieve("u2i", features={}, k=1)
    (default,) = exact.tower("user")(exact.tower("user").pack({}, size=1))
    assert ids(best) == [f"item {(items @ default).argmax()}"]
    assert best["score"][0] == pytest.approx((items @ default).max(), rel=1e-5)
    assert (exact.retrieve("u2u", features={}, k=3)["score"] > 0.0).all()


@pytest.mark.parametrize("direction", SOURCES)
def test_batch_gives_the_answers_of_single_queries(exact: Retriever, direction: str) -> None:
    side = exact.catalogue("user") if direction[0] == "u" else exact.catalogue("item")
    some = side.ids(np.array([7, 0, 31])).tolist()
    seen = direction in {"u2i", "i2u"}
    hits = exact.retrieve_batch(direction, ids=some, k=50, exclude_seen=seen)
    assert hits.ids.shape == hits.rows.shape == hits.scores.shape == (3, 50)
    for query, source in enumerate(some):
        frame = exact.retrieve(direction, id=source, k=50, exclude_seen=seen)
        found = hits.rows[query] >= 0
        assert hits.ids[query][found].tolist() == ids(frame)
        np.testing.assert_allclose(hits.scores[query][found], frame["score"], rtol=1e-5, atol=1e-6)
        assert np.isneginf(hits.scores[query][~found]).all()


def test_batch_of_features(exact: Retriever) -> None:
    features: dict[str, list[Any]] = {
        "history": [["item 1"], [], None],
        "city": ["a", "nowhere", None],
    }
    hits = exact.retrieve_batch("u2i", features=features, k=5)
    for query, (history, city) in enumerate(zip(*features.values(), strict=True)):
        frame = exact.retrieve("u2i", features={"history": history, "city": city}, k=5)
        assert hits.ids[query].tolist() == ids(frame)
    assert exact.retrieve_batch("u2i", ids=[]).ids.shape == (0, 10)


@pytest.mark.parametrize(
    ("direction", "query", "message"),
    [
        ("i2x", {"id": ITEM}, "direction: expected one of ['u2i', 'i2i', 'u2u', 'i2u']"),
        ("u2i", {}, "expected either the id or the features of the user, received neither"),
        ("i2i", {"id": ITEM, "features": {}}, "features of the item, received both"),
        ("u2i", {"id": 7}, "user_id: version 1 has no user 7; ask by features instead"),
        (
            "u2i",
            {"id": str(USER)},
            f"user_id: expected a 64-bit integer, as in training, received '{USER}'",
        ),
        ("i2i", {"id": 7}, "item_id: expected text, as in training, received 7"),
        ("u2i", {"id": USER, "exclude": [7]}, "item_id: expected text"),
        ("u2i", {"id": USER, "k": 0}, "k: expected at least 1, received 0"),
        ("u2i", {"id": USER, "k": 2.0}, "k: expected an integer, received 2.0"),
        ("u2i", {"id": USER, "k": True}, "k: expected an integer, received True"),
        ("u2i", {"features": {"town": "a"}}, "unknown features ['town']"),
        ("i2i", {"features": {"price": "cheap"}}, "feature 'price'"),
        ("i2i", {"id": ITEM, "exclude_seen": True}, "exclude_seen: expected u2i or i2u"),
    ],
)
def test_queries_that_have_no_answer_are_refused(
    exact: Retriever, direction: str, query: dict[str, Any], message: str
) -> None:
    with pytest.raises(QueryError, match=re.escape(message)):
        exact.retrieve(direction, **query)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"kind": "exact"}, "directions: required"),
        ({"kind": "exact", "directions": {}}, "index.directions: expected ['u2i', 'i2i',"),
    ],
)
def test_damaged_index_record_is_refused(
    exact: Retriever, index: dict[str, Any], message: str
) -> None:
    manifest = dataclasses.replace(exact.bundle.manifest, index=index)
    retriever = Retriever(dataclasses.replace(exact.bundle, manifest=manifest))
    with pytest.raises(BundleError, match=rf"(?s)manifest\.json: .*{re.escape(message)}"):
        retriever.retrieve("u2i", id=USER)


def test_only_what_matches_and_scores_enough(exact: Retriever) -> None:
    where = {"and": [{"column": "genres", "equals": "y"}, {"column": "price", "range": {"gt": 0}}]}
    frame = exact.retrieve("u2i", id=USER, k=1000, where=where)
    everything = exact.retrieve("u2i", id=USER, k=1000)
    columns = everything[["item.genres", "item.price"]].values
    fits = [("y" in genres) and price > 0 for genres, price in columns]
    assert ids(frame) == ids(everything[fits])
    assert 0 < len(frame) < 40
    limit = float(frame["score"].iloc[5])
    assert ids(exact.retrieve("u2i", id=USER, k=8, where=where, min_score=limit)) == ids(frame)[:6]
    seen = set(ids(frame)) - set(
        ids(exact.retrieve("u2i", id=USER, where=where, exclude_seen=True, k=99))
    )
    assert seen == set(ids(frame)) & set(
        exact.catalogue("item").ids(exact.parts.seen.of("user", ROW))
    )
    with pytest.raises(QueryError, match="'gernes'"):
        exact.retrieve("u2i", id=USER, where={"column": "gernes", "equals": "y"})


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_questions_answered_together_are_answered_as_alone(
    request: pytest.FixtureRequest, kind: str
) -> None:
    retriever: Retriever = request.getfixturevalue(kind)
    where = {"column": "genres", "equals": "x"}
    history = ["item 5", "item 9"]
    questions = [
        retriever.ask("u2i", ids=[USER], k=3),
        retriever.ask("i2i", ids=[ITEM, "item 8"], k=9),
        retriever.ask("u2i", features={"history": [history, None]}, k=40, exclude_seen=True),
        retriever.ask("u2i", ids=[USER, USER + 1], k=7, where=where, exclude=["item 0"]),
        retriever.ask("u2i", ids=[], k=5),
        retriever.ask("i2u", features={"price": [1.0]}, k=1000, min_score=0.2),
        retriever.ask_packed(
            "u2i",
            retriever.tower("user").pack({"history": [["item 1"], []]}, size=2),
            k=np.array([2, 6]),
            exclude=np.array([["item 3", "none"], ["none", "none"]], dtype=object),
        ),
    ]
    together = retriever.answer(questions)
    for question, hits in zip(questions, together, strict=True):
        (alone,) = retriever.answer([question])
        assert hits.ids.shape == alone.ids.shape
        if kind == "exact":
            assert hits.ids.tolist() == alone.ids.tolist()
        assert (np.isneginf(hits.scores) == (hits.rows < 0)).all()
        for row, found in zip(hits.rows, hits.ids, strict=True):
            assert len(set(row[row >= 0])) == (row >= 0).sum()
            assert (
                found[row < 0] == retriever.catalogue(question.direction.target).missing_id
            ).all()
    assert [hits.ids.shape for hits in together] == [
        (1, 3), (2, 9), (2, 40), (2, 7), (0, 5), (1, 60), (2, 6),
    ]  # fmt: skip
    assert (together[6].rows >= 0).sum(axis=1).tolist() == [2, 6]
    assert "item 3" not in together[6].ids[0]


def test_warm_reads_everything(models: Path) -> None:
    retriever = Retriever.open(models)
    retriever.warm()
    assert retriever.index_sizes() == {"u2i": 120, "i2i": 120, "u2u": 60, "i2u": 60}
