"""The encoder's graph, eager and inside a SavedModel, against a reference in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.counted import counted
from tests.examples import examples
from tests.towers.encoder_graphs import Graph, eager_graph, save, saved_graph, session_graph
from tests.towers.reference_encoder import HASHED, Bag, Query, reference
from towers.features.encoder import Encoder
from towers.features.kinds import Categorical, Cross, Features, History, MultiValued, Numeric
from towers.features.packer import input_dtypes, pack
from towers.features.schema import Schema
from towers.features.vocabulary import Buckets, Hashed, Scalar, Tokens, Vocabulary, fit_vocabulary

CITIES = ["Rome", "\u00e9", "e\u0301", "日本 🎈", " ", "a|b", "nul\0"]
TAGS = ["x", "y", "z"]
N_ITEMS = 6
POWER = 0.4

USER_FEATURES: tuple[Any, ...] = (
    History(column="past", latest=3, popularity_power=POWER, half_life=1.5),
    Categorical(column="city"),
    Categorical(column="zone", min_count=2),
    Categorical(column="device", hash_buckets=5),
    Cross(columns=("city", "zone"), name="place"),
    MultiValued(column="tags", weights="tag_weights"),
    MultiValued(column="codes", weights="code_weights", combiner="mean"),
    MultiValued(column="words", hash_buckets=5, combiner="sum"),
    MultiValued(column="plain"),
    Numeric(column="age"),
    Numeric(column="price", scale="none"),
    Numeric(column="income", buckets=3),
)
LISTS = ("past", "tags", "tag_weights", "codes", "code_weights", "words", "plain")


def item_id(number: int, kind: str) -> Any:
    """Items 0 to 5 are in the vocabulary, others are not."""
    return number * 10**12 if kind == "integer" else f"item {number} é"


def make_schema(features: tuple[Any, ...] = USER_FEATURES) -> Schema:
    item = Features(features=(Categorical(column="item"),))
    return Schema(user_id="user", item_id="item", user=Features(features=features), item=item)


def make_vocabulary(schema: Schema, kind: str) -> Vocabulary:
    """Item i has i + 1 training interactions."""
    n = len(CITIES)
    users = pd.DataFrame(
        {
            "user": range(n),
            "city": CITIES,
            "zone": [-5, -5, 2**62, 2**62, 7, 7, 8],
            "device": ["a"] * n,
            "tags": [TAGS] * n,
            "codes": [[1, 2**60]] * n,
            "words": [[]] * n,
            "plain": [TAGS] * n,
            "age": np.linspace(20.0, 50.0, n),
            "price": 1.0,
            "income": np.arange(float(n)),
        }
    )
    pairs = [(user, item_id(item, kind)) for item in range(N_ITEMS) for user in range(item + 1)]
    pairs.append((n - 1, item_id(N_ITEMS - 1, kind)))  # the last user counts, too
    return fit_vocabulary(
        schema,
        **counted(
            users=users,
            items=pd.DataFrame({"item": [item_id(item, kind) for item in range(N_ITEMS)]}),
            interactions=pd.DataFrame(pairs, columns=["user_id", "item_id"]),
        ),
    )


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


@pytest.fixture(scope="module", params=["integer", "text"])
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


def encode_one(feature: Any, query: Query) -> tuple[Bag, Any]:
    """The bag of a query by one feature, rows counted from the space's first; and the space."""
    item_space = isinstance(feature, History)
    schema = make_schema((feature,))
    vocabulary = make_vocabulary(schema, "integer")
    name = "item.item" if item_space else f"user.{feature.column}"
    space: Any = vocabulary.spaces[name]
    inputs = input_dtypes(schema, vocabulary, side="user")
    encoder = Encoder(schema, vocabulary, side="user")
    packed = pack({k: [v] for k, v in query.items()}, inputs=inputs, size=1)
    [bag] = eager_graph(encoder)(packed)
    first = {Tokens: "oov_row", Scalar: "row"}.get(type(space), "first_row")
    return {row - getattr(space, first): x for row, x in bag.items()}, space


