from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.retrieval.explanation import terms as explain_terms
from serving.retrieval.explanation.explain import Explanation
from serving.retrieval.retriever import Retriever
from serving.version.embeddings import Embeddings
from serving.version.saved_models.graphs import TowerModel
from serving.version.store import Store
from tests.examples import examples
from tests.serving.conftest import N_ITEMS, N_USERS, Publish, World, provenance
from towers.directions import DIRECTIONS
from towers.errors import BundleError, QueryError

USER, ITEM = 2**40 + 3, "item 7"
NEW_ITEM = {"item_id": "new", "genres": ["y", "?", "!"], "price": 0.3, "title": "New"}
NEW_USER = {"user_id": 7, "city": "b", "history": ["item 1", "gone", "item 5"]}
ROWS = {"user": N_USERS, "item": N_ITEMS}


@pytest.fixture(scope="module")
def retriever(models: Path) -> Retriever:
    return Retriever.open(models, version=1)


@pytest.fixture
def live(models: Path) -> Retriever:
    """One that a test may change."""
    return Retriever.open(models, version=1)


def total(explanation: Explanation) -> float:
    return sum(part.value for part in explanation.parts())


def close(score: float, explanation: Explanation) -> Any:
    size = sum(abs(part.value) for part in explanation.parts())
    return pytest.approx(score, abs=1e-6 * max(size, 1.0))


@pytest.mark.parametrize("direction", DIRECTIONS)
@settings(max_examples=examples(25), deadline=None)
@given(data=st.data())
def test_parts_sum_to_the_score_of_the_full_ranking(
    world: World, retriever: Retriever, direction: str, data: st.DataObject
) -> None:
    chosen = DIRECTIONS[direction]
    source, target = (
        data.draw(st.integers(0, ROWS[side] - 1)) for side in (chosen.source, chosen.target)
    )
    ids, scores = world.rank(direction, source)
    (wanted,) = world.sides[chosen.target].ids.take(np.array([target]))
    score = float(scores[ids.tolist().index(wanted)])
    (own,) = world.sides[chosen.source].ids.take(np.array([source]))
    given_source: dict[str, Any] = {"id": own}
    if data.draw(st.booleans()):
        features = world.features(chosen.source, source)
        given_source = {"features": {name: values[0] for name, values in features.items()}}
    explanation = retriever.explain(direction, source=given_source, target={"id": wanted})
    assert explanation.score == close(score, explanation)
    assert total(explanation) == close(score, explanation)


@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_fresh_ones_are_explained_by_what_they_were_put_in_with(
    live: Retriever, direction: str
) -> None:
    replaced = {"item_id": ITEM, "genres": ["x"], "price": -2.0, "title": "Other"}
    live.apply(live.change("item", upsert=[NEW_ITEM, replaced]))
    live.apply(live.change("user", upsert=[NEW_USER]))
    chosen = DIRECTIONS[direction]
    fresh: dict[str, list[Any]] = {"user": [7], "item": ["new", ITEM]}
    source = {"id": fresh[chosen.source][0]}
    hits = live.retrieve(direction, k=500, id=source["id"])
    targets = [USER, *fresh["user"]] if chosen.target == "user" else ["item 1", *fresh["item"]]
    for target in targets:
        found = hits[hits.iloc[:, 0] == target]
        if len(found):  # none is an answer to itself
            explanation = live.explain(direction, source=source, target={"id": target})
            assert total(explanation) == close(float(found["score"].iloc[0]), explanation)
    assert live.explain("u2i", source={"id": 7}, target={"id": "new"}).score


def test_history_is_named_by_the_items_that_pulled(live: Retriever) -> None:
    live.apply(live.change("user", upsert=[NEW_USER]))
    explanation = live.explain("u2i", source={"id": 7}, target={"id": ITEM})
    pulled = {name.label: name for name in explanation.source if name.field == "history"}
    assert set(pulled) == {"item 1", "item 5"}
    assert {name.x for name in pulled.values()} != {1.0}
    pairs = [part for part in explanation.parts() if part.kind == "user_item"]
    assert {part.source for part in pairs} == set(explanation.source)
    assert {part.target for part in pairs} == set(explanation.target)


