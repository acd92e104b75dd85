"""Vectors in what a whole run published: fresh items, histories, explanations, and TF Serving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf

from serving.retrieval.retriever import Retriever
from tests.serving.server.api_support import running_api
from tests.serving.server.tf_serving.predict_support import rest_client
from towers.errors import QueryError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.e2e.conftest import Published

COVER, TEXT = [0.5, -1.0, 2.0, 0.0], [1.0, 2.0, 0.0, -1.0, 0.5, 0.0, 3.0]
FRESH = {"item_id": "fresh", "words": ["word 1"], "cover": COVER, "text": TEXT}


@pytest.fixture(scope="module")
def retriever(published: Published) -> Retriever:
    return published.open()


def test_a_fresh_item_is_found_by_its_vectors_and_counts_in_histories(
    retriever: Retriever,
) -> None:
    written = FRESH | {"item_id": "written", "cover": str(COVER), "text": " ".join(map(str, TEXT))}
    bare = {"item_id": "bare", "words": ["word 1"]}
    retriever.apply(retriever.change("item", upsert=[FRESH, written, bare]))
    rows = retriever.catalogue("item").rows(["fresh", "written", "bare"])
    fresh, same, without = retriever.catalogue("item").vectors[rows]
    np.testing.assert_array_equal(fresh, same)
    assert not np.allclose(fresh, without)
    features = {name: FRESH[name] for name in ("words", "cover", "text")}
    hits = retriever.retrieve("i2i", features=features, k=2)
    assert set(hits["id"]) == {"fresh", "written"}
    histories = [{"history": [item]} for item in ("fresh", "written", "bare", "nobody")]
    packed = retriever.tower("user").pack({"history": [h["history"] for h in histories]}, size=4)
    users = retriever.encode("user", packed)
    np.testing.assert_allclose(users[0], users[1], rtol=1e-6)
    assert not np.allclose(users[0], users[2])
    unknown = retriever.encode("user", retriever.tower("user").pack({}, size=1))
    np.testing.assert_array_equal(users[3], unknown[0])


def test_a_fresh_item_is_explained_with_a_line_for_each_vector(retriever: Retriever) -> None:
    retriever.apply(retriever.change("item", upsert=[FRESH]))
    user: dict[str, Any] = {"features": {"taste": [1.0, 0.0, -1.0, 2.0, 0.5], "history": ["fresh"]}}
    found = retriever.explain("u2i", source=user, target={"id": "fresh"})
    fields = {name.field: name.token for name in found.source + found.target}
    assert fields["taste"] == "5 numbers"
    assert fields["cover"] == fields["history.cover"] == "4 numbers"
    names = [name.field for name in found.target]
    assert len(names) == len(set(names))
    hits = retriever.retrieve("u2i", **user, k=1000)
    (score,) = hits.loc[hits["id"] == "fresh", "score"]
    assert found.score == pytest.approx(score, rel=1e-5, abs=1e-6)


def test_vectors_of_another_length_are_refused_wherever_they_come(retriever: Retriever) -> None:
    wrong: Any = FRESH | {"text": TEXT[:-1]}
    with pytest.raises(QueryError, match="'text': expected a list of 7 numbers, received one of 6"):
        retriever.change("item", upsert=[wrong])
    with pytest.raises(QueryError, match="'taste': expected a list of 5 numbers"):
        retriever.retrieve("u2i", features={"taste": [1.0]}, k=1)


def test_tf_serving_takes_vectors_as_matrices(published: Published) -> None:
    model = tf.saved_model.load(str(published.open().bundle.model("u2i")))
    spec = model.signatures["serving_default"].structured_input_signature[1]["taste"]
    assert (spec.shape.as_list(), spec.dtype) == ([None, 5], tf.float32)
    inputs = published.packed("user", [0, 3])
    expected = model.signatures["serving_default"](
        **{name: tf.constant(x) for name, x in inputs.items()}
    )
    asked = {name: x.tolist() for name, x in inputs.items()}
    with rest_client(published.root) as rest:
        answer = rest.predict("u2i", {"inputs": asked})
        assert answer.status_code == 200
        found = answer.json()["outputs"]
        np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-5, atol=1e-6)
        refused = rest.predict("u2i", {"inputs": asked | {"taste": [[1.0]] * 2}})
        assert refused.status_code == 400
        assert "taste to have shape [-1,5]" in refused.json()["error"]


def test_items_are_put_in_with_their_vectors_by_rest(published: Published, tmp_path: Path) -> None:
    with running_api(published.root, journal=tmp_path) as api:
        assert api.post("/v1/items", {"items": [FRESH]}).json()["inserted"] == 1
        source = {"features": {"history": ["fresh"], "taste": [1.0, 0.0, -1.0, 2.0, 0.5]}}
        asked = {"direction": "u2i", "source": source, "target": {"id": "fresh"}}
        found = api.post("/v1/explain", asked).json()
        assert {"cover", "text"} <= {part["target"] for part in found["fields"]}
        wrong = api.post("/v1/items", {"items": [FRESH | {"text": TEXT[1:]}]})
        assert wrong.status_code == 400
        assert "a list of 7 numbers" in wrong.json()["error"]["message"]
