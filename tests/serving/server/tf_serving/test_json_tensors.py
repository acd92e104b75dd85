from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework.types_pb2 import DT_FLOAT

from serving.server.tf_serving.json_tensors import dump, flatten, to_array
from serving.server.tf_serving.tensor_specs import TensorSpec

PRICE = TensorSpec("price", "f_price:0", DT_FLOAT, (-1,))


@given(st.lists(st.floats(width=32), max_size=4))
def test_floats_are_read_as_they_were_written(prices: list[float]) -> None:
    written = np.array(prices, np.float32)
    answer = json.loads(dump({"scores": written}, form="column"))
    shape, flat = flatten(answer["outputs"], PRICE)
    np.testing.assert_array_equal(to_array(flat, PRICE, shape), written)


def test_outputs_are_written_by_row_and_by_column() -> None:
    ids = np.empty((2, 2), object)
    ids[:] = [["a", "ü"], ["b", ""]]
    scores = np.array([[1.5, 0.1], [2, -np.inf]], np.float32)
    assert dump({"scores": scores, "ids": ids}, form="row").decode() == (
        '{"predictions":[{"ids":["a","ü"],"scores":[1.5,0.1]},'
        '{"ids":["b",""],"scores":[2.0,-Infinity]}]}'
    )
    assert dump({"scores": scores, "ids": ids}, form="column").decode() == (
        '{"outputs":{"ids":[["a","ü"],["b",""]],"scores":[[1.5,0.1],[2.0,-Infinity]]}}'
    )


def test_the_only_output_has_no_name() -> None:
    ids = np.array([[1, -(2**63)]])
    assert dump({"ids": ids}, form="row") == b'{"predictions":[[1,-9223372036854775808]]}'
    assert dump({"ids": ids}, form="column") == b'{"outputs":[[1,-9223372036854775808]]}'
    strange = np.array([[np.nan, np.inf, 1]], np.float32)
    assert dump({"vector": strange}, form="row") == b'{"predictions":[[NaN,Infinity,1.0]]}'
