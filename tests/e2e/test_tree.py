"""The SavedModels of corpora so large that ScaNN searches a part of them only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.publishing.measure_recall import measure_recall
from serving.retrieval.retriever import Retriever
from serving.search.index import ExactIndex, search_without
from tests.e2e.conftest import FEWEST
from towers.directions import DIRECTIONS

if TYPE_CHECKING:
    from tests.e2e.conftest import AskFresh, Published

pytestmark = pytest.mark.slow

ROWS = list(range(0, FEWEST, 40))
MORE_THAN_ALL = 2 * FEWEST


@dataclass(frozen=True)
class Asked:
    """The answers of a process without this project, by `direction: variant`."""

    published: Published
    retriever: Retriever
    answers: Mapping[str, Mapping[str, NDArray[Any]]]
    best: Mapping[str, NDArray[Any]]
    """The ids [n, 3] that are left out, by direction: the first that Python finds."""


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_index_is_a_tree_that_reached_the_bar(asked: Asked, direction: str) -> None:
    bundle = asked.retriever.bundle
    record = bundle.manifest.index["directions"][direction]
    trees = [shell for shell in record["shells"] if shell["num_leaves"]]
    searched = sum(tree["leaves_to_search"] for tree in trees)
    assert 1 <= searched < sum(tree["num_leaves"] for tree in trees)
    assert record["missed"] == ""
    assert record["recall"] >= asked.published.config.index.recall
    assert (bundle.index(direction) / "0" / "scann_assets.pbtxt").exists()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_saved_model_finds_enough_of_the_exact_neighbours(asked: Asked, direction: str) -> None:
    nobody = [np.empty(0, np.int64)] * len(ROWS)
    check_recall(asked, direction, "50 of them", k=50, excluded=nobody)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_saved_model_answers_as_python_does(asked: Asked, direction: str) -> None:
    source = asked.retriever.catalogue(DIRECTIONS[direction].source)
    hits = asked.retriever.retrieve_batch(direction, ids=source.ids(np.array(ROWS)).tolist(), k=50)
    answer = asked.answers[f"{direction}: 50 of them"]
    record = asked.retriever.bundle.manifest.index["directions"][direction]
    check_nearly_all(answer["scores"], hits.scores, n_trees=len(record["shells"]))
    pairs = zip(answer["ids"].tolist(), hits.ids.tolist(), strict=True)
    assert np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]) > 0.98


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_excluded_ids_are_left_out_and_the_best_others_come(asked: Asked, direction: str) -> None:
    answer, best = asked.answers[f"{direction}: without"], asked.best[direction]
    for ids, left_out in zip(answer["ids"].tolist(), best.tolist(), strict=True):
        assert len(set(ids)) == 10
        assert not set(ids) & set(left_out)
    target = asked.retriever.catalogue(DIRECTIONS[direction].target)
    excluded = list(target.find(best.ravel()).reshape(best.shape))
    check_recall(asked, direction, "without", k=10, excluded=excluded)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_k_above_the_corpus_lists_everyone_once(asked: Asked, direction: str) -> None:
    chosen, answer = DIRECTIONS[direction], asked.answers[f"{direction}: all of them"]
    target = asked.retriever.catalogue(chosen.target)
    everyone = set(target.ids(np.arange(target.size)).tolist())
    if chosen.is_similarity:
        everyone = everyone - set(target.ids(np.array([0]))) | {target.missing_id}
    [ids], [scores] = answer["ids"].tolist(), answer["scores"].tolist()
    assert len(ids) == len(everyone)
    assert set(ids) == everyone
    assert scores == sorted(scores, reverse=True)


@pytest.fixture(scope="module")
def asked(tree: Published, ask_fresh: AskFresh) -> Asked:
    retriever = tree.open()
    calls: dict[str, dict[str, Any]] = {}
    firsts: dict[str, NDArray[Any]] = {}
    for direction, chosen in DIRECTIONS.items():
        inputs = tree.packed(chosen.source, ROWS)
        known = retriever.catalogue(chosen.source).ids(np.array(ROWS)).tolist()
        best = firsts[direction] = retriever.retrieve_batch(direction, ids=known, k=3).ids
        one = {name: values[:1] for name, values in inputs.items()}
        variants: dict[str, dict[str, Any]] = {
            "50 of them": inputs | {"k": [50] * len(ROWS), "exclude": best[:, :0]},
            "without": inputs | {"k": [10] * len(ROWS), "exclude": best},
            "all of them": one | {"k": [MORE_THAN_ALL], "exclude": best[:1, :0]},
        }
        for name, given in variants.items():
            call = {"model": direction, "signature": "top_k", "inputs": given}
            calls[f"{direction}: {name}"] = call
    return Asked(tree, retriever, ask_fresh(tree, calls).answers, firsts)


def check_nearly_all(scores: NDArray[np.float64], expected: NDArray[Any], *, n_trees: int) -> None:
    """Compare query by query; a vector's last bit may decide which of two leaves is searched."""
    same = np.isclose(scores, expected, rtol=1e-4, atol=1e-5).all(axis=1)
    assert same.mean() > 0.97


def check_recall(
    asked: Asked, direction: str, variant: str, *, k: int, excluded: list[NDArray[np.int64]]
) -> None:
    """Compare with an exact search, for other queries than those that the index was tuned with."""
    chosen, answer = DIRECTIONS[direction], asked.answers[f"{direction}: {variant}"]
    target = asked.retriever.catalogue(chosen.target)
    vectors = asked.retriever.catalogue(chosen.source).vectors[ROWS]
    if chosen.is_similarity:
        excluded = [np.append(rows, own) for rows, own in zip(excluded, ROWS, strict=True)]
    corpus, queries = chosen.project(target.vectors), chosen.project(vectors)
    places = np.repeat(np.arange(len(queries)), [len(rows) for rows in excluded])
    exact = search_without(
        ExactIndex(corpus),
        queries,
        k=np.full(len(queries), k),
        width=k,
        unwanted=(places, np.concatenate(excluded)),
    )
    ids = answer["ids"].astype(target.id_dtype)
    scores = answer["scores"] - chosen.offset(vectors)[:, np.newaxis]
    found = target.find(ids.ravel()).reshape(ids.shape), scores
    assert measure_recall(exact, found).mean() >= asked.published.config.index.recall - 0.02
