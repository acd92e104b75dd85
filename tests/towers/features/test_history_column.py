from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from tests.counted import counted
from towers import fm
from towers.dense import Dense
from towers.features.encoder import Encoder
from towers.features.kinds import Categorical, Feature, Features, History, MultiValued, Vector
from towers.features.packer import input_dtypes, pack
from towers.features.past_items import PastItems
from towers.features.schema import Schema
from towers.features.vocabulary import Vocabulary, fit_vocabulary

RANDOM = np.random.default_rng(4)
N, K = 9, 3
IDS = np.array([f"item {row}" for row in range(N)], dtype=object)
ITEMS = pd.DataFrame(
    {
        "item_id": IDS,
        "tags": [[row % 3, row % 2 + 3] for row in range(N)],
        "cover": RANDOM.standard_normal((N, 4)).tolist(),
    }
)
USERS = pd.DataFrame({"user_id": ["u", "v"], "city": ["x", "y"], "taste": [[1.0, 2.0], [0.0, 1.0]]})
PAIRS = pd.DataFrame({"user_id": ["u", "v"] * N, "item_id": np.repeat(IDS, 2)})
HISTORIES = [["item 3", "item 1", "item 1"], [], ["none", "new 1", "item 8"], ["new 0"]]
TASTES = [[1.0, 0.5], None, [2.0, -1.0], None]

USER: dict[str, tuple[Feature, ...]] = {
    "a history alone": (History(latest=2),),
    "a history, a city and a vector": (
        History(),
        Categorical(column="city"),
        Vector(column="taste", scale="none"),
    ),
    "two histories": (History(), History(column="seen", behaviours=("view",), vectors="own")),
}


@pytest.mark.parametrize("user", USER)
@pytest.mark.parametrize("vectors", [False, True])
def test_pooled_histories_are_the_sum_of_what_past_items_bring(user: str, vectors: bool) -> None:
    item: tuple[Feature, ...] = (Categorical(column="item_id"), MultiValued(column="tags"))
    if vectors:
        item += (Vector(column="cover", scale="none"),)
    schema = Schema.of(
        user_id="user_id",
        item_id="item_id",
        user=Features(features=USER[user]),
        item=Features(features=item),
    )
    vocabulary = fit_vocabulary(schema, **counted(users=USERS, items=ITEMS, interactions=PAIRS))
    v = tf.constant(RANDOM.standard_normal((vocabulary.n_rows, K)).astype(np.float32))
    encoder = Encoder(
        schema,
        vocabulary,
        side="user",
        pasts={one.name: bring(vocabulary, one, IDS) for one in schema.histories},
    )
    encoder.pool_histories(lambda x, dense: fm.user_vector(x, v, dense=dense)[:, 1:])
    given = {"history": HISTORIES, "seen": HISTORIES[::-1], "city": ["x", None, "y", "z"]}
    inputs = input_dtypes(schema, vocabulary, side="user")
    packed = pack(
        {name: x for name, x in (given | {"taste": TASTES}).items() if name in inputs},
        inputs=inputs,
        size=4,
    )
    for fresh in (IDS[:0], np.array(["new 0", "new 1"], dtype=object)):
        for one in schema.histories:
            put(encoder, one, bring(vocabulary, one, fresh))
        own, dense, known = encoder.without_histories(packed)
        past = encoder.pooled_histories(packed, known)
        found = fm.user_vector(own, v, dense=dense)[:, 1:] + past
        whole = fm.user_vector(encoder(packed), v, dense=encoder.dense(packed))[:, 1:]
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-5)
        is_default = np.allclose(whole[3], v[vocabulary.default_user_row])
        assert is_default == (not len(fresh) and user == "a history alone")


def bring(vocabulary: Vocabulary, history: History, ids: NDArray[np.object_]) -> PastItems:
    """What some items bring to a history: of their features a random part, and numbers."""
    rows = vocabulary.dense_rows("item")
    shape = (len(ids), vocabulary.n_rows)
    bags = sparse.random_array(shape, density=0.3, rng=RANDOM, dtype=np.float32)
    width = 0 if history.vectors == "own" else len(rows)
    x = RANDOM.standard_normal((len(ids), width)).astype(np.float32)
    return PastItems(ids=ids, bags=sparse.csr_array(bags), dense=Dense(x, rows.start))


def put(encoder: Encoder, history: History, items: PastItems) -> None:
    """Put items in that come after the version."""
    starts, rows = (part.astype(np.int64) for part in (items.bags.indptr, items.bags.indices))
    encoder.fresh_items[history.name].replace(
        tf.constant(items.ids.tolist(), tf.string),
        starts,
        rows,
        items.bags.data,
        items.dense.x if items.dense.x.shape[1] else None,
    )


@pytest.mark.parametrize("latest", [2, 50])
def test_an_item_that_comes_several_times_counts_once_at_its_last_place(latest: int) -> None:
    history = History(latest=latest, half_life=3.0)
    schema = Schema.of(
        user_id="user_id", item_id="item_id", user=Features(features=(history,)), item=None
    )
    vocabulary = fit_vocabulary(schema, **counted(users=USERS, items=ITEMS, interactions=PAIRS))
    encoder = Encoder(schema, vocabulary, side="user")
    put(encoder, history, bring(vocabulary, history, np.array(["new 0", "new 1"], dtype=object)))
    repeated = [
        ["item 5"] * 4,
        ["item 1", "new 1", "item 2", "item 1", "new 1", "item 3"],
        ["item 4", "none", "none", "item 7"],
        [],
        ["new 0", "item 0", "new 0", "item 0"],
    ]
    once = [list(dict.fromkeys(listed[::-1]))[::-1] for listed in repeated]
    inputs = input_dtypes(schema, vocabulary, side="user")
    found, expected = (
        tf.sparse.to_dense(encoder(pack({"history": given}, inputs=inputs, size=len(given))))
        for given in (repeated, once)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.flatnonzero(found[3]).tolist() == [vocabulary.default_user_row]
