"""What TF Serving finds in a models directory: its configuration, and requests that warm it up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.version.deployment import MOUNT
from serving.version.saved_models.first_requests import BATCH_SIZES, RECORDS
from tests.serving.server.tf_serving.predict_support import grpc_channel
from tests.serving.version.saved_models.warmup_support import read_warmup
from towers.directions import DIRECTIONS

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.e2e.conftest import Published

MODELS = ["user_tower", "item_tower", *DIRECTIONS]
OF_ITEMS = {"item_tower", "i2i", "i2u"}
"""Those that take the features of items."""

MOST_RECORDS = 1000


def test_configuration_names_every_model_where_it_is(published: Published) -> None:
    text = (published.root / "models.config").read_text()
    configured = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    assert sorted(model.name for model in configured) == sorted(MODELS)
    version = published.open().bundle.version
    for model in configured:
        folder = published.root / Path(model.base_path).relative_to(MOUNT)
        assert max(int(path.name) for path in folder.iterdir()) == version
        assert (folder / str(version) / RECORDS).is_file()


@pytest.mark.parametrize("model", MODELS)
def test_warm_up_requests_replay_in_the_saved_model(published: Published, model: str) -> None:
    bundle = published.open().bundle
    folder = bundle.model(model)
    assert (folder / RECORDS).relative_to(bundle.path).as_posix() in bundle.manifest.files
    definitions = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    functions = tf.saved_model.load(str(folder)).signatures
    asked = []
    for request in read_warmup(folder):
        name = request.model_spec.signature_name
        assert request.model_spec.name == model
        expected = definitions.meta_graphs[0].signature_def[name].inputs
        asked.append((name, size_of(request.inputs)))
        answer = functions[name](**checked(request.inputs, expected))
        assert {len(values) for values in answer.values()} == {asked[-1][1]}
        numbers = [values.numpy() for values in answer.values() if values.dtype.is_floating]
        assert all((np.isfinite(values) | np.isneginf(values)).all() for values in numbers)
    n_sources = len(published.frames["items" if model in OF_ITEMS else "users"])
    sizes = sorted({min(size, n_sources) for size in BATCH_SIZES})
    assert asked == [(name, size) for name in functions for size in sizes]
    assert len(asked) < MOST_RECORDS


def test_warm_up_requests_replay_through_the_own_server(exact: Published) -> None:
    bundle = exact.open().bundle
    with grpc_channel(exact.root) as channel:
        stub = PredictionServiceStub(channel)
        for model in MODELS:
            functions = tf.saved_model.load(str(bundle.model(model))).signatures
            for request in read_warmup(bundle.model(model)):
                inputs = {n: tf.constant(tf.make_ndarray(x)) for n, x in request.inputs.items()}
                expected = functions[request.model_spec.signature_name](**inputs)
                response = stub.Predict(request, timeout=30)
                assert response.model_spec.version.value == bundle.version
                assert set(response.outputs) == set(expected)
                for name, tensor in response.outputs.items():
                    assert tensor.dtype == expected[name].dtype.as_datatype_enum
                    assert tf.TensorShape(tensor.tensor_shape) == expected[name].shape
                    if expected[name].dtype.is_floating:
                        found = tf.make_ndarray(tensor)
                        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["user_tower", "u2i"])
def test_warm_up_requests_have_real_features(published: Published, model: str) -> None:
    """One in ten ages is missing, and few users have no interaction."""
    *_, request = read_warmup(published.open().bundle.model(model))
    history = tf.make_ndarray(request.inputs["history"])
    known = {item.encode() for item in published.frames["items"]["item_id"]}
    assert set(history.ravel().tolist()) <= known | {b""}
    assert (history[:, 0] != b"").mean() > 0.8
    assert np.isfinite(tf.make_ndarray(request.inputs["age"])).mean() > 0.7


def test_lists_are_padded_with_missing_values_and_not_with_their_first(exact: Published) -> None:
    """What clients do so that TF Serving can batch, and what TF Serving would do."""
    folder = exact.open().bundle.model("u2i")
    top_k = tf.saved_model.load(str(folder)).signatures["top_k"]
    *_, request = read_warmup(folder)
    inputs = {name: tf.constant(tf.make_ndarray(x)) for name, x in request.inputs.items()}
    markers = {tf.string: "", tf.float32: np.nan}
    lists = {  # of any length, as vectors are not
        name
        for name, spec in top_k.structured_input_signature[1].items()
        if spec.shape.ndims == 2 and spec.shape[1] is None
    }
    padded = {
        name: tf.pad(x, [[0, 0], [0, 3]], constant_values=markers[x.dtype]) if name in lists else x
        for name, x in inputs.items()
    }
    plain, answer = top_k(**inputs), top_k(**padded)
    np.testing.assert_array_equal(answer["ids"], plain["ids"])
    np.testing.assert_allclose(answer["scores"], plain["scores"], rtol=1e-5, atol=1e-6)
    first = tf.fill([inputs["history"].shape[0], 3], inputs["history"][0, 0])
    history = tf.concat([inputs["history"], first], axis=1)
    wrong = top_k(**inputs | {"history": history})
    assert not np.allclose(wrong["scores"], plain["scores"], rtol=1e-2)


def checked(given: Any, expected: Any) -> dict[str, tf.Tensor]:
    """The tensors of a request, which are exactly those that its signature names."""
    assert set(given) == set(expected)
    for name, info in expected.items():
        assert given[name].dtype == info.dtype
        shape = tf.TensorShape(given[name].tensor_shape)
        assert shape.is_fully_defined()
        assert shape.is_compatible_with(tf.TensorShape(info.tensor_shape))
    return {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in given.items()}


def size_of(inputs: Any) -> int:
    """How many queries a request asks at once."""
    [size] = {tensor.tensor_shape.dim[0].size for tensor in inputs.values()}
    return int(size)