HALF = 0.5**0.5
SUM = MultiValued(column="plain", combiner="sum")
MEAN = MultiValued(column="plain", combiner="mean")
PAST = History(column="past", popularity_power=0.0)
INCOME = Numeric(column="income", buckets=3)


@pytest.mark.parametrize(
    ("feature", "known", "missing", "unknown"),
    [
        (Categorical(column="city"), ("Rome", {2: 1.0}), None, ("?", {0: 1.0})),
        (Categorical(column="zone", min_count=2), (7, {2: 1.0}), None, (8, {0: 1.0})),
        (Categorical(column="device", hash_buckets=5), ("a", {4: 1.0}), "", ("🎈", {2: 1.0})),
        (MultiValued(column="plain"), (["x", "z"], {1: HALF, 3: HALF}), [], (["?"], {0: 1.0})),
        (SUM, (["x", "x"], {1: 2.0}), None, (["?", "!"], {0: 2.0})),
        (MEAN, (["x"], {1: 1.0}), [None], (["?", "!", "y"], {0: 2 / 3, 2: 1 / 3})),
        (Numeric(column="age", scale="standard"), (50.0, {0: 1.5}), math.nan, None),
        (Numeric(column="age", clip=2.0), (1e30, {0: 2.0}), math.nan, (-1e30, {0: -2.0})),
        (Numeric(column="price", scale="none"), (-2.5, {0: -2.5}), None, None),
        (INCOME, (2.0, {1: 1.0}), math.nan, (1e30, {2: 1.0})),
        (INCOME, (1.9, {0: 1.0}), None, (-1e30, {0: 1.0})),
        (PAST, ([0, 10**12], {1: HALF, 2: HALF}), None, ([5], {})),
        (PAST, ([5, 0], {1: 1.0}), [], ([5, None], {})),
    ],
)
def test_each_kind_treats_missing_and_unknown_values_as_the_schema_says(
    feature: Any, known: Any, missing: Any, unknown: Any
) -> None:
    assert encode_one(feature, {feature.column: missing})[0] == {}
    assert encode_one(feature, {})[0] == {}
    for value, expected in filter(None, [known, unknown]):
        assert encode_one(feature, {feature.column: value})[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [
        ("sum", {1: 3.0, 2: -4.0}),
        ("mean", {1: 3 / 7, 2: -4 / 7}),
        ("sqrtn", {1: 3 / 5, 2: -4 / 5}),
    ],
)
def test_weights_are_combined(combiner: Any, expected: Bag) -> None:
    feature = MultiValued(column="tags", weights="w", combiner=combiner)
    bag, _ = encode_one(feature, {"tags": ["x", None, "y"], "w": [3.0, 9.0, -4.0]})
    assert bag == pytest.approx(expected)


def test_a_weight_that_is_missing_or_not_finite_counts_as_one() -> None:
    schema = make_schema((MultiValued(column="tags", weights="w", combiner="sum"),))
    encoder = Encoder(schema, make_vocabulary(schema, "text"), side="user")
    weights = np.array([[2.0, np.nan, np.inf]], dtype=np.float32)
    [bag] = eager_graph(encoder)({"tags": np.array([TAGS], dtype=object), "w": weights})
    assert list(bag.values()) == [2.0, 1.0, 1.0]


def test_the_history_weighs_items_by_popularity_and_keeps_the_latest_known() -> None:
    past = [3 * 10**12, 0, 5, 10**12, 2 * 10**12]  # known but for 5, with 4, 1, 2, 3 interactions
    bag, space = encode_one(History(column="past", latest=3, popularity_power=0.5), {"past": past})
    assert isinstance(space, Tokens)
    assert list(bag) == [1, 2, 3]
    np.testing.assert_allclose(
        np.array([*bag.values()]) / bag[1], [1.0, 2**-0.5, 3**-0.5], rtol=1e-5
    )


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


