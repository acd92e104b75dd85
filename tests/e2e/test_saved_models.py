"""The SavedModels, in a process that has nothing but TensorFlow, against the Python retriever."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.retrieval.catalogue import Catalogue
from serving.retrieval.questions import Hits
from serving.retrieval.retriever import Retriever
from towers.directions import DIRECTIONS
from towers.features.schema import Side
from towers.features.values import MISSING_INTEGER, MISSING_STRING

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.e2e.conftest import AskFresh, Fresh, Published

SIDES: tuple[Side, Side] = ("user", "item")
ROWS = [0, 1, 7, -1]
"""Known users or items; the last has no interaction."""
MORE_THAN_ALL = 10_000
SCANN_OPERATIONS = ["Scann>ScannSearchBatched", "Scann>TensorsToScann"]
CLOSE: dict[str, Any] = {"rel": 1e-5, "abs": 5e-6}

NEW_USER: dict[str, list[Any]] = {
    "user_id": [5],
    "city": ["Atlantis"],
    "device": [None],
    "interests": [["弦楽 1", "no such", "弦楽 2"]],
    "interest_weights": [[0.5, None]],
    "age": [33.5],
    "income": [math.nan],
    "taste": [[1.0, -2.0, 0.0, 0.5, 3.0]],
    "history": [["物品 «3»", "no such", "物品 «5»"]],
}
NEW_USER_PACKED = NEW_USER | {"device": [""], "interest_weights": [[0.5, math.nan]]}
NEW_ITEM: dict[str, list[Any]] = {
    "item_id": ["no such"],
    "shop": [None],
    "brand": ["a brand"],
    "genres": [["comédie 0", "comédie 3"]],
    "genre_weights": [[]],
    "words": [[]],
    "price": [80.0],
    "stock": [0.25],
    "year": [-5],
    "cover": ["[1.0, 0.5, -2.0, 0.25]"],
    "text": [None],
}
NEW_ITEM_PACKED = NEW_ITEM | {
    "shop": [-(2**63)],
    "cover": [[1.0, 0.5, -2.0, 0.25]],
    "text": [[math.nan] * 7],
}


@dataclass(frozen=True)
class Question:
    """Sources to ask about: raw values for Python, the same as dense arrays for a SavedModel."""

    columns: Mapping[str, list[Any]]
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """What was asked, by side and name of the question, and what came back."""

    published: Published
    retriever: Retriever
    questions: Mapping[tuple[Side, str], Question]
    fresh: Fresh

    def source(self, direction: str) -> Catalogue:
        return self.retriever.catalogue(DIRECTIONS[direction].source)

    def target(self, direction: str) -> Catalogue:
        return self.retriever.catalogue(DIRECTIONS[direction].target)

    def answer(self, direction: str, name: str, variant: str) -> Mapping[str, NDArray[Any]]:
        return self.fresh.answers[f"{direction}: {name}, {variant}"]

    def everyone(self, direction: str, name: str) -> Hits:
        """All that Python finds."""
        question = self.questions[DIRECTIONS[direction].source, name]
        return find_all(self.retriever, direction, question)


def test_each_model_has_exactly_the_operations_that_it_may_have(asked: Asked) -> None:
    scann = SCANN_OPERATIONS if asked.published.config.index.kind == "scann" else []
    expected: dict[str, list[str]] = {"user_tower": [], "item_tower": []}
    assert asked.fresh.custom == expected | dict.fromkeys(DIRECTIONS, scann)


@pytest.mark.parametrize("direction", ["u2i", "i2u"])
def test_towers_give_the_stored_vectors_from_raw_features(asked: Asked, direction: str) -> None:
    vectors = asked.fresh.answers[f"{DIRECTIONS[direction].source}_tower"]["vector"]
    stored = asked.source(direction).vectors[ROWS]
    np.testing.assert_allclose(vectors, stored, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["known", "new", "nothing", "newcomers"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_default_signature_answers_as_python_does(asked: Asked, direction: str, name: str) -> None:
    answer = asked.answer(direction, name, "by default")
    check(answer, asked.everyone(direction, name), k=asked.published.config.export.k)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_features_of_the_known_are_answered_as_their_ids(asked: Asked, direction: str) -> None:
    ids = all_ids(asked.source(direction))[ROWS].tolist()
    hits = asked.retriever.retrieve_batch(direction, ids=ids, k=MORE_THAN_ALL)
    check(asked.answer(direction, "known", "all of them"), hits, k=MORE_THAN_ALL)


@pytest.mark.parametrize("name", ["known", "new"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_another_k_is_an_input(asked: Asked, direction: str, name: str) -> None:
    check(asked.answer(direction, name, "4 of them"), asked.everyone(direction, name), k=4)


@pytest.mark.parametrize("name", ["known", "new", "nothing"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_k_above_the_corpus_lists_everyone_once(asked: Asked, direction: str, name: str) -> None:
    answer, target = asked.answer(direction, name, "all of them"), asked.target(direction)
    is_own_left_out = DIRECTIONS[direction].is_similarity and name == "known"
    assert answer["ids"].shape[1] == target.size
    for ids in answer["ids"]:
        listed = set(ids.tolist()) - {target.missing_id}
        assert listed <= set(all_ids(target).tolist())
        assert len(listed) == target.size - is_own_left_out
    check(answer, asked.everyone(direction, name), k=MORE_THAN_ALL)


@pytest.mark.parametrize("name", ["known", "new"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_excluded_ids_are_left_out_and_others_come(asked: Asked, direction: str, name: str) -> None:
    everyone, answer = asked.everyone(direction, name), asked.answer(direction, name, "without")
    unwanted = some_of(everyone)
    check(answer, everyone, k=4, exclude=unwanted)
    question = asked.questions[DIRECTIONS[direction].source, name]
    first = {column: values[0] for column, values in question.columns.items()}
    hits = asked.retriever.retrieve(direction, features=first, k=4, exclude=unwanted[0].tolist())
    assert hits.iloc[:, 0].tolist() == answer["ids"][0].tolist()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_session_as_in_tf_serving_answers_the_same(asked: Asked, direction: str) -> None:
    eager = asked.answer(direction, "known", "without")
    session = asked.answer(direction, "known", "without, in a session")
    np.testing.assert_array_equal(session["ids"], eager["ids"])
    np.testing.assert_allclose(session["scores"], eager["scores"], rtol=1e-6)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_batch_answers_as_one_by_one(asked: Asked, direction: str) -> None:
    batch = asked.answer(direction, "known", "by default")
    for row in range(len(ROWS)):
        single = asked.answer(direction, f"known {row}", "by default")
        np.testing.assert_array_equal(single["ids"][0], batch["ids"][row])
        np.testing.assert_allclose(single["scores"][0], batch["scores"][row], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("direction", ["i2i", "u2u"])
def test_nobody_is_similar_to_itself(asked: Asked, direction: str) -> None:
    everyone = asked.answer(direction, "known", "all of them")["ids"]
    for own, ids in zip(all_ids(asked.source(direction))[ROWS], everyone, strict=True):
        assert own not in ids.tolist()


def test_score_of_a_pair_is_the_same_in_both_directions(asked: Asked) -> None:
    found = {direction: scores_of_pairs(asked, direction) for direction in ("u2i", "i2u")}
    both = [(user, item) for user, item in found["u2i"] if (item, user) in found["i2u"]]
    assert len(both) == len(ROWS) ** 2
    for user, item in both:
        assert found["u2i"][user, item] == pytest.approx(found["i2u"][item, user], **CLOSE)


def test_history_changes_the_answer_unless_its_items_are_unknown(asked: Asked) -> None:
    newcomers = asked.answer("u2i", "newcomers", "all of them")
    strangers = asked.answer("u2i", "strangers", "all of them")
    np.testing.assert_array_equal(newcomers["ids"], strangers["ids"])
    np.testing.assert_allclose(newcomers["scores"], strangers["scores"], rtol=1e-6)
    known = asked.answer("u2i", "known", "all of them")
    assert not np.allclose(known["scores"][:3], newcomers["scores"][:3])
    np.testing.assert_allclose(known["scores"][3], newcomers["scores"][3], rtol=1e-5)


@pytest.fixture(scope="module")
def asked(published: Published, ask_fresh: AskFresh) -> Asked:
    retriever = published.open()
    questions = all_questions(published)
    calls: dict[str, dict[str, Any]] = {
        f"{side}_tower": {"model": f"{side}_tower", "inputs": questions[side, "known"].inputs}
        for side in SIDES
    }
    for direction, chosen in DIRECTIONS.items():
        for (side, name), question in questions.items():
            if side == chosen.source:
                unwanted = some_of(find_all(retriever, direction, question))
                for variant, call in variants(question, unwanted).items():
                    calls[f"{direction}: {name}, {variant}"] = {"model": direction, **call}
        known = questions[chosen.source, "known"].inputs
        for row in range(len(ROWS)):
            one = {name: values[row : row + 1] for name, values in known.items()}
            calls[f"{direction}: known {row}, by default"] = {"model": direction, "inputs": one}
    return Asked(published, retriever, questions, ask_fresh(published, calls))


def all_questions(published: Published) -> dict[tuple[Side, str], Question]:
    """Known ones; one that nobody has seen; one of whom all is missing; and with no history."""
    found: dict[tuple[Side, str], Question] = {
        ("user", "new"): Question(NEW_USER, NEW_USER_PACKED),
        ("item", "new"): Question(NEW_ITEM, NEW_ITEM_PACKED),
    }
    for side in SIDES:
        columns, inputs = published.features(side, ROWS), published.packed(side, ROWS)
        nothing = {name: empty(values) for name, values in inputs.items()}
        found[side, "known"] = Question(columns, inputs)
        found[side, "nothing"] = Question({name: [None] for name in columns}, nothing)
        for name, history in (("newcomers", []), ("strangers", ["a", "b"])):
            past = {"history": [history] * len(ROWS)} if side == "user" else {}
            found[side, name] = Question(columns | past, inputs | past)
    return found


def empty(values: NDArray[Any]) -> list[Any]:
    """What stands for one missing value, or list, of such an input."""
    if values.ndim == 2:
        return [[math.nan] * values.shape[1]] if values.dtype == np.float32 else [[]]
    if values.dtype == np.float32:
        return [math.nan]
    return [MISSING_INTEGER if values.dtype == np.int64 else MISSING_STRING]


def variants(question: Question, unwanted: NDArray[Any]) -> dict[str, dict[str, Any]]:
    """The ways to ask one question."""

    def top_k(k: int, exclude: NDArray[Any]) -> dict[str, Any]:
        given = {"k": [k] * len(exclude), "exclude": exclude}
        return {"signature": "top_k", "inputs": {**question.inputs, **given}}

    without = top_k(4, unwanted)
    return {
        "by default": {"inputs": question.inputs},
        "4 of them": top_k(4, unwanted[:, :0]),
        "all of them": top_k(MORE_THAN_ALL, unwanted[:, :0]),
        "without": without,
        "without, in a session": {**without, "in_session": True},
    }


def find_all(retriever: Retriever, direction: str, question: Question) -> Hits:
    return retriever.retrieve_batch(direction, features=question.columns, k=MORE_THAN_ALL)


def some_of(everyone: Hits) -> NDArray[Any]:
    """The best and the third best of each query, and an id that does not exist."""
    nobody = np.full((len(everyone.ids), 1), 5 if everyone.ids.dtype == np.int64 else "no such")
    return np.concatenate([everyone.ids[:, [0, 2]], nobody.astype(everyone.ids.dtype)], axis=1)


def all_ids(catalogue: Catalogue) -> NDArray[Any]:
    """The ids by row."""
    return catalogue.ids(np.arange(catalogue.size))


def scores_of_pairs(asked: Asked, direction: str) -> dict[tuple[Any, Any], float]:
    """The scores of each source with all its targets."""
    answer = asked.answer(direction, "known", "all of them")
    queries = zip(
        all_ids(asked.source(direction))[ROWS], answer["ids"], answer["scores"], strict=True
    )
    known = set(all_ids(asked.source("i2u" if direction == "u2i" else "u2i"))[ROWS].tolist())
    return {
        (source, target): score
        for source, ids, scores in queries
        for target, score in zip(ids.tolist(), scores.tolist(), strict=True)
        if target in known
    }


def check(
    answer: Mapping[str, NDArray[Any]],
    everyone: Hits,
    *,
    k: int,
    exclude: NDArray[Any] | None = None,
) -> None:
    """Compare with the k best of what Python found, less some; equal scores in any order."""
    n_queries, size = everyone.ids.shape
    assert answer["ids"].shape == answer["scores"].shape == (n_queries, min(k, size))
    no_id = MISSING_INTEGER if everyone.ids.dtype == np.int64 else MISSING_STRING
    for query in range(n_queries):
        unwanted = {no_id} if exclude is None else {no_id, *exclude[query].tolist()}
        pairs = zip(everyone.ids[query].tolist(), everyone.scores[query].tolist(), strict=True)
        expected = {target: score for target, score in pairs if target not in unwanted}
        n = min(k, len(expected))
        ids, scores = answer["ids"][query].tolist(), answer["scores"][query].tolist()
        assert len(set(ids[:n])) == n
        assert [expected[target] for target in ids[:n]] == pytest.approx(scores[:n], **CLOSE)
        assert scores[:n] == pytest.approx(list(expected.values())[:n], **CLOSE)
        assert ids[n:] == [no_id] * (len(ids) - n)
        assert scores[n:] == [-math.inf] * (len(ids) - n)
