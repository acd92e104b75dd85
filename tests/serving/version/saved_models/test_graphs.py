from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.search.graph_search import ExactSearch
from serving.version.saved_models.graphs import RetrievalModel, TowerModel, active_features
from tests.examples import examples
from towers.directions import DIRECTIONS
from towers.errors import ConfigError

SIZE = 12
VECTORS = np.random.default_rng(6).integers(-2, 3, size=(SIZE, 4)).astype(np.float32)
INTEGERS = np.arange(SIZE) * 2**40
TEXTS = np.array([f"item {row}" for row in range(SIZE)], dtype=object)


class Lookup(tf.Module):
    """The vector of row `row`."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = tf.Variable(VECTORS)

    def __call__(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.gather(self.vectors, features["row"])


def retrieval_model(direction: str, ids: Any, *, own_id: str | None = None) -> RetrievalModel:
    own = {own_id: tf.TensorSpec([None], tf.convert_to_tensor(ids).dtype)} if own_id else {}
    return RetrievalModel(
        Lookup(),
        signature={"row": tf.TensorSpec([None], tf.int64, name="row")} | own,
        direction=DIRECTIONS[direction],
        search=ExactSearch(DIRECTIONS[direction].project(VECTORS)),
        ids=ids,
        k=5,
        own_id=own_id,
    )


@pytest.mark.parametrize("ids", [INTEGERS, TEXTS], ids=["integers", "texts"])
@settings(max_examples=examples(40))
@given(data=st.data(), n=st.integers(0, 3), m=st.integers(0, 5))
def test_excluded_ids_never_come_and_each_query_gets_its_own_k_others(
    data: st.DataObject, ids: Any, n: int, m: int
) -> None:
    ks = data.draw(st.lists(st.integers(1, SIZE + 3), min_size=n, max_size=n))
    nobody = "" if ids is TEXTS else -1
    listed = data.draw(
        st.lists(
            st.lists(st.sampled_from([*ids.tolist(), nobody]), min_size=m, max_size=m),
            min_size=n,
            max_size=n,
        )
    )
    answer = retrieval_model("u2i", ids)(
        {"row": tf.range(n, dtype=tf.int64)},
        k=tf.constant(ks, tf.int32),
        exclude=tf.constant(listed, tf.convert_to_tensor(ids).dtype, shape=[n, m]),
    )
    scores = VECTORS @ VECTORS.T
    assert answer["ids"].shape == answer["scores"].shape == (n, min(max(ks, default=1), SIZE))
    for query, k in enumerate(ks):
        ranked = np.argsort(-scores[query], kind="stable")
        others = [row for row in ranked if ids[row] not in listed[query]][:k]
        found = len(others)
        received = [x.decode() if ids is TEXTS else x for x in answer["ids"][query].numpy()]
        assert received[:found] == ids[others].tolist()
        np.testing.assert_allclose(answer["scores"][query, :found], scores[query][others])
        assert set(received[found:]) <= {"" if ids is TEXTS else np.iinfo(np.int64).min}
        assert np.isneginf(answer["scores"][query, found:]).all()


@pytest.mark.parametrize("direction", ["i2i", "u2u"])
def test_own_id_is_left_out(direction: str) -> None:
    model = retrieval_model(direction, TEXTS, own_id="name")
    features = {"row": tf.constant([3, 4], tf.int64), "name": tf.constant(["item 3", "new"])}
    answer = model(features, k=tf.constant([SIZE, SIZE]), exclude=tf.constant([["item 5"], [""]]))
    first, second = answer["ids"].numpy()
    assert {*first} == {name.encode() for name in TEXTS} - {b"item 3", b"item 5"} | {b""}
    assert {*second} == {name.encode() for name in TEXTS}


def test_k_below_one_is_refused() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="k: expected at least 1"):
        retrieval_model("u2i", TEXTS)(
            {"row": tf.constant([1], tf.int64)}, k=tf.constant([0]), exclude=tf.constant([[""]])
        )


def test_k_is_expected_for_each_query() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="k: expected one a query"):
        retrieval_model("u2i", TEXTS)(
            {"row": tf.constant([1, 2], tf.int64)},
            k=tf.constant([3]),
            exclude=tf.zeros([2, 0], tf.string),
        )


def test_features_that_cannot_be_inputs_are_refused() -> None:
    encoder: Any = SimpleNamespace(signature={"exclude": tf.TensorSpec([None], tf.int64)})
    with pytest.raises(ConfigError, match="'exclude'"):
        TowerModel(encoder, v=tf.Variable(VECTORS))
    with pytest.raises(ConfigError, match="'k'"):
        retrieval_model("u2i", TEXTS, own_id="k")


def test_active_features_are_padded_to_the_longest() -> None:
    x = tf.sparse.from_dense([[0.0, 2.0, 3.0], [0.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    v, w = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), tf.constant([7.0, 8.0, 9.0])
    found = {name: values.numpy().tolist() for name, values in active_features(x, v, w=w).items()}
    assert found == {
        "row": [[1, 2], [-1, -1], [0, -1]],
        "x": [[2, 3], [0, 0], [4, 0]],
        "w": [[8, 9], [0, 0], [7, 0]],
        "v": [[[3, 4], [5, 6]], [[0, 0], [0, 0]], [[1, 2], [0, 0]]],
    }
    nobody = tf.SparseTensor(tf.zeros([0, 2], tf.int64), tf.zeros([0]), [2, 3])
    found = active_features(nobody, v)
    assert {name: values.shape.as_list() for name, values in found.items()} == {
        "row": [2, 0],
        "x": [2, 0],
        "v": [2, 0, 2],
    }


ANSWER = """
import json, sys
root, queries, scann = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "scann"
import tensorflow as tf
if scann:
    import scann