def test_a_vocabulary_of_another_schema_is_refused() -> None:
    ours = make_schema((Numeric(column="age"),))
    theirs = make_schema((Categorical(column="age"),))
    with pytest.raises(TypeError, match="age: a categorical feature cannot read Scalar"):
        Encoder(theirs, make_vocabulary(ours, "text"), side="user")


def test_an_infinite_number_has_no_scaled_value_but_an_end_bucket() -> None:
    schema = make_schema((Numeric(column="age"), INCOME))
    vocabulary = make_vocabulary(schema, "text")
    space = vocabulary.spaces["user.income"]
    assert isinstance(space, Buckets)
    numbers = np.array([np.inf, -np.inf], dtype=np.float32)
    graph = eager_graph(Encoder(schema, vocabulary, side="user"))
    top = space.first_row + len(space.boundaries)
    assert graph({"age": numbers, "income": numbers}) == [{top: 1.0}, {space.first_row: 1.0}]


def test_a_hashed_cross_has_the_bucket_of_its_tokens_together() -> None:
    features = (
        Categorical(column="zone"),
        Categorical(column="device", hash_buckets=5),
        Cross(columns=("device", "zone"), name="both", hash_buckets=100),
    )
    schema = make_schema(features)
    vocabulary = make_vocabulary(schema, "integer")
    encoder = Encoder(schema, vocabulary, side="user")
    given = {"zone": [7, 7, -5, None], "device": ["a", "é", "a", "a"]}
    inputs = input_dtypes(schema, vocabulary, side="user")
    assert set(inputs) == {"zone", "device"}
    x = encoder(pack(given, inputs=inputs, size=4))
    space = vocabulary.spaces["user.both"]
    assert isinstance(space, Hashed)
    query, row = x.indices.numpy().T
    rows = [row[(query == one) & (row >= space.first_row)].tolist() for one in range(4)]
    together = ["a & 7", "é & 7", "a & -5"]
    buckets = tf.strings.to_hash_bucket_fast(together, 100).numpy() + space.first_row
    assert rows == [*([bucket] for bucket in buckets.tolist()), []]


def test_columns_of_the_moment_are_crossed() -> None:
    context = (
        Categorical(column="hour"),
        Categorical(column="day"),
        Cross(columns=("day", "hour"), name="moment"),
    )
    user, item = Categorical(column="city"), Categorical(column="item_id")
    schema = Schema(
        user_id="user_id",
        item_id="item_id",
        user=Features(features=(user,)),
        item=Features(features=(item,)),
        context=Features(features=context),
    )
    tables = counted(
        users=pd.DataFrame({"user_id": [1], "city": ["Rome"]}),
        items=pd.DataFrame({"item_id": [5]}),
        interactions=pd.DataFrame({"user_id": [1], "item_id": [5]}),
    )
    moments = pd.DataFrame({"hour": [7, 20, 7, 9], "day": ["mon", "mon", None, "sun"]})
    seen = np.array([2, 1, 1, 0])
    vocabulary = fit_vocabulary(schema, **tables, contexts=moments, context_counts=seen)
    space = vocabulary.tokens("user.moment")
    assert space.tokens.tolist() == ["mon & 20", "mon & 7"]
    inputs = input_dtypes(schema, vocabulary, side="user")
    assert set(inputs) == {"city", "hour", "day"}
    asked = {"city": [None] * 4, "hour": [7, 20, None, 9], "day": ["mon", "mon", "mon", "sun"]}
    x = tf.sparse.to_dense(
        Encoder(schema, vocabulary, side="user")(pack(asked, inputs=inputs, size=4))
    ).numpy()
    rows = [*space.rows.tolist(), space.oov_row]
    assert x[:, rows].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
