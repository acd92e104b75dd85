from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.version.saved_models.first_requests import write_warmup
from tests.serving.version.saved_models.warmup_support import read_warmup

TEXTS = np.array([["弦楽", ""], ["a", "b"], ["", ""], ["c", ""], ["d", "e"]], dtype=object)
AGES = np.linspace(20, 60, 5, dtype=np.float32)
FEATURES: dict[str, NDArray[Any]] = {"history": TEXTS, "user": np.arange(5) + 2**60, "age": AGES}


def test_requests_hold_the_first_rows_in_several_sizes(tmp_path: Path) -> None:
    extra: dict[str, NDArray[Any]] = {
        "k": np.full(5, 7, np.int32),
        "exclude": np.zeros((5, 0), np.int64),
    }
    signatures = {"serving_default": FEATURES, "top_k": FEATURES | extra}
    write_warmup(tmp_path, model="u2i", signatures=signatures)
    requests = list(read_warmup(tmp_path))
    assert {request.model_spec.name for request in requests} == {"u2i"}
    asked = [
        (request.model_spec.signature_name, request.inputs["user"].tensor_shape.dim[0].size)
        for request in requests
    ]
    assert asked == [(name, size) for name in signatures for size in (1, 4, 5)]
    for request, (signature, size) in zip(requests, asked, strict=True):
        expected = signatures[signature]
        assert request.inputs.keys() == expected.keys()
        for name, tensor in request.inputs.items():
            received = tf.make_ndarray(tensor)
            if name == "history":
                received = np.vectorize(bytes.decode, otypes=[object])(received)
            assert received.dtype == expected[name].dtype
            np.testing.assert_array_equal(received, expected[name][:size])