def plain(outputs):
    arrays = {name: getattr(value, "numpy", lambda: value)() for name, value in outputs.items()}
    return {name: [[x.decode() if isinstance(x, bytes) else x.item() for x in row]
                   for row in array] for name, array in arrays.items()}

def loaded(path, signature, inputs):
    function = tf.saved_model.load(path).signatures[signature]
    specs = function.structured_input_signature[1]
    return function(**{n: tf.constant(x, specs[n].dtype) for n, x in inputs.items()})

def served(path, signature, inputs):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
        names = graph.signature_def[signature]
        feeds = {names.inputs[name].name: value for name, value in inputs.items()}
        fetches = {name: info.name for name, info in names.outputs.items()}
        return session.run(fetches, feeds)

answers = [[plain(run(f"{root}/{path}", signature, inputs)) for run in (loaded, served)]
           for path, signature, inputs in queries]
imported = {"serving", "towers", "tf_keras"} | (set() if scann else {"scann"})
print(json.dumps({"answers": answers, "imported": sorted(imported & set(sys.modules))}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_saved_models_answer_in_a_process_that_imports_only_tensorflow(
    world: Any, publish: Callable[..., None], tmp_path: Path, kind: str
) -> None:
    """And, with ScaNN's indexes, scann; both as TensorFlow 2 loads them and as TF Serving does."""
    publish(tmp_path, kind, DIRECTIONS)
    row = 3
    user, item = world.features("user", row), world.features("item", row)
    users, items = world.sides["user"], world.sides["item"]
    queries: list[Any] = [
        ("user_tower/1", "serving_default", user),
        ("item_tower/1", "serving_default", item),
        *((f"{name}/1", "serving_default", user) for name in ("u2i", "u2u")),
        *((f"{name}/1", "serving_default", item) for name in ("i2i", "i2u")),
        ("u2i/1", "top_k", user | {"k": [9], "exclude": [["item 0", ""]]}),
        (
            "u2u/1",
            "top_k",
            user | {"k": [9], "exclude": [users.ids.take(np.array([row, 1])).tolist()]},
        ),
    ]
    arguments = [str(tmp_path / "models"), json.dumps(queries), kind]
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    process = subprocess.run(
        [sys.executable, "-c", ANSWER, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    received = json.loads(process.stdout)
    assert received["imported"] == []
    for (path, signature, inputs), (loaded, served) in zip(
        queries, received["answers"], strict=True
    ):
        assert loaded.keys() == served.keys()
        for name in loaded:
            assert loaded[name] == (
                served[name] if name == "ids" else pytest.approx(np.array(served[name]))
            )
        if "tower" in path:
            vector = world.sides[path.removesuffix("_tower/1")].vectors[[row]]
            np.testing.assert_allclose(loaded["vector"], vector, rtol=1e-5, atol=1e-6)
            continue
        direction = path.removesuffix("/1")
        ids, scores = world.rank(direction, row)
        excluded = (
            items.ids.take(np.array([row]))
            if direction == "i2i"
            else inputs.get("exclude", [[]])[0]
        )
        kept = ~np.isin(ids, excluded)
        k = 9 if signature == "top_k" else 7
        truth = dict(zip(ids[kept], scores[kept], strict=True))
        assert len(loaded["ids"][0]) == k
        assert loaded["scores"][0] == pytest.approx([truth[x] for x in loaded["ids"][0]], abs=1e-5)
        if kind == "exact":
            assert loaded["ids"][0] == ids[kept][:k].tolist()