def test_features_that_training_did_not_know_are_named_and_marked(retriever: Retriever) -> None:
    features = {name: value for name, value in NEW_ITEM.items() if name != "title"}
    explanation = retriever.explain("u2i", source={"id": USER}, target={"features": features})
    names = [(name.field, name.token, name.label, name.known) for name in explanation.target]
    assert names == [
        ("item_id", "new", None, False),
        ("genres", "?, !", None, False),
        ("genres", "y", None, True),
        ("price", "0.3", None, True),
    ]
    known = retriever.explain("u2i", source={"id": USER}, target={"id": ITEM})
    assert [name.label for name in known.target if name.field == "item_id"] == [ITEM]


def test_kinds_of_i2u_are_the_same_as_of_u2i_the_other_way_round(retriever: Retriever) -> None:
    there = retriever.explain("u2i", source={"id": USER}, target={"id": ITEM})
    back = retriever.explain("i2u", source={"id": ITEM}, target={"id": USER})
    assert [(p.kind, p.source, p.target, p.other, p.value) for p in there.parts()] == [
        (p.kind, p.target, p.source, p.other, p.value) for p in back.parts()
    ]
    assert there.score == pytest.approx(back.score)
    kinds = {part.kind for part in there.parts()}
    assert kinds == {"first_order", "item_pair", "user_item"}
    for part in there.parts():
        has = [name is not None for name in (part.source, part.target, part.other)]
        expected = {
            "first_order": [False, True, False],
            "item_pair": [False, True, True],
            "user_item": [True, True, False],
        }
        assert has == expected[part.kind]


def test_similarity_says_which_features_are_shared(world: World, retriever: Retriever) -> None:
    table = world.sides["item"].table.to_pandas()
    one, other = (row for row in range(N_ITEMS) if row % 3 == 2 and row in {5, 8})
    explanation = retriever.explain(
        "i2i", source={"id": table["item_id"][one]}, target={"id": table["item_id"][other]}
    )
    shared = [part for part in explanation.parts() if part.kind == "shared"]
    assert {part.source.token for part in shared if part.source is not None} >= {"x", "y"}
    for part in explanation.parts():
        assert part.source is not None
        assert part.target is not None
        same = (part.source.field, part.source.token) == (part.target.field, part.target.token)
        assert same or part.source.field == "price" or part.kind == "similar"
    itself = retriever.explain("i2i", source={"id": ITEM}, target={"id": ITEM})
    assert total(itself) == pytest.approx(1)


def test_who_is_not_known_is_the_default_user(world: World, retriever: Retriever) -> None:
    nobody = retriever.explain("u2i", source={"features": {}}, target={"id": ITEM})
    item = world.sides["item"].vectors[7].astype(np.float64)
    tower = retriever.tower("user")
    (default,) = tower(tower.pack({}, size=1)).astype(np.float64)
    assert [str(name) for name in nobody.source] == ["default user: 1"]
    assert nobody.score == pytest.approx(item @ default, rel=1e-5)
    assert total(nobody) == close(nobody.score, nobody)
    own = sum(part.value for part in nobody.parts() if part.source is None)
    assert own == pytest.approx(item[0], abs=1e-5)
    alike = retriever.explain("u2u", source={"features": {}}, target={"id": USER})
    assert total(alike) == close(alike.score, alike)
    assert {part.source for part in alike.fields} == {"default user"}


