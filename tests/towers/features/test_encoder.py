"""The encoder's graph, eager and inside a SavedModel, against a reference in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.towers.encoder_graphs import Graph, eager_graph, save, saved_graph, session_graph
from tests.towers.encoder_schema import CITIES, N_ITEMS, TAGS, item_id, make_schema, make_vocabulary
from tests.towers.reference_encoder import HASHED, Query, reference
from towers.features.encoder import Encoder
from towers.features.packer import input_dtypes, pack
from towers.features.schema import Schema
from towers.features.vocabulary import Vocabulary

LISTS = ("past", "tags", "tag_weights", "codes", "code_weights", "words", "plain")


@dataclass(frozen=True)
class Case:
    """A schema with a vocabulary, and the same encoder in all its forms."""

    kind: str
    schema: Schema
    vocabulary: Vocabulary
    graphs: Mapping[str, Graph]

    def pack(self, queries: list[Query], columns: set[str]) -> dict[str, Any]:
        inputs = input_dtypes(self.schema, self.vocabulary, side="user")
        given = {name: [query.get(name) for query in queries] for name in columns}
        return pack(given, inputs=inputs, size=len(queries))


@pytest.fixture(scope="module", params=["integer", pytest.param("text", marks=pytest.mark.slow)])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    """Items with integer ids, and with ids of text."""
    schema = make_schema()
    vocabulary = make_vocabulary(schema, request.param)
    encoder = Encoder(schema, vocabulary, side="user")
    path = str(tmp_path_factory.mktemp("model"))
    save(encoder, path)
    with ExitStack() as stack:
        graphs = {
            "eager": eager_graph(encoder),
            "saved": saved_graph(path),
            "session": session_graph(path, stack),
        }
        yield Case(request.param, schema, vocabulary, graphs)


def assert_same(case: Case, queries: list[Query], columns: set[str]) -> None:
    packed = case.pack(queries, columns)
    given_only = [{name: query.get(name) for name in columns} for query in queries]
    expected = [reference(case.schema, case.vocabulary, query) for query in given_only]
    for name, graph in case.graphs.items():
        found = graph(packed)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5), name


def named_items(query: Query, kind: str) -> Query:
    past = query["past"]
    named = past and [item if item is None else item_id(item, kind) for item in past]
    return query | {"past": named}


INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
WEIGHTS = st.none() | st.just(math.nan) | st.integers(-40, 40).map(lambda eighths: eighths / 8)


def tokens(known: list[Any], others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(known) | others


def lists(values: st.SearchStrategy[Any], longest: int = 5) -> st.SearchStrategy[Any]:
    return st.none() | st.lists(values, max_size=longest)


QUERIES = st.fixed_dictionaries(
    {
        "past": lists(st.none() | st.integers(-1, N_ITEMS + 1), longest=7),
        "city": tokens(CITIES, st.text(max_size=4)),
        "zone": tokens([-5, 2**62, 7, 8], INTEGERS),
        "device": tokens(list(HASHED), st.just("")),
        "tags": lists(tokens(TAGS, st.text(max_size=3))),
        "tag_weights": lists(WEIGHTS),
        "codes": lists(tokens([1, 2**60], INTEGERS)),
        "code_weights": lists(WEIGHTS),
        "words": lists(tokens(list(HASHED), st.just(""))),
        "plain": lists(tokens(TAGS, st.text(max_size=3))),
        "age": WEIGHTS | st.floats(-1e4, 1e4, width=32),
        "price": WEIGHTS,
        "income": tokens([1.9, 2.0, 4.0], st.floats(-(2.0**99), 2.0**99, width=32)),
    }
)


@given(
    queries=st.lists(QUERIES, max_size=4),
    absent=st.just(set()) | st.sets(st.sampled_from(sorted(set(LISTS) | {"city", "zone", "age"}))),
)
@settings(max_examples=examples(60))
def test_every_form_of_the_encoder_gives_the_bags_of_the_reference(
    case: Case, queries: list[Query], absent: set[str]
) -> None:
    inputs = set(input_dtypes(case.schema, case.vocabulary, side="user"))
    assert_same(case, [named_items(query, case.kind) for query in queries], inputs - absent)


NOTHING: Query = dict.fromkeys([*LISTS, "city", "zone", "device", "age", "price", "income"])


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"past": [9, -1], "city": "Atlantis", "zone": 8, "tags": ["?", "!"], "codes": [0]},
        {"past": [0, None, 9, 1, None, 2, 3, None], "tags": [None, "x", ""], "codes": [None, 1]},
        {"city": "nul\0", "device": "x\0y", "words": ["日本", "🎈", "日本"], "plain": ["x", "x"]},
        {"city": "\u00e9", "tags": ["X", " x"], "tag_weights": [2.0, -2.0]},
        {"zone": -(2**63) + 1, "codes": [2**63 - 1, 2**60], "code_weights": [0.0, 0.0]},
        {"age": math.nan, "price": 0.0, "income": 3.4e38, "past": [5, 5, 5, 5]},
        {"tags": ["x", "y"], "tag_weights": [1.0], "codes": [1], "code_weights": [1.0, 2.0, 3.0]},
        {"tags": ["x", "y"], "tag_weights": [], "codes": [], "code_weights": [2.0]},
    ],
    ids=[
        "nothing",
        "unknown",
        "padding",
        "nul and emoji",
        "unicode",
        "wide integers",
        "nan and large",
        "uneven weights",
        "no weights",
    ],
)
def test_awkward_input_gives_the_same_bags_everywhere(case: Case, query: Query) -> None:
    assert_same(case, [named_items(NOTHING | query, case.kind)] * 2, set(NOTHING))


def test_an_empty_batch_has_no_bags(case: Case) -> None:
    assert_same(case, [], set(NOTHING))


def test_the_width_of_the_padding_does_not_matter(case: Case) -> None:
    queries = [named_items(NOTHING | {"past": [1, 9, 2], "tags": ["x", "?"]}, case.kind)]
    packed = case.pack(queries, set(NOTHING))
    wide = dict(packed)
    for name in LISTS:
        missing = "" if packed[name].dtype == object else np.nan
        if packed[name].dtype == np.int64:
            missing = np.iinfo(np.int64).min
        wide[name] = np.pad(
            packed[name], [(0, 0), (2, 5)], mode="constant", constant_values=missing
        )
    for graph in case.graphs.values():
        assert graph(wide) == graph(packed)


def test_the_signature_lists_the_inputs(case: Case) -> None:
    signature = Encoder(case.schema, case.vocabulary, side="user").signature
    id_type = tf.int64 if case.kind == "integer" else tf.string
    assert signature["past"] == tf.TensorSpec([None, None], id_type, name="past")
    assert signature["zone"] == tf.TensorSpec([None], tf.int64, name="zone")
    assert signature["tag_weights"] == tf.TensorSpec([None, None], tf.float32, name="tag_weights")
    assert set(signature) == set(NOTHING)


def test_an_item_is_encoded_by_its_own_features(case: Case) -> None:
    encoder = Encoder(case.schema, case.vocabulary, side="item")
    space = case.vocabulary.tokens("item.item")
    ids = pack(
        {"item": [item_id(2, case.kind), item_id(99, case.kind), None]},
        inputs=input_dtypes(case.schema, case.vocabulary, side="item"),
        size=3,
    )
    assert eager_graph(encoder)(ids) == [{int(space.rows[2]): 1.0}, {space.oov_row: 1.0}, {}]
