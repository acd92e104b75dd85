from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.server.errors import NotFoundError, TooLargeError
from serving.server.tf_serving.predictor import UnknownSignatureError
from tests.serving.server.tf_serving.predict_support import (
    MODELS,
    Arrays,
    Asker,
    asker,
    check_same,
    chosen,
    raw_features,
    saved_model,
)
from towers.directions import DIRECTIONS
from towers.errors import QueryError


@pytest.fixture(scope="module")
def exact(published: Path) -> Iterator[Asker]:
    """With small limits."""
    with asker(published, max_k=20, max_batch=8, max_results=150) as found:
        yield found


Case = tuple[str, str, Arrays]
QUICK = ("item_tower", "u2i")
"""The models that the inner loop loads."""


@pytest.fixture(scope="module")
def cases(world: Any) -> list[Case]:
    """Models, signatures and inputs."""
    cases: list[Case] = []
    for seed, size in enumerate([1, 2, 7]):
        for model in MODELS:
            features = raw_features(world, model, size=size, seed=seed)
            cases.append((model, "serving_default", features))
            if model in DIRECTIONS:
                given = chosen(world, model, size=size, seed=seed)
                cases.append((model, "top_k", features | given))
    return cases


@pytest.mark.parametrize(
    "asked",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS],
)
def test_answers_are_those_of_the_saved_models(
    published: Path, exact: Asker, cases: list[Case], asked: str
) -> None:
    for model, signature, inputs in cases:
        if model != asked:
            continue
        received = exact.ask(model, inputs, signature=signature)
        check_same(received, saved_model(published, model, signature, inputs))


@pytest.mark.slow
def test_answers_by_scann_are_those_of_the_saved_models(
    publish: Any, tmp_path: Path, cases: list[Case]
) -> None:
    """But for a few: how deep an approximate search goes depends on what else it leaves out."""
    publish(tmp_path, "scann", DIRECTIONS)
    with asker(tmp_path) as scann:
        received = [scann.ask(model, inputs, signature=name) for model, name, inputs in cases]
    wanted = shared = 0
    for found, case in zip(received, cases, strict=True):
        expected = saved_model(tmp_path, *case)
        if "vector" in expected:
            check_same(found, expected)
            continue
        assert found["ids"].shape == expected["ids"].shape
        for mine, theirs in zip(_scores(found), _scores(expected), strict=True):
            both = mine.keys() & theirs.keys()
            assert len(mine) == len(theirs)
            assert [mine[id] for id in both] == pytest.approx(
                [theirs[id] for id in both], rel=1e-4, abs=1e-5
            )
            wanted, shared = wanted + len(theirs), shared + len(both)
    assert shared > 0.95 * wanted


def _scores(answer: Arrays) -> list[dict[Any, float]]:
    """The scores by id, of each source, without the padding."""
    return [
        {id: score for id, score in zip(ids, scores, strict=True) if score > -np.inf}
        for ids, scores in zip(answer["ids"].tolist(), answer["scores"].tolist(), strict=True)
    ]


def test_own_k_of_each_source_is_padded(world: Any, exact: Asker) -> None:
    inputs = raw_features(world, "i2u", size=2)
    inputs |= {"k": np.array([2, 4], np.int32), "exclude": np.empty((2, 0), np.int64)}
    found = exact.ask("i2u", inputs, signature="top_k")
    assert found["ids"].dtype == np.int64
    assert found["ids"][0, 2:].tolist() == [np.iinfo(np.int64).min] * 2
    assert np.isneginf(found["scores"][0, 2:]).all()
    assert np.isfinite(found["scores"][1]).all()


def test_strange_numbers_are_answered_as_the_saved_model_does(
    world: Any, published: Path, exact: Asker
) -> None:
    inputs = raw_features(world, "i2i", size=4)
    inputs["price"] = np.array([np.nan, np.inf, -np.inf, 1e30], np.float32)
    check_same(exact.ask("i2i", inputs), saved_model(published, "i2i", "serving_default", inputs))


def test_only_the_outputs_named_come(world: Any, exact: Asker) -> None:
    inputs = raw_features(world, "u2i", size=1)
    assert [*exact.ask("u2i", inputs, outputs=["scores"])] == ["scores"]


FEATURES: dict[str, Any] = {
    "city": np.array(["a"], object),
    "history": np.empty((1, 0), object),
}
TOP_K = FEATURES | {"k": np.array([3], np.int32), "exclude": np.empty((1, 0), object)}


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        (
            {"city": FEATURES["city"]},
            {},
            "input size does not match signature: 1!=2 len({city}) != len({city,history}). Sent "
            "extra: {}. Missing but required: {history}.",
        ),
        (
            {"city": FEATURES["city"], "town": FEATURES["city"]},
            {},
            "Signature input alias: history(feed name: serving_default_history:0) not found in "
            "request and no default value provided. Inputs expected to be in the request "
            "{city,town}",
        ),
        (
            FEATURES | {"city": np.array(["a", "b"], object)},
            {},
            "must have equal 0th-dimension size: received {'city': 2, 'history': 1}",
        ),
        ({name: values[:0] for name, values in FEATURES.items()}, {}, "at least one row"),
        (FEATURES, {"outputs": ["ids", "ids"]}, "duplicate output tensor alias: ids"),
        (
            FEATURES,
            {"outputs": ["vector"]},
            "output tensor alias not found in signature: vector Outputs expected to be in the set "
            "{ids,scores}.",
        ),
        (
            TOP_K | {"k": np.array([0], np.int32)},
            {"signature": "top_k"},
            "k: expected at least 1 and at most 20, received 0",
        ),
        (
            TOP_K | {"k": np.array([21], np.int32)},
            {"signature": "top_k"},
            "k: expected at least 1 and at most 20, received 21",
        ),
    ],
)
def test_requests_at_fault_are_refused(
    exact: Asker, inputs: Any, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(QueryError, match=re.escape(message)):
        exact.ask("u2i", inputs, **given)


def test_batches_have_a_limit(world: Any, exact: Asker) -> None:
    with pytest.raises(TooLargeError, match="at most 8 rows: received 9"):
        exact.ask("u2i", raw_features(world, "u2i", size=9))


def test_answers_have_a_limit(world: Any, exact: Asker) -> None:
    inputs = raw_features(world, "u2i", size=8) | chosen(world, "u2i", size=8, seed=0)
    inputs["k"] = np.full(8, 20, dtype=np.int32)
    with pytest.raises(TooLargeError, match="at most 150 results in one answer, received 8 rows"):
        exact.ask("u2i", inputs, signature="top_k")


def test_what_is_asked_must_exist(exact: Asker) -> None:
    find = exact.predictor.find
    assert find("u2i", "", version=1, label=None).signature.name == "serving_default"
    assert find("u2i", "top_k", label="current").served.version == 1
    with pytest.raises(UnknownSignatureError, match='"best" not found'):
        find("u2i", "best")
    with pytest.raises(NotFoundError, match=r"Specific\(u2i, 7\)"):
        find("u2i", "", version=7)