def test_fields_and_the_rest_sum_up_what_is_not_shown(retriever: Retriever) -> None:
    explanation = retriever.explain("u2i", source={"id": USER}, target={"id": ITEM})
    sums: dict[Any, float] = {}
    for part in explanation.parts():
        fields = tuple(name and name.field for name in (part.source, part.target, part.other))
        sums[part.kind, fields] = sums.get((part.kind, fields), 0.0) + part.value
    assert {
        (part.kind, (part.source, part.target, part.other)): pytest.approx(part.value, abs=1e-12)
        for part in explanation.fields
    } == sums
    plain = explanation.to_dict(limit=3)
    assert len(plain["parts"]) == 3
    shown = sum(part["value"] for part in plain["parts"])
    assert shown + plain["rest"] == pytest.approx(total(explanation))
    assert set(plain) == {"version", "direction", "score", "parts", "rest", "fields"}
    assert explanation.to_dict(limit=0)["rest"] == pytest.approx(total(explanation))


@pytest.mark.parametrize(
    ("direction", "source", "target", "message"),
    [
        ("i2x", {"id": 1}, {"id": 1}, "direction: expected one of"),
        ("u2i", {"id": 1}, {"id": ITEM}, "version 1 has no user 1; explain by features instead"),
        ("u2i", {"id": USER}, {"id": "none"}, "version 1 has no item 'none'"),
        ("u2i", {"id": "x"}, {"id": ITEM}, "user_id: expected a 64-bit integer"),
        ("u2i", {}, {"id": ITEM}, "source: expected either the id or the features of the user"),
        ("i2u", {"id": ITEM}, {"id": USER, "features": {}}, "target: expected either the id or"),
        ("u2i", {"features": {"age": 1}}, {"id": ITEM}, "unknown features"),
        ("i2u", {"features": {"price": 3e38}}, {"id": USER}, "source: expected features with a"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    retriever: Retriever,
    direction: str,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    message: str,
) -> None:
    with pytest.raises(QueryError, match=message):
        retriever.explain(direction, source=source, target=target)


def test_scores_of_too_many_terms_are_refused(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_terms, "MOST_TERMS", 10)
    with pytest.raises(QueryError, match="expected at most 10 terms"):
        retriever.explain("u2i", source={"id": USER}, target={"id": ITEM})


def test_removed_ones_are_not_explained(live: Retriever) -> None:
    live.apply(live.change("item", delete=[ITEM]))
    with pytest.raises(QueryError, match=f"no item '{ITEM}'"):
        live.explain("u2i", source={"id": USER}, target={"id": ITEM})


def test_columns_that_do_not_give_the_stored_vector_are_refused(
    world: World, models: Path, tmp_path: Path
) -> None:
    users = world.sides["user"]
    store = Store(tmp_path)
    with store.staging() as staged:
        shutil.copytree(models / "versions" / "1", staged, dirs_exist_ok=True)
        (staged / "manifest.json").unlink()
        table = users.table.to_pandas()
        table = table.assign(city=np.where(table["user_id"] == USER, "?", table["city"]))
        Embeddings.from_pandas(table, users.vectors).write(staged / "users.parquet")
        version = store.publish(staged, provenance("exact")).version
    retriever = Retriever.open(tmp_path, version=version)
    with pytest.raises(BundleError, match=rf"of user {USER} to give its stored vector"):
        retriever.explain("u2i", source={"id": USER}, target={"id": ITEM})
    assert retriever.explain("u2i", source={"id": USER + 1}, target={"id": ITEM}).score


@pytest.mark.slow
def test_versions_without_the_signature_answer_and_do_not_explain(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(model: Any, path: Path) -> None:
        vectors = tf.function(lambda features: {"vector": model(features)}, autograph=False)
        only = {"serving_default": vectors.get_concrete_function(model.signature)}
        tf.saved_model.save(model, str(path), signatures=only)

    monkeypatch.setattr(TowerModel, "save", save)
    publish(tmp_path, "exact")
    retriever = Retriever.open(tmp_path)
    retriever.warm()
    assert len(retriever.retrieve("u2i", features={"city": "a"})) == 10
    with pytest.raises(BundleError, match=r"expected a signature 'features'.*publish again"):
        retriever.explain("u2i", source={"id": USER}, target={"id": ITEM})
